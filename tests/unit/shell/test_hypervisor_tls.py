"""Certificates of libvirt and QEMU: who gets them, for which names, where they lie, how they are renewed and end."""

from __future__ import annotations

import ipaddress
import ssl
from http import HTTPStatus
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey as Key
from msgspec import structs

from aggregator.core.events import NodeApplied, NodeDeleted, NodeRevoked
from aggregator.core.objects import NodeSpec
from fleet.hypervisor_tls import (
    HYPERVISOR_PATH,
    HypervisorIssued,
    HypervisorRequest,
    Purpose,
    distinguished_name,
    serial_number,
    sign_request,
)
from fleet.identity import make_request, new_key
from fleet.model import NodeFacts
from tests.unit.shell.identity_world import Agent, Shown, World, until

LIBVIRT = ("libvirt/servercert.pem", "libvirt/clientcert.pem")
QEMU = ("qemu/server-cert.pem", "qemu/client-cert.pem")
KEYS = {
    "libvirt/private/serverkey.pem": 0o600,
    "libvirt/private/clientkey.pem": 0o600,
    "qemu/server-key.pem": 0o640,
    "qemu/client-key.pem": 0o640,
}


async def certify(
    world: World, shown: Shown | None, *addresses: str, key: Key | None = None, held: Key | None = None
) -> tuple[int, HypervisorIssued | None]:
    """Ask as whoever holds the certificate, for this key of libvirt's; held: the one before, which signs for it."""
    requests = {purpose: make_request(key or new_key()) for purpose in Purpose}
    signed = sign_request(held, requests[Purpose.LIBVIRT]) if held is not None else ("", "")
    body = HypervisorRequest(requests, addresses, *signed)
    status, raw = await world.ask(HYPERVISOR_PATH, body, shown.context if shown is not None else None)
    return status, msgspec.json.decode(raw, type=HypervisorIssued) if status == HTTPStatus.OK else None


async def issued(world: World, shown: Shown, *addresses: str) -> HypervisorIssued:
    status, answer = await certify(world, shown, *addresses)
    assert status == HTTPStatus.OK
    assert answer is not None
    return answer


def addresses_in(text: str) -> list[str]:
    names = x509.load_pem_x509_certificate(text.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return [str(address) for address in names.value.get_values_for_type(x509.IPAddress)]


# --- who gets what


async def test_each_purpose_has_an_authority_of_its_own_and_none_is_virtwards(world: World) -> None:
    """So a key out of a QEMU opens no libvirtd, and no key of either opens the agents' port."""
    answer = await issued(world, await world.join("h1"), "10.0.0.1")
    authorities = [chain.authorities for chain in answer.chains.values()]
    assert len({world.authority.text, *authorities}) == len(Purpose) + 1
    for purpose, chain in answer.chains.items():
        certificate = x509.load_pem_x509_certificate(chain.certificate.encode())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(chain.authorities.encode()))
        assert certificate.subject == distinguished_name(purpose, "h1")
        assert addresses_in(chain.certificate) == ["10.0.0.1"]


async def test_only_a_node_that_has_joined_and_was_not_revoked_gets_any(world: World) -> None:
    mine = await world.join("h1")
    assert (await certify(world, None))[0] == HTTPStatus.FORBIDDEN
    assert (await certify(world, mine))[0] == HTTPStatus.OK
    await world.fleet.submit(NodeRevoked(at=world.fleet.now(), name="h1", who="test"))
    assert (await certify(world, mine))[0] == HTTPStatus.FORBIDDEN


async def test_a_stolen_certificate_of_a_node_gets_no_key_to_other_hosts(world: World) -> None:
    """What opens other hosts' libvirt was certified once when the node joined; after that its own key must sign."""
    mine = await world.join("h1")
    first, second, third, stolen = (new_key() for _ in range(4))
    assert (await certify(world, mine, key=first))[0] == HTTPStatus.OK
    for held in (None, stolen):
        assert (await certify(world, mine, key=stolen, held=held))[0] == HTTPStatus.FORBIDDEN
    assert (await certify(world, mine, key=second, held=first))[0] == HTTPStatus.OK
    await world.stop()
    await world.start()
    assert (await certify(world, mine, key=second, held=first))[0] == HTTPStatus.OK, "the answer had been lost"
    assert (await certify(world, mine, key=third, held=second))[0] == HTTPStatus.OK
    assert (await certify(world, mine, key=stolen, held=first))[0] == HTTPStatus.FORBIDDEN, "that one is past"
    anew = await world.join("h1")
    assert (await certify(world, anew, key=stolen))[0] == HTTPStatus.OK, "a person has let this one in"


async def test_a_request_for_one_purpose_alone_or_signed_by_nonsense_is_refused(world: World) -> None:
    mine, key = await world.join("h1"), new_key()
    alone = HypervisorRequest({Purpose.QEMU: make_request(key)})
    assert (await world.ask(HYPERVISOR_PATH, alone, mine.context))[0] == HTTPStatus.BAD_REQUEST
    assert (await certify(world, mine, key=key))[0] == HTTPStatus.OK
    requests = {purpose: make_request(new_key()) for purpose in Purpose}
    held, signature = sign_request(key, requests[Purpose.LIBVIRT])
    other = sign_request(key, requests[Purpose.QEMU])[1]
    for lie in (("", signature), (held, ""), (held, "zz"), ("no key", signature), (held, other)):
        body = HypervisorRequest(requests, (), *lie)
        assert (await world.ask(HYPERVISOR_PATH, body, mine.context))[0] == HTTPStatus.FORBIDDEN, lie


async def test_no_certificate_names_an_address_that_another_node_has(world: World) -> None:
    """What an operator gave a node counts before what a node says of itself, also if it says so first."""
    liar, other = await world.join("h1"), await world.join("h2")
    speaker = world.speaker("h2", other)
    facts = NodeFacts(machine_id="m2", host_uuid="u2", addresses={"control": "10.0.0.2"})
    speaker.hello = structs.replace(speaker.hello, facts=facts)
    await speaker.stand()
    await until(lambda: world.up("h2"))
    spec = NodeSpec(migration_address="10.0.1.3")
    await world.fleet.submit(NodeApplied(at=world.fleet.now(), name="h3", labels={}, spec=spec, who="test"))
    answer = await issued(world, liar, "10.0.0.1", "10.0.0.2", "10.0.1.3", "no address")
    assert answer.left_out == ("10.0.0.2", "10.0.1.3", "no address")
    for chain in answer.chains.values():
        assert addresses_in(chain.certificate) == ["10.0.0.1"]
    await world.fleet.submit(NodeApplied(at=world.fleet.now(), name="h1", labels={}, spec=spec, who="test"))
    assert (await issued(world, await world.join("h3"), "10.0.1.3")).left_out == ("10.0.1.3",)


@pytest.mark.parametrize("how", ["revoked", "replaced", "deleted"])
async def test_what_does_not_count_any_more_stands_in_the_revocation_list(world: World, how: str) -> None:
    gone, other = await world.join("h1"), await world.join("h2")
    before = await issued(world, gone)
    now = world.fleet.now()
    if how == "revoked":
        await world.fleet.submit(NodeRevoked(at=now, name="h1", who="test"))
    elif how == "replaced":
        await world.join("h1")
    else:
        await world.fleet.submit(NodeDeleted(at=now, name="h1", who="test"))
    after = await issued(world, other)
    for purpose, chain in after.chains.items():
        revoked = x509.load_pem_x509_crl(chain.revoked.encode())
        authority = x509.load_pem_x509_certificate(chain.authorities.encode())
        assert revoked.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
        ended = x509.load_pem_x509_certificate(before.chains[purpose].certificate.encode())
        assert revoked.get_revoked_certificate_by_serial_number(ended.serial_number) is not None
        living = x509.load_pem_x509_certificate(chain.certificate.encode())
        assert revoked.get_revoked_certificate_by_serial_number(living.serial_number) is None


def test_a_long_name_still_has_a_subject_of_its_own() -> None:
    long = ("a" * 200, "a" * 199 + "b")
    assert distinguished_name(Purpose.QEMU, long[0]) != distinguished_name(Purpose.QEMU, long[1])
    assert serial_number(Purpose.QEMU, "e") != serial_number(Purpose.LIBVIRT, "e")


# --- where it lies


def with_pki(agent: Agent, world: World, command: tuple[str, ...]) -> Path:
    """Have an agent lay certificates out in a folder of the test."""
    folder = world.dir / "pki"
    changes = {"pki_dir": str(folder), "pki_reload_command": command, "migration_address": "10.9.9.9"}
    agent.config = structs.replace(agent.config, **changes)
    return folder


async def start(world: World, command: tuple[str, ...], node: str = "h1") -> tuple[Agent, Path]:
    agent = Agent(world.dir, node, world.port)
    folder = with_pki(agent, world, command)
    agent.token_file.write_text(await world.token(node))
    agent.token_file.chmod(0o600)
    agent.start()
    world.agents.append(agent)
    return agent, folder


def readings(folder: Path) -> list[str]:
    file = folder.with_name("read")
    return file.read_text().splitlines() if file.exists() else []


def reading(world: World) -> tuple[str, ...]:
    """A command that notes which certificate lay there when libvirtd was told to read."""
    words = f"openssl x509 -in {world.dir}/pki/libvirt/servercert.pem -noout -enddate -fingerprint | tr '\\n' ' '"
    return ("sh", "-c", f"{words} >> {world.dir}/read && echo >> {world.dir}/read")


async def test_they_lie_where_libvirt_and_qemu_look_before_the_node_is_up(world: World) -> None:
    _agent, folder = await start(world, reading(world))
    await until(lambda: world.up("h1"))
    assert readings(folder)
    for purpose, names in ((Purpose.LIBVIRT, LIBVIRT), (Purpose.QEMU, QEMU)):
        for name in names:
            certificate = x509.load_pem_x509_certificate((folder / name).read_bytes())
            assert certificate.subject == distinguished_name(purpose, "h1")
            assert ipaddress.ip_address("10.9.9.9") in certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value.get_values_for_type(x509.IPAddress)
    for name, mode in KEYS.items():
        assert (folder / name).stat().st_mode & 0o777 == mode, name
    assert (folder / "libvirt/private/serverkey.pem").read_text() != (folder / "qemu/server-key.pem").read_text()
    for cert, key in (("libvirt/clientcert.pem", "libvirt/private/clientkey.pem"), (QEMU[0], "qemu/server-key.pem")):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / cert, folder / key)  # they fit


async def test_they_are_renewed_with_other_keys_and_no_session_ends(tmp_path: Path) -> None:
    world = World(tmp_path, life_s=8.0)
    await world.start()
    try:
        _agent, folder = await start(world, reading(world))
        await until(lambda: world.up("h1"))
        session, key = world.fleet.state.nodes["h1"].session, (folder / "qemu/client-key.pem").read_bytes()
        await until(lambda: len(set(readings(folder))) > 2)
        assert (folder / "qemu/client-key.pem").read_bytes() != key
        assert world.fleet.state.nodes["h1"].session == session
    finally:
        await world.close()


async def test_a_libvirtd_that_does_not_read_them_is_told_again_and_keeps_no_node_from_being_up(world: World) -> None:
    flag = world.dir / "may-read"
    agent, folder = await start(world, ("sh", "-c", f"test -e {flag} || {{ echo no libvirtd >&2; exit 1; }}"))
    await until(lambda: world.up("h1"))
    assert any("no libvirtd" in said for said in agent.daemon._enrolment._told.values())  # type: ignore[union-attr]
    assert (folder / "CA/cacert.pem").exists()
    flag.touch()
    await until(lambda: agent.daemon._enrolment._told == {})  # type: ignore[union-attr]
