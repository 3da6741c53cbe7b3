"""Manifests for tests: only what matters to the test is named."""

from __future__ import annotations

from typing import Any


def domain_xml(name: str, disk: str = "", uuid: str = "", extra: str = "", devices: str = "") -> str:
    """Return a small domain with one disk of its own on shared storage."""
    disk = disk or f"disk-of-{name}"
    return (
        f"<domain type='qemu'><name>{name}</name>"
        + (f"<uuid>{uuid}</uuid>" if uuid else "")
        + "<memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type machine='q35'>hvm</type></os>"
        + extra
        + "<devices><disk type='network' device='disk'>"
        + f"<source protocol='nbd' name='{disk}'><host name='10.3.0.1' port='10809'/></source>"
        + f"<target dev='vda' bus='virtio'/></disk>{devices}</devices></domain>"
    )


def a_vm(name: str = "web-1", strategy: str = "Always", **spec: Any) -> dict[str, Any]:
    """Return the manifest of a VM."""
    labels = spec.pop("labels", {})
    xml = spec.pop("xml", None) or domain_xml(name)
    return {
        "apiVersion": "virtward/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "labels": labels},
        "spec": {"runStrategy": strategy, "domainXML": xml, **spec},
    }


def a_node(name: str = "n9", **spec: Any) -> dict[str, Any]:
    """Return the manifest of a node."""
    labels = spec.pop("labels", {})
    return {"apiVersion": "virtward/v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec}
