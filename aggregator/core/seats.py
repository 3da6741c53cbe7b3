"""The state as placement sees it: nodes with their taints and room, VMs where they are bound.

What is asked of placement: where VMs go, who refuses them and why. Who sits where is kept by seating.py. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs

from aggregator.core.choice import Choice
from aggregator.core.labels import HOSTNAME
from aggregator.core.lookups import pinned_to
from aggregator.core.objects import Taint, TaintEffect
from aggregator.core.seating import bound_nodes, node_seat, seat_table, vm_seat
from aggregator.core.state import State, VmRecord
from aggregator.core.words import MigrationPhase, NodeState
from aggregator.placement.losses import place_after_loss
from aggregator.placement.place import Told, build_table, judge, place_batch, reasons
from aggregator.placement.selectors import tolerates
from aggregator.placement.table import Table
from aggregator.placement.types import PlacementNode, PlacementVm, ScoreSettings, Verdict
from fleet.storage import lies_on

SOURCE_RULE = "MigrationSource"
MAINTENANCE_KEY = "virtward/maintenance"
HOME_RULE = "DiskIsLocal"
NODES_IN_WORDS_MAX = 50
LAST_OWNER = "LastOwner"


def mounts_of(state: State) -> tuple[str, ...]:
    """Return every shared storage that some node has mounted, by its own word."""
    offers = [node.facts.offers for node in state.nodes.values() if node.facts is not None]
    return tuple(sorted({name for each in offers if each is not None for name in each.mounts or ()}))


def candidate(vm: VmRecord, mounts: tuple[str, ...], *, live: bool = False) -> PlacementVm:
    """Return a VM that is to be placed. mounts: of mounts_of; live: it moves as it runs, so its CPU must be there."""
    seat = vm_seat(vm)
    disks = vm.definition.disks if vm.definition is not None else ()
    under = tuple(name for name in mounts if any(lies_on(disk.identity, name) for disk in disks))
    guest_cpu = seat.needs.guest_cpu if live else ()
    if (under, guest_cpu) == (seat.needs.mounts, seat.needs.guest_cpu):
        return seat
    return structs.replace(seat, needs=structs.replace(seat.needs, mounts=under, guest_cpu=guest_cpu))


class FleetSeats(Struct, frozen=True):
    """A copy of the fleet as placement sees it: may be thought about while the state goes on."""

    nodes: tuple[PlacementNode, ...]
    vms: dict[str, PlacementVm]  # by name; pinned ones to their home
    seated: dict[str, list[PlacementVm]]  # by node
    settings: ScoreSettings

    def table(self) -> Table:
        """Return a table of it."""
        return build_table(self.nodes, [(vm, node) for node, vms in self.seated.items() for vm in vms])


def fleet_seats(state: State) -> FleetSeats:
    """Return who sits where now."""
    nodes = tuple(node_seat(state, node) for node in state.nodes.values())
    mounts = mounts_of(state)
    vms = {vm.name: _candidate_at_home(vm, mounts) for vm in state.vms.values()}
    seated: dict[str, list[PlacementVm]] = {}
    for vm in state.vms.values():
        for name in bound_nodes(vm):
            seated.setdefault(name, []).append(vms[vm.name])
    return FleetSeats(nodes, vms, seated, ScoreSettings.of(state.config))


def place_lost(table: Table, seats: FleetSeats, failed: Sequence[str], vms: Sequence[PlacementVm]) -> list[Verdict]:
    """Return where VMs of failed nodes would start, over a table of these seats."""
    return place_after_loss(table, seats.seated, failed, vms, seats.settings)


def place_vms(state: State, vms: Sequence[VmRecord]) -> list[tuple[VmRecord, Verdict]]:
    """Place VMs that have no seat as one batch, in the order given back by placement.

    Re-seating is tried when a VM is left that was not refused before: one that was is asked about at every turn,
    and would cost each of them the solver's whole budget.
    """
    back = _placed_back(state, vms)
    table = seat_table(state)
    for vm, verdict in back:
        table.seat(vm_seat(vm), verdict.node or "")
    try:
        names = {vm.name for vm, _ in back}
        return back + _place_freely(state, table, [vm for vm in vms if vm.name not in names])
    finally:
        for vm, verdict in back:
            table.unseat(vm.name, verdict.node or "")


def _placed_back(state: State, vms: Sequence[VmRecord]) -> list[tuple[VmRecord, Verdict]]:
    """Return those that bootPolicy LastOwner brings back to the node that went down with them, and is Up again.

    It says where, never whether: who does not fit there is placed as any other.
    """
    home = {vm.name: vm.lost_with for vm in vms if _goes_back(state, vm)}
    if not home:
        return []
    settings = structs.replace(ScoreSettings.of(state.config), solver_budget_s=0.0)
    back, mounts = [vm for vm in vms if vm.name in home], mounts_of(state)
    seats = [_on(candidate(vm, mounts), home[vm.name]) for vm in back]
    verdicts = place_batch(seats, seat_table(state), settings, state.rotation, told=Told.BEST)
    return [(vm, verdict) for vm, verdict in zip(back, verdicts, strict=True) if verdict.node is not None]


def _goes_back(state: State, vm: VmRecord) -> bool:
    node = state.nodes.get(vm.lost_with)
    home = pinned_to(vm)
    return vm.spec.boot_policy == LAST_OWNER and node is not None and node.state is NodeState.UP and not home


def _place_freely(state: State, table: Table, vms: Sequence[VmRecord]) -> list[tuple[VmRecord, Verdict]]:
    settings = ScoreSettings.of(state.config)
    mounts = mounts_of(state)
    seats = [_candidate_at_home(vm, mounts) for vm in vms]

    def place(budget_s: float) -> list[Verdict]:
        budgeted = structs.replace(settings, solver_budget_s=budget_s)
        return place_batch(seats, table, budgeted, state.rotation, told=Told.BEST)

    verdicts = place(0.0)
    if any(verdict.node is None and not vm.rejected for vm, verdict in zip(vms, verdicts, strict=True)):
        verdicts = place(settings.solver_budget_s)
    return [(vm, _naming_home(vm, verdict)) for vm, verdict in zip(vms, verdicts, strict=True)]


def place_moves(state: State, vms: Sequence[VmRecord], source: str) -> list[Verdict]:
    """Return where VMs that run on one node could all move to, as one batch, in the order given; never its source.

    Moves that wait already hold their planned seats. Nobody is re-seated: all of them run.
    """
    table, mounts = seat_table(state), mounts_of(state)
    settings = structs.replace(ScoreSettings.of(state.config), solver_budget_s=0.0)
    planned = [(m.vm, m.planned_target) for m in state.migrations.values() if m.phase is MigrationPhase.QUEUED]
    held = [(vm, to) for vm, to in planned if to in table.columns.slot_of and to not in table.seats_of(vm)]
    from_node = table.columns.node(table.columns.slot_of[source])
    try:
        table.put_node(structs.replace(from_node, ready=False))
        for vm, to in held:
            table.seat(vm_seat(state.vms[vm]), to)
        seats = [candidate(vm, mounts, live=True) for vm in vms]
        verdicts = place_batch(seats, table, settings, state.rotation, told=Told.NODE)
    finally:
        for vm, to in held:
            table.unseat(vm, to)
        table.put_node(from_node)
    return [structs.replace(verdict, rejected=_without(verdict.rejected, source)) for verdict in verdicts]


def _without(rejected: dict[str, tuple[str, ...]], source: str) -> dict[str, tuple[str, ...]]:
    return {**rejected, source: (SOURCE_RULE,)} if source in rejected else rejected


def choice_of(state: State, verdict: Verdict, node: str) -> Choice | None:
    """Return why a node was chosen, to be kept with the decision; None where it is none of the best by its scores."""
    settings = ScoreSettings.of(state.config)
    own = [each for each in verdict.contenders if each.node == node]
    if not own:
        return None
    weights = {rule: settings.weight(rule) for each in verdict.contenders[:1] for rule in each.scores}
    return Choice(
        profile=settings.profile,
        weights=weights,
        contenders=(*own, *(each for each in verdict.contenders if each.node != node)),
        feasible=verdict.fits,
        nodes=len(state.nodes),
    )


def _candidate_at_home(vm: VmRecord, mounts: tuple[str, ...]) -> PlacementVm:
    """Return the VM's seat, on its only node where it is pinned to one."""
    seat, home = candidate(vm, mounts), pinned_to(vm)
    if not home:
        return seat
    return _on(seat, home)


def _on(seat: PlacementVm, node: str) -> PlacementVm:
    """Return the seat so that no other node takes it."""
    spec = structs.replace(seat.spec, node_selector={**seat.spec.node_selector, HOSTNAME: node})
    return structs.replace(seat, spec=spec)


def _naming_home(vm: VmRecord, verdict: Verdict) -> Verdict:
    """Say of the other nodes that it is the disk, and not a selector, that keeps a pinned VM away."""
    home = pinned_to(vm)
    if not home:
        return verdict
    rejected = {
        node: rules if node == home else tuple(sorted({*rules, HOME_RULE} - {"NodeAffinity"}))
        for node, rules in verdict.rejected.items()
    }
    return structs.replace(verdict, rejected=rejected)


def refusals(state: State, vm: VmRecord) -> dict[str, str]:
    """Return per node that refused the VM the rules, and what each says of it now, in words; for people.

    Of the first nodes by name only: each is asked about by every rule. A rule that no longer refuses stands alone.
    """
    table, seat = seat_table(state), _candidate_at_home(vm, mounts_of(state))
    told: dict[str, str] = {}
    for number, (node, rules) in enumerate(sorted(vm.rejected.items())):
        known = number < NODES_IN_WORDS_MAX and node in table.columns.slot_of
        words = reasons(seat, table, node) if known else {}
        told[node] = "; ".join(f"{rule} ({words[rule]})" if words.get(rule) else rule for rule in rules)
    return told


def refusal_words(state: State, vm: VmRecord, *, live: bool) -> dict[str, dict[str, str]]:
    """Return per node that would not take the VM now each rule with what it says; live: as it runs, from its node.

    The words only of the first nodes by name; of the others the rules with empty words.
    """
    if live:
        seat, verdict = candidate(vm, mounts_of(state), live=True), migration_targets(state, vm, vm.owner)
    else:
        seat = _candidate_at_home(vm, mounts_of(state))
        settings = ScoreSettings.of(state.config)
        verdict = _naming_home(vm, judge(seat, seat_table(state), settings, state.rotation))
    told: dict[str, dict[str, str]] = {}
    for number, (node, rules) in enumerate(sorted(verdict.rejected.items())):
        words = reasons(seat, seat_table(state), node) if number < NODES_IN_WORDS_MAX else {}
        told[node] = {rule: words.get(rule, "") for rule in rules}
    return told


def stays_in_maintenance(vm: VmRecord) -> bool:
    """Return whether the VM tolerates maintenance: it may be placed on a drained node, and is not drained."""
    maintenance = Taint(key=MAINTENANCE_KEY, effect=TaintEffect.NO_SCHEDULE)
    return tolerates(vm.spec.tolerations, maintenance)


def migration_targets(state: State, vm: VmRecord, source: str) -> Verdict:
    """Return where a running VM could move to; never its source."""
    settings = ScoreSettings.of(state.config)
    excluded = {source: SOURCE_RULE}
    table = seat_table(state)
    seat = candidate(vm, mounts_of(state), live=True)
    return judge(seat, table, settings, state.rotation, excluded=excluded)
