"""What a person commands of a VM: start, stop, restart, pause, unpause (product.md, run strategies).

Where the table says that the spec changes, it is changed as an apply would, before the command.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from aggregator.api.calls import Call, answer, only, truth
from aggregator.api.lists import one
from aggregator.api.problems import conflict
from aggregator.api.router import Handler, Route
from aggregator.api.vm_state import living_vm
from aggregator.api.writes import commit
from aggregator.core.commands import judge
from aggregator.core.events import Event, VmApplied, VmCommanded, VmVerb
from aggregator.core.state import State, VmRecord
from fleet.model import RunStrategy


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


def handler(verb: VmVerb) -> Handler:
    """Return the handler of one verb."""

    async def command(call: Call) -> web.StreamResponse:
        options = await call.options()
        only(options, "force")
        force = truth(options, "force")
        wanted: list[RunStrategy | None] = []

        def judged(record: VmRecord) -> RunStrategy | None:
            verdict = judge(verb, record, force=force)
            if verdict.refused:
                raise conflict(verdict.refused)
            return verdict.becomes

        def change(state: State, now: float) -> Event | None:
            record = living_vm(state, call.name)
            wanted[:] = [judged(record)]
            return with_strategy(record, wanted[0], now, call.who) if wanted[0] else None

        def order(state: State, now: float) -> Event | None:
            record = living_vm(state, call.name)
            if not wanted[0]:
                judged(record)
            return VmCommanded(at=now, name=call.name, verb=verb, force=force, who=call.who)

        changed, _ = await commit(call, change)
        if not (call.dry_run and wanted[0]):
            changed, _ = await commit(call, order)
        return answer(one(changed, "vms", call.name))

    return command


_VERBS: tuple[tuple[VmVerb, str], ...] = (
    (VmVerb.START, "start a VM; ends a CrashLoopBackOff"),
    (VmVerb.STOP, "shut a VM down; force: do not wait for the guest"),
    (VmVerb.RESTART, "shut a VM down and start it again"),
    (VmVerb.PAUSE, "hold a VM's CPUs"),
    (VmVerb.UNPAUSE, "let a paused VM go on"),
)
ROUTES = [
    Route("POST", f"/api/v1/vms/{{name}}:{verb}", handler(verb), summary, "VerbOrder", "VirtualMachine")
    for verb, summary in _VERBS
]
