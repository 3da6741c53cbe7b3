"""VMs leave a node that carries a NoExecute taint they do not tolerate, as they would leave a drained one.

tolerationSeconds count from the taint's timeAdded, across restarts; of several taints the first that is no
longer tolerated counts. A VM that cannot leave keeps running, and says why. The taints of a node that is not
Up mean something else: what is lost with it is recovered. Pure.
"""

from __future__ import annotations

from math import inf

from aggregator.core.arming import acts, why_vm_held
from aggregator.core.draft import Draft
from aggregator.core.events import NodeState, VmEvictionChanged
from aggregator.core.eviction import (
    CHECK_AGAIN_S,
    can_be_evicted,
    eviction_method,
    last_failure,
    queue_moves,
    shut_down,
)
from aggregator.core.fold_nodes import DEGRADED
from aggregator.core.lookups import bound_to
from aggregator.core.nodes import brake_limit
from aggregator.core.objects import Taint, TaintEffect
from aggregator.core.state import NodeRecord, State, VmRecord
from aggregator.core.tolerating import tolerated_s


def decide_taint_evictions(draft: Draft) -> None:
    """Evict what may no longer stay, and end the evictions that are over."""
    state = draft.state
    for vm in state.derived.active_vms:
        if vm.eviction is not None and not _is_wanted(state, vm, draft.now):
            say(draft, vm, over=True, reason="it may stay" if vm.owner == vm.eviction.node else "it has left")
    if draft.transitions or not acts(state):
        return
    for node in _tainted(state):
        if node.state is NodeState.UP and not node.drain:
            _advance(draft, node)
        if draft.transitions:
            return


def _tainted(state: State) -> list[NodeRecord]:
    derived = state.derived
    if derived.executing is None:
        derived.executing = [node for node in state.nodes.values() if executing(node)]
    return derived.executing


def executing(node: NodeRecord) -> list[Taint]:
    """Return the node's NoExecute taints, a person's and the system's."""
    return [taint for taint in (*node.spec.taints, *node.taints) if taint.effect is TaintEffect.NO_EXECUTE]


def leaves_at(vm: VmRecord, taints: list[Taint]) -> tuple[float, Taint | None]:
    """Return when the VM has to leave a node with these taints, and which one says so; (inf, None): never."""
    due = [(float(taint.time_added or 0.0) + tolerated_s(vm.spec.tolerations, taint), taint) for taint in taints]
    when, which = min(due, key=lambda pair: pair[0], default=(inf, None))
    return (when, which) if when < inf else (inf, None)


def _is_wanted(state: State, vm: VmRecord, now: float) -> bool:
    node = state.nodes.get(vm.owner)
    if vm.eviction is None or node is None or not vm.run_open or vm.owner != vm.eviction.node:
        return False
    return leaves_at(vm, executing(node))[0] <= now


def _advance(draft: Draft, node: NodeRecord) -> None:
    moving: list[VmRecord] = []
    leaving = leaving_now(draft, node)
    crowd = _too_many_degraded(draft.state, node)
    whys = {vm.name: crowd or _evict(draft, vm, moving, leaving) for vm in leaving}
    whys |= queue_moves(draft, node.name, moving, f"{node.name} is tainted NoExecute")
    say_why(draft, leaving, whys)


def leaving_now(draft: Draft, node: NodeRecord) -> list[VmRecord]:
    """Return the VMs that have to leave the node now; none, where that is first to be said of one of them."""
    taints = executing(node)
    leaving = []
    for vm in bound_to(draft.state, node.name):
        when, taint = leaves_at(vm, taints)
        if taint is None or not can_be_evicted(vm, node.name):
            continue
        if not draft.due(when) or why_vm_held(draft.state, vm):
            continue
        leaving.append(vm)
        if vm.eviction is None:
            say(draft, vm, reason=f"{node.name} has the taint {taint.key}:{taint.effect}")
    return [] if draft.transitions else leaving


def say_why(draft: Draft, leaving: list[VmRecord], whys: dict[str, str]) -> None:
    """Decide what is said of VMs that have to leave: why each of them cannot, empty for one that does."""
    if any(whys.values()):
        draft.look_again(draft.now + CHECK_AGAIN_S)
    for vm in leaving:
        if vm.eviction is not None and whys[vm.name] != vm.eviction.blocked:
            say(draft, vm, blocked=whys[vm.name], reason=whys[vm.name] or "it leaves")


def _too_many_degraded(state: State, node: NodeRecord) -> str:
    """Return why nothing leaves a node by its own checks: more nodes than the brake lets through say so at once.

    A check program that is wrong is wrong everywhere, and would send all VMs round the fleet.
    """
    by_checks = [n for n in _tainted(state) if any(t.key == DEGRADED for t in executing(n))]
    own = [taint for taint in executing(node) if taint.key != DEGRADED]
    if own or len(by_checks) <= brake_limit(state):
        return ""
    return f"{len(by_checks)} nodes are degraded at once, more than the brake lets through: the checks may be wrong"


def _evict(draft: Draft, vm: VmRecord, moving: list[VmRecord], leaving: list[VmRecord]) -> str:
    """Decide how the VM leaves; return why it cannot now, or nothing."""
    method, why = eviction_method(draft.state, vm)
    if method == "blocked":
        return why
    if method == "shut down":
        return shut_down(draft, vm, why, leaving)
    if vm.eviction is not None and not draft.due(vm.eviction.retry_at):
        return last_failure(draft.state, vm)
    moving.append(vm)
    return ""


def say(draft: Draft, vm: VmRecord, *, reason: str, blocked: str = "", over: bool = False) -> None:
    """Decide that a VM has to leave its node, or no longer, or why it cannot."""
    draft.add(
        VmEvictionChanged(
            at=draft.now, vm=vm.name, node=vm.owner, blocked=blocked, over=over, reason=reason, cause=vm.fact
        )
    )
