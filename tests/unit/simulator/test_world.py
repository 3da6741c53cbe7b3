"""The made-up world keeps its own rules: time, links, processes, QEMUs, devices and disks."""

from random import Random

import pytest

from agent.keeper_types import Create, Destroy, Migrate, Undefine
from agent.wall import Permit, Way
from aggregator.act.fence_answer import ProgramEnded
from fleet.model import Plane, QemuState
from simulator.clock import LocalClock, Queue
from simulator.fences import OFF, TIMED_OUT
from simulator.hypervisor import HypervisorCall
from simulator.network import Network, Stream
from simulator.plan import NodePlan, VmPlan, WorldPlan, uuid_of
from simulator.process import Process
from simulator.results import Result
from simulator.world import World


def a_world(nodes: int = 2, vms: int = 1, seed: int = 1) -> World:
    world = World(
        WorldPlan(
            seed=seed,
            nodes=tuple(NodePlan(name=f"n{i}") for i in range(1, nodes + 1)),
            vms=tuple(VmPlan(name=f"v{i}", node="n1") for i in range(1, vms + 1)),
        )
    )
    world.run_until(0.0)
    return world


def permit(world: World, node: str, way: Way, for_s: float = 60.0) -> None:
    host = world.hosts[node]
    host.take(Permit(uuid_of(1), way, 2, host.clock.now() + for_s))


def test_things_at_one_instant_happen_in_the_order_they_were_arranged() -> None:
    queue, seen = Queue(), list[str]()
    queue.at(2.0, lambda: seen.append("second"))
    queue.at(1.0, lambda: seen.append("first"))
    queue.at(2.0, lambda: seen.append("third"))
    queue.at(1.5, lambda: seen.append("never")).cancel()
    queue.run_until(5.0)
    assert seen == ["first", "second", "third"]
    assert queue.now == 5.0


def test_a_fast_clock_shows_a_time_earlier_than_the_world() -> None:
    queue = Queue()
    clock = LocalClock(queue, shows=100.0, rate=2.0)
    assert clock.when(110.0) == 5.0
    queue.run_until(5.0)
    assert clock.now() == 110.0


def test_what_is_sent_into_a_cut_arrives_after_it_in_order() -> None:
    queue = Queue()
    network = Network(queue, Random)
    arrived: list[int] = []
    stream: Stream[int] = Stream(network, "a", "b", Plane.CONTROL, arrived.append)
    network.cut("b", Plane.CONTROL, "in")
    for number in range(5):
        stream.send(number)
    queue.run_until(10.0)
    assert arrived == []
    network.heal("b", Plane.CONTROL)
    stream.send(5)
    queue.run_until(20.0)
    assert arrived == [0, 1, 2, 3, 4, 5]


def test_a_cut_of_one_direction_leaves_the_other_open() -> None:
    network = Network(Queue(), Random)
    network.cut("b", Plane.CONTROL, "in")
    assert not network.passes("a", "b", Plane.CONTROL)
    assert network.passes("b", "a", Plane.CONTROL)
    assert network.both_ways("a", "b", Plane.MIGRATION)


def test_a_paused_process_does_everything_later_and_a_dead_one_never() -> None:
    queue, seen = Queue(), list[str]()
    process = Process(queue)
    process.begin_life()
    process.later(1.0, lambda: seen.append("late"))
    process.pause()
    queue.run_until(5.0)
    assert seen == []
    process.resume()
    assert seen == ["late"]
    process.later(1.0, lambda: seen.append("never"))
    process.end_life()
    process.begin_life()
    queue.run_until(10.0)
    assert seen == ["late"]


def test_the_fleet_is_well_at_the_beginning() -> None:
    world = a_world(nodes=3, vms=2)
    state = world.aggregator.state
    assert [str(node.state) for node in state.nodes.values()] == ["Up"] * 3
    assert all(node.readiness[0].on_at for node in state.nodes.values())
    assert [str(vm.phase) for vm in state.vms.values()] == ["Running"] * 2
    assert all(vm.starts == 0 for vm in world.truth.vms.values())


def test_a_power_cut_says_no_goodbye_and_loses_every_qemu() -> None:
    world = a_world()
    world.hosts["n1"].lose_power()
    world.run_until(1.0)
    assert world.truth.vm(uuid_of(1)).qemus == []
    assert world.aggregator.state.nodes["n1"].connected  # nobody has told it


def test_the_ledger_survives_a_kill_and_the_next_life_goes_on_from_it() -> None:
    world = a_world()
    host = world.hosts["n1"]
    before = list(host.ledger)
    host.kill_agent()
    world.run_until(5.0)
    assert host.ledger[: len(before)] == before
    node = world.aggregator.state.nodes["n1"]
    assert node.session is not None
    assert node.session.number == 2
    assert world.truth.vm(uuid_of(1)).running()


def call(world: World, host: str, deed: object) -> list[Result]:
    results: list[Result] = []
    world.hosts[host].hypervisor.begin(HypervisorCall(uuid_of(1), "v1", deed, results.append))  # type: ignore[arg-type]
    return results


def test_libvirtd_dies_and_its_qemus_live_on() -> None:
    world = a_world()
    world.hosts["n1"].kill_libvirtd()
    world.run_until(1.0)
    assert world.truth.vm(uuid_of(1)).counting()


def test_undefine_is_the_barrier_behind_a_create_on_its_way() -> None:
    """It returns only when no create from before can succeed any more, a frozen libvirtd or not."""
    world = a_world()
    host = world.hosts["n1"]
    call(world, "n1", Destroy())
    world.run_until(1.0)
    host.hypervisor.pause()
    created = call(world, "n1", Create())
    undefined: list[int] = []
    barrier = HypervisorCall(uuid_of(1), "v1", Undefine(), lambda _result: undefined.append(len(created)))
    host.hypervisor.begin(barrier)
    world.run_until(2.0)
    host.hypervisor.resume()
    world.run_until(4.0)
    assert undefined == [1]  # the create had ended by then
    assert uuid_of(1) not in host.definitions


@pytest.mark.parametrize(
    ("way", "for_s", "starts"), [(None, 0.0, 0), (Way.START, 60.0, 1), (Way.START, 0.05, 0), (Way.INCOMING, 60.0, 0)]
)
def test_a_call_to_start_needs_a_permit_when_libvirt_comes_to_it(way: Way | None, for_s: float, starts: int) -> None:
    world = a_world()
    world.aggregator.kill()  # it would start the VM again
    call(world, "n1", Destroy())
    world.run_until(1.0)
    if way is not None:
        permit(world, "n1", way, for_s)
    world.hosts["n1"].hypervisor.begin(HypervisorCall(uuid_of(1), "v1", Create(), lambda _result: None))
    world.hosts["n1"].agent.kill()  # whoever called is not needed any more
    world.run_until(2.0)
    assert len(world.truth.vm(uuid_of(1)).qemus) == starts


def test_no_permit_outlives_the_power() -> None:
    world = a_world()
    permit(world, "n2", Way.START)
    world.hosts["n2"].lose_power()
    assert not world.hosts["n2"].may_begin(uuid_of(1), Way.START)


def test_a_migration_hands_over_paused() -> None:
    world = a_world()
    permit(world, "n2", Way.INCOMING)
    call(world, "n1", Migrate(peer_uri="sim://n2", migration_address="n2.migration"))
    states: list[list[str]] = []
    world.truth.watchers.append(lambda vm, _why: states.append([f"{q.host} {q.state}" for q in vm.qemus]))
    world.run_until(20.0)
    assert ["n1 Running", "n2 Incoming"] in states
    assert ["n1 Finished", "n2 Arrived"] in states
    assert [(qemu.host, qemu.state) for qemu in world.truth.vm(uuid_of(1)).qemus] == [("n2", QemuState.ARRIVED)]


def test_libvirt_lets_the_source_run_again_when_the_answer_to_finish_is_lost() -> None:
    """The trap: a complete copy waits at the target meanwhile."""
    world = a_world()
    permit(world, "n2", Way.INCOMING)
    call(world, "n1", Migrate(peer_uri="sim://n2", migration_address="n2.migration"))

    def lose_the_answer(_vm: object, why: str) -> None:
        if why.endswith("Finished"):
            world.network.cut("n1", Plane.MIGRATION, "in")

    world.truth.watchers.append(lose_the_answer)
    world.run_until(60.0)
    found = [(qemu.host, str(qemu.state)) for qemu in world.truth.vm(uuid_of(1)).qemus]
    assert found == [("n1", "Running"), ("n2", "Arrived")]


def ask(world: World, question: str) -> list[ProgramEnded]:
    replies: list[ProgramEnded] = []
    world.fences["n1"].ask(question, 10.0, replies.append)
    return replies


def test_a_device_that_is_early_says_off_while_the_host_runs() -> None:
    world = a_world()
    world.fences["n1"].outcome = "early"
    ask(world, "off")
    lies: list[float] = []

    def judge(reply: ProgramEnded) -> None:
        if reply == OFF and world.hosts["n1"].power_on:
            lies.append(world.queue.now)

    for hundredth in range(1, 600):
        world.fences["n1"].ask("status", 10.0, judge)
        world.run_until(hundredth / 100)
    assert lies
    assert lies[-1] - lies[0] <= 1.0
    assert not world.hosts["n1"].power_on


def test_a_swapped_device_switches_the_other_host() -> None:
    world = a_world()
    one, other = world.fences["n1"], world.fences["n2"]
    one.switches, other.switches = other.switches, one.switches
    ask(world, "off")
    world.run_until(5.0)
    assert world.hosts["n1"].power_on
    assert not world.hosts["n2"].power_on
    assert one.wired_as() == "n2"


def test_a_hanging_device_does_nothing_and_says_nothing_until_the_time_out() -> None:
    world = a_world()
    world.fences["n1"].outcome = "hangs"
    replies = ask(world, "off")
    world.run_until(9.9)
    assert replies == []
    world.run_until(10.1)
    assert replies == [TIMED_OUT]
    assert world.hosts["n1"].power_on
