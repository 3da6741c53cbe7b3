"""Questions about the state that several deciders ask. Read only."""

from __future__ import annotations

from aggregator.core.events import NodeState, RunOutcome
from aggregator.core.policy import share_of
from aggregator.core.state import Binding, NodeRecord, OrderRecord, SeenReport, State, VmRecord
from fleet.model import LedgerState, QemuState, RunStrategy, VmReport

CONVICTED = (NodeState.LOST, NodeState.FENCING, NodeState.FENCED)
SILENT = (NodeState.SUSPECT, NodeState.AGENT_LOST, *CONVICTED)
ALIVE = (QemuState.RUNNING, QemuState.PAUSED)
HALVES = (QemuState.INCOMING, QemuState.ARRIVED)  # copies that have never run


def can_order(node: NodeRecord | None) -> bool:
    """Return whether orders may be issued to a node now."""
    return (
        node is not None
        and node.connected
        and node.session is not None
        and node.state in (NodeState.UP, NodeState.SUSPECT)
        and node.ledger is not LedgerState.LOST
    )


def takes_vms(node: NodeRecord) -> bool:
    """Return whether a node may be given a new QEMU: Up, speaking directly, its picture whole, its ledger sound."""
    return node.state is NodeState.UP and can_order(node) and node.complete and not node.via


def gives_vms(node: NodeRecord | None) -> bool:
    """Return whether a VM may be ordered to leave a node live: a relayed one is only told what ends things."""
    return can_order(node) and node is not None and not node.via


def speaks_directly(node: NodeRecord) -> bool:
    """Return whether a node may be asked about others and carry their frames: Up, by its own session, unrelayed."""
    return node.state is NodeState.UP and node.connected and not node.via


def current_report(state: State, vm: VmRecord, node_name: str) -> VmReport | None:
    """Return the node's word on the VM, if it was said in the node's standing session."""
    node = state.nodes.get(node_name)
    seen = vm.reports.get(node_name)
    if node is None or seen is None or not node.connected or seen.session != node.session:
        return None
    return seen.report


def running_on(state: State, vm: VmRecord) -> list[str]:
    """Return the nodes that report a running QEMU of the VM; one at most, or S1 is broken.

    While it is handed over the source's last report may be older than its Released: then the target counts.
    """
    running = sorted(
        name
        for name in vm.reports
        if (report := current_report(state, vm, name)) is not None and report.state is QemuState.RUNNING
    )
    migration = state.migrations.get(vm.migration)
    return [migration.target] if migration is not None and migration.target in running else running


def last_report(vm: VmRecord, node_name: str) -> SeenReport | None:
    """Return the node's last word on the VM, however old."""
    return vm.reports.get(node_name)


def binding_to(vm: VmRecord, node_name: str) -> Binding | None:
    """Return the VM's newest binding to the node."""
    for binding in reversed(vm.bindings):
        if binding.node == node_name:
            return binding
    return None


def bound_to(state: State, node_name: str) -> list[VmRecord]:
    """Return the VMs bound to a node, in the order they were created."""
    bound = state.derived.bound
    if bound is None:
        bound = state.derived.bound = {}
        for vm in state.vms.values():
            for name in dict.fromkeys([binding.node for binding in vm.bindings]):
                bound.setdefault(name, []).append(vm)
    return bound.get(node_name, [])


def open_orders(state: State, vm: VmRecord) -> list[OrderRecord]:
    """Return the VM's orders that are not closed."""
    return [record for record in state.orders.values() if record.vm == vm.name]


def wants_run(vm: VmRecord) -> bool:
    """Return whether the VM, having no run, should be given one (product.md, run strategies)."""
    if vm.deleting:
        return False
    if vm.start_wanted:
        return True
    strategy = vm.spec.run_strategy
    if strategy is RunStrategy.ALWAYS:
        return vm.outcome is not RunOutcome.STOPPED
    if strategy is RunStrategy.RERUN_ON_FAILURE:
        return not vm.ran_under_strategy or vm.outcome in {RunOutcome.FAILED, RunOutcome.EVICTED}
    if strategy is RunStrategy.ONCE:
        return not vm.ever_ran
    return False


def pinned_to(vm: VmRecord) -> str:
    """Return the only node on which the VM may start again, empty if there are others (S16).

    A disk that only its last node reaches is another disk elsewhere, even at the same path; so are a
    device of the host and, unless it may be created anew, TPM state; and an NVRAM that is required.
    """
    if vm.definition is None:
        return ""
    xml = vm.definition.xml
    tied = "<hostdev" in xml or ("<tpm" in xml and vm.spec.host_state != "Recreate")
    tied = tied or (bool(vm.definition.nvram) and vm.spec.host_state == "Require")
    return vm.home if tied or not all(disk.shared for disk in vm.definition.disks) else ""


def survives_loss(vm: VmRecord) -> bool:
    """Return whether the VM would be started elsewhere if its node were lost."""
    if vm.deleting:
        return False
    if not vm.run_open:
        return wants_run(vm)
    if vm.stopping is RunOutcome.STOPPED and not vm.start_wanted:
        return False
    return vm.start_wanted or vm.spec.run_strategy in {
        RunStrategy.ALWAYS,
        RunStrategy.RERUN_ON_FAILURE,
    }


def off_may_act_until(node: NodeRecord, now: float) -> float:
    """Return until when an off order to the node could still be carried out; 0 if none could."""
    open_until = [question.deadline for question in node.questions.values() if question.question == "off"]
    until = max([node.attempt.may_act_until if node.attempt is not None else 0.0, *open_until])
    return until if until > now else 0.0


def grace_over(state: State, now: float) -> bool:
    """Return whether the start-up grace has ended: enough nodes seen, or long enough waited."""
    known = [n for n in state.nodes.values() if n.approved and n.machine_id]
    needed = share_of(state.config.startup_grace.seen, len(known), up=True)
    again = state.armed_at > state.started_at
    if sum(1 for n in known if n.seen and (n.connected or not again)) >= max(needed, min(1, len(known))):
        return True
    return now >= counts_from(state) + state.config.startup_grace.at_most


def counts_from(state: State) -> float:
    """Return from when silences and the grace count: this life's start, or the last arming in it."""
    return max(state.started_at, state.armed_at)


def doubt_over_at(state: State) -> float:
    """Return when verdicts may be given again after the aggregator doubted itself (S9)."""
    if not state.doubted_at:
        return 0.0
    return state.doubted_at + state.config.lost_after
