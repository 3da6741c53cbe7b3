"""Reconcile-only: what an aggregator may do whose store is older than what agents have obeyed.

A store that was rolled back or restored has forgotten owners, epochs and proofs. Agents persist the
highest leadership they met and tell it in their hello, so such an aggregator finds out. From then on it
only listens: the highest reported epoch wins, and nothing is started, fenced, destroyed or moved until
every member has reported in this life, is proven inert since, or a person vouched for it by name.
Pure: decides; which stages rest meanwhile is decide.py's.
"""

from __future__ import annotations

from aggregator.core.draft import Draft
from aggregator.core.events import IncidentClosed, IncidentNoted, IncidentOpened, OwnerChanged, ReconcileEnded
from aggregator.core.lookups import ALIVE, HALVES, current_report, open_orders
from aggregator.core.rebuild import decide_rebuild
from aggregator.core.state import NodeRecord, State, VmRecord
from fleet.model import Leadership

ABOUT_STORE = "store"
MIGRATE_KIND = "migrate"
"""Of an order in hand: it may wait for us, and what it moves is bound to its source meanwhile (runs.py)."""


def is_behind(state: State, highest: Leadership | None) -> bool:
    """Return whether an agent obeyed somebody, or something, that this store does not hold."""
    if highest is None or highest.instance == state.leader.instance:
        return False
    past = state.tenures.get(highest.instance)
    if past is not None:
        return highest.position > past.ended
    first = min((tenure.term for tenure in state.tenures.values()), default=0)
    return highest.term >= first or highest.position > state.leader.position


def unaccounted(state: State) -> list[str]:
    """Return the members nothing was heard of in this life that could stand for what the store lost."""
    return [node.name for node in state.nodes.values() if not _is_accounted(state, node)]


def _is_accounted(state: State, node: NodeRecord) -> bool:
    if not (node.approved and (node.machine_id or node.expected)):
        return True
    since = state.started_at
    proven = node.inert is not None and node.inert.at >= since
    lost = [hand for hand in node.in_hand if hand.order_id not in state.orders and hand.kind != MIGRATE_KIND]
    told = node.kept_told or not state.rebuilding
    spoken = node.seen and node.complete and told and not lost  # an order that the store has lost may yet start a VM
    return spoken or proven or node.off_confirmed_at >= since


def decide_reconcile(draft: Draft) -> None:
    """Take owners from reports; end when everybody is accounted for; say what is waited for."""
    state = draft.state
    if not state.behind:
        for vm in state.derived.active_vms:
            if _is_adrift(state, vm):
                _take_owner(draft, vm, "a hand-over that the store has lost left it there alone")
    elif state.rebuilding:
        if not unaccounted(state):
            decide_rebuild(draft)
    else:
        for vm in state.vms.values():
            _take_owner(draft, vm, "the highest reported epoch wins while the store is behind")
        if not draft.transitions and not unaccounted(state):
            draft.add(ReconcileEnded(at=draft.now, reason="every member has reported or is proven inert"))
    if not draft.transitions:
        _say(draft)


def _is_adrift(state: State, vm: VmRecord) -> bool:
    """Return whether all that is left of a VM, or all of it that lives, is on a node that is not its owner's.

    Two agents end a hand-over without us, also one that this store does not know, and after we have caught up; and
    libvirt lets a source run on whose migration nobody knows any more.
    """
    if not vm.run_open or vm.migration or open_orders(state, vm):
        return False
    if len(vm.bindings) == 1 and vm.bindings[0].node != vm.owner:
        return True
    own = current_report(state, vm, vm.owner)
    return own is not None and own.state in HALVES


def _take_owner(draft: Draft, vm: VmRecord, why: str) -> None:
    """The highest epoch at which a node reports it alive is the owner's; a migration that is known sees to its own."""
    found = [
        (report.epoch, name, report.run)
        for name in vm.reports
        if (report := current_report(draft.state, vm, name)) is not None and report.state in ALIVE
    ]
    epoch, name, run = max(found, default=(0, "", 0))
    if epoch > vm.epoch and not vm.deleting and not _is_moving_to(draft.state, vm, name, epoch):
        draft.add(OwnerChanged(at=draft.now, vm=vm.name, node=name, epoch=epoch, run=run, reason=why, cause=vm.fact))


def _is_moving_to(state: State, vm: VmRecord, node: str, epoch: int) -> bool:
    migration = state.migrations.get(vm.migration)
    return migration is not None and (migration.target, migration.epoch) == (node, epoch)


def _say(draft: Draft) -> None:
    state = draft.state
    incident = state.incidents.get(state.store_incident)
    if state.behind and incident is None:
        title = "the store is older than what agents have obeyed: nothing is started, fenced, stopped or moved"
        opened = draft.new_id("inc")
        draft.add(IncidentOpened(at=draft.now, incident=opened, title=title, about=ABOUT_STORE, reason=state.behind))
    elif incident is not None and not state.behind:
        why = "every member is accounted for"
        draft.add(IncidentClosed(at=draft.now, incident=incident.name, reason=why))
    elif incident is not None:
        missing = ", ".join(unaccounted(state))
        text = f"waits for the report of {missing}"
        way = (
            "restore a newer backup, or bring these agents back; for a node that will not come back make sure "
            f"that it is off and run: virtward fence NODE --confirm-off ({missing})"
        )
        if (incident.stuck, incident.way_out) != (text, way):
            draft.add(IncidentNoted(at=draft.now, incident=incident.name, text=text, way_out=way))
