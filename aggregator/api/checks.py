"""What can only be seen by comparing: VMs that come in with each other, with the fleet, with a host's libvirt.

Errors refuse the whole request; warnings go back with the answer, and are errors where strict is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct, field

from aggregator.api.definition import Edge, bypasses, deaf_probes, disks_in, left_behind
from aggregator.core.labels import HOSTNAME
from aggregator.core.linting import lint
from aggregator.core.objects import VmSpec
from aggregator.core.state import State, VmRecord
from aggregator.fleet_access import FleetAccess
from aggregator.placement.types import PlacementVm
from fleet.model import Disk

CHECKS_IN_FLIGHT_MAX = 8


class Findings(Struct):
    """What the checks found: sentences, in the order of the documents."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def compare(state: State, edges: Sequence[Edge], node_names: Iterable[str]) -> Findings:
    """Compare VMs with each other and with the fleet. node_names: nodes that come in with them."""
    found = Findings()
    _uuids(state, edges, found)
    _disks(state, edges, found)
    _cycles(state, edges, found)
    known = {*state.nodes, *node_names}
    names = {edge.name for edge in edges} | set(state.vms)
    for edge in edges:
        found.warnings.extend(f"VM {edge.name}: {sentence}" for sentence in bypasses(edge.xml))
        found.warnings.extend(f"VM {edge.name}: {sentence}" for sentence in _not_acted_on(edge.written.spec))
        spec = edge.written.spec
        told = (*left_behind(spec, edge.xml, edge.name), *deaf_probes(spec, edge.xml))
        found.warnings.extend(f"VM {edge.name}: {sentence}" for sentence in told)
        found.warnings.extend(
            f"VM {edge.name}: {path} asks for node {node!r}, which nobody knows; it waits until there is one"
            for path, node in _nodes_asked(edge)
            if node not in known
        )
        found.warnings.extend(
            f"VM {edge.name}: spec.dependsOn names VM {need.vm!r}, which nobody knows; that counts as met"
            for need in edge.written.spec.depends_on
            if need.vm not in names
        )
    grows = not known <= state.nodes.keys()
    unheld = {edge.name for edge in edges if grows or any(node not in known for _, node in _nodes_asked(edge))}
    found.warnings.extend(lint(state, [_to_be_placed(edge) for edge in edges], unheld))
    return found


def _to_be_placed(edge: Edge) -> PlacementVm:
    sized = PlacementVm.of(edge.written, cpu_m=edge.domain.cpu_m, memory_bytes=edge.domain.memory_bytes)
    return msgspec.structs.replace(sized, needs=edge.domain.needs)


def _not_acted_on(spec: VmSpec) -> list[str]:
    """Return a sentence for each setting that is kept and that nothing acts on yet: nobody shall rely on it."""
    wishes = (("migration.allowPostCopy", (spec.migration is not None and spec.migration.allow_post_copy) or None),)
    return [
        f"spec.{name} is kept, but nothing acts on it yet; leave it out" for name, wish in wishes if wish is not None
    ]


def _uuids(state: State, edges: Sequence[Edge], found: Findings) -> None:
    seen: dict[str, str] = {}
    for edge in edges:
        other = seen.setdefault(edge.uuid, edge.name)
        if other != edge.name:
            found.errors.append(f"VM {edge.name}: its uuid {edge.uuid} is also that of VM {other}; each VM has its own")
        if problem := taken(state, edge):
            found.errors.append(problem)


def taken(state: State, edge: Edge) -> str:
    """Return why the fleet cannot take this name and uuid, empty if it can."""
    holder = state.names.get(edge.uuid)
    if holder is not None and holder != edge.name:
        return f"VM {edge.name}: its uuid {edge.uuid} belongs to VM {holder} already; leave it out to get a new one"
    record = state.vms.get(edge.name)
    if record is not None and record.deleting:
        return f"VM {edge.name} is being deleted; its name is free once every node it is bound to has let it go"
    if record is None:
        for node, reports in state.foreign.items():
            for report in reports.values():
                if report.uuid == edge.uuid or report.name == edge.name:
                    return (
                        f"VM {edge.name}: node {node} runs a domain {report.name!r} ({report.uuid}) that virtward does "
                        "not manage; adopt it, or end it there first"
                    )
    return ""


def _disks(state: State, edges: Sequence[Edge], found: Findings) -> None:
    coming = {edge.name for edge in edges}
    users: dict[str, str] = {}
    for record in state.vms.values():
        if record.name not in coming or record.bindings:  # what runs goes on writing to its old disks
            for disk in written_disks(record):
                users.setdefault(disk.identity, record.name)
    for edge in edges:
        for disk in writers(edge.domain.disks):
            other = users.setdefault(disk.identity, edge.name)
            if other != edge.name:
                found.errors.append(clash(edge.name, disk, other))


def clash(name: str, disk: Disk, other: str) -> str:
    """Return the sentence about two writers of one disk (safety.md, S15)."""
    return (
        f"VM {name}: disk {disk.target} ({disk.identity}) is already written by VM {other}, and a disk has one writer; "
        "take another disk, or mark it <readonly/> or <shareable/> in both"
    )


def writers(disks: Iterable[Disk]) -> Iterator[Disk]:
    """Yield the disks that must have no second writer."""
    return (disk for disk in disks if disk.writable and not disk.shareable)


def written_disks(record: VmRecord) -> Iterator[Disk]:
    """Yield the disks a VM of the fleet writes: as reported, as ordered and as it last ran."""
    yield from writers(record.disks)
    yield from writers(disks_in(record.spec.domain_xml))
    if record.definition is not None:
        yield from writers(record.definition.disks)


def _cycles(state: State, edges: Sequence[Edge], found: Findings) -> None:
    needs = {name: [need.vm for need in record.spec.depends_on] for name, record in state.vms.items()}
    needs |= {edge.name: [need.vm for need in edge.written.spec.depends_on] for edge in edges}
    told: set[str] = set()
    for edge in edges:
        path = _cycle_from(needs, edge.name) if edge.name not in told else None
        if path:
            told.update(path)
            found.errors.append(f"VM {edge.name}: spec.dependsOn runs in a circle: {' → '.join(path)}")


def _cycle_from(needs: dict[str, list[str]], start: str) -> list[str] | None:
    path = [start]
    branches = [iter(needs.get(start, ()))]
    done: set[str] = set()
    while branches:
        for name in branches[-1]:
            if name == start:
                return [*path, start]
            if name not in done and name not in path:
                path.append(name)
                branches.append(iter(needs.get(name, ())))
                break
        else:
            branches.pop()
            done.add(path.pop())
    return None


def _nodes_asked(edge: Edge) -> Iterator[tuple[str, str]]:
    spec = edge.written.spec
    if HOSTNAME in spec.node_selector:
        yield f"spec.nodeSelector[{HOSTNAME}]", spec.node_selector[HOSTNAME]
    affinity = spec.affinity.node_affinity if spec.affinity else None
    if affinity is None or affinity.required is None:
        return
    for term in affinity.required.node_selector_terms:
        for rule in (*term.match_expressions, *term.match_fields):
            if rule.operator == "In" and rule.key in (HOSTNAME, "metadata.name"):
                yield from (("spec.affinity.nodeAffinity", value) for value in rule.values)


async def ask_libvirt(fleet: FleetAccess, edges: Sequence[Edge]) -> Findings:
    """Ask a host whether its libvirt takes each XML. No host to ask is a warning, a refusal an error."""
    found = Findings()
    limit = asyncio.Semaphore(CHECKS_IN_FLIGHT_MAX)

    async def ask(edge: Edge) -> tuple[bool | None, str]:
        async with limit:
            verdict = await fleet.check_definition(edge.xml)
        if verdict.ok is False:
            where = f" on {verdict.node}" if verdict.node else ""
            said = " ".join(verdict.message.split()) or "it gives no reason"
            return False, f"VM {edge.name}: libvirt{where} refuses spec.domainXML: {said}"
        return verdict.ok, " ".join(verdict.message.split())

    answers = await asyncio.gather(*(ask(edge) for edge in edges))
    found.errors.extend(text for ok, text in answers if ok is False)
    unasked = [text for ok, text in answers if ok is None]
    if unasked:
        why = unasked[0] or "no agent could be asked"
        found.warnings.append(f"no libvirt has checked the XML of {len(unasked)} VMs yet: {why}")
    return found
