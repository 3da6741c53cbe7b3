"""Text or plain values to VirtualMachine and Node objects, and back; bad input is one sentence with its place.

The door for everything people write: `virtward apply`, the HTTP API, `virtward place`. Pure.
Syntax is yaml_text.py's, shapes are manifest_walk.py's, what fields may say is manifest_rules.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias, cast

import msgspec

from aggregator.core.domain_form import DomainForm, domain_xml
from aggregator.core.manifest_kubevirt import refuse_kubevirt
from aggregator.core.manifest_rules import check_node, check_policy, check_vm
from aggregator.core.manifest_walk import ManifestError, as_written, convert, not_one_of, shape, show
from aggregator.core.objects import API_VERSION, MigrationPolicy, Node, VirtualMachine
from aggregator.core.yaml_text import Plain, TextError, read_yaml, write_yaml

__all__ = [
    "ManifestError",
    "WrittenObject",
    "check_documents",
    "check_object",
    "dump_yaml",
    "plain_object",
    "read_objects",
]

OBJECTS_MAX = 10_000

WrittenObject: TypeAlias = VirtualMachine | Node | MigrationPolicy
_KINDS: dict[str, type[WrittenObject]] = {
    "VirtualMachine": VirtualMachine,
    "Node": Node,
    "MigrationPolicy": MigrationPolicy,
}
_LIST_KINDS = (None, "List", "VirtualMachineList", "NodeList", "MigrationPolicyList")
_MADE_BY_SYSTEM = ("Migration", "Incident", "Event", "Drain")


def read_objects(text: str, *, complete: bool = True) -> list[WrittenObject]:
    """Return the objects of a YAML or JSON text of one or more documents; ManifestError on the first fault.

    A document `{items: […]}`, as `virtward get -o yaml` prints it, counts as its items.
    complete: what a VM needs to be run is required (runStrategy and its domain).
    """
    try:
        documents = read_yaml(text)
    except TextError as error:
        place = f"line {error.line}, column {error.column}" if error.line else ""
        raise ManifestError(place, error.problem, error.document) from None
    found = check_documents(documents, complete=complete)
    if not found:
        raise ManifestError("", "there is no object in this text")
    return found


def check_documents(documents: Sequence[Plain], *, complete: bool = True) -> list[WrittenObject]:
    """Return the objects of documents that were parsed already; empty ones are passed over.

    ManifestError names the document, counted from 1; also where two objects have one kind and name.
    """
    found: list[WrittenObject] = []
    first_at: dict[tuple[str, str], int] = {}
    for number, document in enumerate(documents, 1):
        for prefix, raw in _items(document, number):
            try:
                written = check_object(raw, complete=complete)
            except ManifestError as error:
                raise error.at(number, prefix) from None
            key = (written.kind, written.metadata.name)
            if key in first_at:
                problem = f"document {first_at[key]} holds a {key[0]} {key[1]!r} already; keep one of them"
                raise ManifestError("metadata.name", problem).at(number, prefix)
            first_at[key] = number
            found.append(written)
            if len(found) > OBJECTS_MAX:
                raise ManifestError("", f"more than {OBJECTS_MAX} objects at once; split them", number)
    return found


def _items(document: Plain, number: int) -> Iterable[tuple[str, Plain]]:
    if document is None:
        return []
    if isinstance(document, dict) and document.get("kind") in _LIST_KINDS:
        items = document.get("items")
        if isinstance(items, list):
            return [(f"items[{place}]", item) for place, item in enumerate(items)]
        if document.get("kind") is not None:
            raise ManifestError("items", "it must be a list of objects", number)
    return [("", document)]


def check_object(raw: Plain, *, complete: bool = True) -> WrittenObject:
    """Return the object of one plain mapping; ManifestError names the path of what is wrong.

    The short form spec.domain is expanded to spec.domainXML here, once.
    """
    if not isinstance(raw, dict):
        raise ManifestError("", f"{show(raw)} is no object; it is a mapping with apiVersion, kind, metadata and spec")
    refuse_kubevirt(raw)
    kind = _kind(raw)
    cls = _KINDS[kind]
    if kind == "VirtualMachine":
        raw = _expanded(raw, complete=complete)
    plain = shape(raw, cls)
    written = cast("WrittenObject", convert(plain, cls))
    try:
        if isinstance(written, Node):
            check_node(written)
        elif isinstance(written, MigrationPolicy):
            check_policy(written)
        else:
            check_vm(written)
            if complete:
                _check_complete(plain, written)
    except ManifestError as error:
        raise ManifestError(as_written(error.path, raw), error.problem) from None
    return written


def _kind(raw: dict[str, Plain]) -> str:
    version, kind = raw.get("apiVersion"), raw.get("kind")
    if kind in _MADE_BY_SYSTEM:
        raise ManifestError("kind", f"{kind} objects are made by virtward and cannot be written")
    if kind is None:
        raise ManifestError("kind", f"it is required and missing; it must be one of {', '.join(_KINDS)}")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ManifestError("kind", not_one_of(kind, list(_KINDS)))
    if version is None:
        raise ManifestError("apiVersion", f"it is required and missing; write {API_VERSION}")
    if version != API_VERSION:
        raise ManifestError("apiVersion", f"{show(version)} is not known; write {API_VERSION}")
    return kind


def _expanded(raw: dict[str, Plain], *, complete: bool) -> dict[str, Plain]:
    """Return the object with its short form replaced by XML, and with a spec at all."""
    spec = raw.get("spec")
    if spec is None and not complete:
        return {**raw, "spec": {}}
    if not isinstance(spec, dict) or spec.get("domain") is None:
        return raw
    if spec.get("domainXML"):
        raise ManifestError("spec.domain", "spec.domainXML stands here too; write exactly one of the two")
    form = convert(shape({"domain": spec["domain"]}, _Short, "spec"), _Short)
    metadata = raw.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    name, uid = named.get("name"), named.get("uid")
    xml = domain_xml(
        cast("_Short", form).domain, str(name or ""), uid if isinstance(uid, str) else "", path="spec.domain"
    )
    return {**raw, "spec": {**{key: value for key, value in spec.items() if key != "domain"}, "domainXML": xml}}


class _Short(msgspec.Struct, frozen=True):
    """The one field of the spec that is not stored."""

    domain: DomainForm


def _check_complete(plain: dict[str, Plain], vm: VirtualMachine) -> None:
    spec = plain.get("spec")
    if not isinstance(spec, dict) or "runStrategy" not in spec:
        words = "Always, RerunOnFailure, Manual, Halted, Once"
        raise ManifestError("spec.runStrategy", f"it is required and missing; it must be one of {words}")
    if not vm.spec.domain_xml.strip():
        raise ManifestError("spec", "exactly one of domainXML and domain is required; both are missing")


def plain_object(written: WrittenObject) -> dict[str, Plain]:
    """Return the plain form that people see, and that check_object reads back the same."""
    plain = msgspec.to_builtins(written)
    spec = dict(plain.get("spec", {}))
    if isinstance(written, VirtualMachine):
        spec = {"runStrategy": str(written.spec.run_strategy), **spec}
    head: dict[str, Plain] = {"apiVersion": written.api_version, "kind": written.kind}
    return {**head, "metadata": plain["metadata"], "spec": spec, **{k: plain[k] for k in ("status",) if k in plain}}


def dump_yaml(*written: WrittenObject) -> str:
    """Return the objects as YAML documents; `get -o yaml | apply -f -` changes nothing."""
    return "---\n".join(write_yaml(plain_object(each)) for each in written)
