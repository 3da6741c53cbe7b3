"""The invariants S1 to S16 (safety.md) as code: one table, called by tests, simulator and the running aggregator.

`broken_by` judges what was just decided against the state that it was decided on, before it is folded, journalled
or done. It looks only at what was decided, by the kind of event, so that it costs next to nothing where nothing is.
None of it asks the code that decides: a mistake there must not hide itself. What only ground truth can say is in
invariant_truth.py. Pure: finds, decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from aggregator.core import events as ev
from aggregator.core import invariant_nodes as nodes
from aggregator.core import invariant_orders as orders
from aggregator.core import invariant_proofs as proofs
from aggregator.core import invariant_starts as starts
from aggregator.core.events import Transition
from aggregator.core.state import State

Check = Callable[..., str]
"""(state, event, decided) -> what is wrong, in one sentence, or nothing. decided: all of the same look."""


class Breach(Struct, frozen=True):
    """One invariant that a decision would break."""

    number: str
    text: str


class Invariant(Struct, frozen=True):
    """One sentence of safety.md. checks: by the kind of transition it is asked for; truth: needs ground truth."""

    number: str
    sentence: str
    checks: tuple[tuple[type[Transition], Check], ...] = ()
    truth: str = ""


INVARIANTS: tuple[Invariant, ...] = (
    Invariant("S1", "of each VM at most one QEMU whose CPUs may run", truth="every QEMU of the VM, by host"),
    Invariant(
        "S2",
        "no start before every node the VM is bound to has released it or is proven inert",
        (
            (ev.StartDecided, starts.binds_nobody_else),
            (ev.MigrationChanged, starts.copied_by_its_owner),
            (ev.BindingFreed, proofs.binding_is_proven),
            (ev.NodeProven, proofs.node_is_proven),
            (ev.NodeStateChanged, proofs.fenced_by_proof),
        ),
        truth="every QEMU of the VM, and every one being created",
    ),
    Invariant(
        "S3",
        "every order carries the leader's term, the VM's epoch and the target's session; epochs rise",
        (
            (ev.StartDecided, starts.epoch_rises),
            (ev.MigrationChanged, starts.copy_epoch_rises),
            (ev.OrderIssued, orders.carries_all),
        ),
        truth="what agents have written down",
    ),
    Invariant("S4", "a node whose lease is over runs no VM that another may start (no SelfFenced proof exists yet)"),
    Invariant(
        "S5",
        "an aggregator that cannot prove that it leads neither fences nor starts nor migrates",
        (
            (ev.StartDecided, orders.leads),
            (ev.OrderIssued, orders.leads),
            (ev.FenceAsked, orders.leads),
        ),
        truth="whose tenure is the latest",
    ),
    Invariant(
        "S6",
        "beyond the brake nobody is convicted",
        ((ev.NodeStateChanged, nodes.brake_is_open), (ev.FenceAsked, nodes.off_within_brake)),
        truth="every off order that left",
    ),
    Invariant(
        "S7",
        "after a start, a reconnect or an arming every silence starts again from now",
        ((ev.NodeStateChanged, nodes.silent_in_this_life),),
    ),
    Invariant(
        "S8",
        "destroying or undefining needs a positive reason with matching VM and epoch",
        ((ev.OrderIssued, orders.ends_for_a_reason),),
    ),
    Invariant(
        "S9",
        "a detector that was itself paused or overloaded convicts nobody for one window",
        ((ev.NodeStateChanged, nodes.nobody_doubted),),
    ),
    Invariant(
        "S10",
        "no decision breaks a hard placement rule, counting both ends of migrations and every start in flight",
        ((ev.StartDecided, starts.fits), (ev.MigrationChanged, starts.copy_fits)),
    ),
    Invariant(
        "S11",
        "the result of an order that failed or timed out is unknown until observed; the VM stays bound",
        ((ev.BindingFreed, proofs.result_is_known),),
    ),
    Invariant("S12", "orders are idempotent by (vm, epoch, order id)", ((ev.OrderIssued, orders.is_new),)),
    Invariant("S13", "post-copy VMs are neither aborted nor restarted (no order for post-copy exists yet)"),
    Invariant("S14", "with the faults over, every VM that should run and fits runs", truth="what runs in the end"),
    Invariant("S15", "a disk has one writer", ((ev.StartDecided, starts.disks_are_free),)),
    Invariant(
        "S16",
        "a VM is started elsewhere only where each disk's identity is the same",
        ((ev.StartDecided, starts.disks_are_there), (ev.MigrationChanged, starts.copy_disks_are_there)),
    ),
)


def _by_kind() -> dict[type[Transition], list[tuple[str, Check]]]:
    found: dict[type[Transition], list[tuple[str, Check]]] = {}
    for invariant in INVARIANTS:
        for kind, check in invariant.checks:
            found.setdefault(kind, []).append((invariant.number, check))
    return found


_CHECKS = _by_kind()


def broken_by(state: State, decided: Sequence[Transition]) -> list[Breach]:
    """Return what these transitions would break; state: as it was when they were decided, none of them folded."""
    found = []
    for event in decided:
        for number, check in _CHECKS.get(type(event), ()):
            text = check(state, event, decided)
            if text:
                found.append(Breach(number, text))
    return found
