"""Label keys that have a meaning of their own, and Kubernetes' names for them."""

from __future__ import annotations

HOSTNAME = "virtward/hostname"
ZONE = "virtward/zone"
RACK = "virtward/rack"
ARCH = "virtward/arch"

ALIASES = {
    "kubernetes.io/hostname": HOSTNAME,
    "topology.kubernetes.io/zone": ZONE,
    "kubernetes.io/arch": ARCH,
}
