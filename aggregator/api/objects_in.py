"""What all writes of objects share: reading them, the version they were read at, merging a patch.

Knows manifests and versions; what a VM or a node may become is vms.py's and nodes.py's.
"""

from __future__ import annotations

from typing import TypeVar, cast

import msgspec

from aggregator.api.bodies import PlainObject
from aggregator.api.problems import bad_request, conflict, refused
from aggregator.core.manifest import ManifestError, check_object
from aggregator.core.objects import Metadata, MigrationPolicy, Node, VirtualMachine
from aggregator.core.yaml_text import Plain

Written = TypeVar("Written", VirtualMachine, Node, MigrationPolicy)


def read_as(kind: type[Written], document: PlainObject, name: str = "") -> Written:
    """Return the object of a document; Problem 422 names the path of what is wrong.

    name: the one in the path of the request; empty where there is none.
    """
    try:
        written = check_object(cast("Plain", document))
    except ManifestError as error:
        raise refused(str(error)) from None
    if not isinstance(written, kind):
        raise refused(f"kind: a {written.kind} stands here; this is the place of a {kind.__name__}")
    if name and written.metadata.name != name:
        raise refused(f"metadata.name: {written.metadata.name!r} is not the name in the path, {name!r}")
    return written


def check_version(written: Metadata, version: int | None, what: str) -> None:
    """Refuse to write over a newer object. version: of the object that is there; None: there is none."""
    if not written.resource_version:
        return
    if version is None:
        raise conflict(f"{what} has been deleted since it was read; leave metadata.resourceVersion out to create it")
    if written.resource_version != str(version):
        raise conflict(
            f"{what} was changed since it was read (resourceVersion {written.resource_version}, now {version}); "
            "read it again, or leave metadata.resourceVersion out to write over it"
        )


def merged(current: PlainObject, patch: PlainObject, name: str) -> PlainObject:
    """Return the object with a merge patch applied (RFC 7396: null deletes); the status cannot be patched."""
    for key in patch:
        if key not in ("apiVersion", "kind", "metadata", "spec"):
            raise bad_request(f"{key} cannot be patched; a patch holds metadata and spec")
    plain: PlainObject = msgspec.json.decode(msgspec.json.encode(current))  # lists, as a manifest has them
    plain.pop("status", None)
    result = _merge(plain, patch)
    metadata = result.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("name") != name:
        raise refused("metadata.name: an object cannot be renamed")
    return result


def _merge(target: PlainObject, patch: PlainObject) -> PlainObject:
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            below = result.get(key)
            result[key] = _merge(below if isinstance(below, dict) else {}, value)
        else:
            result[key] = value
    return result


def merged_settings(current: PlainObject, patch: PlainObject) -> PlainObject:
    """Return settings with a merge patch applied; null takes a setting out, so that it gets its default."""
    return _merge(current, patch)
