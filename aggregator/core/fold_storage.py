"""How events change what is known of storages that are not reached. Assigns to the state; called by fold only."""

from __future__ import annotations

from collections.abc import Callable

from aggregator.core import events as ev
from aggregator.core.events import Event
from aggregator.core.objects import Taint, TaintEffect
from aggregator.core.state import NodeRecord, State, StorageAnswer, StorageLoss
from fleet.storage import lies_on

ABOUT = "storage "
TAINT = "virtward/storage-unreachable"


def take_reaches(state: State, node: NodeRecord, at: float) -> None:
    """Note which storages the node says it does not reach; one it lost earlier keeps its time."""
    lost = [reach.storage for reach in (node.facts.storages if node.facts is not None else ()) if not reach.reached]
    back = [name for name in node.storage_lost if name not in lost]
    node.storage_lost = {name: node.storage_lost.get(name, at) for name in lost}
    for vm in state.vms.values() if back else ():
        if vm.owner == node.name and any(lies_on(disk.identity, name) for disk in vm.disks for name in back):
            vm.resumed_at = []  # what was tried before the storage came back says nothing of now


def take_answer(loss: StorageLoss, event: ev.ProbeAnswered) -> None:
    """Note what a peer that was asked said."""
    if event.results:
        asked_at = event.at - max(result.asked_ago_s for result in event.results)
        reached = any(result.answered for result in event.results)
        loss.answers[event.prober] = StorageAnswer(reached, asked_at)


def begin(state: State, event: ev.IncidentOpened) -> None:
    """Keep together what is found out about one storage, from the incident's first line."""
    name = event.about.removeprefix(ABOUT)
    state.storage_losses[name] = StorageLoss(name, event.incident)
    state.incidents[event.incident].vms = [
        vm.name for vm in state.vms.values() if vm.bindings and any(lies_on(disk.identity, name) for disk in vm.disks)
    ]


def end(state: State, incident: str) -> None:
    """Forget the storage whose incident is over."""
    for name in [name for name, loss in state.storage_losses.items() if loss.incident == incident]:
        del state.storage_losses[name]


def _asked(state: State, event: ev.StorageAsked) -> None:
    state.counters["probe"] = max(state.counters.get("probe", 0), int(event.probe_id.rsplit("-", 1)[1]))
    state.storage_losses[event.storage].asked_at = event.at


def _outage_changed(state: State, event: ev.StorageOutageChanged) -> None:
    loss = state.storage_losses[event.storage]
    loss.many = event.many
    loss.few_since = loss.few_since if event.many else event.at


def _lost(state: State, event: ev.StorageLost) -> None:
    node = state.nodes[event.node]
    node.storage_marked = event.storages
    mark(node, event.at)


def _back(state: State, event: ev.StorageBack) -> None:
    node = state.nodes[event.node]
    node.storage_marked = ()
    mark(node, event.at)


def mark(node: NodeRecord, at: float) -> None:
    """Set or clear the node's taint; the others keep their place."""
    kept = tuple(taint for taint in node.taints if taint.key != TAINT)
    old = [taint for taint in node.taints if taint.key == TAINT]
    fresh = Taint(key=TAINT, effect=TaintEffect.NO_SCHEDULE, time_added=f"{at:.3f}")
    node.taints = (*kept, *(old or [fresh])) if node.storage_marked else kept


HANDLERS: dict[type[Event], Callable[..., None]] = {
    ev.StorageAsked: _asked,
    ev.StorageOutageChanged: _outage_changed,
    ev.StorageLost: _lost,
    ev.StorageBack: _back,
}
