"""What an agent finds of its host by itself: read from files in the kernel's shape, judged by a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.checks import NodeChecks
from agent.config import load
from agent.keeper_types import LoadRead
from agent.own_checks import NAMES, Measured, judge
from agent.sampler import Sampler, read_pressure
from agent.verdicts import BAD_AFTER, GOOD_AFTER
from fleet.config import ConfigError
from fleet.messages import Beat
from fleet.model import NodeLoad
from tests.unit.keeper_harness import Node, sent_of

PSI = "some avg10={0:.2f} avg60={1:.2f} avg300=0.00 total=1\nfull avg10=0.00 avg60={2:.2f} avg300=0.00 total=1\n"


def a_kernel(tmp_path: Path, some10: float = 0, some60: float = 0, full60: float = 0) -> Sampler:
    """A sampler that reads pressure and links below a folder."""
    for name in ("pressure", "net"):
        (tmp_path / name).mkdir(exist_ok=True)
    for resource in ("cpu", "memory", "io"):
        (tmp_path / "pressure" / resource).write_text(PSI.format(some10, some60, full60))
    return Sampler(tmp_path / "pressure", tmp_path / "net")


def a_link(tmp_path: Path, name: str, carrier: str, *, up: bool = True, physical: bool = True) -> None:
    device = tmp_path / "net" / name
    device.mkdir(exist_ok=True)
    (device / "flags").write_text("0x1003\n" if up else "0x1002\n")
    (device / "carrier").write_text(f"{carrier}\n")
    if physical:
        (device / "device").mkdir(exist_ok=True)


@pytest.mark.parametrize(
    ("measured", "check", "code", "words"),
    [
        (Measured(waits={"memory full": 4.9}), "node-memory", 0, ""),
        (Measured(waits={"memory full": 5.0}), "node-memory", 1, "all processes wait for memory, 0 %"),
        (Measured(waits={"memory full": 47.3}), "node-memory", 2, "all processes wait for memory, 40 %"),
        (Measured(waits={"io full": 29.9, "io some": 99.0}), "node-io", 0, ""),
        (Measured(waits={"io full": 30.0}), "node-io", 1, "wait for io, 30 %"),
        (Measured(waits={"io full": 70.0}), "node-io", 2, "wait for io, 70 %"),
        (Measured(waits={"cpu some": 79.0}), "node-cpu", 0, ""),
        (Measured(waits={"cpu some": 100.0}), "node-cpu", 1, "some processes wait for cpu, 100 %"),
        (Measured(), "node-cpu", None, "no pressure"),
        (Measured(carriers={"eno1": True, "eno2": True}), "node-nic", 0, ""),
        (Measured(carriers={"eno2": False, "eno1": False, "eno3": True}), "node-nic", 1, "no carrier on eno1, eno2"),
        (Measured(storage_ms={"nfs://a:/x": 499.0}), "node-storage", 0, ""),
        (Measured(storage_ms={"nfs://a:/x": 500.0, "b": 2.0}), "node-storage", 1, "nfs://a:/x: an answer takes 500 ms"),
        (Measured(free_percent=5.0), "node-disk", 0, ""),
        (Measured(free_percent=4.9), "node-disk", 1, "less than 5 % free"),
        (Measured(free_percent=0.9), "node-disk", 2, "less than 5 % free"),
        (Measured(), "node-disk", None, "tells no size"),
    ],
)
def test_what_is_measured_is_judged(measured: Measured, check: str, code: int | None, words: str) -> None:
    outcome = judge(measured)[check]
    assert (outcome.exit_code, words in outcome.message) == (code, True), outcome


def test_every_check_has_a_name_that_can_be_configured() -> None:
    assert tuple(judge(Measured())) == NAMES


def test_pressure_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    assert read_pressure(PSI.format(1.5, 2.25, 0.5), "avg60") == {"some": 2.25, "full": 0.5}
    assert read_pressure("some avg10=x\nfull\n", "avg10") == {}
    sampler = a_kernel(tmp_path, some10=12.4, some60=33.0, full60=7.0)
    assert sampler.load().waits_percent == (12, 12, 12)
    assert sampler.measured(tmp_path, {}).waits["io full"] == 7.0


def test_a_kernel_without_pressure_tells_none(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path / "nothing", tmp_path / "nothing")
    load, measured = sampler.load(), sampler.measured(tmp_path, {})
    assert load.waits_percent == (0, 0, 0)
    assert load.memory_available_bytes > 0
    assert (measured.waits, measured.carriers) == ({}, {})
    assert measured.free_percent is not None


def test_a_link_that_lost_its_carrier_counts_and_one_that_never_had_one_does_not(tmp_path: Path) -> None:
    sampler = a_kernel(tmp_path)
    a_link(tmp_path, "eno1", "1")
    a_link(tmp_path, "eno2", "0")  # no cable, ever
    a_link(tmp_path, "vnet0", "1", physical=False)
    assert sampler.measured(tmp_path, {}).carriers == {"eno1": True}
    a_link(tmp_path, "eno1", "0")
    assert sampler.measured(tmp_path, {}).carriers == {"eno1": False}
    a_link(tmp_path, "eno1", "0", up=False)  # somebody set it down
    assert sampler.measured(tmp_path, {}).carriers == {}


async def test_own_checks_are_steadied_and_taint_as_programs_do(tmp_path: Path) -> None:
    said = {"node-nic": judge(Measured(carriers={"eno1": False}))["node-nic"]}
    checks = NodeChecks(tmp_path, 5.0, {"node-nic": "NoSchedule"}, lambda: said)
    for _ in range(BAD_AFTER - 1):
        assert not await checks.run_all()
    assert await checks.run_all()
    (verdict,) = checks.verdicts()
    assert (verdict.name, verdict.level, verdict.effect) == ("node-nic", "Degraded", "PreferNoSchedule")
    said["node-nic"] = judge(Measured(carriers={"eno1": True}))["node-nic"]
    for _ in range(GOOD_AFTER):
        await checks.run_all()
    assert checks.verdicts() == ()


def test_the_newest_load_goes_with_the_beat() -> None:
    node = Node()
    node.connect()
    load = NodeLoad(40, 8 << 30, (1, 2, 3))
    node.step(LoadRead(load))
    assert {beat.load for beat in sent_of(node.tick(5.0), Beat)} == {load}


def test_an_unknown_own_check_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        'node = "h1"\naggregators = ["wss://a:8421"]\ncontrol_address = "10.0.0.1"\nchecks_own = ["disc"]\n'
    )
    with pytest.raises(ConfigError, match="checks_own: 'disc' is none of node-memory"):
        load(file)
