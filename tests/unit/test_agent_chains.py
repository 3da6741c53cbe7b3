"""Overlays: what lies under a disk is found, by libvirt's word or by the image's own, and counts as part of it."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from agent.blockers import blockers_of
from agent.chains import CHAIN_MAX, backing_of, below
from agent.definitions import chain_of
from fleet.domain_xml import Place, parse_tree


def resolve(path: str) -> Place:
    """Take what lies in a folder called nfs for shared."""
    return Place(path, shared="/nfs/" in path)


def overlay(image: Path, under: str) -> Path:
    """Make a qcow2 image over another one."""
    image.parent.mkdir(exist_ok=True)
    given = ["-b", under, "-F", "qcow2", "-u"] if under else []
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *given, image, "1M"], check=True)
    return image


def a_disk(source: Path | str, inner: str = "") -> str:
    source = f"<source file='{source}'/><target dev='vda'/>"
    return f"<disk type='file'><driver type='qcow2'/>{source}{inner}</disk>"


def a_domain(*disks: str) -> str:
    return f"<domain><name>a</name><devices>{''.join(disks)}</devices></domain>"


def test_a_chain_is_followed_through_the_images(tmp_path: Path) -> None:
    base = overlay(tmp_path / "local/base", "")
    middle = overlay(tmp_path / "nfs/middle", str(base))
    top = overlay(tmp_path / "nfs/top", "middle")
    assert backing_of(str(base)) == ""
    found = chain_of(parse_tree(a_domain(a_disk(top))), resolve)
    assert [(d.target, d.identity, d.shared, d.writable, d.is_backing) for d in found] == [
        ("vda[1]", str(middle), True, False, True),
        ("vda[2]", str(base), False, False, True),
    ]


def test_what_libvirt_tells_is_not_read_again() -> None:
    nbd = "<source protocol='nbd' name='a'><host name='s'/></source>"
    last = f"<backingStore type='network'><format type='qcow2'/>{nbd}</backingStore>"
    first = f"<backingStore type='file'><format type='qcow2'/><source file='/srv/b'/>{last}</backingStore>"
    found = chain_of(parse_tree(a_domain(a_disk("/nfs/top", first))), resolve)
    assert [(d.target, d.identity, d.shared) for d in found] == [
        ("vda[1]", "/srv/b", False),
        ("vda[2]", "nbd://s:10809/a", True),
    ]


def test_a_local_file_under_a_shared_overlay_forbids_a_live_move(tmp_path: Path) -> None:
    """QEMU at the target would open another file of that name, or none."""
    top = overlay(tmp_path / "nfs/top", str(overlay(tmp_path / "local/base", "")))
    root = parse_tree(a_domain(a_disk(top)))
    (blocker,) = blockers_of(root, chain_of(root, resolve), snapshots=False)
    assert (blocker.reason, blocker.message) == ("DisksNotLiveMigratable", "disk vda[1] is local to this node")


def test_an_image_that_lies_under_itself_ends(tmp_path: Path) -> None:
    one = overlay(tmp_path / "one", str(tmp_path / "two"))
    overlay(tmp_path / "two", str(one))
    assert [disk.identity for disk in below("vda", str(one), resolve)] == [str(tmp_path / "two")]
    for number in range(2 * CHAIN_MAX):
        overlay(tmp_path / f"c{number}", str(tmp_path / f"c{number + 1}"))
    assert len(list(below("vda", str(tmp_path / "c0"), resolve))) == CHAIN_MAX


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"QFI\xfb",
        b"QFI\xfb" + bytes(40),
        struct.pack(">4sIQI", b"QFI\xfb", 3, 2**64 - 1, 8),
        struct.pack(">4sIQI", b"QFI\xfb", 3, 20, 2**31),
        struct.pack(">4sIQI", b"QFI\xfb", 3, 20, 5) + b"a\0b/c",
        struct.pack(">4sIQI", b"QFI\xfb", 3, 20, 8) + b"nbd://s/",
        struct.pack(">4sIQI", b"QFI\xfb", 3, 20, 8) + b"json:{ }",
        b"#!/bin/sh, and much more that is no header",
    ],
)
def test_an_image_that_says_nothing_useful_has_nothing_under_it(tmp_path: Path, header: bytes) -> None:
    image = tmp_path / "image"
    image.write_bytes(header)
    assert backing_of(str(image)) == ""


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe would be opened for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert backing_of(str(pipe)) == ""
    assert backing_of(str(tmp_path / "not there")) == ""
