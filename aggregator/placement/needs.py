"""The needs of VMs that no agent has defined yet, read from what a person wrote, and remembered. Pure."""

from __future__ import annotations

import functools

from fleet.domain_xml import DomainXmlError, parse_domain
from fleet.model import Needs

REMEMBERED_MAX = 4096  # texts of domains
NO_NEEDS = Needs()


@functools.lru_cache(maxsize=REMEMBERED_MAX)
def needs_of_text(xml: str) -> Needs:
    """Return what a domain needs; nothing, if the text is no domain."""
    try:
        return parse_domain(xml).needs
    except DomainXmlError:
        return NO_NEEDS
