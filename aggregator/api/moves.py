"""Migrations and drains, as people order and cancel them."""

from __future__ import annotations

from aiohttp import web

from aggregator.api.calls import Call, answer, only, word
from aggregator.api.lists import one
from aggregator.api.nodes import node_record
from aggregator.api.problems import conflict, not_found
from aggregator.api.router import Route
from aggregator.api.vm_state import living_vm
from aggregator.api.writes import commit
from aggregator.core.events import (
    Event,
    MigrationCancelRequested,
    MigrationRequested,
)
from aggregator.core.fold_moves import ENDED
from aggregator.core.lookups import takes_vms
from aggregator.core.migratable import why_not_migratable
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


ROUTES = [
    Route("POST", "/api/v1/vms/{name}:migrate", migrate, "move a running VM", "MigrateOrder", "Migration"),
    Route("POST", "/api/v1/migrations/{name}:cancel", cancel_migration, "call a migration off", "", "Migration"),
]
