"""Whom agents trust changes while they work: a revocation is known to all at once, authorities are rotated."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import structs

from agent.access import CertifiedAccess
from aggregator.agents_door import waits_for
from aggregator.authority import Authority
from aggregator.authority_files import AuthorityFiles
from aggregator.core.events import NodeRevoked
from fleet import tls
from fleet.identity import RENEW_PATH, RenewRequest, Role, key_text, make_request, new_key
from fleet.service import ServiceError
from fleet.trust import TRUST_PATH
from tests.unit.shell.agent_speaker import PATIENCE_S
from tests.unit.shell.identity_world import Agent, Shown, World, until


async def ping(world: World, agent: Agent, context: ssl.SSLContext) -> int:
    """Ask an agent for a sign of life with whatever certificate."""
    url, name = f"https://127.0.0.1:{agent.port}/peer/v1/ping?nonce=n", Role.AGENT.server_name
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context, server_hostname=name) as answer:
        return answer.status


async def reaches(world: World, agent: Agent, other: Agent) -> bool:
    """Whether one agent's own certificate opens another agent's port."""
    shown = other.access.outgoing
    assert isinstance(shown, ssl.SSLContext)
    try:
        return await ping(world, agent, shown) == HTTPStatus.OK
    except aiohttp.ClientError:
        return False


async def revoke(world: World, node: str) -> None:
    await world.fleet.submit(NodeRevoked(at=world.fleet.now(), name=node, who="test"))


# --- revocations


async def test_a_revoked_certificate_opens_no_agents_port_any_more(world: World) -> None:
    """TLS itself takes it for up to 24 hours; the agents learn of it with the answer to their next beat."""
    agent, thief = await world.agent("h1"), await world.join("h3")
    await until(lambda: world.up("h1"))
    assert await ping(world, agent, thief.context) == HTTPStatus.OK
    enrolment = world.fleet.state.nodes["h3"].credentials.enrolment
    await revoke(world, "h3")
    await until(lambda: enrolment in agent.access.denied)
    assert await ping(world, agent, thief.context) == HTTPStatus.FORBIDDEN
    await agent.stop()
    assert enrolment in CertifiedAccess(agent.dir / "identity").denied, "and it still knows it after a restart"


async def test_nobody_without_a_certificate_that_counts_is_told_whom_to_trust(world: World) -> None:
    thief = await world.join("h3")
    assert (await world.ask(TRUST_PATH, b"", thief.context))[0] == HTTPStatus.OK
    assert (await world.ask(TRUST_PATH, b""))[0] == HTTPStatus.FORBIDDEN
    await revoke(world, "h3")
    assert (await world.ask(TRUST_PATH, b"", thief.context))[0] == HTTPStatus.FORBIDDEN


async def test_a_new_revocation_reaches_the_lists_of_libvirt_and_qemu(world: World) -> None:
    agent = Agent(world.dir, "h1", world.port)
    folder = world.dir / "pki"
    agent.config = structs.replace(agent.config, pki_dir=str(folder))
    await started(world, agent)
    await world.join("h3")
    lists = [folder / "CA/cacrl.pem", folder / "qemu/ca-crl.pem"]
    before = [path.read_text() for path in lists]
    key = (folder / "libvirt/private/clientkey.pem").read_bytes()
    await revoke(world, "h3")
    await until(lambda: all(path.read_text() != text for path, text in zip(lists, before, strict=True)))
    assert (folder / "libvirt/private/clientkey.pem").read_bytes() == key, "certificates stay as they are"


async def started(world: World, agent: Agent) -> None:
    agent.token_file.write_text(await world.token(agent.name))
    agent.token_file.chmod(0o600)
    agent.start()
    world.agents.append(agent)
    await until(lambda: world.up(agent.name))


# --- rotation of the authorities


def authorities(world: World) -> list[Path]:
    return sorted((world.dir / "a1/identity").glob("*.p*st.pem")) + sorted(
        (world.dir / "a1/identity").glob("*.next.pem")
    )


async def rotated(world: World) -> None:
    """Begin a rotation as the command does, in another process's eyes, and wait until it is over."""
    before = world.authority.sha256
    Authority(world.dir / "a1/identity", "a1").begin_rotation()
    await until(lambda: world.authority.sha256 != before)
    await until(lambda: authorities(world) == [])


async def test_every_authority_is_rotated_and_no_session_ends(world: World) -> None:
    agent, other = await world.agent("h1"), Agent(world.dir, "h2", world.port)
    folder = world.dir / "pki"
    other.config = structs.replace(other.config, pki_dir=str(folder))
    await started(world, other)
    await until(lambda: world.up("h1"))
    sessions = {name: world.fleet.state.nodes[name].session for name in ("h1", "h2")}
    key, libvirts = agent.key(), (folder / "CA/cacert.pem").read_text()
    enrolment = world.fleet.state.nodes["h1"].credentials.enrolment
    stolen = new_key()
    text, _ = world.authority.sign(stolen.public_key(), Role.AGENT, "h1", enrolment)
    thief = Shown.of(world.dir / "old.pem", world.authority.text, text, stolen)
    await rotated(world)
    await until(lambda: waits_for(world.fleet.state, world.authority) == [])
    assert {name: world.fleet.state.nodes[name].session for name in sessions} == sessions
    assert agent.key() != key
    assert agent.access.authority == world.authority.text
    assert (folder / "CA/cacert.pem").read_text() not in ("", libvirts)
    assert await reaches(world, agent, other)
    assert await reaches(world, other, agent)
    with pytest.raises((aiohttp.ClientError, OSError)):  # an authority that leaked is worth nothing now
        await ping(world, agent, thief.context)
    status, _ = await world.ask(RENEW_PATH, RenewRequest(make_request(stolen), text))
    assert status == HTTPStatus.FORBIDDEN
    await agent.stop()
    await world.stop()
    await world.start()
    agent.start()
    await started(world, Agent(world.dir, "h3", world.port))
    await until(lambda: world.up("h1") and world.up("h2"))


async def test_a_rotation_waits_for_every_member_and_goes_on_without_one_that_is_revoked(world: World) -> None:
    agent = await world.agent("h1")
    await until(lambda: world.up("h1"))
    await world.join("h9")  # a host that is off
    before = world.authority.sha256
    Authority(world.dir / "a1/identity", "a1").begin_rotation()
    await until(lambda: agent.access.authority.count("BEGIN CERTIFICATE") == 2)
    await until(lambda: waits_for(world.fleet.state, world.authority) == ["h9"])
    assert world.authority.sha256 == before
    with pytest.raises(ServiceError, match="already"):
        Authority(world.dir / "a1/identity", "a1").begin_rotation()
    await world.stop()  # in the middle of it
    await world.start()
    await until(lambda: world.up("h1"))
    await until(lambda: waits_for(world.fleet.state, world.authority) == ["h9"])
    await revoke(world, "h9")
    await until(lambda: authorities(world) == [])
    assert world.authority.sha256 != before
    async with asyncio.timeout(PATIENCE_S):
        while agent.access.authority != world.authority.text:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.05)


class Company:
    """A PKI that was there before: a root, and whatever it signs."""

    def __init__(self) -> None:
        self.key = new_key()
        self.root = self.sign("the company", self.key, is_authority=True)

    def sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool, days: int = 365) -> str:
        """Return a PEM certificate."""
        subject, own = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, "the company"))
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(own)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def given(self, **changes: Any) -> bytes:
        """Return what `rotate-authority FILE` takes: an authority below the root, for virtward alone."""
        key = new_key()
        return (
            key_text(key) + (self.sign("virtward below", key, **{"is_authority": True, **changes}) + self.root).encode()
        )


async def test_an_authority_of_a_pki_that_was_there_before_takes_over_without_a_session_lost(world: World) -> None:
    agent, other, company = await world.agent("h1"), await world.agent("h2"), Company()
    await until(lambda: world.up("h1") and world.up("h2"))
    sessions = {name: world.fleet.state.nodes[name].session for name in ("h1", "h2")}
    Authority(world.dir / "a1/identity", "a1").begin_rotation(company.given())
    await until(lambda: "virtward below" in issuer_of(agent) and "virtward below" in issuer_of(other))
    await until(lambda: authorities(world) == [])
    assert {name: world.fleet.state.nodes[name].session for name in sessions} == sessions
    await until(lambda: agent.access.authority == world.authority.text == other.access.authority)
    assert await reaches(world, agent, other)
    stranger = new_key()  # the company signs for others as well: the fleet trusts its own authority, not who is above
    enrolment = world.fleet.state.nodes["h1"].credentials.enrolment
    text = company.sign("h1", stranger, is_authority=False)
    assert enrolment not in text
    thief = Shown.of(world.dir / "other.pem", company.root, text, stranger)
    with pytest.raises((aiohttp.ClientError, OSError)):
        await ping(world, agent, thief.context)
    own = world.dir / "api.pem"
    world.authority.certify_server(own, (["localhost"], []))
    await agent.stop()
    await world.stop()
    await world.start()
    agent.start()
    await until(lambda: world.up("h1"))
    root = ssl.create_default_context(cadata=company.root)
    assert chain_is_good(own, root), "a client that trusts the company knows the API"


def issuer_of(agent: Agent) -> str:
    return x509.load_pem_x509_certificate(agent.access.own.read_bytes()).issuer.rfc4514_string()


def chain_is_good(own: Path, trusting: ssl.SSLContext) -> bool:
    """Shake hands in memory."""
    server = tls.https_context(own, own)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        trusting.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0].getpeercert() != {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda _company: b"", "is no certificate authority"),
        (lambda company: company.given(is_authority=False), "CA:TRUE"),
        (lambda company: company.given(days=3), "ends within"),
        (lambda company: key_text(new_key()) + company.root.encode(), "its key is not that of its first certificate"),
    ],
)
def test_an_authority_that_could_not_sign_is_refused_and_nothing_changes(
    tmp_path: Path, given: Callable[[Company], bytes], said: str
) -> None:
    authority = Authority(tmp_path / "identity", "a1")
    before = sorted(path.name for path in (tmp_path / "identity").iterdir())
    with pytest.raises(ServiceError, match=said):
        authority.begin_rotation(given(Company()))
    assert sorted(path.name for path in (tmp_path / "identity").iterdir()) == before


def test_a_switch_that_a_crash_cut_off_is_taken_again(tmp_path: Path) -> None:
    """Between the two halves the present one lies under both names, and nothing is lost."""
    files = AuthorityFiles(tmp_path, "authority", "test")
    files.begin()
    files.look()
    assert files.next is not None
    (tmp_path / "authority.past.pem").hardlink_to(tmp_path / "authority.pem")
    first, following = files.present.sha256, files.next.sha256
    again = AuthorityFiles(tmp_path, "authority", "test")
    assert [each.sha256 for each in again.trusted] == [first, following]
    again.switch()
    assert [each.sha256 for each in again.trusted] == [following, first]
    last = AuthorityFiles(tmp_path, "authority", "test")
    assert [each.sha256 for each in last.trusted] == [following, first]
    last.finish()
    assert [each.sha256 for each in AuthorityFiles(tmp_path, "authority", "test").trusted] == [following]


def test_an_authority_whose_file_is_gone_in_the_middle_of_a_rotation_is_not_made_anew(tmp_path: Path) -> None:
    files = AuthorityFiles(tmp_path, "authority", "test")
    files.begin()
    files.look()
    files.switch()
    (tmp_path / "authority.pem").unlink()
    with pytest.raises(ServiceError, match="restore"):
        AuthorityFiles(tmp_path, "authority", "test")
