"""Migrations whose other end is gone, and disks with two users: stories of the pure core."""

from __future__ import annotations

import pytest
from msgspec import structs

from aggregator.core import events as ev
from aggregator.core.events import MigrationPhase, NodeState, RunOutcome, VmPhase, VmVerb
from aggregator.core.objects import VmSpec
from aggregator.core.views_vm import conditions_of
from fleet.model import Definition, Disk
from tests.unit.core.fleet import GIB, Fleet

ON_N1 = VmSpec(node_selector={"virtward/hostname": "n1"})


def moving(target: str = "n2") -> Fleet:
    """Return a fleet whose VM runs on n1 while its target has died before it took the copy."""
    fleet = Fleet()
    fleet.apply("v", ON_N1)
    fleet.run(10)
    fleet.apply("v")
    fleet.silent.add(target)
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target=target))
    assert fleet.state.migrations["mig-1"].phase is MigrationPhase.PREPARING
    return fleet


def test_a_target_that_dies_is_not_fenced_for_a_vm_that_runs_at_its_source() -> None:
    """Nothing on it would start elsewhere: the guest counts on where it is."""
    fleet = moving()
    fleet.run(60)
    assert fleet.node("n2").state is NodeState.LOST
    assert fleet.asked("off") == []
    assert fleet.vm("v").owner == "n1"


def test_both_ends_are_fenced_when_the_source_dies_as_well() -> None:
    """Now it would start elsewhere, and the half at the target stands in the way too."""
    fleet = Fleet(5)
    fleet.apply("v", ON_N1)
    fleet.run(10)
    fleet.apply("v")
    fleet.silent.add("n2")
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target="n2"))
    fleet.run(20)
    fleet.silent.add("n1")
    fleet.run_until(lambda: fleet.vm("v").owner not in ("n1", "n2", ""), 60)
    assert sorted(fleet.asked("off")) == ["n1", "n2"]


def test_a_vm_can_be_stopped_while_its_dead_target_still_binds_it() -> None:
    """The copy cannot run without its source's Released as Migrated: a stop needs no answer of the target."""
    fleet = moving()
    fleet.run(30)
    fleet.settle(ev.VmCommanded(at=fleet.now, name="v", verb=VmVerb.STOP))
    fleet.run(5)
    assert ("n1", "uuid-v") in fleet.qemus
    assert fleet.qemus["n1", "uuid-v"].released
    fleet.reboot("n2")
    fleet.run(5)
    assert fleet.vm("v").outcome is RunOutcome.STOPPED


def disk(identity: str, *, shareable: bool = False) -> Disk:
    return Disk("vda", identity, shareable=shareable, shared=True)


def apply_with_disk(fleet: Fleet, name: str, *disks: Disk) -> None:
    """Apply a VM with these disks."""
    fleet.settle(
        ev.VmApplied(
            at=fleet.now,
            name=name,
            uuid=f"uuid-{name}",
            spec=VmSpec(),
            labels={},
            disks=disks,
            cpu_m=1000,
            memory_bytes=GIB,
        )
    )


def test_a_disk_that_a_bound_vm_writes_has_no_second_writer() -> None:
    """S15 at start: two VMs on one disk, the second waits, and its reason names disk and VM."""
    fleet = Fleet()
    apply_with_disk(fleet, "a", disk("nbd://s/one"))
    fleet.run(2)
    apply_with_disk(fleet, "b", disk("nbd://s/one"))
    apply_with_disk(fleet, "c", disk("nbd://s/two"))
    fleet.run(5)
    assert fleet.vm("a").phase is VmPhase.RUNNING
    assert fleet.vm("c").phase is VmPhase.RUNNING
    assert not fleet.vm("b").run_open
    assert "nbd://s/one" in str(fleet.vm("b").rejected)
    assert "VM a" in str(fleet.vm("b").rejected)
    decided = len(fleet.happened)
    fleet.run(5)
    assert not [e for e in fleet.happened[decided:] if isinstance(e, ev.PlacementRefused)]
    fleet.settle(ev.VmDeleteRequested(at=fleet.now, name="a"))
    fleet.run(5)
    assert fleet.vm("b").phase is VmPhase.RUNNING
    assert fleet.vm("b").rejected == {}


def tell(fleet: Fleet, node: str, definition: Definition) -> None:
    """Let a node's agent report a definition."""
    session = fleet.node(node).session
    assert session is not None
    fleet.settle(
        ev.VmsReported(at=fleet.now, node=node, session=session, generation=2, vms=(), definitions=(definition,))
    )


@pytest.mark.parametrize(
    "definition",
    [
        Definition("uuid-v", "v", "<domain><devices><tpm/></devices></domain>", "h"),
        Definition("uuid-v", "v", "<domain/>", "h", (Disk("sda", "file:n1:/srv/debian.iso", writable=False),)),
    ],
    ids=["tpm", "iso"],
)
def test_what_keeps_a_cold_vm_at_home_lets_it_move_live(definition: Definition) -> None:
    """An emulated TPM's state travels with the guest; nothing brings it to a start elsewhere."""
    fleet = Fleet()
    fleet.apply("v", ON_N1)
    fleet.run(10)
    fleet.apply("v")
    tell(fleet, "n1", definition)
    fleet.settle(ev.MigrationRequested(at=fleet.now, vm="v", target="n2"))
    fleet.run(10)
    assert fleet.state.migrations["mig-1"].phase is MigrationPhase.SUCCEEDED
    assert (fleet.vm("v").owner, fleet.state.disarmed) == ("n2", {})
    tell(fleet, "n2", definition)
    fleet.kill_power("n2")
    fleet.run(60)
    assert fleet.vm("v").phase is VmPhase.RECOVERING
    assert fleet.vm("v").rejected["n1"] == ("DiskIsLocal",)


@pytest.mark.parametrize(("host_state", "comes_back"), [("", True), ("Recreate", True), ("Require", False)])
def test_a_local_nvram_is_left_behind_unless_it_is_required(host_state: str, *, comes_back: bool) -> None:
    fleet = Fleet()
    fleet.apply("v", structs.replace(ON_N1, host_state=host_state))
    fleet.run(10)
    fleet.apply("v", VmSpec(host_state=host_state))
    tell(fleet, "n1", Definition("uuid-v", "v", "<domain/>", "h", nvram="file:n1:/v_VARS.fd"))
    protected = next(c for c in conditions_of(fleet.state, fleet.vm("v")) if c.type == "Protected")
    assert (protected.status, protected.reason) == (("True", "Recoverable") if comes_back else ("False", "NvramState"))
    assert "file:n1:/v_VARS.fd" in protected.message
    fleet.kill_power("n1")
    fleet.run(60)
    assert (fleet.vm("v").phase is VmPhase.RUNNING) == comes_back
    starts = [e.reason for e in fleet.happened if isinstance(e, ev.StartDecided)]
    assert starts[1:] == (["its last run failed, its run strategy is Always; its NVRAM stays on n1"] * comes_back)


def test_a_vm_with_a_local_disk_starts_where_its_disk_is_and_nowhere_else() -> None:
    """S16: the same path on another node is another disk. Nobody is fenced for it, and it returns with its node."""
    fleet = Fleet()
    fleet.apply("v", ON_N1)
    fleet.run(10)
    fleet.apply("v")
    tell(fleet, "n1", Definition("uuid-v", "v", "<domain/>", "h", (Disk("vda", "file:n1:/srv/v.img"),)))
    fleet.silent.add("n1")
    fleet.run(60)
    assert fleet.asked("off") == []
    fleet.kill_power("n1")
    fleet.run(30)
    assert fleet.node("n1").state is NodeState.FENCED
    assert fleet.vm("v").phase is VmPhase.RECOVERING
    assert fleet.vm("v").rejected["n2"] == ("DiskIsLocal",)
    fleet.reboot("n1")
    fleet.run(5)
    assert (fleet.vm("v").owner, fleet.vm("v").phase) == ("n1", VmPhase.RUNNING)


@pytest.mark.parametrize("first", ["clone", "golden"])
def test_an_image_under_an_overlay_has_no_writer_while_the_overlay_is_used(first: str) -> None:
    """Whoever writes the image destroys the overlay: the second one of the two waits until the first has ended."""
    fleet = Fleet()
    disks = {
        "golden": (disk("nfs://s/golden"),),
        "clone": (disk("nfs://s/clone"), Disk("vda[1]", "nfs://s/golden", writable=False, shared=True)),
        "other": (disk("nfs://s/other"), Disk("vda[1]", "nfs://s/golden", writable=False, shared=True)),
    }
    second = "golden" if first == "clone" else "clone"
    for name in (first, second):
        apply_with_disk(fleet, name, *disks[name])
        fleet.run(5)
    assert (fleet.vm(first).phase, fleet.vm(second).phase) == (VmPhase.RUNNING, VmPhase.PENDING)
    why = {"clone": "a disk of VM clone is an overlay of it", "golden": "VM golden writes it"}[first]
    assert why in str(fleet.vm(second).rejected)
    fleet.settle(ev.VmDeleteRequested(at=fleet.now, name=first))
    fleet.run(10)
    assert fleet.vm(second).phase is VmPhase.RUNNING
    apply_with_disk(fleet, "other", *disks["other"])
    fleet.run(5)
    assert (fleet.vm("other").phase is VmPhase.RUNNING) == (second == "clone")  # two overlays of one image are fine


def test_two_vms_of_one_disk_that_wait_together_are_not_started_together() -> None:
    """One batch: the first takes the disk."""
    fleet = Fleet()
    for name in ("n1", "n2", "n3"):
        fleet.cordon(name)
    for name in ("a", "b"):
        apply_with_disk(fleet, name, disk("nbd://s/one"))
    for name in ("n1", "n2", "n3"):
        fleet.cordon(name, on=False)
    fleet.run(5)
    assert [fleet.vm(name).run_open for name in ("a", "b")] == [True, False]


def test_a_shareable_disk_may_have_two_writers() -> None:
    """<shareable/> says that the guests know what they do."""
    fleet = Fleet()
    for name in ("a", "b"):
        apply_with_disk(fleet, name, disk("nbd://s/one", shareable=True))
    fleet.run(5)
    assert all(vm.phase is VmPhase.RUNNING for vm in fleet.state.vms.values())
