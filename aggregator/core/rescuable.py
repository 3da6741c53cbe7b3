"""Which VMs of a node whose agent is gone can be moved off it through its libvirtd. Pure."""

from __future__ import annotations

from aggregator.core.arming import acts, why_vm_held
from aggregator.core.draft import Draft
from aggregator.core.events import NodeState
from aggregator.core.lookups import open_orders
from aggregator.core.nodes import may_convict
from aggregator.core.state import NodeRecord, VmRecord
from fleet.model import QemuState


def why_not_rescued(draft: Draft, vm: VmRecord, source: NodeRecord) -> str | None:
    """Return why the VM cannot be moved off this node now, empty while it only has to wait; None: it can."""
    state = draft.state
    if source.state is not NodeState.AGENT_LOST:
        return why_no_source(source)
    if not acts(state) or may_convict(draft) or why_vm_held(state, vm) or open_orders(state, vm):
        return ""
    return cannot_be_rescued(vm, source) or None


def why_no_source(source: NodeRecord) -> str:
    """Return why a node whose agent is not known to be gone is no source of a rescue, empty while that is not clear."""
    if source.state is NodeState.UNSEEN:
        return ""
    return "its agent is back" if source.state is NodeState.UP else f"{source.name} is {source.state}"


def cannot_be_rescued(vm: VmRecord, source: NodeRecord) -> str:
    """Return what stands against moving the VM without its agent, as it was last reported; empty if nothing does."""
    if source.impostor is not None:
        return f"another machine answers where {source.name} was"
    if source.facts is None or not source.facts.peer_uri or not source.host_uuid:
        return f"nobody knows the libvirtd of {source.name}"
    seen = vm.reports.get(source.name)
    if seen is None or seen.report.state is not QemuState.RUNNING:
        return f"{source.name} did not report it running when its agent was heard last"
    return seen.report.not_migratable
