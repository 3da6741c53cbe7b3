"""What this machine is: boot, identity, size, its own management controller.

Knows psutil, /proc and the configured files; asks nothing over the network.
"""

from __future__ import annotations

import asyncio
import functools
import platform
import socket
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import msgspec
import psutil
import structlog
from msgspec import Struct, structs

from agent.hypervisor import HypervisorFacts
from agent.offers import bounded, host_devices
from fleet.model import BmcIdentity, Condition, HostOffers, NodeFacts, StorageReach
from fleet.service import ServiceError

BMC_TIMEOUT_S = 10.0
NET_DEVICES = Path("/proc/self/net/dev")  # if_nameindex asks a netlink socket, which the unit forbids
BMC_OUTPUT_BYTES_MAX = 16 * 1024

log = structlog.get_logger(part="host")


class Identity(Struct, frozen=True):
    """What does not change while the agent runs."""

    boot_id: str
    machine_id: str


def read_identity(boot_id_file: Path, machine_id_file: Path) -> Identity:
    """Read both ids. Raises ServiceError: without them no other machine can be told from this one."""
    return Identity(_line(boot_id_file, "boot id"), _line(machine_id_file, "machine id"))


def _line(path: Path, what: str) -> str:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"{path}: the {what} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not text or "\n" in text:
        raise ServiceError(f"{path}: the {what} must be one line")
    return text


async def read_bmc(command: Sequence[str]) -> BmcIdentity | None:
    """Run the configured command, which prints address and GUID (parse_bmc). None if it does not."""
    if not command:
        return None
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        log.warning("bmc identity not read", command=command[0], error=error.strerror or str(error))
        return None
    try:
        async with asyncio.timeout(BMC_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        log.warning("bmc identity not read", command=command[0], error=f"no end within {BMC_TIMEOUT_S:g} s")
        return None
    if process.returncode != 0:
        log.warning("bmc identity not read", command=command[0], error=f"exit {process.returncode}")
        return None
    return parse_bmc(output[:BMC_OUTPUT_BYTES_MAX].decode(errors="replace"))


class _Printed(Struct):
    address: str = ""
    guid: str = ""


def parse_bmc(text: str) -> BmcIdentity | None:
    """Read `{"address": "10.0.3.1", "guid": "…"}`, or lines `address=…` and `guid=…`; None for neither."""
    try:
        printed = msgspec.json.decode(text, type=_Printed)
    except msgspec.DecodeError:
        pairs = (line.partition("=") for line in text.splitlines())
        values = {key.strip().lower(): value.strip() for key, _, value in pairs}
        printed = _Printed(values.get("address", ""), values.get("guid", ""))
    if not printed.address and not printed.guid:
        return None
    return BmcIdentity(printed.address, printed.guid.lower())


class Addresses(Struct, frozen=True):
    """How others reach this node."""

    by_plane: dict[str, str]
    agent_port: int
    libvirt_port: int
    ssh_port: int
    peer_uri: str


def node_facts(
    identity: Identity,
    addresses: Addresses,
    hypervisor: HypervisorFacts,
    bmc: BmcIdentity | None,
    storages: tuple[StorageReach, ...] = (),
    mounts: tuple[str, ...] = (),
) -> NodeFacts:
    """Put together what the aggregator is told of this node."""
    ready = Condition(
        "LibvirtReady",
        "True" if hypervisor.ready else "False",
        "LibvirtAnswers" if hypervisor.ready else "LibvirtSilent",
        hypervisor.reason,
    )
    versions = {
        "agent": agent_version(),
        "libvirt": hypervisor.libvirt_version,
        "qemu": hypervisor.qemu_version,
        "kernel": platform.release(),
    }
    return NodeFacts(
        machine_id=identity.machine_id,
        host_uuid=hypervisor.host_uuid,
        hostname=socket.gethostname(),
        arch=platform.machine(),
        cpu_m=(psutil.cpu_count() or 1) * 1000,
        memory_bytes=psutil.virtual_memory().total,
        addresses=addresses.by_plane,
        agent_port=addresses.agent_port,
        libvirt_port=addresses.libvirt_port,
        ssh_port=addresses.ssh_port,
        peer_uri=addresses.peer_uri,
        versions={name: version for name, version in versions.items() if version},
        conditions=(ready, *_storage_condition(storages)),
        bmc=bmc,
        storages=storages,
        offers=_offers(hypervisor, mounts),
    )


def read_devices(text: str) -> list[str]:
    """Return the names in /proc/net/dev: two lines of heading, then `NAME: counters`."""
    return [line.partition(":")[0].strip() for line in text.splitlines()[2:]]


def interfaces_here() -> tuple[str, ...] | None:
    """Return the host's network devices without those of guests; None where there are too many to be told."""
    return host_devices(read_devices(NET_DEVICES.read_text(encoding="utf-8", errors="replace")))


def _offers(hypervisor: HypervisorFacts, mounts: tuple[str, ...]) -> HostOffers | None:
    if hypervisor.offers is None:
        return None
    return structs.replace(hypervisor.offers, interfaces=interfaces_here(), mounts=bounded(mounts))


def _storage_condition(storages: tuple[StorageReach, ...]) -> tuple[Condition, ...]:
    if not storages:
        return ()
    lost = [reach.storage for reach in storages if not reach.reached]
    if lost:
        return (Condition("StorageReachable", "False", "NoAnswer", f"no answer from {', '.join(lost)}"),)
    return (Condition("StorageReachable", "True", "Answers"),)


@functools.cache  # read from a file, and facts are asked for all the time
def agent_version() -> str:
    """Return the installed version of virtward, empty in a bare checkout."""
    try:
        return metadata.version("virtward")
    except metadata.PackageNotFoundError:
        return ""
