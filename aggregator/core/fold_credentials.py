"""What is held of credentials: nodes' join tokens and enrolments, people's tokens, revocations. Pure."""

from __future__ import annotations

from collections.abc import Callable

from aggregator.core import events as ev
from aggregator.core.events import Event
from aggregator.core.state import ApiToken, Credentials, NodeRecord, State

DENIED_S = 8 * 24 * 3600.0  # longer than a certificate can be set to live


def _join_token_issued(state: State, event: ev.JoinTokenIssued) -> None:
    node = state.nodes.get(event.name)
    if node is None:
        node = state.nodes[event.name] = NodeRecord(event.name, created=event.at)
    node.credentials.join_sha256, node.credentials.join_until = event.token_sha256, event.until
    node.approved = True
    node.version = node.fact = state.position


def deny(state: State, node: NodeRecord, at: float) -> None:
    """Remember an enrolment that counts no more for as long as a certificate of it may still hold."""
    if node.credentials.enrolment:
        state.denied[node.credentials.enrolment] = at
    for enrolment in [each for each, since in state.denied.items() if since < at - DENIED_S]:
        del state.denied[enrolment]


def _node_joined(state: State, event: ev.NodeJoined) -> None:
    node = state.nodes[event.name]
    deny(state, node, event.at)
    node.token_sha256 = event.relay_sha256
    node.credentials = Credentials(enrolment=event.enrolment, joined_at=event.at)
    node.version = node.fact = state.position


def _hypervisor_certified(state: State, event: ev.HypervisorCertified) -> None:
    node = state.nodes.get(event.name)
    if node is not None and node.credentials.enrolment == event.enrolment:
        proven = (event.proven_sha256,) if event.proven_sha256 else ()
        node.credentials.hypervisor_keys = (*proven, event.key_sha256)


def _node_revoked(state: State, event: ev.NodeRevoked) -> None:
    node = state.nodes[event.name]
    deny(state, node, event.at)
    node.token_sha256 = ""
    node.credentials = Credentials()
    node.version = node.fact = state.position


def _api_token_issued(state: State, event: ev.ApiTokenIssued) -> None:
    state.tokens[event.token] = ApiToken(event.token_sha256, event.role, event.selector, event.until, event.who)


def _api_token_revoked(state: State, event: ev.ApiTokenRevoked) -> None:
    state.tokens.pop(event.token, None)


HANDLERS: dict[type[Event], Callable[..., None]] = {
    ev.JoinTokenIssued: _join_token_issued,
    ev.NodeJoined: _node_joined,
    ev.NodeRevoked: _node_revoked,
    ev.HypervisorCertified: _hypervisor_certified,
    ev.ApiTokenIssued: _api_token_issued,
    ev.ApiTokenRevoked: _api_token_revoked,
}
