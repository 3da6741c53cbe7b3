"""Questions about storage that some nodes do not reach, for all who decide by it. Read only.

A node's own word says what it does not reach; whether others do is told by their reports and by
peers that were asked. Nothing is concluded from a node that says nothing.
"""

from __future__ import annotations

from aggregator.core.draft import Draft
from aggregator.core.events import NodeState
from aggregator.core.lookups import current_report
from aggregator.core.nodes import brake_limit
from aggregator.core.state import NodeRecord, State, VmRecord
from fleet.storage import lies_on

ANSWER_FRESH_S = 10.0


def storages_of(vm: VmRecord, storages: list[str]) -> list[str]:
    """Return those of the storages that a writable disk of the VM lies on."""
    disks = [d for d in vm.disks + (vm.definition.disks if vm.definition is not None else ()) if d.writable]
    return [name for name in storages if any(lies_on(disk.identity, name) for disk in disks)]


def lost_under(node: NodeRecord, vm: VmRecord) -> list[str]:
    """Return the storages of the VM that the node says it does not reach."""
    return storages_of(vm, list(node.storage_lost))


def reaches(node: NodeRecord, storage: str) -> bool | None:
    """Return what the node last said of the storage by itself; None if nothing."""
    told = {reach.storage: reach.reached for reach in (node.facts.storages if node.facts is not None else ())}
    return told.get(storage)


def losers(draft: Draft, storage: str) -> list[str]:
    """Return the nodes that do not reach the storage, by their own word or by a fresh answer."""
    found = [node.name for node in draft.state.nodes.values() if storage in node.storage_lost]
    loss = draft.state.storage_losses.get(storage)
    for name, answer in loss.answers.items() if loss is not None else ():
        if not answer.reached and answer.at > draft.now - ANSWER_FRESH_S and name in draft.state.nodes:
            draft.look_again(answer.at + ANSWER_FRESH_S)
            found.append(name)
    return sorted(dict.fromkeys(found))


def is_lost_by_many(draft: Draft, storage: str) -> bool:
    """Return whether more nodes do not reach it than the brake lets through: then nothing is done."""
    return len(losers(draft, storage)) > brake_limit(draft.state)


def reached_by_others(draft: Draft, storage: str) -> bool:
    """Return whether another node reaches the storage now."""
    loss = draft.state.storage_losses.get(storage)
    answers = loss.answers if loss is not None else {}
    for node in draft.state.nodes.values():
        if node.state is not NodeState.UP or not node.connected or storage in node.storage_lost:
            continue
        answer = answers.get(node.name)
        fresh = answer is not None and answer.reached and answer.at > draft.now - ANSWER_FRESH_S
        if fresh or reaches(node, storage):
            return True
    return False


def is_stopped_by(state: State, node: NodeRecord, vm: VmRecord) -> bool:
    """Return whether the VM makes no progress on the node because of storage the node does not reach.

    It is paused by an I/O error, or what its host has sent to that storage gets no answer. A guest
    that has not needed its disk since is left alone.
    """
    lost = lost_under(node, vm)
    report = current_report(state, vm, node.name)
    if not lost or report is None:
        return False
    reports = node.facts.storages if node.facts is not None else ()
    return report.paused_on_io_error or any(reach.stuck for reach in reports if reach.storage in lost)
