"""Who opens a connection to the agents' door: by certificate, or by token where agents speak openly.

Knows headers and certificates; what a caller then says, and whether its name fits, is the intake's.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping

from aiohttp import web
from msgspec import Struct

from aggregator.core.events import NodeReadmitted
from aggregator.core.state import NodeRecord, State
from fleet.identity import Identity, Role, same_digest
from fleet.sealing import Claim, read_claim, token_digest
from fleet.tls import caller_of

SECRET_BYTES = 32


class Caller(Struct, frozen=True):
    """Who opened a connection. claim: where a peer carries it."""

    token_sha256: str
    claim: Claim | None = None
    identity: Identity | None = None  # of the certificate, where agents have one
    enrolment: str = ""  # of the certificates of the node that speaks

    @property
    def via(self) -> str:
        return self.claim.via if self.claim is not None else ""


def readmission(state: State, request: web.Request, now: float) -> NodeReadmitted | None:
    """Return that a member comes in again by its certificate, which a person named when the store was rebuilt.

    Which certificates had been revoked went with the store. The first one that names the node counts; they live
    for a day.
    """
    identity = caller_of(request) if state.rebuilding else None
    if identity is None or identity.role is not Role.AGENT:
        return None
    record = state.nodes.get(identity.name)
    if record is None or not record.expected or record.credentials.enrolment or record.token_sha256:
        return None
    nobodys = token_digest(secrets.token_hex(SECRET_BYTES))
    return NodeReadmitted(at=now, name=identity.name, enrolment=identity.enrolment, relay_sha256=nobodys)


def certified(nodes: Mapping[str, NodeRecord], request: web.Request) -> Caller | str:
    """Return who calls by its certificate, or why it may not. A claim's carrier is who the certificate names."""
    identity = caller_of(request)
    if identity is None or identity.role is not Role.AGENT:
        return "an agent must show a certificate of this fleet that names a node"
    record = nodes.get(identity.name)
    if record is None or not same_digest(record.credentials.enrolment, identity.enrolment):
        return f"the certificates of {identity.name} were revoked or replaced; virtward node token lets it join anew"
    claim = read_claim(request.headers.get("Authorization", ""))
    if claim is None:
        return Caller(record.token_sha256, None, identity, record.credentials.enrolment)
    origin = nodes.get(claim.node)
    if claim.via != identity.name or origin is None or not origin.token_sha256:
        return f"{identity.name} may not carry this connection"
    return Caller(origin.token_sha256, claim, identity, origin.credentials.enrolment)


def by_token(nodes: Mapping[str, NodeRecord], request: web.Request) -> Caller | str:
    """Return who calls where agents have no certificates: a token, or a claim whose seal will show it."""
    header = request.headers.get("Authorization", "")
    scheme, _, token = header.partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return Caller(token_digest(token))
    claim = read_claim(header)
    record = nodes.get(claim.node) if claim is not None else None
    if record is None or not record.token_sha256:
        return "an agent must send its token: Authorization: Bearer TOKEN"
    return Caller(record.token_sha256, claim)


def fault_of_caller(nodes: Mapping[str, NodeRecord], node: str, caller: Caller) -> tuple[str, str] | None:
    """Return (code, sentence) why who opened a connection may not say hello as this node; None if it may."""
    if caller.claim is not None and caller.claim.node != node:
        return "token", f"a connection opened for {caller.claim.node} speaks of {node}"
    if caller.claim is None and caller.identity is not None and caller.identity.name != node:
        return "identity", f"the certificate names {caller.identity.name}, not {node}"
    record = nodes.get(node)
    known = record.token_sha256 if record else ""
    if known and not hmac.compare_digest(known, caller.token_sha256):
        return "token", f"this is not {node}'s token; virtward node token {node} issues another"
    return None
