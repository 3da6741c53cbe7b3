"""What is asked of a guest through libvirt: its agent, and the address it has.

Beside the driver's calls, on connections of its own: a guest that lies, floods or hangs holds up nothing else. Each
answer is bounded in size and time.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import libvirt
import libvirt_qemu
import msgspec

from agent.hypervisor import Unaskable
from agent.libvirt_pool import LibvirtDownError, Pool

PING = '{"execute": "guest-ping"}'
ANSWER_BYTES_MAX = 64 * 1024  # libvirt itself takes 10 MiB of a guest agent
INTERFACES_MAX, ADDRESSES_MAX = 64, 256
TIMEOUT_S_MIN = 1
_NOT_THE_GUEST = frozenset({libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_RPC})


class _Answer(msgspec.Struct):
    """What a guest agent may answer to guest-ping; anything else is no answer."""

    result: dict[str, None] = msgspec.field(name="return")


_ANSWER = msgspec.json.Decoder(_Answer)


def read_pong(text: str) -> bool:
    """Return whether a guest agent's answer is one to guest-ping. Whatever it holds: no error, no great cost."""
    if len(text) > ANSWER_BYTES_MAX:
        return False
    try:
        return not _ANSWER.decode(text.encode("utf-8", errors="replace")).result
    except (msgspec.DecodeError, RecursionError):
        return False


class LibvirtGuests:
    """Guests of one libvirtd."""

    def __init__(self, uri: str) -> None:
        self._pool = Pool(uri)

    def ping(self, uuid: str, timeout_s: float) -> tuple[bool, str]:
        """Return whether the guest's agent answers, and in words. Raises Unaskable."""
        try:
            with self._pool.borrow() as conn:
                domain = conn.lookupByUUIDString(uuid)
                text = libvirt_qemu.qemuAgentCommand(domain, PING, max(TIMEOUT_S_MIN, round(timeout_s)), 0)
        except libvirt.libvirtError as error:
            if error.get_error_code() in _NOT_THE_GUEST:
                raise Unaskable(str(error)) from None
            return False, f"the guest agent does not answer: {error}"
        except LibvirtDownError as error:
            raise Unaskable(str(error)) from None
        return (
            (True, "") if read_pong(str(text)) else (False, "what the guest agent answered is no answer to guest-ping")
        )

    def address(self, uuid: str) -> str:
        """Return the guest's first address that others reach, as its lease or its agent tells it. Raises Unaskable."""
        try:
            with self._pool.borrow() as conn:
                domain = conn.lookupByUUIDString(uuid)
                sources = (
                    libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
                    libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT,
                    libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP,
                )
                for source in sources:
                    if found := first_address(_interfaces(domain, source)):
                        return found
        except (libvirt.libvirtError, LibvirtDownError) as error:
            raise Unaskable(str(error)) from None
        raise Unaskable("nobody knows the guest's address; name it as the probe's host")


def _interfaces(domain: Any, source: int) -> object:  # noqa: ANN401 - libvirt-python ships no types
    try:
        return domain.interfaceAddresses(source, 0)
    except libvirt.libvirtError:
        return {}


class _Told(msgspec.Struct):
    addr: str


class _Interface(msgspec.Struct):
    addrs: list[_Told] | None = None


def first_address(interfaces: object) -> str:
    """Return the first address that is no loopback and not of the link alone; a guest's agent may tell anything."""
    try:
        told = msgspec.convert(interfaces, dict[str, _Interface])
    except msgspec.ValidationError:
        return ""
    for name in sorted(told)[:INTERFACES_MAX]:
        for each in (told[name].addrs or [])[:ADDRESSES_MAX]:
            try:
                address = ipaddress.ip_address(each.addr)
            except ValueError:
                continue
            if not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified):
                return str(address)
    return ""
