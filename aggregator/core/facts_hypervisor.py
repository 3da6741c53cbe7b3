"""Facts about what hypervisors are given. aggregator.core.events is the one name for them."""

from __future__ import annotations

from aggregator.core.words import Event


class HypervisorCertified(Event, frozen=True, kw_only=True):
    """A node's libvirt got a certificate. proven_sha256: of the key it showed to hold, key_sha256: of the new one."""

    name: str
    enrolment: str
    key_sha256: str
    proven_sha256: str = ""
