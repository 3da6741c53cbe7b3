"""Facts about hypervisors: what they are given, what they say beforehand. aggregator.core.events is their one name."""

from __future__ import annotations

from aggregator.core.words import Event
from fleet.model import Finding


class ArrivalChecked(Event, frozen=True, kw_only=True):
    """The target of a migration has said whether the copy would come to run there."""

    node: str
    migration: str
    findings: tuple[Finding, ...] = ()


class HypervisorCertified(Event, frozen=True, kw_only=True):
    """A node's libvirt got a certificate. proven_sha256: of the key it showed to hold, key_sha256: of the new one."""

    name: str
    enrolment: str
    key_sha256: str
    proven_sha256: str = ""
