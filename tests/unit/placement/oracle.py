"""A second implementation of every rule: slow, obvious, over plain lists. The oracle of the property tests.

Shares no code with aggregator.placement but the records it is asked about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from aggregator.core.objects import (
    LabelSelector,
    NodeSelectorTerm,
    SelectorRequirement,
    Taint,
    TopologySpreadConstraint,
    VmAffinity,
    VmAffinityTerm,
)
from aggregator.placement.types import PlacementNode, PlacementVm

Seats = Sequence[tuple[PlacementVm, PlacementNode]]
Raw = dict[str, float]


def requirement_holds(requirement: SelectorRequirement, labels: dict[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    try:
        number, bound = int(value or ""), int(requirement.values[0])
    except ValueError:
        return False
    return number > bound if requirement.operator == "Gt" else number < bound


def selected(selector: LabelSelector | None, labels: dict[str, str]) -> bool:
    if selector is None:
        return False
    for key, value in selector.match_labels.items():
        if labels.get(key) != value:
            return False
    return all(requirement_holds(r, labels) for r in selector.match_expressions)


def term_holds(term: NodeSelectorTerm, node: PlacementNode) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False
    named = {"metadata.name": node.name}
    return all(requirement_holds(r, node.labels) for r in term.match_expressions) and all(
        requirement_holds(r, named) for r in term.match_fields
    )


def tolerated(vm: PlacementVm, taint: Taint) -> bool:
    for toleration in vm.spec.tolerations:
        effect_fits = toleration.effect in ("", taint.effect)
        key_fits = toleration.key in ("", taint.key)
        value_fits = toleration.operator == "Exists" or toleration.value == taint.value
        if effect_fits and key_fits and value_fits:
            return True
    return False


def wants_node(vm: PlacementVm, node: PlacementNode) -> bool:
    for key, value in vm.spec.node_selector.items():
        if node.labels.get(key) != value:
            return False
    affinity = vm.spec.affinity.node_affinity if vm.spec.affinity else None
    if affinity is None or affinity.required is None:
        return True
    return any(term_holds(term, node) for term in affinity.required.node_selector_terms)


def towards(vm: PlacementVm) -> VmAffinity:
    return (vm.spec.affinity.vm_affinity if vm.spec.affinity else None) or VmAffinity()


def away(vm: PlacementVm) -> VmAffinity:
    return (vm.spec.affinity.vm_anti_affinity if vm.spec.affinity else None) or VmAffinity()


def together(a: PlacementNode, b: PlacementNode, key: str) -> bool:
    """Tell whether two nodes carry the topology key with the same value."""
    return key in a.labels and a.labels[key] == b.labels.get(key)


def vm_affinity_rejects(vm: PlacementVm, node: PlacementNode, seats: Seats) -> bool:
    for other, there in seats:
        for term in away(other).required:
            if selected(term.label_selector, vm.labels) and together(node, there, term.topology_key):
                return True
        for term in away(vm).required:
            if selected(term.label_selector, other.labels) and together(node, there, term.topology_key):
                return True
    terms = towards(vm).required
    if any(term.topology_key not in node.labels for term in terms):
        return True
    group = [there for other, there in seats if all(selected(t.label_selector, other.labels) for t in terms)]
    if all(any(together(node, there, term.topology_key) for there in group) for term in terms):
        return False
    found_anywhere = any(term.topology_key in there.labels for there in group for term in terms)
    return found_anywhere or not all(selected(t.label_selector, vm.labels) for t in terms)


def counted_nodes(
    vm: PlacementVm, nodes: Sequence[PlacementNode], constraints: Sequence[TopologySpreadConstraint]
) -> list[PlacementNode]:
    return [n for n in nodes if wants_node(vm, n) and all(c.topology_key in n.labels for c in constraints)]


def matching_in(constraint: TopologySpreadConstraint, value: str, nodes: Sequence[PlacementNode], seats: Seats) -> int:
    names = {n.name for n in nodes if n.labels.get(constraint.topology_key) == value}
    return sum(there.name in names and selected(constraint.label_selector, vm.labels) for vm, there in seats)


def spread_rejects(vm: PlacementVm, node: PlacementNode, nodes: Sequence[PlacementNode], seats: Seats) -> bool:
    hard = [c for c in vm.spec.topology_spread_constraints if c.when_unsatisfiable == "DoNotSchedule"]
    counted = counted_nodes(vm, nodes, hard)
    for constraint in hard:
        value = node.labels.get(constraint.topology_key)
        if value is None:
            return True
        domains = {n.labels[constraint.topology_key] for n in counted}
        counts = {domain: matching_in(constraint, domain, counted, seats) for domain in domains}
        with_vm = counts.get(value, 0) + selected(constraint.label_selector, vm.labels)
        if counts and with_vm - min(counts.values()) > constraint.max_skew:
            return True
    return False


def rejecting(vm: PlacementVm, node: PlacementNode, nodes: Sequence[PlacementNode], seats: Seats) -> list[str]:
    """Return every filter that rejects the VM on the node, sorted."""
    cordon = Taint(key="virtward/unschedulable", effect="NoSchedule")  # type: ignore[arg-type]
    cpu = sum(other.cpu_m for other, there in seats if there.name == node.name)
    memory = sum(other.memory_bytes for other, there in seats if there.name == node.name)
    too_big = (vm.cpu_m and vm.cpu_m + cpu > node.cpu_m) or (
        vm.memory_bytes and vm.memory_bytes + memory > node.memory_bytes
    )
    forbidding = [t for t in node.taints if t.effect in ("NoSchedule", "NoExecute")]
    answers = {
        "NodeReady": not node.ready,
        "NodeUnschedulable": node.unschedulable and not tolerated(vm, cordon),
        "TaintToleration": any(not tolerated(vm, taint) for taint in forbidding),
        "NodeAffinity": not wants_node(vm, node),
        "NodeResourcesFit": bool(too_big),
        "TopologySpread": spread_rejects(vm, node, nodes, seats),
        "VMAffinity": vm_affinity_rejects(vm, node, seats),
        **host_lacks(vm, node),
        **host_short(vm, node, [other for other, there in seats if there.name == node.name]),
    }
    return sorted(rule for rule, rejects in answers.items() if rejects)


def host_lacks(vm: PlacementVm, node: PlacementNode) -> dict[str, bool]:
    """Tell for each rule about the host whether it lacks something that the domain needs."""
    has, needs = node.offers, vm.needs
    if has is None:
        return {}

    def lacks(needed: tuple[str, ...], told: tuple[str, ...] | None) -> bool:
        return told is not None and bool({*needed} - {*told} - {""})

    best = has.domain_types[0] if has.domain_types else None
    same_arch = needs.arch in ("", has.arch)
    cpu = lacks(needs.guest_cpu, has.cpu_features) if needs.guest_cpu else lacks((needs.cpu_model,), has.cpu_models)
    return {
        "CPUCompatible": best is not None and needs.domain_type == best and cpu,
        "MachineType": same_arch and lacks((needs.machine,), has.machines),
        "HypervisorCapability": lacks((needs.domain_type,), has.domain_types)
        or lacks((needs.firmware,), has.firmwares),
        "NetworkReachable": lacks(needs.interfaces, has.interfaces) or lacks(needs.networks, has.networks),
        "StorageReachable": lacks(needs.mounts, has.mounts)
        or lacks(needs.pools, has.pools)
        or lacks(needs.secrets, has.secrets),
    }


def host_short(vm: PlacementVm, node: PlacementNode, others: list[PlacementVm]) -> dict[str, bool]:
    """Tell for each rule about what a host has a number of whether the host has too little left."""
    has = node.offers
    if has is None:
        return {}
    short = {}
    if has.huge_pages is not None and vm.needs.huge_bytes:
        default = has.huge_pages[0][0] if has.huge_pages else 0
        left = {size: size * 1024 * count for size, count in has.huge_pages}
        for each in (*others, vm):
            size = each.needs.huge_page_kib or default
            left[size] = left.get(size, 0) - each.needs.huge_bytes
        short["HugePagesFit"] = left[vm.needs.huge_page_kib or default] < 0
    if has.devices is not None:
        there = list(has.devices)
        wanted = [device for each in (*others, vm) for device in each.needs.devices]
        short["HostDevices"] = any(wanted.count(device) > there.count(device) for device in vm.needs.devices)
    return short


def affinity_raw(vm: PlacementVm, node: PlacementNode, seats: Seats) -> float:
    total = 0
    for other, there in seats:
        mine: list[tuple[VmAffinityTerm, int]] = []
        mine += [(p.vm_affinity_term, p.weight) for p in towards(vm).preferred]
        mine += [(p.vm_affinity_term, -p.weight) for p in away(vm).preferred]
        theirs = [(p.vm_affinity_term, p.weight) for p in towards(other).preferred]
        theirs += [(p.vm_affinity_term, -p.weight) for p in away(other).preferred]
        theirs += [(term, 1) for term in towards(other).required]
        for terms, labels in ((mine, other.labels), (theirs, vm.labels)):
            for term, weight in terms:
                if selected(term.label_selector, labels) and together(node, there, term.topology_key):
                    total += weight
    return total


def stretched(raw: Raw) -> dict[str, int]:
    low, high = min(raw.values()), max(raw.values())
    return {name: int(100 * (value - low) / (high - low)) if high > low else 0 for name, value in raw.items()}


def share_of_highest(raw: Raw) -> dict[str, int]:
    high = max(raw.values())
    return {name: int(100 * value // high) if high else 0 for name, value in raw.items()}


def spread_scores(
    vm: PlacementVm, feasible: Sequence[PlacementNode], nodes: Sequence[PlacementNode], seats: Seats
) -> dict[str, int]:
    soft = [c for c in vm.spec.topology_spread_constraints if c.when_unsatisfiable == "ScheduleAnyway"]
    if not soft:
        return dict.fromkeys((n.name for n in feasible), 0)
    scored = [n for n in feasible if all(c.topology_key in n.labels for c in soft)]
    counted = counted_nodes(vm, nodes, soft)
    raw: Raw = {}
    for node in scored:
        total = 0.0
        for constraint in soft:
            key = constraint.topology_key
            if key == "virtward/hostname":
                size = len(scored)
                here = sum(t.name == node.name and selected(constraint.label_selector, v.labels) for v, t in seats)
            else:
                size = len({n.labels[key] for n in scored})
                here = matching_in(constraint, node.labels[key], counted, seats)
            total += here * math.log(size + 2) + constraint.max_skew - 1
        raw[node.name] = math.floor(total + 0.5)
    result = dict.fromkeys((n.name for n in feasible), 0)
    if raw:
        low, high = min(raw.values()), max(raw.values())
        result |= {name: int(100 * (high + low - value) // high) if high else 100 for name, value in raw.items()}
    return result


def scores(
    vm: PlacementVm, feasible: Sequence[PlacementNode], nodes: Sequence[PlacementNode], seats: Seats
) -> dict[str, dict[str, int]]:
    """Return every score rule's numbers for the feasible nodes."""
    raw: dict[str, Raw] = {"taints": {}, "nodes": {}, "vms": {}}
    full: dict[str, dict[str, int]] = {"LeastAllocated": {}, "MostAllocated": {}, "BalancedAllocation": {}}
    affinity = vm.spec.affinity.node_affinity if vm.spec.affinity else None
    for node in feasible:
        discouraging = [t for t in node.taints if t.effect == "PreferNoSchedule"]
        raw["taints"][node.name] = sum(not tolerated(vm, t) for t in discouraging)
        preferred = affinity.preferred if affinity else ()
        raw["nodes"][node.name] = sum(p.weight for p in preferred if term_holds(p.preference, node))
        raw["vms"][node.name] = affinity_raw(vm, node, seats)
        cpu = vm.cpu_m + sum(v.cpu_m for v, t in seats if t.name == node.name)
        memory = vm.memory_bytes + sum(v.memory_bytes for v, t in seats if t.name == node.name)
        pairs = [(cpu, node.cpu_m), (memory, node.memory_bytes)]
        real = [(wants, has) for wants, has in pairs if has]
        count = max(1, len(real))
        full["LeastAllocated"][node.name] = sum(max(0, has - wants) * 100 // has for wants, has in real) // count
        full["MostAllocated"][node.name] = sum(min(has, wants) * 100 // has for wants, has in real) // count
        parts = [min(1.0, wants / has) for wants, has in real]
        apart = abs(parts[0] - parts[1]) / 2 if len(parts) == 2 else 0.0
        full["BalancedAllocation"][node.name] = int((1 - apart) * 100)
    return {
        "TaintToleration": {name: 100 - value for name, value in share_of_highest(raw["taints"]).items()},
        "NodeAffinity": share_of_highest(raw["nodes"]),
        "VMAffinity": stretched(raw["vms"]),
        "TopologySpread": spread_scores(vm, feasible, nodes, seats),
        **full,
    }
