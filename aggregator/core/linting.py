"""What is wrong with the placement rules of VMs that are about to be written, told before anybody waits for them.

Looks at rules and hosts, not at who is there now: each node counts as Up, uncordoned and empty. A node that has not
told its size yet might hold anything, and then nothing is said about sizes. Pure; says, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from math import inf

from msgspec import Struct, structs

from aggregator.core.objects import VmAffinityTerm
from aggregator.core.seating import node_seat, vm_seat
from aggregator.core.state import State
from aggregator.core.tolerating import UNREACHABLE, tolerated_s
from aggregator.placement.contradiction import contradiction_in
from aggregator.placement.place import build_table, judge, reasons
from aggregator.placement.selectors import compile_selector, selects
from aggregator.placement.table import Table
from aggregator.placement.types import PlacementVm, ScoreSettings
from fleet.model import RunStrategy

NODES_IN_WORDS_MAX = 3
CHECKED_MAX = 200  # VMs of one request that are held against the hosts; of more, the first ones
STARTS_ELSEWHERE = (RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE)


class _Hosts(Struct, frozen=True):
    """The fleet as it would be empty and whole. nodes: name -> labels."""

    table: Table
    nodes: dict[str, dict[str, str]]
    settings: ScoreSettings
    all_known: bool


def lint(state: State, vms: Sequence[PlacementVm], unheld: Collection[str] = ()) -> list[str]:
    """Return sentences about VMs that are about to be written, in their order.

    unheld: those that are not held against the hosts, because they wait for nodes that are still to come.
    """
    hosts = _empty_fleet(state)
    coming = {vm.name: vm for vm in vms}
    fleet = [*vms, *(vm_seat(vm) for name, vm in state.vms.items() if name not in coming and not vm.deleting)]
    found = []
    for number, vm in enumerate(vms):
        sentences = [*_contradictions(vm)]
        if number < CHECKED_MAX and hosts.nodes and vm.name not in unheld and not sentences:
            sentences += _against_hosts(vm, fleet, hosts)
        found += [f"VM {vm.name}: {sentence}" for sentence in (*sentences, *_broad_tolerations(vm))]
    return found


def _empty_fleet(state: State) -> _Hosts:
    seats = [
        structs.replace(node_seat(state, node), ready=True, unschedulable=False, taints=node.spec.taints)
        for node in state.nodes.values()
    ]
    known = all(node.facts is not None for node in state.nodes.values())
    settings = ScoreSettings.of(state.config)
    return _Hosts(build_table(seats), {seat.name: seat.labels for seat in seats}, settings, known)


def _contradictions(vm: PlacementVm) -> Iterator[str]:
    affinity = vm.spec.affinity
    required = affinity.node_affinity.required if affinity and affinity.node_affinity else None
    terms = None if required is None else required.node_selector_terms
    if why := contradiction_in(vm.spec.node_selector, terms):
        yield f"no node can match its nodeSelector and required nodeAffinity: {why}"
    near = affinity.vm_affinity.required if affinity and affinity.vm_affinity else ()
    away = affinity.vm_anti_affinity.required if affinity and affinity.vm_anti_affinity else ()
    if any(_key(one) == _key(other) for one in near for other in away):
        yield "its required vmAffinity and vmAntiAffinity name the same VMs and topologyKey; no node can satisfy both"


def _key(term: VmAffinityTerm) -> tuple[object, str]:
    return compile_selector(term.label_selector), term.topology_key


def _broad_tolerations(vm: PlacementVm) -> Iterator[str]:
    if vm.spec.run_strategy in STARTS_ELSEWHERE and tolerated_s(vm.spec.tolerations, UNREACHABLE) == inf:
        yield (
            "it tolerates virtward/unreachable:NoExecute without tolerationSeconds, so after the loss of its node it "
            "is never started elsewhere; name the keys that it should tolerate, or give tolerationSeconds"
        )


def _against_hosts(vm: PlacementVm, fleet: Sequence[PlacementVm], hosts: _Hosts) -> Iterator[str]:
    could_hold = judge(vm, hosts.table, hosts.settings).feasible
    if not could_hold:
        if hosts.all_known:
            yield f"no node could ever hold it, even empty: {_refusals(vm, hosts)}"
        return
    if len(could_hold) == 1 and len(hosts.nodes) > 1 and hosts.all_known:
        yield f"only node {could_hold[0]} could hold it, so it would stay down when that one is lost"
        return
    for term in _anti_affinities(vm):
        yield from _group_size(vm, term, fleet, could_hold, hosts)


def _refusals(vm: PlacementVm, hosts: _Hosts) -> str:
    told = []
    for name in list(hosts.nodes)[:NODES_IN_WORDS_MAX]:
        words = reasons(vm, hosts.table, name)
        told.append(f"{name}: " + ", ".join(f"{rule} ({why})" if why else rule for rule, why in sorted(words.items())))
    more = len(hosts.nodes) - NODES_IN_WORDS_MAX
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")


def _anti_affinities(vm: PlacementVm) -> Iterable[VmAffinityTerm]:
    """Return the required terms by which VMs like this one stay away from each other."""
    affinity = vm.spec.affinity.vm_anti_affinity if vm.spec.affinity else None
    terms = affinity.required if affinity else ()
    return [term for term in terms if selects(compile_selector(term.label_selector), vm.labels)]


def _group_size(
    vm: PlacementVm, term: VmAffinityTerm, fleet: Sequence[PlacementVm], could_hold: Sequence[str], hosts: _Hosts
) -> Iterator[str]:
    key = _key(term)
    group = [other for other in fleet if any(_key(each) == key for each in _anti_affinities(other))]
    domains = {hosts.nodes[name][term.topology_key] for name in could_hold if term.topology_key in hosts.nodes[name]}
    each = "nodes" if len(domains) == len(could_hold) else f"values of {term.topology_key}"
    if len(group) > len(domains):
        yield (
            f"its required vmAntiAffinity keeps {len(group)} VMs apart by {term.topology_key}, and they may use only "
            f"{len(domains)} {each}: {len(group) - len(domains)} of them can never run"
        )
    elif len(group) == len(domains) and vm.spec.run_strategy in STARTS_ELSEWHERE:
        yield (
            f"its required vmAntiAffinity keeps {len(group)} VMs apart by {term.topology_key} on as many {each}: "
            "when one is lost, its VM has nowhere to go"
        )
