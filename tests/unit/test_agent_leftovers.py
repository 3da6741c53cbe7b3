"""A process that has ended may have left writes to its host's kernel; nobody may think it gone before they are."""

from __future__ import annotations

import asyncio
import socket

import pytest

from agent import leftovers
from agent.definitions import ports_of
from agent.leftovers import Leftovers, are_left, end_sockets
from fleet.domain_xml import parse_domain

XML = """<domain type='kvm'><name>a</name><memory>1024</memory><devices>
<disk type='network' device='disk'><source protocol='nbd' name='a'><host name='10.1.3.9' port='10810'/></source>
<target dev='vda'/></disk>
<disk type='network' device='cdrom'><source protocol='http' name='i.iso'><host name='web'/></source>
<target dev='hdc'/></disk>
<disk type='file' device='disk'><source file='/a.img'/><target dev='vdb'/></disk>
</devices></domain>"""


def leave_writes() -> tuple[socket.socket, int]:
    """Write to a server that does not read, and end: the kernel goes on trying. Returns (server, port)."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    server.bind(("127.0.0.1", 0))
    server.listen()
    client = socket.create_connection(server.getsockname())
    client.setblocking(False)
    try:
        while client.send(b"a write of a guest" * 1000):
            pass
    except BlockingIOError:
        client.close()
    return server, int(server.getsockname()[1])


def no_mount(_uuid: str) -> bool:
    """No disk lies on a mount that is lost."""
    return False


async def test_an_ended_vm_is_gone_when_its_host_has_nothing_of_it_to_send() -> None:
    server, port = leave_writes()
    with server:
        assert are_left({port})
        gone: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        left = Leftovers(lambda uuid, token: gone.put_nowait((uuid, token)), no_mount)
        left.ended("u", "12:34", {port})
        assert list(left.held) == ["u"]
        assert gone.empty()
        async with asyncio.timeout(20):
            assert await gone.get() == ("u", "12:34")
        assert not are_left({port})
        assert left.held == {}


async def test_what_cannot_be_thrown_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not end sockets for us gives up by itself, and until then the VM is not gone."""
    tried = asyncio.Event()

    async def in_vain(_ports: object) -> None:
        tried.set()

    monkeypatch.setattr(leftovers, "end_sockets", in_vain)
    server, port = leave_writes()
    with server:
        gone: list[str] = []
        left = Leftovers(lambda uuid, _token: gone.append(uuid), no_mount)
        left.ended("u", "12:34", {port})
        async with asyncio.timeout(20):
            await tried.wait()
        assert (list(left.held), gone) == (["u"], [])
        await left.stop()
        await end_sockets({port})


def test_a_vm_that_left_nothing_is_gone_at_once() -> None:
    gone: list[str] = []
    Leftovers(lambda uuid, _token: gone.append(uuid), no_mount).ended("u", "12:34", frozenset({1}))
    Leftovers(lambda uuid, _token: gone.append(uuid), no_mount).ended("v", "12:35", frozenset())
    assert gone == ["u", "v"]


def test_only_the_servers_of_writable_disks_are_looked_at() -> None:
    assert ports_of(parse_domain(XML)) == {10810}


async def test_what_lies_on_a_mount_without_its_server_is_there_until_it_answers() -> None:
    """Its kernel alone knows what is still to be written, and will write it when the server is back."""
    lost = {"u": True}
    gone: asyncio.Queue[str] = asyncio.Queue()
    left = Leftovers(lambda uuid, _token: gone.put_nowait(uuid), lambda uuid: lost.get(uuid, False))
    left.ended("u", "12:34", frozenset())
    left.ended("v", "12:35", frozenset())
    assert (gone.get_nowait(), list(left.held)) == ("v", ["u"])
    lost.clear()
    async with asyncio.timeout(20):
        assert await gone.get() == "u"
