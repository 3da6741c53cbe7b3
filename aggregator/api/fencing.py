"""A person fences: orders the ladder, or vouches that a node is off or that a VM runs nowhere.

What a person vouches for is a proof like any other, so it is refused while anything speaks against
it, unless the name is typed again (safety.md, proofs).
"""

from __future__ import annotations

from aiohttp import web

from aggregator.api.calls import Call, answer, only, truth, word
from aggregator.api.lists import one
from aggregator.api.nodes import node_record
from aggregator.api.problems import conflict
from aggregator.api.router import Route
from aggregator.api.vm_state import vm_record
from aggregator.api.writes import commit
from aggregator.core.arming import acts
from aggregator.core.events import Event, FenceRequested, OffConfirmed, PowerAnswer, VmGoneConfirmed
from aggregator.core.fencing import why_no_fence
from aggregator.core.lookups import ALIVE, counts_from, current_report
from aggregator.core.moments import span
from aggregator.core.state import NodeRecord, State, VmRecord
from fleet.lease import MARGIN_SHARE

PEER_ANSWER_S_MAX = 60.0


async def fence(call: Call) -> web.StreamResponse:
    """Fence a node by its ladder, or (confirmOff) take a person's word that it is off."""
    options = await call.options()
    only(options, "confirmOff", "typedName")
    confirm_off, typed = truth(options, "confirmOff"), word(options, "typedName")

    def make(state: State, now: float) -> Event | None:
        record = node_record(state, call.name)
        if record.inert is not None and not state.behind:
            raise conflict(f"node {call.name} is proven inert already ({record.inert.proof}: {record.inert.detail})")
        if not confirm_off:
            _refuse_ladder(state, record)
            return FenceRequested(at=now, name=call.name, who=call.who)
        doubt = speaks_against_off(state, record, now)
        if doubt and typed != call.name:
            raise conflict(
                f"node {call.name} does not look off: {doubt}; "
                "if you have seen with your own eyes that it is, type its name again"
            )
        return OffConfirmed(at=now, name=call.name, who=call.who)

    state, _ = await commit(call, make)
    return answer(one(state, "nodes", call.name))


def _refuse_ladder(state: State, record: NodeRecord) -> None:
    if not record.spec.fencing:
        raise conflict(
            f"node {record.name} has no fence device in spec.fencing; "
            f"switch it off by hand and vouch for it: virtward fence {record.name} --confirm-off"
        )
    if not acts(state):
        raise conflict(
            "the fleet only observes (mode Observe), so nothing is fenced; begin with: virtward config set mode=Act"
        )
    if why := why_no_fence(record):
        raise conflict(why)


def speaks_against_off(state: State, record: NodeRecord, now: float) -> str:
    """Return what shows that a node is not off, empty if nothing does."""
    if record.connected and now - record.last_sign < state.config.suspect_after:
        return f"its agent was heard {span(now - record.last_sign)} ago"
    waited = now - counts_from(state)
    if not record.seen and record.machine_id and waited < state.config.lost_after:
        return f"this aggregator started {span(waited)} ago, so the node has had no time to speak yet"
    if record.suspicion is None:
        return ""
    for where, at in sorted(record.suspicion.answered.items()):
        if now - at < PEER_ANSWER_S_MAX:
            return f"a peer got an answer from it {span(now - at)} ago ({where})"
    newest = {read.rung: read for read in record.suspicion.reads}
    for rung, read in sorted(newest.items()):
        if read.answer is PowerAnswer.ON:
            return f"its fence device (rung {rung + 1}) said On {span(now - read.answered_at)} ago"
    return ""


async def confirm_gone(call: Call) -> web.StreamResponse:
    """Take a person's word that no QEMU of this VM is left on any node it is bound to."""
    options = await call.options()
    only(options, "typedName")
    typed = word(options, "typedName")

    def make(state: State, now: float) -> Event | None:
        record = vm_record(state, call.name)
        if not record.bindings:
            raise conflict(f"VM {call.name} is bound to no node, so there is nothing to vouch for")
        seen = _seen_alive(state, record) or _may_come_back(state, record, now)
        if seen and typed != call.name:
            raise conflict(f"VM {call.name} is not gone: {seen}; if you know better, type its name again (typedName)")
        return VmGoneConfirmed(at=now, name=call.name, who=call.who)

    state, _ = await commit(call, make)
    return answer(one(state, "vms", call.name))


def _seen_alive(state: State, record: VmRecord) -> str:
    for binding in record.bindings:
        report = current_report(state, record, binding.node)
        if report is not None and report.state in ALIVE:
            return f"{binding.node} reports it {report.state}"
    return ""


def _may_come_back(state: State, record: VmRecord, now: float) -> str:
    """Return why a run that failed may yet be begun again by its node's agent, under a lease that it may still have."""
    node = state.nodes.get(record.owner)
    if node is None or not record.isolation_told.restart:
        return ""
    heard_at = max(node.last_sign, state.started_at)  # the last life of the aggregator may have answered until then
    ends_at = heard_at + record.isolation_told.after_s * (1 + MARGIN_SHARE)
    if now >= ends_at:
        return ""
    return f"the agent of {node.name} may start it again by itself for another {span(ends_at - now)}"


ROUTES = [
    Route("POST", "/api/v1/nodes/{name}:fence", fence, "fence a node, or vouch that it is off", "FenceOrder", "Node"),
    Route(
        "POST",
        "/api/v1/vms/{name}:confirmGone",
        confirm_gone,
        "vouch that no run of a VM is left",
        "GoneOrder",
        "VirtualMachine",
    ),
]
