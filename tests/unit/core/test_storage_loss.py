"""What is decided about a storage that some nodes do not reach: who may be touched, when, and who never."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.actions import SendOrder, SendProbe
from aggregator.core.events import NodeState, VmPhase
from aggregator.core.objects import VmSpec
from fleet.messages import DestroyVm, ProbeResult, UnpauseVm
from fleet.model import Disk, Plane, QemuState, RunStrategy, StorageReach
from tests.unit.core.fleet import LABORATORY, Fleet

STORAGE = "nbd://storage:10809"
TAINT = "virtward/storage-unreachable"


def fleet_on_storage(strategy: RunStrategy = RunStrategy.ALWAYS) -> Fleet:
    """Return a fleet of three whose VM a runs on n1, with a disk on the storage that n2 reaches, too."""
    fleet = Fleet(3, dict(LABORATORY))
    for other in ("n2", "n3"):
        fleet.cordon(other)
    fleet.settle(
        ev.VmApplied(
            at=fleet.now,
            name="a",
            uuid="uuid-a",
            spec=VmSpec(run_strategy=strategy),
            labels={},
            disks=(Disk("vda", f"{STORAGE}/a", shared=True),),
            cpu_m=1000,
            memory_bytes=1 << 30,
        ),
        ev.VmCommanded(at=fleet.now, name="a", verb=ev.VmVerb.START),
    )
    fleet.run(5)
    for other in ("n2", "n3"):
        fleet.cordon(other, on=False)
    says(fleet, "n2", reached=True)
    says(fleet, "n1", reached=True)
    return fleet


def says(fleet: Fleet, name: str, *, reached: bool, stuck: bool = False) -> None:
    """A node's agent reports whether it reaches the storage."""
    node = fleet.node(name)
    assert node.facts is not None
    assert node.session is not None
    facts = structs.replace(node.facts, storages=(StorageReach(STORAGE, reached, stuck),))
    fleet.settle(
        ev.VmsReported(at=fleet.now, node=name, session=node.session, generation=2, vms=(), facts=facts),
    )


def pauses(fleet: Fleet, name: str) -> None:
    """An I/O error pauses the guest, and its agent says so."""
    vm = fleet.vm(name)
    report = structs.replace(fleet.qemus[vm.owner, vm.uuid], state=QemuState.PAUSED, paused_on_io_error=True)
    fleet.settle(fleet.reported(vm.owner, report))


def ordered(fleet: Fleet, kind: type) -> list[str]:
    """Return the VMs that got an order of this kind."""
    sent = [action.order for action in fleet.actions if isinstance(action, SendOrder)]
    return [order.name for order in sent if isinstance(order.body, kind)]


def test_a_vm_paused_on_storage_that_others_reach_runs_elsewhere_after_the_time() -> None:
    fleet = fleet_on_storage()
    pauses(fleet, "a")
    says(fleet, "n1", reached=False)
    fleet.run(29)
    assert ordered(fleet, DestroyVm) == []
    assert [taint.key for taint in fleet.node("n1").taints] == [TAINT]
    fleet.run(3)
    assert ordered(fleet, DestroyVm) == ["a"]
    vm = fleet.vm("a")
    assert (vm.owner != "n1", vm.phase, vm.run) == (True, VmPhase.RUNNING, 2)
    assert fleet.node("n1").state is NodeState.UP


@pytest.mark.parametrize(
    ("paused", "stuck", "ended"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_a_guest_that_does_not_stand_still_is_left_alone(*, paused: bool, stuck: bool, ended: bool) -> None:
    """New connections may fail while the old ones work: the agent's question alone ends nobody."""
    fleet = fleet_on_storage()
    if paused:
        pauses(fleet, "a")
    says(fleet, "n1", reached=False, stuck=stuck)
    fleet.run(60)
    assert bool(ordered(fleet, DestroyVm)) is ended


def test_a_vm_that_would_not_start_again_is_not_ended() -> None:
    """Manual and stopped by us is down for good; paused it runs on when the storage is back."""
    fleet = fleet_on_storage(RunStrategy.MANUAL)
    pauses(fleet, "a")
    says(fleet, "n1", reached=False)
    fleet.run(60)
    assert ordered(fleet, DestroyVm) == []


def test_a_vm_that_no_node_takes_is_not_ended() -> None:
    fleet = fleet_on_storage()
    for other in ("n2", "n3"):
        fleet.cordon(other)
    pauses(fleet, "a")
    says(fleet, "n1", reached=False)
    fleet.run(60)
    assert ordered(fleet, DestroyVm) == []


def test_nothing_is_concluded_from_nodes_that_say_nothing() -> None:
    """Nobody else is known to reach it: the storage itself may be broken."""
    fleet = fleet_on_storage()
    pauses(fleet, "a")
    node = fleet.node("n2")
    assert node.facts is not None
    assert node.session is not None
    silent = structs.replace(node.facts, storages=())
    fleet.settle(
        ev.VmsReported(at=fleet.now, node="n2", session=node.session, generation=3, vms=(), facts=silent),
    )
    answers_of_peers(fleet, reached=None)
    says(fleet, "n1", reached=False)
    fleet.run(60)
    assert ordered(fleet, DestroyVm) == []
    assert fleet.node("n1").taints == ()


def answers_of_peers(fleet: Fleet, *, reached: bool | None) -> None:
    """Let peers that are asked about the storage say so, or nothing."""
    answer = fleet._probe

    def probe(action: SendProbe) -> ev.Event:
        if action.request.target != STORAGE:
            return answer(action)
        results = () if reached is None else (ProbeResult(Plane.STORAGE, "nbd", reached, 0.0),)
        return ev.ProbeAnswered(
            at=fleet.now,
            prober=action.prober,
            probe_id=action.request.probe_id,
            target=STORAGE,
            results=results,
        )

    fleet._probe = probe  # type: ignore[method-assign]


def test_a_node_without_a_vm_on_it_is_asked_and_its_word_counts_either_way() -> None:
    for reached, ended in ((True, ["a"]), (False, [])):
        fleet = fleet_on_storage()
        pauses(fleet, "a")
        node = fleet.node("n2")
        assert node.facts is not None
        assert node.session is not None
        facts = structs.replace(node.facts, storages=())
        fleet.settle(ev.VmsReported(at=fleet.now, node="n2", session=node.session, generation=3, vms=(), facts=facts))
        answers_of_peers(fleet, reached=reached)
        says(fleet, "n1", reached=False)
        fleet.run(60)
        assert ordered(fleet, DestroyVm) == ended


def test_the_time_begins_anew_when_the_others_get_it_back() -> None:
    """The last one to notice that the storage is back is not the one that lost it."""
    fleet = fleet_on_storage()
    pauses(fleet, "a")
    for name in ("n1", "n2"):
        says(fleet, name, reached=False)
    fleet.run(60)
    says(fleet, "n2", reached=True)
    fleet.run(10)
    assert ordered(fleet, DestroyVm) == []
    says(fleet, "n1", reached=True)
    fleet.run(1)
    assert ordered(fleet, UnpauseVm) == ["a"]


def test_a_guest_that_pauses_again_and_again_is_told_to_run_on_a_few_times_only() -> None:
    """A full disk pauses as a lost one does, and is not mended by running on."""
    fleet = fleet_on_storage()
    for _ in range(500):
        if fleet.qemus["n1", "uuid-a"].state is QemuState.RUNNING:
            pauses(fleet, "a")
        fleet.run(1)
    assert ordered(fleet, UnpauseVm) == ["a"] * 5


def test_a_person_who_paused_a_vm_is_not_overruled() -> None:
    fleet = fleet_on_storage()
    fleet.settle(ev.VmCommanded(at=fleet.now, name="a", verb=ev.VmVerb.PAUSE))
    fleet.run(60)
    assert ordered(fleet, UnpauseVm) == []


def test_replaying_the_journal_gives_the_same_loss() -> None:
    fleet = fleet_on_storage()
    pauses(fleet, "a")
    says(fleet, "n1", reached=False)
    fleet.run(20)
    replayed = fleet.replayed()
    assert replayed.nodes["n1"].storage_lost == fleet.node("n1").storage_lost
    assert replayed.storage_losses == fleet.state.storage_losses
    assert replayed.nodes["n1"].taints == fleet.node("n1").taints
