"""`virtward screenshot`: what is written, and what is said instead."""

from __future__ import annotations

from pathlib import Path

from tests.unit.cli.conftest import Virtward
from tests.unit.cli.speaker import Speaker


def test_a_screenshot_is_written_to_a_file(virtward: Virtward, speaker: Speaker, tmp_path: Path) -> None:
    png, file = b"\x89PNG\r\n\x1a\nrest", tmp_path / "screen.png"
    speaker.says("GET", "/api/v1/vms/web-1/screenshot", png)
    assert virtward("screenshot", "web-1", "-f", str(file)) == (0, f"{file}: {len(png)} bytes\n", "")
    assert file.read_bytes() == png
    speaker.says("GET", "/api/v1/incidents/inc-1/screenshot", png + b"!")
    assert virtward("screenshot", "--incident", "inc-1", "-f", str(file))[0] == 0
    assert file.read_bytes() == png + b"!"


def test_a_screenshot_that_is_none_leaves_the_file_as_it_was(
    virtward: Virtward, speaker: Speaker, tmp_path: Path
) -> None:
    file = tmp_path / "screen.png"
    file.write_bytes(b"before")
    speaker.refuses("GET", "/api/v1/vms/web-1/screenshot", 409, "the VM does not run")
    speaker.says("GET", "/api/v1/vms/web-2/screenshot", {"not": "a picture"})
    for words, said in (
        (("web-1", "-f", str(file)), "the VM does not run"),
        (("web-2", "-f", str(file)), "is no PNG"),
        (("web-1", "-f", str(tmp_path / "none" / "x.png")), ""),
        (("-f", str(file)), "screenshot takes a VM, or --incident NAME"),
        (("web-1", "--incident", "inc-1", "-f", str(file)), "screenshot takes a VM, or --incident NAME"),
    ):
        status, out, complaint = virtward("screenshot", *words)
        assert status, words
        assert (out, len(complaint.splitlines())) == ("", 1)
        assert said in complaint
    assert file.read_bytes() == b"before"
