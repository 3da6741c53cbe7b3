"""What agents shall do with their VMs when their node has lost its lease, and telling them so. Pure.

A run is started, and received, with its isolation policy and what its agent is to keep of the VM (kept.py); what
was changed since is ordered to the run's owner, whose ledger keeps it. Nothing is concluded here from a lease:
without a watchdog it proves nothing, and a VM that its agent has ended is started elsewhere only once that was said.
"""

from __future__ import annotations

from aggregator.core.arming import acts, why_vm_held
from aggregator.core.draft import Draft
from aggregator.core.kept import pack
from aggregator.core.lookups import ALIVE, can_order, current_report, open_orders
from aggregator.core.state import State, VmRecord
from fleet.messages import SetIsolation
from fleet.model import Isolation, IsolationPolicy, RunStrategy

KEPT_ORDERS_MAX = 100
RESTARTED = (RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE)
GRACE_S_DEFAULT = 180.0
GRACE_S_WINDOWS = 3600.0


def grace_of(vm: VmRecord) -> float:
    """Return how long the guest may take to power off, in seconds."""
    given = vm.spec.termination_grace_period_seconds
    if given is not None:
        return float(given)
    windows = "http://microsoft.com/" in vm.spec.domain_xml
    return GRACE_S_WINDOWS if windows else GRACE_S_DEFAULT


def isolation_of(state: State, vm: VmRecord) -> Isolation:
    """Return what the VM's spec, the fleet's lease, a person's disarming and the budget of restarts ask for.

    A VM whose budget is used up gets its agent's restart back when it has failed again after the window: that is when
    its restarts are counted anew, and what hangs on no clock can be at rest.
    """
    policy, lease_s = vm.spec.isolation_policy, float(state.config.lease)
    within_budget = len(vm.restarts) < state.config.restart.budget
    wanted = vm.spec.run_strategy in RESTARTED and acts(state) and not why_vm_held(state, vm)
    restart = wanted and within_budget
    grace_s = GRACE_S_DEFAULT if policy is IsolationPolicy.KEEP else grace_of(vm)
    return Isolation(policy, lease_s, grace_s, restart)


def decide_isolation(draft: Draft) -> None:
    """Order a policy that the owner of a run does not have yet."""
    state = draft.state
    for vm in state.derived.active_vms:
        wanted = isolation_of(state, vm)
        node = state.nodes.get(vm.owner)
        told = vm.isolation_told == wanted
        if not vm.run_open or (told and vm.kept_told == vm.version) or node is None or not can_order(node):
            continue
        if told and len(state.orders) >= KEPT_ORDERS_MAX:
            continue  # there is time: an order's end has it looked at again
        report = current_report(state, vm, vm.owner)
        if vm.migration or vm.stopping is not None or report is None or report.state not in ALIVE:
            continue
        if report.run == vm.run and not open_orders(state, vm) and draft.due(vm.retry_at):
            restarts = "may" if wanted.restart else "may not"
            reason = f"its isolation policy is {wanted.policy}, and its agent {restarts} restart it by itself"
            if told:
                reason = "its agent keeps what it is, should this store be lost"
            draft.order(node, vm, SetIsolation(vm.run, wanted, pack(vm)), epoch=vm.epoch, reason=reason)
