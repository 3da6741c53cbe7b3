"""What a person commands of a VM: start, stop, restart, pause, unpause (product.md, run strategies).

Where the table says that the spec changes, it is changed as an apply would, before the command.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from aggregator.api.calls import Call, answer, only, truth
from aggregator.api.lists import one
from aggregator.api.problems import conflict
from aggregator.api.router import Handler, Route
from aggregator.api.vm_state import living_vm
from aggregator.api.writes import commit
from aggregator.core.events import Event, RunOutcome, VmApplied, VmCommanded, VmPhase, VmVerb
from aggregator.core.state import State, VmRecord
from fleet.model import RunStrategy

Judge = Callable[[VmRecord, bool], RunStrategy | None]
"""(VM, force) -> the run strategy the spec becomes, None for no change. Problem 409 to refuse."""


def judge_start(record: VmRecord, _force: bool) -> RunStrategy | None:  # noqa: FBT001 (one shape for all verbs)
    """Judge `start`."""
    if record.run_open:
        state = "is being stopped" if record.stopping else f"has a run on {record.owner} ({record.phase})"
        raise conflict(f"VM {record.name} {state}; restart it, or wait until it is down")
    if record.spec.run_strategy is RunStrategy.ONCE and record.ever_ran:
        raise conflict(
            f"VM {record.name} has run, and runStrategy Once means once; change spec.runStrategy to start it again"
        )
    return RunStrategy.ALWAYS if record.spec.run_strategy is RunStrategy.HALTED else None


def judge_stop(record: VmRecord, force: bool) -> RunStrategy | None:  # noqa: FBT001 (one shape for all verbs)
    """Judge `stop`. With force a stop that is under way may be made a hard one, under Halted too."""
    hastens = force and record.run_open
    if record.spec.run_strategy is RunStrategy.HALTED and not hastens:
        raise conflict(f"VM {record.name} is ordered to be down already (runStrategy Halted)")
    if not record.run_open:
        raise conflict(
            f"VM {record.name} does not run ({record.phase}); to keep it down set spec.runStrategy to Halted"
        )
    if record.stopping is RunOutcome.STOPPED and not force:
        raise conflict(f"VM {record.name} is being stopped; --force does not wait for the guest")
    becomes_halted = record.spec.run_strategy in (RunStrategy.ALWAYS, RunStrategy.ONCE)
    return RunStrategy.HALTED if becomes_halted else None


def judge_restart(record: VmRecord, force: bool) -> RunStrategy | None:  # noqa: FBT001 (one shape for all verbs)
    """Judge `restart`."""
    if record.spec.run_strategy in (RunStrategy.HALTED, RunStrategy.ONCE):
        raise conflict(f"VM {record.name} has runStrategy {record.spec.run_strategy}, which allows no restart")
    if not record.run_open:
        raise conflict(f"VM {record.name} does not run ({record.phase}); start it")
    if record.stopping is not None and not force:
        raise conflict(f"VM {record.name} is being stopped; wait until it is down, or use --force")
    return None


def judge_pause(record: VmRecord, _force: bool) -> RunStrategy | None:  # noqa: FBT001 (one shape for all verbs)
    """Judge `pause`."""
    if not record.run_open or record.phase is not VmPhase.RUNNING:
        raise conflict(f"VM {record.name} is {record.phase}; only a running VM can be paused")
    return None


def judge_unpause(record: VmRecord, _force: bool) -> RunStrategy | None:  # noqa: FBT001 (one shape for all verbs)
    """Judge `unpause`."""
    if not record.run_open or (record.phase is not VmPhase.PAUSED and record.pause_asked is not VmVerb.PAUSE):
        raise conflict(f"VM {record.name} is {record.phase}; only a paused VM can go on")
    return None


def with_strategy(record: VmRecord, strategy: RunStrategy, now: float, who: str) -> VmApplied:
    """Return the VM as it is, with another run strategy."""
    return VmApplied(
        at=now,
        name=record.name,
        uuid=record.uuid,
        spec=msgspec.structs.replace(record.spec, run_strategy=strategy),
        labels=record.labels,
        annotations=record.annotations,
        disks=record.disks,
        cpu_m=record.cpu_m,
        memory_bytes=record.memory_bytes,
        who=who,
    )


def handler(verb: VmVerb, judge: Judge) -> Handler:
    """Return the handler of one verb."""

    async def command(call: Call) -> web.StreamResponse:
        options = await call.options()
        only(options, "force")
        force = truth(options, "force")
        wanted: list[RunStrategy | None] = []

        def change(state: State, now: float) -> Event | None:
            record = living_vm(state, call.name)
            wanted[:] = [judge(record, force)]
            return with_strategy(record, wanted[0], now, call.who) if wanted[0] else None

        def order(state: State, now: float) -> Event | None:
            record = living_vm(state, call.name)
            if not wanted[0]:
                judge(record, force)
            return VmCommanded(at=now, name=call.name, verb=verb, force=force, who=call.who)

        changed, _ = await commit(call, change)
        if not (call.dry_run and wanted[0]):
            changed, _ = await commit(call, order)
        return answer(one(changed, "vms", call.name))

    return command


_VERBS: tuple[tuple[VmVerb, Judge, str], ...] = (
    (VmVerb.START, judge_start, "start a VM; ends a CrashLoopBackOff"),
    (VmVerb.STOP, judge_stop, "shut a VM down; force: do not wait for the guest"),
    (VmVerb.RESTART, judge_restart, "shut a VM down and start it again"),
    (VmVerb.PAUSE, judge_pause, "hold a VM's CPUs"),
    (VmVerb.UNPAUSE, judge_unpause, "let a paused VM go on"),
)
ROUTES = [
    Route("POST", f"/api/v1/vms/{{name}}:{verb}", handler(verb, judge), summary, "VerbOrder", "VirtualMachine")
    for verb, judge, summary in _VERBS
]
