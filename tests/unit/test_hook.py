"""The libvirt hook, run as libvirt runs it: a table of what it refuses, and what a start costs."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from agent.permits import UPTIME, PermitFiles
from agent.wall import Forbid, LetGo, Permit, RaiseWall, Way
from fleet.clock import SystemClock
from lab import libvirtd

UUID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
CLOCK = SystemClock()
OPERATIONS = ("prepare", "start", "started", "stopped", "release")
CPU_S_MAX = 0.05
MARK = f'    <virtward:managed xmlns:virtward="urn:virtward:1" uuid="{UUID}"/>'


class World:
    """The hook and both directories, in a place of their own."""

    def __init__(self, folder: Path) -> None:
        libvirtd.install_hook(folder, folder / "state")
        self.hook = folder / "hooks" / "qemu.d" / "virtward"
        self.hook.write_text(self.hook.read_text().replace("run=/run/virtward", f"run={folder}/run"))
        self.state, self.run = folder / "state", folder / "run"
        self.files = PermitFiles(self.state, self.run, CLOCK)

    def permit(self, way: Way, for_s: float = 60.0) -> None:
        self.files.do(Permit(UUID, way, 7, CLOCK.monotonic_s() + for_s))

    def asked(self, operation: str, uuid: str = UUID, mark: str = "") -> tuple[int, str]:
        """Run the hook; return its exit status and what it said."""
        metadata = ["  <metadata>", mark, "  </metadata>"] if mark else []
        filler = ["    <!-- as long as a domain is -->"] * 100
        xml = "\n".join(
            (
                "<domain type='kvm'>",
                "  <name>web-1</name>",
                f"  <uuid>{uuid}</uuid>",
                *metadata,
                "  <memory unit='KiB'>1</memory>",
                "  <devices>",
                *filler,
                "</domain>\n",
            )
        )
        command = [str(self.hook), "web-1", operation, "begin", "-"]
        done = subprocess.run(command, input=xml, capture_output=True, text=True, check=False)
        assert done.stdout == ""  # anything here would take the XML's place
        return done.returncode, done.stderr


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.files.do(RaiseWall((UUID,)))
    return made


@pytest.mark.parametrize("operation", ["prepare", "migrate", "restore"])
def test_a_managed_vm_without_a_permit_does_not_begin(world: World, operation: str) -> None:
    status, said = world.asked(operation)
    assert status == 1
    assert said.startswith("virtward: web-1 is managed and")
    assert said.count("\n") == 1
    assert "docs/WALL.md" in said


@pytest.mark.parametrize(
    ("way", "operation", "passes"),
    [
        (Way.START, "prepare", True),
        (Way.START, "restore", True),  # a saved image of this very epoch
        (Way.START, "migrate", False),
        (Way.INCOMING, "migrate", True),
        (Way.INCOMING, "restore", False),
        (Way.INCOMING, "prepare", False),  # virsh start while a copy is awaited
    ],
)
def test_a_permit_is_for_one_way_to_begin(world: World, way: Way, operation: str, *, passes: bool) -> None:
    world.permit(way)
    assert (world.asked(operation)[0] == 0) is passes


def test_a_copy_that_was_let_in_gets_one_qemu(world: World) -> None:
    world.permit(Way.INCOMING)
    assert [world.asked(operation)[0] for operation in ("migrate", "prepare", "prepare")] == [0, 0, 1]


@pytest.mark.parametrize("operation", ["start", "started", "stopped", "release", "reconnect", "attach"])
def test_what_already_began_is_never_stopped(world: World, operation: str) -> None:
    assert world.asked(operation) == (0, "")


def test_a_permit_ends_by_itself_by_the_uptime(world: World) -> None:
    world.permit(Way.START, for_s=-1.0)
    assert world.asked("prepare")[0] == 1
    world.permit(Way.START, for_s=30.0)
    until = float((world.run / "permits" / UUID).read_text().split()[2])
    assert 25 <= until - float(UPTIME.read_text().split()[0]) <= 30


def test_a_permit_is_withdrawn_and_a_vm_let_go(world: World) -> None:
    world.permit(Way.START)
    world.files.do(Forbid(UUID))
    assert world.asked("prepare")[0] == 1
    world.files.do(LetGo(UUID))
    assert world.asked("prepare") == (0, "")


def test_an_agents_start_withdraws_every_permit_and_forgets_no_vm(world: World) -> None:
    world.permit(Way.START)
    world.files.do(RaiseWall(()))
    assert world.asked("prepare")[0] == 1


@pytest.mark.parametrize("operation", ["prepare", "migrate", "restore"])
def test_a_vm_that_is_not_ours_passes_untouched_whatever_can_be_read(world: World, operation: str) -> None:
    assert world.asked(operation, OTHER) == (0, "")
    (world.state / "managed").rename(world.state / "elsewhere")
    (world.run / "permits").rename(world.run / "elsewhere")
    assert world.asked(operation, OTHER) == (0, "")


def test_a_marked_vm_is_managed_where_no_agent_ever_saw_it_and_its_clone_is_not(world: World) -> None:
    world.files.do(LetGo(UUID))
    assert world.asked("migrate", mark=MARK)[0] == 1
    assert world.asked("migrate", OTHER, mark=MARK) == (0, "")


def test_without_the_agents_directories_a_managed_vm_stays_refused(world: World) -> None:
    world.permit(Way.START)
    (world.run / "permits").rename(world.run / "elsewhere")  # as after a reboot, before the agent is there
    assert world.asked("prepare")[0] == 1
    (world.state / "managed").rename(world.state / "elsewhere")
    assert world.asked("prepare", mark=MARK)[0] == 1


def test_the_five_calls_of_a_life_cost_next_to_nothing(world: World) -> None:
    """CPU time, which a busy machine changes least."""
    world.permit(Way.START)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for operation in OPERATIONS:
        assert world.asked(operation)[0] == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent_s < CPU_S_MAX
