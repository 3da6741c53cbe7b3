"""The invariants as code: the table, what each finds, and that no deed leaves when one would be broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.actions import AskFence, SendOrder
from aggregator.core.events import NodeState, PowerAnswer, ProofKind, Transition, VmPhase
from aggregator.core.history import kind_of
from aggregator.core.invariants import INVARIANTS, Breach, broken_by
from aggregator.core.state import Binding, OrderRecord, State, VmRecord
from fleet.messages import DestroyVm, Order, StartVm, UndefineVm
from fleet.model import Definition, Disk, EndReason
from tests.unit.core.fleet import Fleet

Breaks = Callable[[Fleet], list[Transition]]


def a_fleet() -> Fleet:
    """Return three nodes; v1 runs on the first, v2 is stopped."""
    fleet = Fleet(3)
    fleet.apply("v1")
    fleet.run(10)
    assert fleet.vm("v1").phase is VmPhase.RUNNING
    return fleet


def other_than(fleet: Fleet, name: str) -> str:
    return next(node for node in fleet.state.nodes if node != name)


def start(fleet: Fleet, *, epoch: int = 9, run: int = 9) -> ev.StartDecided:
    node = fleet.node(other_than(fleet, fleet.vm("v1").owner))
    return ev.StartDecided(at=fleet.now, vm="v1", node=node.name, boot_id=node.boot_id, epoch=epoch, run=run)


def unbind(fleet: Fleet) -> VmRecord:
    vm = fleet.vm("v1")
    vm.bindings.clear()
    vm.run_open = False
    return vm


def order(fleet: Fleet, body: DestroyVm | UndefineVm | StartVm, *, epoch: int, why: str = "x") -> ev.OrderIssued:
    vm = fleet.vm("v1")
    node = fleet.node(vm.owner)
    assert node.session is not None
    given = Order("ord-99", vm.uuid, vm.name, epoch, fleet.state.leader, node.session, body)
    return ev.OrderIssued(at=fleet.now, node=node.name, vm=vm.name, order=given, reason=why)


def state_of(fleet: Fleet, node: str, state: NodeState) -> ev.NodeStateChanged:
    return ev.NodeStateChanged(at=fleet.now, node=node, state=state)


def off(fleet: Fleet, node: str) -> ev.FenceAsked:
    return ev.FenceAsked(
        at=fleet.now, node=node, question_id="q", rung=0, question="off", purpose="fencing", deadline=fleet.now + 9
    )


def freed(fleet: Fleet, proof: ProofKind) -> list[Transition]:
    (binding,) = fleet.vm("v1").bindings
    return [
        ev.BindingFreed(
            at=fleet.now,
            vm="v1",
            node=binding.node,
            boot_id=binding.boot_id,
            epoch=binding.epoch,
            proof=proof,
            end=EndReason.NOT_ENDED,
        )
    ]


def start_while_bound(fleet: Fleet) -> list[Transition]:
    return [start(fleet)]


def free_without_proof(fleet: Fleet) -> list[Transition]:
    return freed(fleet, ProofKind.POWER_OFF)


def free_by_absence(fleet: Fleet) -> list[Transition]:
    fleet.vm("v1").reports.clear()
    return freed(fleet, ProofKind.NOT_HERE)


def fence_without_proof(fleet: Fleet) -> list[Transition]:
    return [state_of(fleet, "n1", NodeState.FENCED)]


def prove_by_nothing(fleet: Fleet) -> list[Transition]:
    node = fleet.node("n1")
    proof = ev.NodeProven(at=fleet.now, node="n1", boot_id=node.boot_id, proof=ProofKind.POWER_OFF, detail="")
    return [proof, state_of(fleet, "n1", NodeState.FENCED)]


def start_at_an_old_epoch(fleet: Fleet) -> list[Transition]:
    unbind(fleet)
    return [start(fleet, epoch=1)]


def order_to_an_old_session(fleet: Fleet) -> list[Transition]:
    issued = order(fleet, DestroyVm(run=1), epoch=1)
    older = structs.replace(issued.order.session, number=0)
    return [structs.replace(issued, order=structs.replace(issued.order, session=older))]


def act_while_behind(fleet: Fleet) -> list[Transition]:
    fleet.state.behind = "the store was rolled back"
    return [order(fleet, DestroyVm(run=1), epoch=1)]


def convict_beyond_the_brake(fleet: Fleet) -> list[Transition]:
    fleet.state.brake_closed = True
    fleet.node("n1").last_sign = fleet.now - 60
    return [state_of(fleet, "n1", NodeState.LOST)]


def shoot_beyond_the_brake(fleet: Fleet) -> list[Transition]:
    fleet.node("n2").first_off_at = fleet.now - 60
    return [off(fleet, "n1")]


def convict_for_a_silence_of_before(fleet: Fleet) -> list[Transition]:
    fleet.node("n1").last_sign = fleet.now - 60
    fleet.state.started_at = fleet.now - 1
    return [state_of(fleet, "n1", NodeState.LOST)]


def convict_in_doubt(fleet: Fleet) -> list[Transition]:
    fleet.node("n1").last_sign = fleet.state.started_at = fleet.now - 60
    fleet.state.doubted_at = fleet.now - 1
    return [state_of(fleet, "n1", NodeState.LOST)]


def destroy_without_a_reason(fleet: Fleet) -> list[Transition]:
    return [order(fleet, DestroyVm(run=1), epoch=1, why="")]


def undefine_what_nobody_deleted(fleet: Fleet) -> list[Transition]:
    return [order(fleet, UndefineVm(reason="deleted"), epoch=1)]


def start_where_there_is_no_room(fleet: Fleet) -> list[Transition]:
    unbind(fleet).memory_bytes = 1 << 50
    return [start(fleet)]


def free_what_may_yet_begin(fleet: Fleet) -> list[Transition]:
    """A start that its node neither answered nor shows."""
    vm, issued = fleet.vm("v1"), order(fleet, StartVm(xml="<domain/>", run=1), epoch=1)
    given = issued.order
    fleet.state.orders[given.order_id] = OrderRecord(given, issued.node, vm.name, fleet.now)
    vm.reports.clear()
    return freed(fleet, ProofKind.NOT_HERE)


def issue_twice(fleet: Fleet) -> list[Transition]:
    issued = order(fleet, DestroyVm(run=1), epoch=1)
    return [issued, issued]


def start_beside_another_writer(fleet: Fleet) -> list[Transition]:
    disk = Disk(target="vda", identity="nfs://a/b", shared=True)
    vm = unbind(fleet)
    vm.disks = (disk,)
    bound = [Binding("n1", "boot1-n1", 1, fleet.now, "owner")]
    other = VmRecord("v2", "uuid-2", vm.spec, fleet.now, disks=(disk,), bindings=bound)
    fleet.state.vms["v2"] = other
    return [start(fleet)]


def start_without_its_disk(fleet: Fleet) -> list[Transition]:
    vm = unbind(fleet)
    local = Disk("vda", "file:n9:/srv/v.img")
    vm.definition, vm.home = Definition(vm.uuid, "v1", "<domain/>", "h", (local,)), "n9"
    return [start(fleet)]


@pytest.mark.parametrize(
    ("number", "breaks"),
    [
        ("S2", start_while_bound),
        ("S2", free_without_proof),
        ("S2", free_by_absence),
        ("S2", fence_without_proof),
        ("S2", prove_by_nothing),
        ("S3", start_at_an_old_epoch),
        ("S3", order_to_an_old_session),
        ("S5", act_while_behind),
        ("S6", convict_beyond_the_brake),
        ("S6", shoot_beyond_the_brake),
        ("S7", convict_for_a_silence_of_before),
        ("S8", destroy_without_a_reason),
        ("S8", undefine_what_nobody_deleted),
        ("S9", convict_in_doubt),
        ("S10", start_where_there_is_no_room),
        ("S11", free_what_may_yet_begin),
        ("S12", issue_twice),
        ("S15", start_beside_another_writer),
        ("S16", start_without_its_disk),
    ],
)
def test_what_breaks_an_invariant_is_found(number: str, breaks: Breaks) -> None:
    fleet = a_fleet()
    decided = breaks(fleet)
    assert number in [breach.number for breach in broken_by(fleet.state, decided)]


def test_the_table_has_every_invariant_once() -> None:
    assert [invariant.number for invariant in INVARIANTS] == [f"S{number}" for number in range(1, 17)]
    unchecked = [invariant.number for invariant in INVARIANTS if not invariant.checks and not invariant.truth]
    assert unchecked == ["S4", "S13"]  # of what does not exist yet


def held_back(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Return a fleet whose core takes a silent node for an inert one, after a node fell silent."""
    fleet = a_fleet()
    fleet.actions.clear()
    monkeypatch.setattr("aggregator.core.runs.binding_proof", _believed)
    fleet.silent.add(fleet.vm("v1").owner)
    fleet.power[fleet.vm("v1").owner] = PowerAnswer.ERROR
    fleet.run(60)
    return fleet


def _believed(state: State, _vm: VmRecord, binding: Binding) -> tuple[ProofKind, EndReason] | None:
    silent = not state.nodes[binding.node].connected or state.nodes[binding.node].state is not NodeState.UP
    return (ProofKind.POWER_OFF, EndReason.NOT_ENDED) if silent else None


def test_no_deed_leaves_when_the_core_is_mistaken(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = held_back(monkeypatch)
    kinds = [kind_of(event) for event in fleet.happened]
    assert "InvariantBroken" in kinds
    assert kinds.count("InvariantBroken") == 1
    assert "BindingFreed" not in kinds
    assert kinds.count("StartDecided") == 1  # of the beginning
    after = [a for a in fleet.actions if isinstance(a, SendOrder | AskFence) and a.decided_at > _broken_at(fleet)]
    assert after == []
    assert fleet.state.breach.startswith("S2: v1 is freed of ")
    replayed = fleet.replayed()
    assert (replayed.vms, replayed.disarmed, replayed.breach) == (
        fleet.state.vms,
        fleet.state.disarmed,
        fleet.state.breach,
    )


def _broken_at(fleet: Fleet) -> float:
    return next(event.at for event in fleet.happened if isinstance(event, ev.InvariantBroken))


def test_the_fleet_stays_disarmed_until_a_person_arms_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = held_back(monkeypatch)
    assert fleet.state.disarmed[""].who == "virtward"
    assert fleet.state.disarmed[""].until == 0
    incident = fleet.state.incidents[fleet.state.breach_incident]
    assert "S2" in incident.title
    assert "virtward arm" in incident.way_out
    monkeypatch.undo()
    lost = fleet.vm("v1").owner
    fleet.power[lost] = PowerAnswer.OFF
    fleet.run(60)
    assert sum(isinstance(event, ev.StartDecided) for event in fleet.happened) == 1
    assert fleet.vm("v1").phase is not VmPhase.RUNNING
    fleet.settle(ev.Armed(at=fleet.now, who="alice"))
    fleet.run(60)
    assert incident.closed
    assert (fleet.vm("v1").owner != lost, fleet.vm("v1").phase) == (True, VmPhase.RUNNING)


def test_orders_of_the_same_turn_do_not_leave_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decided soundly before the mistake is journalled, and so is that its order never left."""
    fleet = a_fleet()
    fleet.actions.clear()
    monkeypatch.setattr("aggregator.core.settle.broken_by", _finds_a_phase)
    fleet.apply("v2")
    dropped = [event.order_id for event in fleet.happened if isinstance(event, ev.OrderDropped)]
    issued = [e.order.order_id for e in fleet.happened if isinstance(e, ev.OrderIssued) and e.vm == "v2"]
    assert dropped == issued != []
    assert not any(isinstance(action, SendOrder) for action in fleet.actions)


def _finds_a_phase(_state: State, decided: list[Transition]) -> list[Breach]:
    wrong = any(isinstance(event, ev.VmPhaseChanged) and event.vm == "v2" for event in decided)
    return [Breach("S2", "a planted finding")] if wrong else []
