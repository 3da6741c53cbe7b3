"""One host has lost a shared storage that others reach (safety.md, Evidence).

The node is tainted; after storageLossAfter its VMs that stand still because of it are ended, for a
recorded reason, and started elsewhere once they are gone. What does not lie on that storage is moved
live. A QEMU that does not end hangs in its host's kernel: once nothing else runs there the node is
fenced. Lost by more nodes than the brake lets through, nothing is done: there is an incident.
Storage that is back lets its VMs run on where they are. Pure.
"""

from __future__ import annotations

from aggregator.core.actions import SendProbe
from aggregator.core.arming import why_held
from aggregator.core.draft import Draft
from aggregator.core.events import (
    IncidentClosed,
    IncidentNoted,
    IncidentOpened,
    MigrationPhase,
    MigrationQueued,
    NodeState,
    RunOutcome,
    StopDecided,
    StorageAsked,
    StorageBack,
    StorageLost,
    StorageOutageChanged,
)
from aggregator.core.fencing import why_not_shot
from aggregator.core.fold_storage import ABOUT
from aggregator.core.lookups import (
    bound_to,
    can_order,
    current_report,
    doubt_over_at,
    grace_over,
    open_orders,
    pinned_to,
)
from aggregator.core.lost_storage import (
    is_lost_by_many,
    is_stopped_by,
    losers,
    lost_under,
    reached_by_others,
    reaches,
    storages_of,
)
from aggregator.core.migratable import why_not_migratable
from aggregator.core.nodes import step
from aggregator.core.seats import migration_targets
from aggregator.core.state import NodeRecord, State, StorageLoss, VmRecord
from fleet.messages import ProbeAddress, ProbeRequest, UnpauseVm
from fleet.model import EvictionStrategy, Plane, QemuState, RunStrategy
from fleet.storage import servers_of

ASK_EVERY_S = 3.0
PROBERS_MAX = 10
MARK_AFTER_S = 6.0  # the other nodes' agents have had the time to notice, too
STOP_S_MAX = 45.0  # libvirt takes up to 25 s to end a QEMU, an agent gives it 40
RESUMES_MAX = 5
RESUME_STEP_S = 10.0
PRIORITY_STORAGE = 100


def decide_storage(draft: Draft) -> None:
    """Gather evidence about storages that are not reached, taint, recover, and let run on what is back."""
    state = draft.state
    lost = list(dict.fromkeys(name for node in state.derived.active_nodes for name in node.storage_lost))
    for name in lost:
        loss = state.storage_losses.get(name)
        if loss is None:
            _open(draft, name)
        else:
            _count(draft, loss)
            _ask_peers(draft, loss)
    for loss in state.storage_losses.values():
        if loss.storage not in lost:
            why = f"every node reaches {loss.storage}"
            draft.add(IncidentClosed(at=draft.now, incident=loss.incident, reason=why))
    for node in state.derived.active_nodes:
        if node.state is NodeState.UP:
            _mark(draft, node)
    if not draft.transitions:
        _say(draft)


def decide_storage_recovery(draft: Draft) -> None:
    """Do what the policy says about nodes that have lost a storage alone."""
    state = draft.state
    for vm in state.derived.active_vms:
        _run_on(draft, vm)
    marked = [node for node in state.derived.active_nodes if node.storage_marked and node.state is NodeState.UP]
    if not marked or state.config.storage_loss_policy != "Recover":
        return
    if not grace_over(state, draft.now) or not draft.due(doubt_over_at(state)):
        return
    for node in marked:
        if not draft.transitions and not why_held(state, node=node.name) and _is_due(draft, node):
            _recover(draft, node)


def _open(draft: Draft, name: str) -> None:
    nodes = ", ".join(losers(draft, name))
    title = f"{nodes} no longer reaches {name}"
    opened = draft.new_id("inc")
    draft.add(IncidentOpened(at=draft.now, incident=opened, title=title, about=ABOUT + name))


def _count(draft: Draft, loss: StorageLoss) -> None:
    """Say when the brake's number of nodes is passed, and when it is not any more: then all times begin anew."""
    many = is_lost_by_many(draft, loss.storage)
    if many != loss.many:
        nodes = ", ".join(losers(draft, loss.storage))
        why = f"{nodes} have lost it" + ("" if many else " still: others reach it again")
        if many:
            why += ", more than the brake lets through: nothing is done"
        draft.add(StorageOutageChanged(at=draft.now, storage=loss.storage, many=many, reason=why))


def _lost_since(draft: Draft, node: NodeRecord, name: str) -> float:
    """Return since when the node has been without the storage while the others had it."""
    loss = draft.state.storage_losses.get(name)
    return max(node.storage_lost[name], loss.few_since if loss is not None else draft.now)


def _ask_peers(draft: Draft, loss: StorageLoss) -> None:
    """Ask the nodes that say nothing of a server by themselves. A mount is reported by whoever has it."""
    servers = servers_of(loss.storage)
    if not servers or not draft.due(loss.asked_at + ASK_EVERY_S):
        return
    addresses = tuple(ProbeAddress(Plane.STORAGE, server.kind, server.host, server.port) for server in servers)
    silent = sorted(
        node.name
        for node in draft.state.nodes.values()
        if node.state is NodeState.UP and node.connected and reaches(node, loss.storage) is None
    )
    for prober in silent[:PROBERS_MAX]:
        probe_id = draft.new_id("probe")
        draft.add(StorageAsked(at=draft.now, storage=loss.storage, probe_id=probe_id, prober=prober))
        draft.act(
            SendProbe(decided_at=draft.now, prober=prober, request=ProbeRequest(probe_id, loss.storage, addresses))
        )


def _mark(draft: Draft, node: NodeRecord) -> None:
    """Taint a node that lost a storage alone; the taint goes when the storage is back or others lost it, too."""
    kept = [name for name in node.storage_marked if name in node.storage_lost and not is_lost_by_many(draft, name)]
    fresh = [
        name
        for name in node.storage_lost
        if name not in kept
        and draft.due(_lost_since(draft, node, name) + MARK_AFTER_S)
        and reached_by_others(draft, name)
        and not is_lost_by_many(draft, name)
    ]
    marked = (*kept, *fresh)
    if marked and marked != node.storage_marked:
        why = f"{node.name} does not reach {', '.join(marked)}, and other nodes do"
        draft.add(StorageLost(at=draft.now, node=node.name, storages=marked, reason=why, cause=node.fact))
    elif node.storage_marked and not marked:
        back = not any(name in node.storage_lost for name in node.storage_marked)
        why = "it is reached again" if back else "more nodes than the brake lets through do not reach it"
        draft.add(StorageBack(at=draft.now, node=node.name, reason=why, cause=node.fact))


def _is_due(draft: Draft, node: NodeRecord) -> bool:
    """Return whether the node has been without a storage that others reach for long enough."""
    after = draft.state.config.storage_loss_after
    return any(
        name in node.storage_lost
        and draft.due(_lost_since(draft, node, name) + after)
        and reached_by_others(draft, name)
        for name in node.storage_marked
    )


def _recover(draft: Draft, node: NodeRecord) -> None:
    """End what stands still and restarts elsewhere, move the rest, and fence what does not end."""
    for vm in bound_to(draft.state, node.name):
        if vm.owner != node.name or not vm.run_open or vm.stopping is not None or why_held(draft.state, vm=vm.name):
            continue
        if is_stopped_by(draft.state, node, vm):
            _end(draft, node, vm)
        elif not lost_under(node, vm):
            _move(draft, node, vm)
    stuck = stuck_vms(draft, node)
    if not draft.transitions and stuck and not _running_on(draft.state, node) and not why_not_shot(draft, node):
        names = ", ".join(vm.name for vm in stuck)
        step(draft, node, NodeState.FENCING, f"it has lost its storage, and {names} does not end there")


def _end(draft: Draft, node: NodeRecord, vm: VmRecord) -> None:
    """End a VM that would start elsewhere, and only if a node takes it."""
    starts_again = vm.spec.run_strategy in {RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE} and not vm.deleting
    if not starts_again or pinned_to(vm) or migration_targets(draft.state, vm, node.name).node is None:
        return
    names = ", ".join(lost_under(node, vm))
    why = f"{node.name} has not reached {names} for {draft.state.config.storage_loss_after:g} s, and other nodes do"
    draft.add(StopDecided(at=draft.now, vm=vm.name, outcome=RunOutcome.EVICTED, force=True, reason=why, cause=vm.fact))


def _move(draft: Draft, node: NodeRecord, vm: VmRecord) -> None:
    """Move a VM away that does not lie on the lost storage, if it may be moved."""
    state = draft.state
    strategy = vm.spec.eviction_strategy or EvictionStrategy(state.config.eviction_strategy)
    if vm.migration or strategy in {EvictionStrategy.NONE, EvictionStrategy.EXTERNAL}:
        return
    if why_not_migratable(state, vm) or not draft.due(_moved_again_at(state, vm)):
        return
    if migration_targets(state, vm, node.name).node is None:
        return
    draft.add(
        MigrationQueued(
            at=draft.now,
            migration=draft.new_id("mig"),
            vm=vm.name,
            source=node.name,
            priority=PRIORITY_STORAGE,
            reason=f"{node.name} has lost its storage",
            cause=vm.fact,
        )
    )


def _moved_again_at(state: State, vm: VmRecord) -> float:
    """Return when the VM may be moved again after its moves of this run failed."""
    limits = state.config.migration
    failed = [
        m.ended
        for m in state.migrations.values()
        if m.vm == vm.name and m.phase is MigrationPhase.FAILED and m.created >= vm.run_since
    ]
    return max(failed) + min(limits.retry_max, limits.retry_from * 2 ** (len(failed) - 1)) if failed else 0.0


def stuck_vms(draft: Draft, node: NodeRecord) -> list[VmRecord]:
    """Return the VMs whose QEMU was to end on the node long ago and is still there."""
    return [
        vm
        for vm in bound_to(draft.state, node.name)
        if vm.owner == node.name
        and vm.stopping is RunOutcome.EVICTED
        and vm.stop_force
        and draft.due(vm.stopping_since + STOP_S_MAX)
    ]


def _running_on(state: State, node: NodeRecord) -> list[str]:
    """Return the VMs that a fence of the node would hit although they do not stand still there."""
    return [
        vm.name
        for vm in bound_to(state, node.name)
        if vm.stopping is None and vm.run_open and not (vm.owner == node.name and is_stopped_by(state, node, vm))
    ]


def _run_on(draft: Draft, vm: VmRecord) -> None:
    """Let a guest run on that an I/O error paused, once all its storage is reached: a few times, ever later."""
    seen, node = vm.reports.get(vm.owner), draft.state.nodes.get(vm.owner)
    if seen is None or not seen.report.paused_on_io_error or node is None:
        return
    report = current_report(draft.state, vm, vm.owner)
    if report is None or report.state is not QemuState.PAUSED or why_held(draft.state, node.name, vm.name):
        return
    if not vm.run_open or vm.stopping is not None or vm.pause_asked is not None:
        return
    if vm.migration or node.state is not NodeState.UP or not can_order(node) or open_orders(draft.state, vm):
        return
    told = [reach.storage for reach in (node.facts.storages if node.facts is not None else ())]
    mine = storages_of(vm, told)
    tries = len(vm.resumed_at)
    if not mine or lost_under(node, vm) or tries >= RESUMES_MAX or not draft.due(vm.retry_at):
        return
    last_at = vm.resumed_at[-1] if tries else seen.at  # an agent needs some seconds to find its storage gone
    if not draft.due(last_at + RESUME_STEP_S * max(1, tries) ** 2):
        return
    why = f"{node.name} reaches {', '.join(mine)}"
    draft.order(node, vm, UnpauseVm(run=vm.run), epoch=vm.epoch, reason=why)


def _say(draft: Draft) -> None:
    """Say in each storage's incident what is being done, or what keeps it from being done."""
    for loss in draft.state.storage_losses.values():
        incident = draft.state.incidents.get(loss.incident)
        text, way = _words(draft, loss)
        if incident is not None and (incident.stuck, incident.way_out) != (text, way):
            draft.add(IncidentNoted(at=draft.now, incident=incident.name, text=text, way_out=way))


def _words(draft: Draft, loss: StorageLoss) -> tuple[str, str]:
    state, name = draft.state, loss.storage
    nodes = losers(draft, name)
    mend = f"mend the way from {', '.join(nodes)} to {name}; what is paused there runs on by itself"
    if is_lost_by_many(draft, name):
        return f"{', '.join(nodes)} do not reach {name}: more than the brake lets through, so nothing is done", mend
    if not reached_by_others(draft, name):
        return f"{', '.join(nodes)} does not reach {name}, and no other node says that it does: nothing is done", mend
    if state.config.storage_loss_policy == "Wait":
        return f"storageLossPolicy is Wait: what lies on {name} stays on {', '.join(nodes)}", mend
    for node in state.nodes.values():
        if name in node.storage_marked and (stuck := stuck_vms(draft, node)):
            return _stuck_words(draft, node, ", ".join(vm.name for vm in stuck))
    return f"{', '.join(nodes)} does not reach {name}, and other nodes do", mend


def _stuck_words(draft: Draft, node: NodeRecord, names: str) -> tuple[str, str]:
    confirm = f"switch {node.name} off and run: virtward fence {node.name} --confirm-off"
    running = _running_on(draft.state, node)
    if running:
        return (
            f"{names} does not end on {node.name}, which is not fenced while {', '.join(running)} runs there",
            confirm,
        )
    why = why_not_shot(draft, node)
    return f"{names} does not end on {node.name}" + (f", which is not fenced: {why}" if why else ""), confirm
