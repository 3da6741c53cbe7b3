"""A silent node whose agent a peer hears may speak through that peer.

The control path is cut, the agent lives: the peer is asked to offer itself, the agent decides
whether it needs it and opens a session through it. A relayed node is Up and degraded: it keeps
what it runs and obeys what ends things, and is given nothing new (lookups.takes_vms). What came
through another's hands proves no reboot (proofs.py, welcome.py). Pure.
"""

from __future__ import annotations

from aggregator.core.actions import SendRelayOffer
from aggregator.core.contradictions import RECONNECT_DELAY_S_MAX
from aggregator.core.draft import Draft
from aggregator.core.events import NodeState, RelaySought
from aggregator.core.lookups import speaks_directly
from aggregator.core.nodes import EVIDENCE_FRESH_S, RELAY_EVERY_S, beats_again
from aggregator.core.state import NodeRecord, PeerHeard, Suspicion
from fleet.messages import OfferRelay
from fleet.model import Plane

RELAY_QUICK_TRIES = 5
RELAY_SLOWLY_EVERY_S = 20.0  # for an agent that answers and takes no offer
_MAY_SPEAK = (NodeState.UNSEEN, NodeState.SUSPECT, NodeState.AGENT_LOST, NodeState.LOST)


def decide_relays(draft: Draft) -> None:
    """Have a peer offered as relay to every silent node whose agent it hears."""
    for node in draft.state.derived.active_nodes:
        silent = node.state in _MAY_SPEAK
        if node.suspicion is not None and node.facts is not None and silent and not beats_again(draft, node):
            _offer(draft, node, node.suspicion, node.facts.agent_port)


def _offer(draft: Draft, node: NodeRecord, suspicion: Suspicion, port: int) -> None:
    peers = _peers_in_touch(draft, node, suspicion)
    if not peers or node.facts is None:
        return
    own_way_works = suspicion.answered.get(f"{Plane.CONTROL}/agent", 0.0) > node.last_sign
    may_connect = own_way_works or node.state is NodeState.UNSEEN
    if may_connect and not draft.due(suspicion.since + RECONNECT_DELAY_S_MAX):
        return  # it will connect by itself
    quick = suspicion.relay_tries < RELAY_QUICK_TRIES
    pause_s = RELAY_EVERY_S if quick else RELAY_SLOWLY_EVERY_S
    if suspicion.relay_tries and not draft.due(suspicion.relay_asked_at + pause_s):
        return
    peer = next((name for name in peers if name > suspicion.relay), min(peers))  # in turn
    plane = peers[peer].plane
    draft.add(
        RelaySought(
            at=draft.now,
            node=node.name,
            peer=peer,
            plane=plane,
            reason=f"{peer} hears its agent on the {plane} plane",
            cause=node.fact,
        )
    )
    offer = OfferRelay(node.name, f"{node.facts.addresses[plane]}:{port}")
    draft.act(SendRelayOffer(decided_at=draft.now, peer=peer, offer=offer))


def _peers_in_touch(draft: Draft, node: NodeRecord, suspicion: Suspicion) -> dict[str, PeerHeard]:
    """Return the peers that heard the node's agent just now and speak directly themselves, by name."""
    found = {}
    for name, heard in sorted(suspicion.agent_heard.items()):
        peer = draft.state.nodes.get(name)
        fresh = heard.asked_at > max(draft.now - EVIDENCE_FRESH_S, node.last_sign)
        reachable = node.facts is not None and bool(node.facts.addresses.get(heard.plane))
        if peer is not None and fresh and reachable and speaks_directly(peer):
            found[name] = heard
    return found
