"""Another machine under a known name: refused, and told to a person (safety.md, proof by Rebooted).

A host that was replaced, cloned, or whose agent was configured with a neighbour's name says hello as a node that the
aggregator knows as another machine. Its boot proves nothing about the known one, so it is not let in. Pure.
"""

from __future__ import annotations

from aggregator.core.draft import Draft
from aggregator.core.events import IdentityRefused, IncidentClosed, IncidentNoted, IncidentOpened
from aggregator.core.state import Impostor, NodeRecord, State
from fleet.messages import Hello

ABOUT_IDENTITY = "identity "
TOLD_AGAIN_S = 60.0  # an agent that is refused comes back every few seconds: one fact a minute is enough
FORGOTTEN_S = 600.0


def is_another_machine(node: NodeRecord, hello: Hello) -> bool:
    """Return whether the hello comes from a machine that is not the one known under this name."""
    told, known = hello.facts.host_uuid, node.host_uuid
    other_host = bool(told and known) and told != known
    return bool(node.machine_id) and (node.machine_id != hello.facts.machine_id or other_host)


def identity_refused(state: State, hello: Hello, now: float) -> IdentityRefused | None:
    """Return the fact that a refused hello came from another machine, unless it was told a moment ago."""
    node = state.nodes.get(hello.node)
    if node is None or not is_another_machine(node, hello):
        return None
    machine, known = hello.facts.machine_id, node.impostor
    if known is not None and known.machine_id == machine and now < known.last_at + TOLD_AGAIN_S:
        return None
    return IdentityRefused(at=now, node=node.name, machine_id=machine, host_uuid=hello.facts.host_uuid)


def decide_identities(draft: Draft) -> None:
    """Open, annotate and close the incidents about machines that were refused."""
    for node in draft.state.derived.active_nodes:
        if node.impostor is not None:
            _tell(draft, node, node.impostor)


def _tell(draft: Draft, node: NodeRecord, impostor: Impostor) -> None:
    incident = draft.state.incidents.get(impostor.incident)
    title = f"another machine says that it is {node.name}"
    if incident is None:
        opened = draft.new_id("inc")
        about = ABOUT_IDENTITY + node.name
        draft.add(IncidentOpened(at=draft.now, incident=opened, title=title, about=about, cause=node.fact))
    elif draft.due(impostor.last_at + FORGOTTEN_S):
        why = "it has not tried again for 10 min"
        draft.add(IncidentClosed(at=draft.now, incident=incident.name, reason=why, cause=node.fact))
    else:
        text = (
            f"machine-id {impostor.machine_id} is refused as {node.name}, which is known as {node.machine_id}: "
            "its boot proves nothing about the known machine"
        )
        way = (
            f"if it took {node.name}'s place: see that the old machine is off, free its VMs with virtward fence "
            f"{node.name} --confirm-off, then virtward delete node {node.name} and virtward node token {node.name}; "
            "if it did not: give it a name and a token of its own"
        )
        if (incident.stuck, incident.way_out) != (text, way):
            draft.add(IncidentNoted(at=draft.now, incident=incident.name, text=text, way_out=way))
