"""Gives each node the certificates of its libvirt and its QEMUs, for addresses that are no other node's.

Knows the authorities and what the state says of addresses; who asks was checked by its caller.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from aggregator.core.state import NodeRecord, State
from aggregator.hypervisor_authority import Address, HypervisorAuthority
from fleet.hypervisor_tls import ADDRESSES_MAX, Chain, HypervisorIssued, Purpose
from fleet.identity import Identity


class HypervisorCertificates:
    """All purposes' authorities."""

    def __init__(self, directory: Path, life_s: float) -> None:
        """Open them in a directory, or make them there. ServiceError if one cannot be used."""
        self.authorities = {purpose: HypervisorAuthority(directory, purpose, life_s) for purpose in Purpose}

    def issue(
        self,
        state: State,
        named: Identity,
        keys: Mapping[Purpose, ec.EllipticCurvePublicKey],
        addresses: tuple[str, ...],
    ) -> HypervisorIssued:
        """Return a chain for each key. An address that another node has goes into none of them, and is named."""
        mine, left_out = _own_addresses(state, named.name, addresses[:ADDRESSES_MAX])
        chains = {}
        for purpose, key in keys.items():
            authority = self.authorities[purpose]
            certificate = authority.sign(key, named.name, named.enrolment, mine)
            chains[purpose] = Chain(certificate, authority.files.text, authority.revocations(state.denied))
        return HypervisorIssued(chains, left_out)


def _own_addresses(state: State, name: str, asked: tuple[str, ...]) -> tuple[list[Address], tuple[str, ...]]:
    """Return what of it may be signed for a node, and what may not: no address, or another node's.

    What an operator gave a node counts before what any node says of itself.
    """
    ordered, told = {}, {}
    for node in state.nodes.values():
        for address in _read(node.spec.migration_address):
            ordered[address] = node.name
        if node.name != name:
            for address in _told(node):
                told[address] = node.name
    mine: list[Address] = []
    left_out: list[str] = []
    for text in asked:
        found = _read(text)
        if found and ordered.get(found[0], name if found[0] not in told else "") == name:
            mine += found
        else:
            left_out.append(text[:64])
    return mine, tuple(left_out)


def _told(node: NodeRecord) -> list[Address]:
    if node.facts is None:
        return []
    return [address for text in node.facts.addresses.values() for address in _read(text)]


def _read(text: str) -> list[Address]:
    try:
        return [ipaddress.ip_address(text)] if text else []
    except ValueError:
        return []
