"""Our numbers are libvirt's numbers, and states are read as the design says."""

from __future__ import annotations

import os
from pathlib import Path

import libvirt
import pytest

from agent import libvirt_words as words
from agent.libvirt_driver import ERROR_NAMES
from agent.libvirt_moves import MIGRATE_FLAGS
from agent.proc import starter_is_dead
from fleet.model import EndReason, QemuState


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (words.RUNNING, libvirt.VIR_DOMAIN_RUNNING),
        (words.BLOCKED, libvirt.VIR_DOMAIN_BLOCKED),
        (words.PAUSED, libvirt.VIR_DOMAIN_PAUSED),
        (words.SHUTDOWN, libvirt.VIR_DOMAIN_SHUTDOWN),
        (words.SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF),
        (words.CRASHED, libvirt.VIR_DOMAIN_CRASHED),
        (words.PMSUSPENDED, libvirt.VIR_DOMAIN_PMSUSPENDED),
        (words.PAUSED_USER, libvirt.VIR_DOMAIN_PAUSED_USER),
        (words.PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_MIGRATION),
        (words.PAUSED_IOERROR, libvirt.VIR_DOMAIN_PAUSED_IOERROR),
        (words.PAUSED_STARTING_UP, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP),
        (words.ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN),
        (words.ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_INVALID),
    ],
)
def test_our_numbers_are_libvirts(ours: int, theirs: int) -> None:
    assert ours == theirs


@pytest.mark.parametrize(
    ("shutoff", "stopped", "end"),
    [
        (libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN, EndReason.POWEROFF),
        (libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED, EndReason.DESTROYED),
        (libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED, EndReason.CRASHED),
        (libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED, EndReason.MIGRATED),
        (libvirt.VIR_DOMAIN_SHUTOFF_FAILED, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED, EndReason.CRASHED),
        (libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, 99, EndReason.NOT_ENDED),
    ],
)
def test_why_a_run_ended(shutoff: int, stopped: int, end: EndReason) -> None:
    assert words.shutoff_end(shutoff) is end
    assert words.end_told(stopped) is end


@pytest.mark.parametrize(
    ("state", "reason", "ran", "expected"),
    [
        (words.RUNNING, 1, False, QemuState.RUNNING),
        (words.PAUSED, words.PAUSED_USER, True, QemuState.PAUSED),
        (words.PAUSED, words.PAUSED_MIGRATION, True, QemuState.FINISHED),
        (words.PAUSED, words.PAUSED_MIGRATION, False, QemuState.INCOMING),
        (words.PAUSED, words.PAUSED_STARTING_UP, False, QemuState.UNKNOWN),
        (words.PAUSED, words.PAUSED_IOERROR, True, QemuState.PAUSED),
        (words.SHUTDOWN, 0, True, QemuState.RUNNING),
        (words.SHUTOFF, 1, False, QemuState.GONE),
        (words.NOSTATE, 0, False, QemuState.UNKNOWN),
    ],
)
def test_states_are_read_in_the_light_of_the_process(
    state: int, reason: int, expected: QemuState, *, ran: bool
) -> None:
    assert words.qemu_state(state, reason, ran=ran) is expected


def test_a_locked_image_is_a_failure_of_its_own() -> None:
    message = 'internal error: process exited while connecting to monitor: Failed to get "write" lock'
    assert words.error_code(libvirt.VIR_ERR_INTERNAL_ERROR, message, ERROR_NAMES) == "IMAGE_LOCKED"


def test_errors_carry_libvirts_own_names() -> None:
    assert words.error_code(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "x", ERROR_NAMES) == "LIBVIRT_CONFIG_UNSUPPORTED"
    assert words.error_code(libvirt.VIR_ERR_NO_DOMAIN, "x", ERROR_NAMES) == "NOT_FOUND"


def test_a_migration_is_peer_to_peer_and_leaves_its_target_paused() -> None:
    for flag in ("LIVE", "PEER2PEER", "PAUSED", "PERSIST_DEST", "UNDEFINE_SOURCE"):
        assert MIGRATE_FLAGS & getattr(libvirt, f"VIR_MIGRATE_{flag}")
    for flag in ("UNSAFE", "POSTCOPY", "TUNNELLED", "OFFLINE"):
        assert not MIGRATE_FLAGS & getattr(libvirt, f"VIR_MIGRATE_{flag}")


def test_a_start_is_abandoned_only_when_a_younger_libvirtd_runs(tmp_path: Path) -> None:
    """Reproduced with libvirt 9.0: killed in the middle of a start it leaves a domain nobody works on."""
    status, pid_file = tmp_path / "web-1.xml", tmp_path / "libvirtd.pid"
    assert not starter_is_dead("web-1", (pid_file,), tmp_path)
    status.write_text("<domstatus/>")
    pid_file.write_text(str(os.getpid()))
    os.utime(status, (1000.0, 1000.0))
    os.utime(pid_file, (1001.0, 1001.0))
    assert starter_is_dead("web-1", (pid_file,), tmp_path)
    os.utime(status, (1002.0, 1002.0))
    assert not starter_is_dead("web-1", (pid_file,), tmp_path)
    os.utime(status, (1000.0, 1000.0))
    pid_file.write_text("999999999")
    assert not starter_is_dead("web-1", (pid_file,), tmp_path)


def test_a_power_off_by_the_guests_watchdog_is_a_crash() -> None:
    hung = words.end_told(None)
    assert hung is EndReason.CRASHED
    assert words.end_told(libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN, hung) is EndReason.CRASHED
    assert words.end_told(libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN) is EndReason.POWEROFF
    assert words.end_told(libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED, hung) is EndReason.MIGRATED
