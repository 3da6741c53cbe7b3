"""What a person may command of a VM, and what becomes of its run strategy by it: the orders of product.md's table.

Pure: judged by the API before a fact is made of it, and by the simulator's people in the same words.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from aggregator.core.events import RunOutcome, VmPhase, VmVerb
from aggregator.core.state import VmRecord
from fleet.model import RunStrategy


class Verdict(Struct, frozen=True):
    """refused: why not, a sentence; empty when it may be. becomes: the run strategy from now on, None for no change."""

    refused: str = ""
    becomes: RunStrategy | None = None


def judge(verb: VmVerb, record: VmRecord, *, force: bool = False) -> Verdict:
    """Return whether a VM as it is now can be told so."""
    refused = _REFUSALS[verb](record, force)
    return Verdict(refused) if refused else Verdict(becomes=_becomes(verb, record.spec.run_strategy))


def _becomes(verb: VmVerb, strategy: RunStrategy) -> RunStrategy | None:
    if verb is VmVerb.START and strategy is RunStrategy.HALTED:
        return RunStrategy.ALWAYS
    if verb is VmVerb.STOP and strategy in (RunStrategy.ALWAYS, RunStrategy.ONCE):
        return RunStrategy.HALTED
    return None


def _start(record: VmRecord, _force: bool) -> str:  # noqa: FBT001 (one shape for all verbs)
    if record.run_open:
        state = "is being stopped" if record.stopping else f"has a run on {record.owner} ({record.phase})"
        return f"VM {record.name} {state}; restart it, or wait until it is down"
    if record.spec.run_strategy is RunStrategy.ONCE and record.ever_ran:
        return f"VM {record.name} has run, and runStrategy Once means once; change spec.runStrategy to start it again"
    return ""


def _stop(record: VmRecord, force: bool) -> str:  # noqa: FBT001 (one shape for all verbs)
    """With force a stop that is under way may be made a hard one, under Halted too."""
    hastens = force and record.run_open
    if record.spec.run_strategy is RunStrategy.HALTED and not hastens:
        return f"VM {record.name} is ordered to be down already (runStrategy Halted)"
    if not record.run_open:
        return f"VM {record.name} does not run ({record.phase}); to keep it down set spec.runStrategy to Halted"
    if record.stopping is RunOutcome.STOPPED and not force:
        return f"VM {record.name} is being stopped; --force does not wait for the guest"
    return ""


def _restart(record: VmRecord, force: bool) -> str:  # noqa: FBT001 (one shape for all verbs)
    if record.spec.run_strategy in (RunStrategy.HALTED, RunStrategy.ONCE):
        return f"VM {record.name} has runStrategy {record.spec.run_strategy}, which allows no restart"
    if not record.run_open:
        return f"VM {record.name} does not run ({record.phase}); start it"
    if record.stopping is not None and not force:
        return f"VM {record.name} is being stopped; wait until it is down, or use --force"
    return ""


def _pause(record: VmRecord, _force: bool) -> str:  # noqa: FBT001 (one shape for all verbs)
    if not record.run_open or record.phase is not VmPhase.RUNNING:
        return f"VM {record.name} is {record.phase}; only a running VM can be paused"
    return ""


def _unpause(record: VmRecord, _force: bool) -> str:  # noqa: FBT001 (one shape for all verbs)
    if not record.run_open or (record.phase is not VmPhase.PAUSED and record.pause_asked is not VmVerb.PAUSE):
        return f"VM {record.name} is {record.phase}; only a paused VM can go on"
    return ""


_REFUSALS: dict[VmVerb, Callable[[VmRecord, bool], str]] = {
    VmVerb.START: _start,
    VmVerb.STOP: _stop,
    VmVerb.RESTART: _restart,
    VmVerb.PAUSE: _pause,
    VmVerb.UNPAUSE: _unpause,
}
