"""The fleet at the beginning of a story, as the aggregator and the agents' ledgers hold it.

"At 0 s all is well": every node Up, runs at epoch 1, grace over. Nothing is put in that the
world would not find by itself: sessions open and readiness is checked while the world warms up.
"""

from __future__ import annotations

from agent.keeper_types import AnyLedgerRecord, LeadershipSeen
from agent.records import MembersTold, Promise, PromiseKept, Standing
from aggregator.core.events import NodeState, VmPhase
from aggregator.core.isolation import isolation_of
from aggregator.core.objects import NodeSpec
from aggregator.core.state import Binding, NodeRecord, State, VmRecord
from aggregator.core.welcome import members_of
from fleet.model import Definition, Leadership
from simulator.hypervisor import disk_of
from simulator.outlets import ladder_of
from simulator.plan import NodePlan, VmPlan, WorldPlan, uuid_of
from simulator.store import mark_of

FLEET_EPOCH_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z is 0 s of every story
SEED_OF_SECRETS = "what a story has to hide"
LEADER = Leadership(1, "instance-1", 0)


def xml_of(uuid: str, plan: VmPlan) -> str:
    memory_kib = plan.memory_bytes // 1024
    return (
        f"<domain type='kvm'><name>{plan.name}</name><uuid>{uuid}</uuid><memory unit='KiB'>{memory_kib}</memory>"
        f"<vcpu>{max(1, plan.cpu_m // 1000)}</vcpu></domain>"
    )


def definition_of(uuid: str, plan: VmPlan) -> Definition:
    xml = xml_of(uuid, plan)
    return Definition(
        uuid=uuid,
        name=plan.name,
        xml=xml,
        hash=f"hash-{len(xml)}-{plan.name}",
        disks=(disk_of(plan.name, plan.storage),),
    )


def state_of(plan: WorldPlan, at: float) -> State:
    """Return the aggregator's state of a fleet where all is well. at: fleet time."""
    state = State(leader=LEADER, secret=SEED_OF_SECRETS, now=at, config=plan.config)
    state.store_mark = mark_of(restores=0)
    state.grace_over = True
    state.started_at = at - 3600
    for node in plan.nodes:
        state.nodes[node.name] = _node(node, at)
        if node.aggregator:
            state.own_machine_id = f"machine-{node.name}"
    for number, vm in enumerate(plan.vms, start=1):
        uuid = uuid_of(number)
        state.names[uuid] = vm.name
        record = state.vms[vm.name] = _vm(uuid, vm, at)
        if record.run_open:
            record.isolation_told = isolation_of(state, record)
    return state


def _node(plan: NodePlan, at: float) -> NodeRecord:
    return NodeRecord(
        name=plan.name,
        created=at,
        labels={**plan.labels, "virtward/hostname": plan.name},
        spec=NodeSpec(fencing=ladder_of(plan)),
        approved=True,
        token_sha256=f"token-{plan.name}",
        machine_id=f"machine-{plan.name}",
        host_uuid=f"uuid-{plan.name}",
        state=NodeState.UP,
        state_since=at,
        boot_id=f"{plan.name}-boot-1",
        last_sign=at,
        seen=True,
    )


def _vm(uuid: str, plan: VmPlan, at: float) -> VmRecord:
    vm = VmRecord(
        name=plan.name,
        uuid=uuid,
        spec=plan.spec,
        created=at,
        labels=plan.labels,
        disks=(disk_of(plan.name, plan.storage),),
        cpu_m=plan.cpu_m,
        memory_bytes=plan.memory_bytes,
        definition=definition_of(uuid, plan),
    )
    if plan.node:
        vm.epoch = vm.epoch_top = vm.run = 1
        vm.run_open = vm.run_reached_running = vm.ran_under_strategy = True
        vm.run_since = vm.phase_since = at
        vm.owner = plan.node
        vm.phase = VmPhase.RUNNING
        vm.bindings = [Binding(plan.node, f"{plan.node}-boot-1", 1, at, "owner")]
    return vm


def ledger_of(plan: WorldPlan, node: str) -> list[AnyLedgerRecord]:
    """Return what the node's agent has on disk at the beginning."""
    state = state_of(plan, FLEET_EPOCH_S)
    records: list[AnyLedgerRecord] = [LeadershipSeen(LEADER)]
    if members := members_of(state):
        records.append(MembersTold(members))
    for uuid, name in state.names.items():
        vm = state.vms[name]
        if vm.owner == node:
            promise = Promise(uuid, name, vm.epoch, vm.run, Standing.RUNS, ran=True, isolation=vm.isolation_told)
            records.append(PromiseKept(promise))
    return records
