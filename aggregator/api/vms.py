"""Writing VMs: one object at a time and many at once (apply), all checked before the first is written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import cast

import msgspec
from aiohttp import web
from msgspec import Struct, field

from aggregator.api.bodies import DOCUMENTS_MAX, YAML_TYPES
from aggregator.api.calls import Call, answer, only, truth
from aggregator.api.checks import Findings, ask_libvirt, clash, compare, taken, writers, written_disks
from aggregator.api.definition import Edge, read_edge, size_of
from aggregator.api.lists import one
from aggregator.api.nodes import make_node
from aggregator.api.objects_in import check_version, merged, read_as
from aggregator.api.policies import make_policy
from aggregator.api.problems import Problem, bad_request, conflict, refused
from aggregator.api.rights import check_fact
from aggregator.api.router import Route
from aggregator.api.vm_state import living_vm, vm_record
from aggregator.api.writes import Make, commit
from aggregator.core.events import Event, VmApplied, VmDeleteRequested
from aggregator.core.manifest import ManifestError, WrittenObject, check_documents
from aggregator.core.objects import MigrationPolicy, Node, VirtualMachine
from aggregator.core.state import State
from aggregator.core.yaml_text import Plain

WRITES_IN_FLIGHT_MAX = 50
PATCH_TRIES_MAX = 5


class Plan(Struct):
    """What a request wants to be, after all checks. makes: in the order of the documents."""

    makes: list[tuple[str, str, Make]]  # kind, name
    warnings: list[str] = field(default_factory=list)


def edge_of(state: State, written: VirtualMachine) -> Edge:
    """Return a VM that came in, completed by what is known of the one that has its name."""
    record = state.vms.get(written.metadata.name)
    return read_edge(written, record.uuid, record.spec.domain_xml) if record else read_edge(written)


def make_vm(edge: Edge, checked_at: int, who: str, coming: frozenset[str] = frozenset()) -> Make:
    """Return what makes the state hold this VM.

    checked_at: position up to which the disks were compared with the fleet; coming: the VMs of the
    same request, which were compared with each other.
    """
    spec = msgspec.structs.replace(edge.written.spec, domain_xml=edge.xml)
    cpu_m, memory_bytes = size_of(spec, edge.domain)
    labels, annotations = edge.written.metadata.labels, edge.written.metadata.annotations

    def make(state: State, now: float) -> Event | None:
        record = state.vms.get(edge.name)
        check_version(edge.written.metadata, record.version if record else None, f"VM {edge.name}")
        if problem := taken(state, edge):
            raise conflict(problem)
        if record is not None and record.uuid != edge.uuid:
            raise conflict(f"VM {edge.name} was deleted and created anew meanwhile; try again")
        _newer_writers(state, edge, checked_at, coming)
        disks = edge.domain.disks
        if record is not None and record.spec.domain_xml == edge.xml:
            disks = record.disks
            same = (record.spec, record.labels, record.annotations, record.cpu_m, record.memory_bytes)
            if same == (spec, labels, annotations, cpu_m, memory_bytes):
                return None
        return VmApplied(
            at=now,
            name=edge.name,
            uuid=edge.uuid,
            spec=spec,
            labels=labels,
            annotations=annotations,
            disks=disks,
            cpu_m=cpu_m,
            memory_bytes=memory_bytes,
            who=who,
        )

    return make


def _newer_writers(state: State, edge: Edge, checked_at: int, coming: frozenset[str]) -> None:
    """Refuse a disk that a VM written since the check has taken meanwhile."""
    own = {disk.identity: disk for disk in writers(edge.domain.disks)}
    for other in state.vms.values():
        if other.version > checked_at and other.name != edge.name and other.name not in coming:
            for disk in written_disks(other):
                if disk.identity in own:
                    raise conflict(clash(edge.name, own[disk.identity], other.name))


async def plan(call: Call, written: Sequence[WrittenObject], *, strict: bool) -> Plan:
    """Check everything that came in; Problem 422 with every fault if there is any."""
    state = call.fleet.state
    position = state.position
    edges = [edge_of(state, vm) for vm in written if isinstance(vm, VirtualMachine)]
    found = compare(state, edges, [node.metadata.name for node in written if isinstance(node, Node)])
    found.warnings.extend(
        f"MigrationPolicy {item.metadata.name}: spec.allowPostCopy is kept, but nothing acts on it yet; leave it out"
        for item in written
        if isinstance(item, MigrationPolicy) and item.spec.allow_post_copy
    )
    if not found.errors:
        changed = [edge for edge in edges if _is_new(state, edge)]
        _join(found, await ask_libvirt(call.fleet, changed) if changed else Findings())
    faults = tuple(found.errors + (found.warnings if strict else []))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise refused(faults[0] + more, faults if more else ())
    coming = frozenset(edge.name for edge in edges)
    by_name = {edge.name: edge for edge in edges}

    def make_of(item: WrittenObject) -> Make:
        if isinstance(item, Node):
            return make_node(item, call.who)
        if isinstance(item, MigrationPolicy):
            return make_policy(item, call.who)
        return make_vm(by_name[item.metadata.name], position, call.who, coming)

    return Plan([(item.kind, item.metadata.name, make_of(item)) for item in written], found.warnings)


def _is_new(state: State, edge: Edge) -> bool:
    record = state.vms.get(edge.name)
    return record is None or record.spec.domain_xml != edge.xml


def _join(found: Findings, more: Findings) -> None:
    found.errors.extend(more.errors)
    found.warnings.extend(more.warnings)


async def apply(call: Call) -> web.StreamResponse:
    """Create or change objects: all documents are checked first, on any error nothing is written."""
    documents, strict = await _applied_documents(call)
    try:
        written = check_documents(cast("list[Plain]", documents))
    except ManifestError as error:
        raise refused(str(error)) from None
    if not written:
        raise bad_request("there is no object in this request")
    planned = await plan(call, written, strict=strict)
    before = call.fleet.state
    results = []
    for kind, name, make in planned.makes:
        existed = name in (before.nodes if kind == "Node" else before.vms)
        fact = make(before, call.fleet.now())  # every refusal before the first write
        if fact is not None:
            check_fact(call.rights, before, fact)
        result = "unchanged" if fact is None else "configured" if existed else "created"
        results.append({"kind": kind, "name": name, "result": result})
    if not call.dry_run:
        await _commit_all(call, planned.makes)
    return answer({"items": results, "warnings": planned.warnings})


async def _applied_documents(call: Call) -> tuple[list[object], bool]:
    if call.request.content_type in YAML_TYPES:
        return await call.documents(), call.flag("strict")
    body = await call.document()
    if "kind" in body or "items" in body:
        return [body], call.flag("strict")
    only(body, "documents", "strict")
    documents = body.get("documents")
    if not isinstance(documents, list):
        raise bad_request("documents must be a list of manifests")
    if len(documents) > DOCUMENTS_MAX:
        raise bad_request(f"documents holds {len(documents)} manifests; at most {DOCUMENTS_MAX} go at once")
    return documents, truth(body, "strict") or call.flag("strict")


async def _commit_all(call: Call, makes: Sequence[tuple[str, str, Make]]) -> None:
    done = 0
    for first in range(0, len(makes), WRITES_IN_FLIGHT_MAX):
        some = makes[first : first + WRITES_IN_FLIGHT_MAX]
        results = await asyncio.gather(*(commit(call, make) for _, _, make in some), return_exceptions=True)
        done += sum(not isinstance(result, BaseException) for result in results)
        for (kind, name, _), result in zip(some, results, strict=True):
            if isinstance(result, Problem) and len(makes) > 1:
                raise Problem(
                    result.status, f"{result.detail} ({kind} {name}; {done} of {len(makes)} objects are written)"
                )
            if isinstance(result, BaseException):
                raise result


async def put_vm(call: Call) -> web.StreamResponse:
    """Create a VM or replace its spec."""
    return await _write(call, read_as(VirtualMachine, await call.document(), call.name))


async def post_vm(call: Call) -> web.StreamResponse:
    """Create a VM; Problem 409 if there is one of that name."""
    written = read_as(VirtualMachine, await call.document())
    if written.metadata.name in call.fleet.state.vms:
        raise conflict(f"there is a VM {written.metadata.name!r} already; PUT replaces its spec")
    return await _write(call, written)


async def patch_vm(call: Call) -> web.StreamResponse:
    """Merge into a VM's labels, annotations and spec; null deletes."""
    patch = await call.document()
    metadata = patch.get("metadata")
    named_version = isinstance(metadata, dict) and "resourceVersion" in metadata
    for last in (False,) * (PATCH_TRIES_MAX - 1) + (True,):
        version = living_vm(call.fleet.state, call.name).version
        current = one(call.fleet.state, "vms", call.name)
        try:
            return await _write(call, read_as(VirtualMachine, merged(current, patch, call.name)))
        except Problem as problem:
            record = call.fleet.state.vms.get(call.name)
            moved = record is not None and record.version != version
            if last or named_version or not moved or problem.status is not HTTPStatus.CONFLICT:
                raise
    raise AssertionError("the last try either answers or raises")


async def _write(call: Call, written: VirtualMachine) -> web.StreamResponse:
    existed = written.metadata.name in call.fleet.state.vms
    planned = await plan(call, [written], strict=call.flag("strict"))
    _, name, make = planned.makes[0]
    state, _ = await commit(call, make)
    response = answer(one(state, "vms", name), HTTPStatus.OK if existed else HTTPStatus.CREATED)
    for warning in planned.warnings:
        response.headers.add("Warning", f'299 virtward "{_quotable(warning)}"')
    return response


def _quotable(text: str) -> str:
    return text.replace("\\", "/").replace('"', "'").encode("ascii", errors="replace").decode()


async def delete_vm(call: Call) -> web.StreamResponse:
    """Stop and undefine a VM, its disks stay; Problem 409 for one that runs, without force."""
    force = call.flag("force")

    def make(state: State, now: float) -> Event | None:
        record = vm_record(state, call.name)
        if record.deleting:
            return None
        if record.run_open and not force:
            raise conflict(
                f"VM {call.name} runs on {record.owner}; stop it first, or delete it with --force (?force=1)"
            )
        return VmDeleteRequested(at=now, name=call.name, who=call.who)

    shown = one(call.fleet.state, "vms", call.name)
    state, _ = await commit(call, make)
    return answer(one(state, "vms", call.name) if call.name in state.vms else shown)


_VM = "/api/v1/vms/{name}"
ROUTES = [
    Route("POST", "/api/v1/apply", apply, "create or change many objects, all or none", "Apply", "Applied"),
    Route("POST", "/api/v1/vms", post_vm, "create a VM from a manifest", "VirtualMachine", "VirtualMachine"),
    Route("PUT", _VM, put_vm, "create a VM or replace its spec", "VirtualMachine", "VirtualMachine"),
    Route("PATCH", _VM, patch_vm, "merge into a VM's labels and spec", "Patch", "VirtualMachine"),
    Route("DELETE", _VM, delete_vm, "stop and undefine a VM; disks stay", "", "VirtualMachine"),
]
