"""Whether an agent that says hello is taken, and what it is told first. Pure."""

from __future__ import annotations

from aggregator.core.events import VmsKeptTold
from aggregator.core.identity import is_another_machine
from aggregator.core.lookups import binding_to, speaks_directly
from aggregator.core.state import NodeRecord, State
from fleet.messages import MEMBERS_TOLD_MAX, PROTOCOL_MAX, PROTOCOL_MIN, Assignment, Hello, Refusal, VmsKept, Welcome
from fleet.model import Leadership


def leadership(state: State) -> Leadership:
    """Return who gives orders now: term, instance and the journal's position."""
    return Leadership(state.leader.term, state.leader.instance, state.position)


def members_of(state: State) -> tuple[str, ...]:
    """Return who belongs to the fleet, for agents to keep; nothing where it is too large, or this store has gaps."""
    names = tuple(sorted(node.name for node in state.nodes.values() if node.machine_id))
    return () if state.behind or len(names) > MEMBERS_TOLD_MAX else names


def kept_told(told: VmsKept, now: float, node: str) -> VmsKeptTold:
    """Return the fact that a node has told what its ledger keeps."""
    members = told.members[:MEMBERS_TOLD_MAX]
    return VmsKeptTold(at=now, node=node, session=told.session, vms=told.vms, more=told.more, members=members)


def answer_hello(state: State, hello: Hello, token_sha256: str, via: str = "") -> Welcome | Refusal:
    """Return Welcome, or Refusal with one sentence for the person who reads the agent's log.

    token_sha256: of the token the connection was opened with. via: the peer that carries it.
    """
    node = state.nodes.get(hello.node)
    refusal = _refusal(node, hello, token_sha256) or (_relay_refusal(state, node, hello, via) if via else None)
    if refusal is not None:
        return refusal
    if node is None:
        raise AssertionError("a node without a record has no token")
    return Welcome(
        protocol=min(PROTOCOL_MAX, hello.protocol_max),
        leader=leadership(state),
        session=hello.session,
        heartbeat_s=float(state.config.heartbeat),
        assignments=tuple(_assignments(state, node)),
        rebuild=state.rebuilding,
        members=members_of(state),
    )


def _refusal(node: NodeRecord | None, hello: Hello, token_sha256: str) -> Refusal | None:
    if node is None or not node.token_sha256 or node.token_sha256 != token_sha256:
        return Refusal(
            "TOKEN",
            f"this token is not the one of node {hello.node}; issue one with: virtward node token {hello.node}",
        )
    if hello.protocol_min > PROTOCOL_MAX or hello.protocol_max < PROTOCOL_MIN:
        return Refusal(
            "PROTOCOL",
            f"the agent speaks protocol {hello.protocol_min} to {hello.protocol_max}, "
            f"this aggregator {PROTOCOL_MIN} to {PROTOCOL_MAX}; upgrade the older one",
        )
    told, known = hello.facts.host_uuid, node.host_uuid
    if is_another_machine(node, hello):
        return Refusal(
            "IDENTITY",
            f"another machine is known as {hello.node} (machine-id {node.machine_id}); give this "
            f"one another name, or delete the node first with: virtward delete node {hello.node}",
        )
    if known and not told and node.boot_id != hello.session.boot_id:
        # Another boot proves the last one inert, so it must be shown to be the same machine first.
        return Refusal("IDENTITY", f"{hello.node}'s libvirt has not told its host uuid yet; try again when it answers")
    if node.session is not None and node.session.number > hello.session.number:
        same_boot = node.session.boot_id == hello.session.boot_id
        if same_boot and node.session.agent_start == hello.session.agent_start:
            return Refusal("SESSION", f"session {hello.session.number} is older than the standing one")
    return None


def _relay_refusal(state: State, node: NodeRecord | None, hello: Hello, via: str) -> Refusal | None:
    """Only a boot that has spoken directly may go on through a peer: hearsay proves no reboot."""
    carrier = state.nodes.get(via)
    if carrier is None or via == hello.node or not speaks_directly(carrier):
        return Refusal("RELAY", f"{via} does not speak to this aggregator directly, so it can relay nobody")
    if node is None or node.session is None or node.boot_id != hello.session.boot_id:
        return Refusal(
            "RELAY", f"this boot of {hello.node} has not spoken directly yet; mend its way to the aggregator first"
        )
    return None


def _assignments(state: State, node: NodeRecord) -> list[Assignment]:
    """Return every VM that concerns the node: bound here, reported here, or once owned here."""
    found = []
    for vm in state.vms.values():
        binding = binding_to(vm, node.name)
        if binding is None and node.name not in vm.reports:
            continue
        here = vm.owner == node.name and vm.run_open
        found.append(Assignment(vm.uuid, vm.name, vm.epoch, vm.run, here))
    return found
