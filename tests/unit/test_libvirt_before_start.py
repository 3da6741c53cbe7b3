"""What is run before libvirtd starts: a table of status files, and which of them go."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import libvirtd

UUID = "11111111-2222-3333-4444-555555555555"
STATUS = """\
<!--
WARNING: THIS IS AN AUTO-GENERATED FILE.
-->

<domstatus state='{state}' reason='{reason}' pid='{pid}'>
  <job type='none' async='start' flags='0x8'/>
  <domain type='qemu' id='29'>
    <name>web-1</name>
    {uuid}
  </domain>
</domstatus>
"""


def write_status(folder: Path, state: str, reason: str, pid: int, uuid: str = f"<uuid>{UUID}</uuid>") -> Path:
    """Write the status of a VM as libvirt does."""
    file = folder / "status" / "web-1.xml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(STATUS.format(state=state, reason=reason, pid=pid, uuid=uuid), encoding="ascii")
    return file


def run(folder: Path) -> str:
    """Run the program; return what it said."""
    command = ["sh", str(libvirtd.BEFORE_START), str(folder / "status"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@contextmanager
def process(*command: str) -> Iterator[int]:
    """A process for as long as the block lasts."""
    started = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield started.pid
    finally:
        started.communicate(b"")


@pytest.mark.parametrize(
    ("state", "reason", "pid", "goes"),
    [
        ("paused", "starting up", 0, True),
        ("paused", "starting up", 4711, False),  # QEMU may have been let go
        ("running", "booted", 4711, False),
        ("paused", "user", 0, False),
        ("shutoff", "crashed", 0, False),
    ],
)
def test_only_a_start_that_never_had_a_process_is_removed(
    tmp_path: Path, state: str, reason: str, pid: int, *, goes: bool
) -> None:
    file = write_status(tmp_path, state, reason, pid)
    said = run(tmp_path)
    assert (not file.exists(), bool(said)) == (goes, goes)


def test_a_living_qemu_of_the_vm_keeps_its_file(tmp_path: Path) -> None:
    file = write_status(tmp_path, "paused", "starting up", 0)
    with process("sh", "-c", "read -r line", "qemu-system-x86_64", "-uuid", UUID):
        assert run(tmp_path) == ""
    assert file.exists()
    assert "web-1.xml" in run(tmp_path)
    assert not file.exists()


def test_nothing_is_done_beside_a_libvirtd_that_runs(tmp_path: Path) -> None:
    file = write_status(tmp_path, "paused", "starting up", 0)
    daemon = tmp_path / "libvirtd"
    daemon.symlink_to("/bin/cat")
    with process(str(daemon)) as pid:
        (tmp_path / "libvirtd.pid").write_text(f"{pid}\n")
        assert run(tmp_path) == ""
    assert file.exists()
    (tmp_path / "libvirtd.pid").write_text(f"{os.getpid()}\n")  # the pid of the dead is another program's by now
    assert "web-1.xml" in run(tmp_path)


@pytest.mark.parametrize("uuid", ["", "<uuid>not one</uuid>"])
def test_a_file_that_names_no_vm_is_left(tmp_path: Path, uuid: str) -> None:
    file = write_status(tmp_path, "paused", "starting up", 0, uuid)
    assert run(tmp_path) == ""
    assert file.exists()


def test_no_directory_is_no_error(tmp_path: Path) -> None:
    assert run(tmp_path) == ""
