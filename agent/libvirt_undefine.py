"""Removing a domain's definition from libvirt, and leaving all that may be needed again. Blocking."""

from __future__ import annotations

from typing import Any

import libvirt

# A saved image counts as nothing: starts boot anew, whether there is one or not.
KEEP_STATE_FLAGS = (
    libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
)
KEEPS_TPM_SINCE = 8_009_000  # older libvirts refuse the flag


def undefine(conn: Any, domain: Any) -> None:  # noqa: ANN401 - libvirt-python ships no types
    """Remove the definition; disks, NVRAM and TPM state stay. libvirtError where libvirt refuses."""
    keep_tpm = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM if conn.getLibVersion() >= KEEPS_TPM_SINCE else 0
    domain.undefineFlags(KEEP_STATE_FLAGS | keep_tpm)
