"""libvirt's numbers in our words. Pure; the numbers are part of libvirt's stable API.

A test compares every constant here with the libvirt module. Sources: libvirt-domain.h
(virDomainState, virDomain*Reason, virDomainEventStoppedDetailType), virterror.h.
"""

from __future__ import annotations

from agent.deeds import CODE_NOT_FOUND, CODE_NOT_RUNNING
from fleet.guest_health import PAUSED_BY_WATCHDOG
from fleet.model import EndReason, QemuState

NOSTATE, RUNNING, BLOCKED, PAUSED, SHUTDOWN, SHUTOFF, CRASHED, PMSUSPENDED = range(8)
PAUSED_USER, PAUSED_MIGRATION, PAUSED_IOERROR, PAUSED_STARTING_UP = 1, 2, 5, 11

PAUSED_WORDS = {
    0: "unknown",
    1: "user",
    2: "migration",
    3: "save",
    4: "dump",
    5: "ioerror",
    6: PAUSED_BY_WATCHDOG,
    7: "from snapshot",
    8: "shutting down",
    9: "snapshot",
    10: "crashed",
    11: "starting up",
    12: "post-copy",
    13: "post-copy failed",
    14: "api error",
}
_SHUTOFF_ENDS = {
    1: EndReason.POWEROFF,
    2: EndReason.DESTROYED,
    3: EndReason.CRASHED,
    4: EndReason.MIGRATED,
    5: EndReason.DESTROYED,  # saved by a person
    6: EndReason.CRASHED,  # failed to start
    8: EndReason.CRASHED,  # the daemon found it dead
}
_STOPPED_ENDS = {
    0: EndReason.POWEROFF,
    1: EndReason.DESTROYED,
    2: EndReason.CRASHED,
    3: EndReason.MIGRATED,
    4: EndReason.DESTROYED,
    5: EndReason.CRASHED,
}

ERR_NO_DOMAIN, ERR_OPERATION_INVALID = 42, 55
LOCKED_WORDS = ('Failed to get "write" lock', "Failed to get shared", "resource busy")


def qemu_state(state: int, reason: int, *, ran: bool) -> QemuState:
    """Return the state of a domain libvirt calls active. ran: this very process was seen running here.

    A domain that is paused for migration is the source half after its last pass if it ran here, and
    else the target half; one that is starting up is nothing anybody may act on yet.
    """
    if state in (RUNNING, BLOCKED, SHUTDOWN):
        return QemuState.RUNNING
    if state == PAUSED and reason == PAUSED_MIGRATION:
        return QemuState.FINISHED if ran else QemuState.INCOMING
    if state == PAUSED and reason == PAUSED_STARTING_UP:
        return QemuState.UNKNOWN
    if state in (PAUSED, PMSUSPENDED, CRASHED):
        return QemuState.PAUSED
    return QemuState.GONE if state == SHUTOFF else QemuState.UNKNOWN


def reason_words(state: int, reason: int) -> str:
    """Return libvirt's reason for people."""
    if state == PAUSED:
        return PAUSED_WORDS.get(reason, str(reason))
    return {SHUTDOWN: "shutting down", CRASHED: "crashed", PMSUSPENDED: "suspended by the guest"}.get(state, "")


def shutoff_end(reason: int) -> EndReason:
    """Return why a domain that is shut off ended, as its state says."""
    return _SHUTOFF_ENDS.get(reason, EndReason.NOT_ENDED)


def end_told(detail: int | None, known: EndReason | None = None) -> EndReason:
    """Return why a domain ends, as the event STOPPED says (its detail), or WATCHDOG, which powers it off (None).

    known: what was told before. A watchdog's power-off is a crash, whatever STOPPED calls it then.
    """
    if detail is None:
        return EndReason.CRASHED
    end = _STOPPED_ENDS.get(detail, EndReason.NOT_ENDED)
    return EndReason.CRASHED if (end, known) == (EndReason.POWEROFF, EndReason.CRASHED) else end


def error_code(number: int, message: str, names: dict[int, str]) -> str:
    """Return the code of a failed call. names: libvirt's own names of its errors."""
    if number == ERR_NO_DOMAIN:
        return CODE_NOT_FOUND
    if number == ERR_OPERATION_INVALID and "not running" in message:
        return CODE_NOT_RUNNING
    if any(words in message for words in LOCKED_WORDS):
        return "IMAGE_LOCKED"
    return "LIBVIRT_" + names.get(number, str(number))
