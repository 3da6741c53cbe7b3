"""Questions about one VM that several handlers ask. Read only."""

from __future__ import annotations

from aggregator.api.problems import conflict, not_found
from aggregator.core.state import State, VmRecord


def vm_record(state: State, name: str) -> VmRecord:
    """Return a VM; Problem 404 if there is none."""
    record = state.vms.get(name)
    if record is None:
        raise not_found("VM", name)
    return record


def living_vm(state: State, name: str) -> VmRecord:
    """Return a VM that is not being deleted; Problem 404 or 409."""
    record = vm_record(state, name)
    if record.deleting:
        raise conflict(f"VM {name} is being deleted")
    return record
