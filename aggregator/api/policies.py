"""Writing MigrationPolicies: how the VMs with some labels are live-migrated."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from aggregator.api.calls import Call, answer
from aggregator.api.lists import one
from aggregator.api.objects_in import check_version, merged, read_as
from aggregator.api.problems import conflict, not_found
from aggregator.api.router import Route
from aggregator.api.writes import Make, commit
from aggregator.core.events import Event, MigrationPolicyApplied, MigrationPolicyDeleted
from aggregator.core.objects import MigrationPolicy
from aggregator.core.state import State

COLLECTION = "migrationpolicies"


def make_policy(written: MigrationPolicy, who: str) -> Make:
    """Return what makes the state hold this policy as written."""
    name = written.metadata.name

    def make(state: State, now: float) -> Event | None:
        record = state.migration_policies.get(name)
        check_version(written.metadata, record.version if record else None, f"migration policy {name}")
        if record is not None and (record.spec, record.labels) == (written.spec, written.metadata.labels):
            return None
        return MigrationPolicyApplied(at=now, policy=name, spec=written.spec, labels=written.metadata.labels, who=who)

    return make


async def put_policy(call: Call) -> web.StreamResponse:
    """Create or replace a policy."""
    return await _write(call, read_as(MigrationPolicy, await call.document(), call.name))


async def post_policy(call: Call) -> web.StreamResponse:
    """Create a policy; Problem 409 if there is one."""
    written = read_as(MigrationPolicy, await call.document())
    if written.metadata.name in call.fleet.state.migration_policies:
        raise conflict(f"there is a migration policy {written.metadata.name!r} already; PUT replaces it")
    return await _write(call, written)


async def patch_policy(call: Call) -> web.StreamResponse:
    """Merge into a policy; null deletes."""
    patch = await call.document()

    def make(state: State, now: float) -> Event | None:
        written = read_as(MigrationPolicy, merged(one(state, COLLECTION, call.name), patch, call.name))
        return make_policy(written, call.who)(state, now)

    state, _ = await commit(call, make)
    return answer(one(state, COLLECTION, call.name))


async def _write(call: Call, written: MigrationPolicy) -> web.StreamResponse:
    existed = written.metadata.name in call.fleet.state.migration_policies
    state, _ = await commit(call, make_policy(written, call.who))
    return answer(one(state, COLLECTION, written.metadata.name), HTTPStatus.OK if existed else HTTPStatus.CREATED)


async def delete_policy(call: Call) -> web.StreamResponse:
    """Take a policy away; migrations under way go on as they began."""
    shown = one(call.fleet.state, COLLECTION, call.name)

    def make(state: State, now: float) -> Event:
        if call.name not in state.migration_policies:
            raise not_found("migration policy", call.name)
        return MigrationPolicyDeleted(at=now, policy=call.name, who=call.who)

    await commit(call, make)
    return answer(shown)


_POLICY = f"/api/v1/{COLLECTION}/{{name}}"
_KIND = "MigrationPolicy"
ROUTES = [
    Route("POST", f"/api/v1/{COLLECTION}", post_policy, "create a migration policy", _KIND, _KIND),
    Route("PUT", _POLICY, put_policy, "create or replace a migration policy", _KIND, _KIND),
    Route("PATCH", _POLICY, patch_policy, "merge into a migration policy", "Patch", _KIND),
    Route("DELETE", _POLICY, delete_policy, "take a migration policy away", "", _KIND),
]
