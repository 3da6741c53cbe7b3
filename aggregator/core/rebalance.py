"""Moves of running VMs for balance: which one would be next, and whether it may be made now.

LowNodeUtilization spreads, HighNodeUtilization empties nodes so that they can be switched off, NoScoring never
moves anything. One move at a time, none while anything in the fleet is failing or being changed, none against a
rule of placement, its own or another VM's. The state needs no memory of an imbalance: what is requested of two
nodes is the same as long as nobody came to them or left them, and both times are known. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from aggregator.core.arming import acts
from aggregator.core.calm import why_not_calm
from aggregator.core.config import share_of
from aggregator.core.draft import Draft
from aggregator.core.events import MigrationChanged, MigrationPhase, MigrationQueued
from aggregator.core.eviction import MOVED_LIVE, can_be_evicted, eviction_of
from aggregator.core.fold_moves import ENDED
from aggregator.core.labels import HOSTNAME
from aggregator.core.lookups import bound_to, counts_from, doubt_over_at, grace_over
from aggregator.core.migratable import why_not_migratable
from aggregator.core.seating import seat_table, vm_seat
from aggregator.core.seats import migration_targets, place_moves
from aggregator.core.state import MigrationRecord, State, VmRecord
from aggregator.placement.balance import fills, load_of, spreads
from aggregator.placement.selectors import Selector, compile_selector, selects
from aggregator.placement.types import HIGH_NODE_UTILIZATION, LOW_NODE_UTILIZATION

PRIORITY_REBALANCE = 20
HOUR_S = 3600.0
JUDGED_MAX = 64  # VMs that placement is asked about at one look
REASON = "rebalance"


class Move(NamedTuple):
    """A move that would be better. due: fleet time in seconds from when it may be made; why: for people."""

    due: float
    fullest: float  # of both ends afterwards, as a share
    taken: float  # of the target afterwards
    vm: str
    source: str
    target: str
    why: str


class _Counted(NamedTuple):
    """A rule of some VM that counts others: those it selects may not leave their domain of the key."""

    vm: str
    selector: Selector
    key: str


def decide_rebalance(draft: Draft) -> None:
    """Queue the next move if the mode is Auto and it is due; call one off that has not begun when things go wrong."""
    state, settings = draft.state, draft.state.config.rebalance
    own = [m for m in state.migrations.values() if m.priority == PRIORITY_REBALANCE and m.phase not in ENDED]
    auto = settings.mode == "Auto"
    if not auto and not own:
        return
    why = why_not_calm(state, draft.now, own) if auto else f"rebalance.mode is {settings.mode}"
    if why:
        _call_off(draft, own, why)
        _look_when_calm(draft)
        return
    if own or not draft.due(next_allowed_at(state, draft.now)):
        return
    move = next_move(state, draft.now)
    if move is not None and draft.due(move.due):
        draft.add(
            MigrationQueued(
                at=draft.now,
                migration=draft.new_id("mig"),
                vm=move.vm,
                source=move.source,
                target=move.target,
                priority=PRIORITY_REBALANCE,
                reason=f"{REASON}: {move.why}",
                cause=state.vms[move.vm].fact,
            )
        )


def _call_off(draft: Draft, own: list[MigrationRecord], why: str) -> None:
    for migration in own:
        if migration.phase is MigrationPhase.QUEUED:
            draft.add(
                MigrationChanged(
                    at=draft.now,
                    migration=migration.name,
                    vm=migration.vm,
                    phase=MigrationPhase.CANCELLED,
                    reason=f"{REASON} waits: {why}",
                    cause=draft.state.position,
                )
            )


def _look_when_calm(draft: Draft) -> None:
    """Whatever else keeps things from being calm ends by an event."""
    state = draft.state
    if not grace_over(state, draft.now):
        draft.look_again(counts_from(state) + state.config.startup_grace.at_most)
    draft.look_again(doubt_over_at(state))


def next_allowed_at(state: State, now: float) -> float:
    """Return from when (fleet seconds) one more move keeps within rebalance.movesPerHourMax; inf if none is allowed."""
    most = state.config.rebalance.moves_per_hour_max
    made = sorted(m.created for m in state.migrations.values() if m.priority == PRIORITY_REBALANCE)
    if most == 0:
        return float("inf")
    return made[-most] + HOUR_S if len(made) >= most else now


def next_move(state: State, now: float) -> Move | None:
    """Return the move that would be made next under the active profile, if nothing else happens; None: all is well.

    Of those that are due, the one that leaves the fuller of its ends least full; if none is, the one that is due first.
    """
    if not acts(state) or state.config.profile not in (LOW_NODE_UTILIZATION, HIGH_NODE_UTILIZATION):
        return None
    counted = list(_counted(state))
    found = _emptying(state, counted) if state.config.profile == HIGH_NODE_UTILIZATION else _spreading(state, counted)
    return min(found, key=lambda move: (max(move.due, now), *move[1:]), default=None)


def _spreading(state: State, counted: list[_Counted]) -> Iterator[Move]:
    """Yield the moves off the fullest node from which there is any."""
    table, margin = seat_table(state), _margin(state)
    judged = 0
    names = sorted(_in_use(state), key=lambda name: (-load_of(table, name).fullest, name))
    for source in names:
        better = False
        for vm in sorted(bound_to(state, source), key=lambda vm: (-max(vm.memory_bytes, vm.cpu_m * 2**20), vm.name)):
            seat = vm_seat(vm)
            if not any(name != source and spreads(table, seat, source, name, margin) for name in names):
                continue
            if not _may_move(state, vm, source):
                continue
            judged += 1
            if judged > JUDGED_MAX:
                return
            for target in migration_targets(state, vm, source).feasible:
                if spreads(table, seat, source, target, margin) and _keeps(state, counted, vm, source, target):
                    better = True
                    yield _move(state, vm, source, target)
        if better:
            return


def _emptying(state: State, counted: list[_Counted]) -> Iterator[Move]:
    """Yield the first move off the least used node of which every VM has room on fuller ones."""
    table, room = seat_table(state), 1.0 - _margin(state)
    judged = 0
    used = [name for name in _in_use(state) if load_of(table, name).vms]
    for source in sorted(used, key=lambda name: (load_of(table, name).both, name)):
        vms = sorted(bound_to(state, source), key=lambda vm: (-vm.memory_bytes, -vm.cpu_m, vm.name))
        judged += len(vms)
        if judged > JUDGED_MAX:
            return
        if not all(_may_move(state, vm, source) for vm in vms):
            continue
        coming: dict[str, list[VmRecord]] = {}
        for vm, verdict in zip(vms, place_moves(state, vms, source), strict=True):
            target = verdict.node
            if target is None or not fills(table, source, target) or not _keeps(state, counted, vm, source, target):
                break
            coming.setdefault(target, []).append(vm)
        else:
            if all(_fits(state, target, their, room) for target, their in coming.items()):
                first = next(target for target, their in coming.items() if vms[0] in their)
                yield _move(state, vms[0], source, first)
                return


def _fits(state: State, target: str, vms: list[VmRecord], room: float) -> bool:
    """Return whether a node is left with the margin free once all these have come."""
    table = seat_table(state)
    now = load_of(table, target)
    each = [load_of(table, target, come=vm_seat(vm)) for vm in vms]
    cpu = now.cpu + sum(load.cpu - now.cpu for load in each)
    memory = now.memory + sum(load.memory - now.memory for load in each)
    return max(cpu, memory) <= room


def _move(state: State, vm: VmRecord, source: str, target: str) -> Move:
    table, seat = seat_table(state), vm_seat(vm)
    here, there = load_of(table, source), load_of(table, target)
    taken = load_of(table, target, come=seat).fullest
    after = max(load_of(table, source, gone=seat).fullest, taken)
    used = f"{source} is {here.fullest:.0%} requested, {target} {there.fullest:.0%}"
    empties = state.config.profile == HIGH_NODE_UTILIZATION
    why = f"{used}; {source} can be emptied" if empties else f"{used}; both are at most {after:.0%} afterwards"
    hold = state.config.rebalance.hold
    due = max(_steady_since(state, source) + hold, _steady_since(state, target) + hold, _cooled_at(state, vm))
    return Move(due, after, taken, vm.name, source, target, why)


def _margin(state: State) -> float:
    return share_of(state.config.rebalance.margin, 100) / 100.0


def _in_use(state: State) -> list[str]:
    slots = seat_table(state).columns.slot_of
    return [node.name for node in state.nodes.values() if node.name in slots and not node.drain and node.facts]


def _steady_since(state: State, name: str) -> float:
    """Return when somebody came to the node or left it last, or it became what it is."""
    node = state.nodes[name]
    came = [each.since for vm in bound_to(state, name) for each in vm.bindings if each.node == name]
    return max([node.left_at, node.state_since, *came])


def _cooled_at(state: State, vm: VmRecord) -> float:
    ended = [m.ended for m in state.migrations.values() if m.vm == vm.name]
    return max([*(each.since for each in vm.bindings), *ended]) + state.config.rebalance.cooldown


def _may_move(state: State, vm: VmRecord, source: str) -> bool:
    """Return whether the VM runs there, could be live-migrated, and its eviction strategy lets it."""
    if not can_be_evicted(vm, source) or vm.eviction is not None or len(vm.bindings) != 1 or vm.deleting:
        return False
    return eviction_of(state, vm) in MOVED_LIVE and not why_not_migratable(state, vm)


def _counted(state: State) -> Iterator[_Counted]:
    """Yield the hard rules that would be broken by a VM that goes, not by one that comes."""
    for vm in state.vms.values():
        affinity = vm.spec.affinity.vm_affinity if vm.spec.affinity is not None else None
        for term in affinity.required if affinity is not None else ():
            yield _Counted(vm.name, compile_selector(term.label_selector), term.topology_key)
        yield from _counted_by_spread(vm)


def _counted_by_spread(vm: VmRecord) -> Iterator[_Counted]:
    hard = [each for each in vm.spec.topology_spread_constraints if each.when_unsatisfiable == "DoNotSchedule"]
    affinity = vm.spec.affinity.node_affinity if vm.spec.affinity is not None else None
    everywhere = len(hard) == 1 and not vm.spec.node_selector and affinity is None
    for spread in hard:  # one that counts on some nodes of a domain only could be skewed by a move inside it, too
        yield _Counted("", compile_selector(spread.label_selector), spread.topology_key if everywhere else HOSTNAME)


def _keeps(state: State, counted: list[_Counted], vm: VmRecord, source: str, target: str) -> bool:
    """Return whether the VM stays in the domain in which other VMs' hard rules count on it."""
    here, there = state.nodes[source].labels, state.nodes[target].labels
    return not any(
        rule.vm != vm.name
        and selects(rule.selector, vm.labels)
        and (rule.key == HOSTNAME or here.get(rule.key) != there.get(rule.key))
        for rule in counted
    )
