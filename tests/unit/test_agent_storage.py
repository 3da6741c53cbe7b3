"""How an agent finds out whether it reaches its storage, without ever waiting for it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from agent import storage
from agent.keeper_types import DefinitionRead
from agent.sockets import Socket, parse_socket
from agent.storage import StorageWatch, ask_server
from fleet.model import Definition, Disk, StorageReach
from fleet.storage import Server, lies_on, network_storage, servers_of


async def serve(greeting: bytes) -> tuple[asyncio.Server, int]:
    """A server that greets everybody the same; b"" for a frozen one."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    return server, int(server.sockets[0].getsockname()[1])


@pytest.mark.parametrize(
    ("greeting", "reached"), [(b"NBDMAGICIHAVEOPT\x00\x03", True), (b"HTTP/1.1 200", False), (b"", False)]
)
async def test_nbd_is_reached_when_it_greets(greeting: bytes, *, reached: bool) -> None:
    """A frozen server's kernel still takes the connection."""
    server, port = await serve(greeting)
    async with server:
        begun = time.monotonic()
        assert await ask_server(Server("nbd", "127.0.0.1", port)) is reached
        assert time.monotonic() - begun < 2 * storage.ASK_TIMEOUT_S


async def test_one_question_that_fails_is_no_loss_and_two_are() -> None:
    server, port = await serve(b"NBDMAGIC")
    watch = StorageWatch(mountinfo=Path("/nonexistent"))
    name = f"nbd://127.0.0.1:{port}"
    disks = (Disk("vda", f"{name}/a", shared=True), Disk("vdb", "file:h1:/a.img"))
    watch.take(DefinitionRead(Definition("u", "a", "<domain/>", "h", disks)))
    assert await watch.ask_all()
    assert watch.reaches() == (StorageReach(name, reached=True),)
    server.close()
    await server.wait_closed()
    assert not await watch.ask_all()
    assert await watch.ask_all()
    assert watch.reaches() == (StorageReach(name, reached=False),)
    assert not watch.mount_is_lost("u")


async def test_a_mount_that_hangs_is_lost_and_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call into a dead file system never returns: one thread is left behind, and no second one."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("40 1 0:50 / /vms rw - nfs4 filer:/export rw\n41 1 0:51 / /tmp rw - tmpfs tmpfs rw\n")
    server_is_back, calls = threading.Event(), []

    def hangs(path: str) -> None:
        calls.append(path)
        server_is_back.wait(30)

    monkeypatch.setattr(os, "statvfs", hangs)
    monkeypatch.setattr(storage, "ASK_TIMEOUT_S", 0.1)
    watch = StorageWatch(mountinfo)
    disk = Disk("vda", "nfs://filer:/export/a.qcow2", shared=True)
    watch.take(DefinitionRead(Definition("u", "a", "<domain/>", "h", (disk,))))
    for _ in range(3):
        await watch.ask_all()
    assert watch.reaches() == (StorageReach("nfs://filer:/export", reached=False, stuck=True),)
    assert calls == ["/vms"]
    assert watch.mount_is_lost("u")
    assert not watch.mount_is_lost("v")
    server_is_back.set()
    while watch.reaches()[0].stuck:
        await watch.ask_all()
    assert watch.reaches() == (StorageReach("nfs://filer:/export", reached=True),)


def test_a_line_of_the_kernels_table_is_read() -> None:
    line = "   1: 0B034D0A:A8F6 FA034D0A:2A39 04 0000001D:00000000 01:000000FD 00000009     0        0 0 2 0000 0"
    assert parse_socket(line) == Socket(state="04", remote_port=10809, waiting_bytes=29, retransmits=9)


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ("nbd://10.1.3.9:10809/web-1", "nbd://10.1.3.9:10809"),
        ("rbd://a:6789,b:6789/pool/image", "rbd://a:6789,b:6789"),
        ("nbd://[fe80::1]:10809/web-1", "nbd://[fe80::1]:10809"),
        ("rbd:///pool/image", ""),
        ("nfs://filer:/export/a.qcow2", ""),
        ("file:h1:/srv/a.img", ""),
    ],
)
def test_the_storage_of_a_network_disk_is_its_servers(identity: str, name: str) -> None:
    assert network_storage(identity) == name
    assert not name or lies_on(identity, name)


def test_servers_are_named_by_the_storage() -> None:
    assert servers_of("rbd://a:6789,b:6790") == (Server("rbd", "a", 6789), Server("rbd", "b", 6790))
    assert servers_of("nfs://filer:/export") == ()
    assert lies_on("nfs://filer:/export/x/a.qcow2", "nfs://filer:/export")
    assert not lies_on("nfs://filer:/export2/a.qcow2", "nfs://filer:/export")
