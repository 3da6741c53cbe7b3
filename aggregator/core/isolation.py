"""What agents shall do with their VMs when their node has lost its lease, and telling them so. Pure.

A run is started, and received, with its isolation policy; a policy that was changed since is ordered
to the run's owner, whose ledger keeps it. Nothing is concluded here from a lease: without a watchdog
it proves nothing, and a VM that its agent has ended is started elsewhere only once that was said.
"""

from __future__ import annotations

from aggregator.core.draft import Draft
from aggregator.core.lookups import ALIVE, can_order, current_report, open_orders
from aggregator.core.policy import ClusterConfig
from aggregator.core.state import VmRecord
from fleet.messages import SetIsolation
from fleet.model import Isolation, IsolationPolicy

GRACE_S_DEFAULT = 180.0
GRACE_S_WINDOWS = 3600.0
_KEEP = Isolation()


def grace_of(vm: VmRecord) -> float:
    """Return how long the guest may take to power off, in seconds."""
    given = vm.spec.termination_grace_period_seconds
    if given is not None:
        return float(given)
    windows = "http://microsoft.com/" in vm.spec.domain_xml
    return GRACE_S_WINDOWS if windows else GRACE_S_DEFAULT


def isolation_of(vm: VmRecord, config: ClusterConfig) -> Isolation:
    """Return what the VM's spec and the fleet's lease ask for."""
    policy = vm.spec.isolation_policy
    return _KEEP if policy is IsolationPolicy.KEEP else Isolation(policy, float(config.lease), grace_of(vm))


def decide_isolation(draft: Draft) -> None:
    """Order a policy that the owner of a run does not have yet."""
    state = draft.state
    for vm in state.derived.active_vms:
        wanted = isolation_of(vm, state.config)
        node = state.nodes.get(vm.owner)
        if not vm.run_open or vm.isolation_told == wanted or node is None or not can_order(node):
            continue
        report = current_report(state, vm, vm.owner)
        if vm.migration or vm.stopping is not None or report is None or report.state not in ALIVE:
            continue
        if report.run == vm.run and not open_orders(state, vm) and draft.due(vm.retry_at):
            reason = f"its isolation policy is {wanted.policy}"
            draft.order(node, vm, SetIsolation(vm.run, wanted), epoch=vm.epoch, reason=reason)
