"""Manifests that are right but for what a test changes, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from aggregator.core.manifest import ManifestError, check_object

XML = "<domain><name>web-1</name></domain>"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def a_vm(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "virtward/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "web-1", **metadata},
        "spec": {"runStrategy": "Always", "domainXML": XML, **(spec or {})},
    }


def a_node(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "virtward/v1", "kind": "Node", "metadata": {"name": "kvm2", **metadata}, "spec": spec or {}}


def refusal(raw: Any) -> str:
    with pytest.raises(ManifestError) as refused:
        check_object(raw)
    return str(refused.value)


LABEL_VALUE = (
    "is no label value; at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
)
LABEL_KEY = (
    "is no label key; at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, "
    "after an optional prefix and '/'"
)
