"""The target's own word before anything is copied to it: would this VM's copy come to run there?

Placement goes by what the agent told last, which may be half a minute old. The question travels beside the order to
accept the copy, so it costs no time; a no ends the migration before libvirt is asked. No answer is no refusal. Pure.
"""

from __future__ import annotations

from msgspec import structs

from aggregator.core.actions import SendArrivalCheck
from aggregator.core.draft import Draft
from aggregator.core.events import ArrivalChecked
from aggregator.core.state import MigrationRecord, NodeRecord, State, VmRecord
from fleet.messages import CheckArrival, MoveChecked

ANSWER_S_MAX = 5.0
KNOWS_QUESTION = 2  # from that protocol on
REFUSING = ("CPU", "Definition", "MachineType", "Memory", "Network", "Ports", "Storage")
FINDINGS_MAX = 32
MESSAGE_CHARACTERS_MAX = 300


def arrival_question(vm: VmRecord | None) -> CheckArrival:
    """Return what a target is asked of a VM, or of itself alone; check_id is filled in by who asks."""
    known = vm.definition if vm is not None else None
    if vm is None or known is None:
        return CheckArrival("")
    return CheckArrival("", vm.uuid, known.xml, known.needs, known.disks, vm.memory_bytes)


def ask_target(draft: Draft, migration: MigrationRecord, vm: VmRecord, target: NodeRecord) -> None:
    """Ask the target of a migration that is being prepared, if it can be asked."""
    if _is_asked(vm, target):
        question = structs.replace(arrival_question(vm), check_id=migration.name)
        draft.act(SendArrivalCheck(decided_at=draft.now, node=target.name, question=question))


def refusal(draft: Draft, migration: MigrationRecord, vm: VmRecord, target: NodeRecord) -> str | None:
    """Return why the target would not take the copy, empty where it would or nobody can tell; None: wait for it."""
    if migration.arrival is None:
        waits = _is_asked(vm, target) and not draft.due(migration.started + ANSWER_S_MAX)
        return None if waits else ""
    return "; ".join(
        f"{finding.check}: {finding.message}"
        for finding in migration.arrival
        if not finding.ok and _counts(draft.state, finding.check)
    )


def _counts(state: State, check: str) -> bool:
    return check in REFUSING and not (check == "Memory" and state.config.overcommit.memory > 1.0)


def _is_asked(vm: VmRecord, target: NodeRecord) -> bool:
    return target.protocol >= KNOWS_QUESTION and vm.definition is not None


def arrival_checked(checked: MoveChecked, node: str, now: float) -> ArrivalChecked:
    """Return the fact that a target has answered, in bounds: it is journalled."""
    bounded = (
        structs.replace(finding, check=finding.check[:64], message=finding.message[:MESSAGE_CHARACTERS_MAX])
        for finding in checked.findings[:FINDINGS_MAX]
    )
    return ArrivalChecked(at=now, node=node, migration=checked.check_id[:64], findings=tuple(bounded))
