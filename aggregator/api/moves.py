"""Migrations and drains, as people order and cancel them."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from aggregator.api.calls import Call, answer, only, word
from aggregator.api.lists import one
from aggregator.api.nodes import node_record
from aggregator.api.problems import conflict, not_found
from aggregator.api.router import Route
from aggregator.api.vm_state import living_vm
from aggregator.api.writes import commit
from aggregator.core.arrival_check import arrival_question
from aggregator.core.events import (
    Event,
    MigrationCancelRequested,
    MigrationRequested,
)
from aggregator.core.fold_moves import ENDED
from aggregator.core.lookups import takes_vms
from aggregator.core.migratable import why_not_migratable
from aggregator.core.preflight import (
    departure_question,
    migration_check,
    target_of,
    way_check,
)
from aggregator.core.seats import migration_targets
from aggregator.core.state import MigrationRecord, State, VmRecord
from aggregator.core.views_node import not_ready

DEADLINE_S_MAX = 30 * 86400.0


async def migrate(call: Call) -> web.StreamResponse:
    """Move a running VM; the answer is the Migration."""
    options = await call.options()
    only(options, "to")
    target = word(options, "to")

    def make(state: State, now: float) -> Event | None:
        record = living_vm(state, call.name)
        _refuse_move(state, record, target)
        return MigrationRequested(at=now, vm=call.name, target=target, who=call.who)

    state, _ = await commit(call, make)
    newest = _newest_of(state, call.name)
    if newest is None:
        raise conflict(f"the migration of VM {call.name} was refused; virtward explain vm {call.name} says why")
    return answer(one(state, "migrations", newest.name))


def _refuse_move(state: State, record: VmRecord, target: str) -> None:
    problem = why_not_migratable(state, record)
    if problem:
        raise conflict(f"VM {record.name} cannot be live-migrated: {problem}")
    if record.migration:
        raise conflict(f"VM {record.name} is already being moved ({record.migration})")
    if record.stopping is not None:
        raise conflict(f"VM {record.name} is being stopped")
    if not target:
        return
    node = node_record(state, target)
    if target == record.owner:
        raise conflict(f"VM {record.name} is on {target} already")
    if not takes_vms(node):
        reason, sentence = not_ready(state, node)
        raise conflict(f"node {target} takes no VMs: {sentence or reason or 'it is not ready'}")
    rules = migration_targets(state, record, record.owner).rejected.get(target)
    if rules:
        raise conflict(f"node {target} does not take VM {record.name}: {', '.join(rules)}")


def _newest_of(state: State, vm: str) -> MigrationRecord | None:
    own = [record for record in state.migrations.values() if record.vm == vm]
    return own[-1] if own else None


async def cancel_migration(call: Call) -> web.StreamResponse:
    """Call a migration off; the VM stays where it is."""
    only(await call.options())

    def make(state: State, now: float) -> Event | None:
        record = state.migrations.get(call.name)
        if record is None:
            raise not_found("migration", call.name)
        if record.phase in ENDED:
            raise conflict(f"migration {call.name} has ended already ({record.phase})")
        if record.cancel_wanted:
            return None
        return MigrationCancelRequested(at=now, migration=call.name, who=call.who)

    state, _ = await commit(call, make)
    return answer(one(state, "migrations", call.name))


async def check_migration(call: Call) -> web.StreamResponse:
    """Say what every check says of a VM's move, and how it would go; nothing is begun."""
    options = await call.options()
    only(options, "to")
    record = living_vm(call.fleet.state, call.name)
    target = node_record(call.fleet.state, word(options, "to")).name if word(options, "to") else ""
    target = target or target_of(call.fleet.state, record)
    to = call.fleet.state.nodes.get(target)
    moves = to is not None and record.run_open and target != record.owner
    arrival, departure = await asyncio.gather(
        call.fleet.ask_move(target, arrival_question(record)) if moves else _nothing(),
        call.fleet.ask_move(record.owner, departure_question(record, to)) if record.run_open else _nothing(),
    )
    record = living_vm(call.fleet.state, call.name)
    return answer(msgspec.to_builtins(migration_check(call.fleet.state, record, target, arrival, departure)))


async def check_way(call: Call) -> web.StreamResponse:
    """Say whether anything could move from this node to another right now; nothing is begun."""
    options = await call.options()
    only(options, "to")
    source, target = node_record(call.fleet.state, call.name), node_record(call.fleet.state, word(options, "to"))
    if source is target:
        raise conflict(f"{source.name} is both ends; name another node")
    arrival, departure = await asyncio.gather(
        call.fleet.ask_move(target.name, arrival_question(None)),
        call.fleet.ask_move(source.name, departure_question(None, target)),
    )
    return answer(msgspec.to_builtins(way_check(call.fleet.state, source, target, arrival, departure)))


async def _nothing() -> None:
    """Nobody is asked."""


ROUTES = [
    Route(
        "POST",
        "/api/v1/vms/{name}:checkMigration",
        check_migration,
        "what every check says of a move",
        "MigrateOrder",
        "MigrationCheck",
    ),
    Route(
        "POST",
        "/api/v1/nodes/{name}:checkMigration",
        check_way,
        "whether the way to another node is open",
        "MigrateOrder",
        "MigrationCheck",
    ),
    Route("POST", "/api/v1/vms/{name}:migrate", migrate, "move a running VM", "MigrateOrder", "Migration"),
    Route("POST", "/api/v1/migrations/{name}:cancel", cancel_migration, "call a migration off", "", "Migration"),
]
