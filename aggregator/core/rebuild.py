"""A lost store, rebuilt from what agents keep: which VMs there are. Where they run, reconcile.py takes from reports.

Nothing is known but the members that a person has named, and nothing is done. When each of them has told what its
ledger keeps, or is proven inert, every VM that any of them keeps is known again, in the form of the highest epoch.
Then all are asked anew, as after every start, and the highest reported epoch is the owner's. A VM of which nobody
reports a QEMU may have been ended, or deleted while its node was away: it is disarmed until a person has looked.
Pure: decides.
"""

from __future__ import annotations

from aggregator.core.actions import CloseSession
from aggregator.core.draft import Draft
from aggregator.core.events import FleetRebuilt, SessionDoubted, VmRebuilt
from aggregator.core.kept import KeptForm, unpack
from aggregator.core.state import KeptRecord, State
from fleet.model import QemuState

WHY = "the store was lost, and is rebuilt from what agents know"


def decide_rebuild(draft: Draft) -> None:
    """Make known what is kept; called once every member is accounted for."""
    state = draft.state
    unread, names = [], set(state.vms)
    for uuid, record in sorted(state.kept.items()):
        if uuid in state.names:
            continue
        form = unpack(record.vm.kept)
        if form is None or form.uuid != uuid or form.name in names:
            unread.append(record.vm.name)
            continue
        names.add(form.name)
        draft.add(_rebuilt(draft, record, form))
    words = f"; {', '.join(unread)} could not be read and must be applied anew" if unread else ""
    draft.add(FleetRebuilt(at=draft.now, unread=tuple(unread), reason=f"every member has told what it keeps{words}"))
    for node in state.nodes.values():
        if node.connected and not node.doubted:
            draft.add(SessionDoubted(at=draft.now, node=node.name, reason="the VMs are known now"))
            draft.act(CloseSession(decided_at=draft.now, node=node.name, why="asked anew"))


def _rebuilt(draft: Draft, record: KeptRecord, form: KeptForm) -> VmRebuilt:
    return VmRebuilt(
        at=draft.now,
        vm=form.name,
        uuid=form.uuid,
        spec=form.spec,
        labels=form.labels,
        annotations=form.annotations,
        disks=form.disks,
        cpu_m=form.cpu_m,
        memory_bytes=form.memory_bytes,
        epoch=record.vm.epoch,
        run=record.vm.run,
        runs=_is_somewhere(draft.state, form.uuid),
        reason=f"{record.node} keeps it at epoch {record.vm.epoch}",
    )


def _is_somewhere(state: State, uuid: str) -> bool:
    found = (reports.get(uuid) for reports in state.foreign.values())
    return any(report is not None and report.state is not QemuState.GONE for report in found)
