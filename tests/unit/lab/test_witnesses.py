"""The laboratory's witnesses and names, without a laboratory: lines torn by a migration, who runs twice, what fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import guest_log
from lab.errors import LaboratoryError
from lab.guest_log import GuestLine, longest_gap_s
from lab.layout import Layout, Plane
from lab.serial_log import Collector
from lab.truth import Cpus, Qemu, Sample, twice

LINK_CHARACTERS_MAX = 15


@pytest.fixture
def collector(tmp_path: Path) -> Collector:
    """A collector of two hosts."""
    for host in ("h1", "h2"):
        (tmp_path / "hosts" / host / "private").mkdir(parents=True)
    return Collector(tmp_path)


def _says(collector: Collector, host: str, text: str, at_s: float) -> None:
    with (collector.hosts[host] / "web.serial").open("a", encoding="ascii") as raw:
        raw.write(text)
    collector.take(host, "web.serial", at_s)


def _heard(tmp_path: Path) -> list[str]:
    return [f"{line.host} {line.text}" for line in guest_log.read(tmp_path / "guests" / "web.log")]


def test_a_line_torn_by_a_migration_is_one_line(collector: Collector, tmp_path: Path) -> None:
    """The half that was written on the source belongs to the half that the target writes."""
    _says(collector, "h1", "tick 41\nti", 10.0)
    _says(collector, "h2", "ck 42\ntick 43\n", 10.5)
    assert _heard(tmp_path) == ["h1 tick 41", "h2 tick 42", "h2 tick 43"]


def test_two_guests_that_write_at_once_are_not_mixed(collector: Collector, tmp_path: Path) -> None:
    """Half a line that is still being written stays with its own host."""
    _says(collector, "h1", "tick 41\nsplit", 10.0)
    _says(collector, "h2", "tick 42\n", 10.001)
    _says(collector, "h1", " 41\n", 10.002)
    assert _heard(tmp_path) == ["h1 tick 41", "h2 tick 42", "h1 split 41"]


def test_a_log_that_begins_anew_is_read_from_its_beginning(collector: Collector, tmp_path: Path) -> None:
    """After a power cut the host's log is another file; firmware and kernel noise is left out."""
    _says(collector, "h1", "tick 1\ntick", 10.0)
    (collector.hosts["h1"] / "web.serial").unlink()
    _says(collector, "h1", "SeaBIOS\r\nBooting from ROM..boot from 1\n[    0.1] noise\ntick 2\n", 20.0)
    assert _heard(tmp_path) == ["h1 tick 1", "h1 boot from 1", "h1 tick 2"]


def test_the_longest_gap_counts_from_the_last_tick_before_the_fault() -> None:
    """A gap that began before the fault and ended after it is the downtime; earlier gaps are not."""
    ticks = [
        (0.0, "tick 1"),
        (9.0, "tick 2"),
        (9.1, "tick 3"),
        (12.1, "boot from 3"),
        (12.3, "tick 4"),
        (12.4, "tick 5"),
    ]
    lines = [GuestLine(at_s, "h1", text) for at_s, text in ticks]
    assert longest_gap_s(lines, after_s=9.5) == pytest.approx(3.2)


def _qemu(cpus: Cpus, *, may_run: bool) -> Qemu:
    return Qemu("h1", 1, "u", cpus, may_run)


@pytest.mark.parametrize(
    ("qemus", "alarm"),
    [
        ([_qemu(Cpus.RUNNING, may_run=True), _qemu(Cpus.INCOMING, may_run=False)], False),
        ([_qemu(Cpus.FINISHED, may_run=False), _qemu(Cpus.RUNNING, may_run=True)], False),
        ([_qemu(Cpus.STOPPED, may_run=True), _qemu(Cpus.RUNNING, may_run=True)], True),
        ([_qemu(Cpus.RUNNING, may_run=True), _qemu(Cpus.RUNNING, may_run=True)], True),
    ],
)
def test_who_runs_twice(qemus: list[Qemu], *, alarm: bool) -> None:
    """The allowed pairs are no alarm; a frozen QEMU that would run on is one."""
    assert twice(Sample(0.0, {"web": qemus})) == (["web"] if alarm else [])


def test_the_longest_names_still_fit_the_kernel() -> None:
    """Every link of the largest laboratory with the longest name fits 15 characters, and no two are alike."""
    layout = Layout("abcdef", Path("/nowhere"))
    links = [layout.link(f"h{index}", plane) for index in range(1, 100) for plane in Plane] + [layout.storage_link()]
    names = [name for link in links for name in (link.near, link.far)]
    assert max(map(len, names)) <= LINK_CHARACTERS_MAX
    assert len(set(names)) == len(names)
    assert len({(link.plane, link.address) for link in links}) == len(links)


@pytest.mark.parametrize("name", ["", "sevench", "Lab", "1ab", "a-b", "a/b"])
def test_a_bad_laboratory_name_is_refused(name: str) -> None:
    """A name goes into links, namespaces and paths."""
    with pytest.raises(LaboratoryError, match="laboratory name"):
        Layout(name, Path("/nowhere"))


def test_a_laboratory_owns_its_namespaces_only() -> None:
    """A name that another name begins with is somebody else's."""
    layout = Layout("ab", Path("/nowhere"))
    assert all(layout.owns_namespace(name) for name in ("ab-net", "ab-h1", "ab-h12-bmc", "ab-a1", "ab-sto"))
    assert not any(layout.owns_namespace(name) for name in ("abc-net", "ab", "ab-h1x", "xab-h1", "ab-h1-bmcs"))
