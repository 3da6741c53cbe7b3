"""What stands against moving a VM live: the one answer for its condition, drains, taints and moves by hand.

Knows the reports and the state of nodes; nothing of targets, which placement judges. Pure.
"""

from __future__ import annotations

from aggregator.core.lookups import current_report
from aggregator.core.lost_storage import lost_under
from aggregator.core.state import State, VmRecord
from fleet.model import Blocker, QemuState

SILENT = "NodeSilent"


def why_not_migratable(state: State, vm: VmRecord) -> str:
    """Return what stands against moving this VM live now, in words; empty if nothing is known."""
    return "; ".join(obstacle.message for obstacle in obstacles(state, vm))


def obstacles(state: State, vm: VmRecord) -> tuple[Blocker, ...]:
    """Return what stands against moving this VM live now, the gravest first; nothing if nothing is known.

    SILENT alone means that nobody can tell: the node has not spoken of the VM in this session.
    """
    node = state.nodes.get(vm.owner)
    if not vm.run_open or node is None:
        return (Blocker("NotRunning", "it does not run"),)
    if node.via:
        return (Blocker("NodeRelayed", f"its node {node.name} is reached only through {node.via}"),)
    report = current_report(state, vm, vm.owner)
    if report is None:
        return (Blocker(SILENT, f"its node {vm.owner} has not reported it in this session"),)
    if report.state is not QemuState.RUNNING:
        return (Blocker(str(report.state), f"its QEMU is {report.state.lower()}"),)
    if lost := lost_under(node, vm):
        return (Blocker("StorageLost", f"{node.name} does not reach {', '.join(lost)}, on which it lies"),)
    if report.blockers:
        return report.blockers
    return (Blocker("Blocked", report.not_migratable),) if report.not_migratable else ()
