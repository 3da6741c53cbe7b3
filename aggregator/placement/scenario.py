"""One scenario of `virtward place`: nodes, VMs that run, VMs to be judged; plain values in, verdicts out.

Pure. Each pending VM is judged alone against nodes and running VMs, with the rotation at 0.
Refuses bad input with the path inside the scenario; reads no file and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from msgspec import Struct

from aggregator.core.manifest import ManifestError, check_object
from aggregator.core.manifest_walk import show, step
from aggregator.core.objects import MigrationPolicy, Node, VirtualMachine
from aggregator.core.yaml_text import Plain
from aggregator.placement.place import build_table, judge
from aggregator.placement.table import Table
from aggregator.placement.types import PlacementNode, PlacementVm, ScoreSettings, Seat, Verdict
from fleet.domain_xml import DomainXmlError, parse_domain

_Named = TypeVar("_Named", PlacementNode, PlacementVm)
_FIELDS = ("name", "nodes", "running", "pending", "expect")  # expect: of recorded verdicts, not read


class Scenario(Struct, frozen=True):
    """What one line says."""

    name: str
    nodes: tuple[PlacementNode, ...]
    running: tuple[Seat, ...]
    pending: tuple[PlacementVm, ...]


def read_scenario(raw: Plain) -> Scenario:
    """Return the scenario of a plain mapping; ManifestError names the path of what is wrong."""
    if not isinstance(raw, dict):
        raise ManifestError("", f"{show(raw)} is no scenario; it is a mapping with name, nodes, running and pending")
    for key in raw:
        if key not in _FIELDS:
            raise ManifestError(key, f"there is no such field; known here: {', '.join(_FIELDS[:-1])}")
    name = raw.get("name")
    if not isinstance(name, str):
        raise ManifestError("name", "a scenario has a name" if name is None else f"{show(name)} is not text")
    nodes = tuple(_unique("nodes", [(path, PlacementNode.of(node)) for path, node in _nodes(raw)]))
    known = {node.name for node in nodes}
    running, seats = [], []
    for path, vm in _vms(raw, "running"):
        running.append((path, _sized(vm, path)))
        at = vm.status.node if vm.status else None
        if at not in known:
            problem = "a running VM has the node it runs on here" if at is None else f"there is no node {at!r} in nodes"
            raise ManifestError(f"{path}.status.node", problem)
        seats.append((running[-1][1], at))
    _unique("running", running)
    pending = _unique("pending", [(path, _sized(vm, path)) for path, vm in _vms(raw, "pending")])
    return Scenario(name=name, nodes=nodes, running=tuple(seats), pending=tuple(pending))


def table_of(scenario: Scenario) -> Table:
    return build_table(scenario.nodes, scenario.running)


def judge_scenario(scenario: Scenario, settings: ScoreSettings, *, all_scores: bool = False) -> list[Verdict]:
    """Return a verdict for each pending VM."""
    table = table_of(scenario)
    return [judge(vm, table, settings, 0, all_scores=all_scores) for vm in scenario.pending]


def _nodes(raw: dict[str, Plain]) -> Iterator[tuple[str, Node]]:
    for path, item in _items(raw, "nodes"):
        written = _object(item, path)
        if not isinstance(written, Node):
            raise ManifestError(path, "it is a VirtualMachine; here stand only Nodes")
        yield path, written


def _vms(raw: dict[str, Plain], field: str) -> Iterator[tuple[str, VirtualMachine]]:
    for path, item in _items(raw, field):
        written = _object(item, path)
        if isinstance(written, Node):
            raise ManifestError(path, "it is a Node; here stand only VirtualMachines")
        yield path, written


def _sized(vm: VirtualMachine, path: str) -> PlacementVm:
    """Return the VM with its written requests; what is not written comes from its domain XML, else it is 0."""
    if not vm.spec.domain_xml:
        return PlacementVm.of(vm)
    try:
        domain = parse_domain(vm.spec.domain_xml)
    except DomainXmlError as error:
        raise ManifestError(f"{path}.spec.domainXML", str(error)) from None
    return PlacementVm.of(vm, cpu_m=domain.cpu_m, memory_bytes=domain.memory_bytes)


def _items(raw: dict[str, Plain], field: str) -> Iterator[tuple[str, Plain]]:
    items = raw.get(field, [])
    if not isinstance(items, list):
        raise ManifestError(field, f"{show(items)} is not a list")
    for place, item in enumerate(items):
        yield step(field, place), item


def _object(item: Plain, path: str) -> Node | VirtualMachine:
    try:
        written = check_object(item, complete=False)
    except ManifestError as error:
        raise error.at(0, path) from None
    if isinstance(written, MigrationPolicy):
        raise ManifestError(f"{path}.kind", "a MigrationPolicy has no place in a scenario")
    return written


def _unique(field: str, named: list[tuple[str, _Named]]) -> list[_Named]:
    seen: set[str] = set()
    for path, each in named:
        if each.name in seen:
            raise ManifestError(f"{path}.metadata.name", f"{each.name!r} stands twice in {field}")
        seen.add(each.name)
    return [each for _, each in named]
