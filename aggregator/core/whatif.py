"""What would happen if nodes were lost now, and whether the fleet could bear the loss of each of its parts (N+1).

In two halves: `ask` and `ask_all` copy what they need out of the state, `answer` and `answer_all` think about the copy,
on another thread if that is wanted. Nothing here changes the state. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from msgspec import Struct, structs

from aggregator.core.nodes import brake_limit
from aggregator.core.seats import FleetSeats, fleet_seats, place_lost
from aggregator.core.state import State, VmRecord
from aggregator.core.views_vm import BACK_BY_ITSELF, fencing_problem, is_fenceable, unprotected
from aggregator.placement.types import PlacementVm, Verdict

STAYS = ("ObserveMode", "RunStrategy", "LocalDisk", "HostDevice", "TpmState", "NvramState")
"""Reasons of the condition Protected that keep a VM down wherever there is room."""
READINGS_S = 1.3  # a fence device that says off is asked again a second later, and answers in 0.15 s (measured)
OFF_S = 2.3  # of an off order, and of reading it (measured with IPMI)
START_S = 1.0  # from the order to a QEMU whose CPUs run (measured, small guests)
PART_SOLVER_BUDGET_S_MAX = 0.05  # of re-seating, for each part of the standing report: a full fleet has hundreds
DOMAINS = ("virtward/rack", "virtward/zone")


class VmFate(Struct, frozen=True, rename="camel"):
    """One VM of a lost node. node: where it would start; None: nowhere, and why. note: what it takes besides."""

    vm: str
    lost_on: str
    node: str | None
    why: str = ""
    note: str = ""
    rejected: dict[str, tuple[str, ...]] = {}


class Estimate(Struct, frozen=True, rename="camel"):
    """Seconds from the fault to the last QEMU running. power_lost: the device says off; hung: it says on."""

    power_lost_s: float
    hung_s: float
    made_of: str


class WhatIf(Struct, frozen=True, rename="camel"):
    """The answer. brake: why nobody would be convicted, empty if that would go by itself."""

    failed: tuple[str, ...]
    vms: tuple[VmFate, ...]
    brake: str
    estimate: Estimate


class Question(Struct, frozen=True):
    """All that an answer needs, copied out of the state."""

    failed: tuple[str, ...]
    seats: FleetSeats
    lost: tuple[PlacementVm, ...]  # that would start elsewhere, if there is room
    stay: tuple[VmFate, ...]
    lost_on: dict[str, str]  # VM -> failed node
    notes: dict[str, str]  # failed node -> what its loss takes besides
    brake: str
    times: Times


class Times(Struct, frozen=True):
    """Settings that an estimate is made of, in seconds and counts."""

    suspect_s: float
    lost_s: float
    per_node_max: int
    cluster_max: int
    fences_max: int


def ask(state: State, failed: Sequence[str]) -> Question:
    """Copy what the loss of these nodes, all known, is to be thought through with."""
    seats = fleet_seats(state)
    lost, stay, lost_on = [], [], {}
    for vm in state.vms.values():
        node = _lost_on(vm, failed)
        if not node:
            continue
        reason, sentence = unprotected(state, vm)
        if reason in STAYS:
            stay.append(VmFate(vm.name, node, None, sentence))
        else:
            lost.append(seats.vms[vm.name])
            lost_on[vm.name] = node
    notes = {name: _note(state, name) for name in failed}
    return Question(
        tuple(failed), seats, tuple(lost), tuple(stay), lost_on, notes, _brake(state, failed), _times(state)
    )


def _lost_on(vm: VmRecord, failed: Sequence[str]) -> str:
    return vm.owner if vm.run_open and vm.owner in failed and not vm.deleting else ""


def _note(state: State, name: str) -> str:
    node = state.nodes[name]
    return "" if is_fenceable(node) else f"only once a person confirms that {name} is off: {fencing_problem(node)}"


def _brake(state: State, failed: Sequence[str]) -> str:
    limit = brake_limit(state)
    if len(failed) <= limit:
        return ""
    return (
        f"{len(failed)} nodes at once are more than the brake lets through ({limit}): none that hangs is fenced "
        "without a person; those whose fence device says off by itself are recovered all the same"
    )


def _times(state: State) -> Times:
    config = state.config
    recovery = config.recovery
    return Times(
        config.suspect_after,
        config.lost_after,
        recovery.per_node_max,
        recovery.cluster_max,
        config.fences_in_flight_max,
    )


def answer(question: Question) -> WhatIf:
    """Think it through."""
    verdicts = place_lost(question.seats.table(), question.seats, question.failed, question.lost)
    fates = [_fate(question, verdict) for verdict in verdicts]
    placed = [fate.node for fate in fates if fate.node is not None]
    vms = tuple(sorted((*fates, *question.stay), key=lambda fate: fate.vm))
    return WhatIf(question.failed, vms, question.brake, _estimate(question, placed))


def _fate(question: Question, verdict: Verdict) -> VmFate:
    lost_on = question.lost_on[verdict.vm]
    if verdict.node is not None:
        return VmFate(verdict.vm, lost_on, verdict.node, note=question.notes[lost_on])
    rejected = {node: rules for node, rules in verdict.rejected.items() if node not in question.failed}
    return VmFate(verdict.vm, lost_on, None, refusal_words(rejected), rejected=rejected)


def refusal_words(rejected: dict[str, tuple[str, ...]]) -> str:
    """Return why no node takes a VM, in one sentence: the rules and how many nodes each of them turns away."""
    count: dict[str, int] = {}
    for rules in rejected.values():
        for rule in rules:
            count[rule] = count.get(rule, 0) + 1
    words = ", ".join(
        f"{rule} on {nodes}" for rule, nodes in sorted(count.items(), key=lambda item: (-item[1], item[0]))
    )
    return f"no node takes it ({words})" if words else "there is no other node"


def _estimate(question: Question, placed: Sequence[str]) -> Estimate:
    times = question.times
    fullest = max((placed.count(node) for node in dict.fromkeys(placed)), default=0)
    waves = max(ceil(fullest / times.per_node_max), ceil(len(placed) / times.cluster_max))
    fences = ceil(len(question.failed) / times.fences_max)
    return Estimate(
        power_lost_s=round(times.suspect_s + READINGS_S + waves * START_S, 1),
        hung_s=round(times.lost_s + fences * (OFF_S + READINGS_S) + waves * START_S, 1),
        made_of=(
            f"suspectAfter {times.suspect_s:g} s or lostAfter {times.lost_s:g} s, {OFF_S:g} s for an off order where "
            f"one is needed, {READINGS_S:g} s for two readings, {waves} x {START_S:g} s for starts; "
            "what guests need to boot is not in it"
        ),
    )


# --- N+1


class Part(Struct, frozen=True):
    """A part of the fleet that may be lost as a whole: a node, or the nodes of one rack or zone."""

    kind: str  # node | rack | zone
    name: str
    nodes: tuple[str, ...]


class PartReadiness(Struct, frozen=True, rename="camel"):
    """Whether a part's loss could be borne. vms: how many would start elsewhere; unplaced: which not, and why."""

    kind: str
    name: str
    nodes: int
    vms: int
    unplaced: dict[str, str]


class Readiness(Struct, frozen=True, rename="camel"):
    """The standing report. at: fleet time of the state it is about; took_s: how long it was thought about."""

    at: float
    parts: tuple[PartReadiness, ...]
    took_s: float = 0.0

    @property
    def uncovered(self) -> list[PartReadiness]:
        """The parts that not all VMs would come back of."""
        return [part for part in self.parts if part.unplaced]


class AllQuestions(Struct, frozen=True):
    """All that a report needs, copied out of the state."""

    at: float
    seats: FleetSeats
    parts: tuple[Part, ...]
    lost: dict[str, tuple[PlacementVm, ...]]  # node -> its VMs that would start elsewhere


def ask_all(state: State, now: float) -> AllQuestions:
    """Copy what the loss of each part is to be thought through with."""
    seats = fleet_seats(state)
    budget_s = min(seats.settings.solver_budget_s, PART_SOLVER_BUDGET_S_MAX)
    seats = structs.replace(seats, settings=structs.replace(seats.settings, solver_budget_s=budget_s))
    lost: dict[str, list[PlacementVm]] = {}
    for vm in state.vms.values():
        if vm.run_open and not vm.deleting and vm.spec.run_strategy in BACK_BY_ITSELF and vm.owner in state.nodes:
            lost.setdefault(vm.owner, []).append(seats.vms[vm.name])
    parts = [Part("node", name, (name,)) for name in state.nodes]
    for key in DOMAINS:
        named: dict[str, list[str]] = {}
        for node in state.nodes.values():
            if key in node.labels:
                named.setdefault(node.labels[key], []).append(node.name)
        parts += [Part(key.partition("/")[2], value, tuple(nodes)) for value, nodes in sorted(named.items())]
    return AllQuestions(now, seats, tuple(parts), {name: tuple(vms) for name, vms in lost.items()})


def answer_all(questions: AllQuestions) -> Readiness:
    """Think all parts through, one after the other over one table."""
    table = questions.seats.table()
    found = []
    for part in questions.parts:
        lost = [vm for name in part.nodes for vm in questions.lost.get(name, ())]
        verdicts = place_lost(table, questions.seats, part.nodes, lost) if lost else []
        unplaced = {verdict.vm: _refusal_beyond(part, verdict) for verdict in verdicts if verdict.node is None}
        found.append(PartReadiness(part.kind, part.name, len(part.nodes), len(lost), unplaced))
    return Readiness(questions.at, tuple(found))


def _refusal_beyond(part: Part, verdict: Verdict) -> str:
    return refusal_words({node: rules for node, rules in verdict.rejected.items() if node not in part.nodes})
