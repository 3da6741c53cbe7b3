"""Manifests in KubeVirt's shape: recognised, refused, and told where each field belongs.

Knows KubeVirt's field names and ours, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

from aggregator.core.manifest_walk import NO_NAMESPACES, ManifestError
from aggregator.core.yaml_text import DEPTH_MAX, Plain

MOVES_SHOWN_MAX = 12
_NONE = "(nothing here does this)"

_INSTANCE = "spec.template.spec."
# KubeVirt's path -> ours; the longest that fits counts.
_MOVES = {
    "spec.running": "spec.runStrategy",
    "spec.template.metadata.labels": "metadata.labels",
    "spec.template.metadata.annotations": "metadata.annotations",
    "spec.dataVolumeTemplates": "(make the disk first, then name it in spec.domain.disks)",
    "spec.instancetype": _NONE,
    "spec.preference": _NONE,
    **{
        _INSTANCE + same: f"spec.{same}"
        for same in (
            "nodeSelector",
            "affinity",
            "tolerations",
            "topologySpreadConstraints",
            "evictionStrategy",
            "terminationGracePeriodSeconds",
            "livenessProbe",
            "readinessProbe",
        )
    },
    _INSTANCE + "domain.resources.requests": "spec.resources.requests",
    _INSTANCE + "domain.resources": "spec.resources",
    _INSTANCE + "domain.cpu": "spec.domain.cpu",
    _INSTANCE + "domain.memory": "spec.domain.memory",
    _INSTANCE + "domain.firmware": "spec.domain.firmware",
    _INSTANCE + "domain.devices.disks": "spec.domain.disks",
    _INSTANCE + "domain.devices.interfaces": "spec.domain.interfaces",
    _INSTANCE + "domain.devices.tpm": "spec.domain.tpm",
    _INSTANCE + "domain": "spec.domainXML",
    _INSTANCE + "volumes": "spec.domain.disks",
    _INSTANCE + "networks": "spec.domain.interfaces",
    _INSTANCE + "hostname": _NONE,
    _INSTANCE + "priorityClassName": "spec.restartPriority",
}


def refuse_kubevirt(raw: dict[str, Plain]) -> None:
    """Raise ManifestError if the object is written for KubeVirt; say where each field belongs."""
    version, spec = raw.get("apiVersion"), raw.get("spec")
    fields = spec if isinstance(spec, dict) else {}
    foreign = isinstance(version, str) and "kubevirt.io/" in version
    instance = foreign and str(raw.get("kind", "")).startswith("VirtualMachineInstance")
    if not (foreign or ("template" in fields and raw.get("kind") == "VirtualMachine") or "running" in fields):
        return
    if instance:  # its spec is what a VirtualMachine has as its template
        raw = {**raw, "spec": {"template": {"spec": spec}}}
    moves = _moves(raw)
    shown = {_shown(old, instance=instance): new for old, new in moves.items()}
    told = [f"{old} → {new}" for old, new in shown.items() if old != new]
    if foreign:
        told.insert(0, f"apiVersion {version} → virtward/v1")
    if isinstance(metadata := raw.get("metadata"), dict) and "namespace" in metadata:
        told.append(f"metadata.namespace → ({NO_NAMESPACES})")
    if len(told) > MOVES_SHOWN_MAX:
        told = [*told[:MOVES_SHOWN_MAX], "…"]
    raise ManifestError("", f"this is a manifest in KubeVirt's shape; move each field: {', '.join(told)}")


def _shown(path: str, *, instance: bool) -> str:
    return path.replace(_INSTANCE, "spec.") if instance else path


def _moves(raw: dict[str, Plain]) -> dict[str, str]:
    """Return KubeVirt's path -> ours for what the object holds, each once, in its order."""
    moves: dict[str, str] = {}
    for path in _leaves(raw, "", DEPTH_MAX):
        known = [old for old in _MOVES if path == old or path.startswith((old + ".", old + "["))]
        if known:
            longest = max(known, key=len)
            moves.setdefault(longest, _MOVES[longest])
        elif path.startswith(_INSTANCE):
            name = path.removeprefix(_INSTANCE).split(".")[0].split("[")[0]
            moves.setdefault(_INSTANCE + name, _NONE)
    return moves


def _leaves(value: Plain, path: str, depth: int) -> Iterator[str]:
    if isinstance(value, dict) and value and depth:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key, depth - 1)
    else:
        yield path
