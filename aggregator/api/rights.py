"""What a caller may do: its role, and the labels of the VMs that it is limited to.

Knows routes, facts and records; knows no HTTP. A route asks for a role at least; what is written is looked at
once more as the fact that it comes to, right before it is folded, so that no other way leads around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from msgspec import Struct, structs

from aggregator.api.problems import Problem, not_found
from aggregator.api.router import WRITES, Route
from aggregator.core import events as ev
from aggregator.core.events import ApiRole, Event
from aggregator.core.selector import Selector, selects
from aggregator.core.state import State

TOKENS_PATH = "/api/v1/tokens"
_VMS_PATH, _APPLY_PATH = "/api/v1/vms", "/api/v1/apply"
_RANKS = (ApiRole.VIEWER, ApiRole.OPERATOR, ApiRole.ADMIN)
_ADMINS_ROUTES = frozenset(
    {
        ("DELETE", "/api/v1/nodes/{name}"),
        ("PATCH", "/api/v1/config"),
        ("POST", "/api/v1/nodes"),
        ("POST", "/api/v1/nodes/{name}:approve"),
        ("POST", "/api/v1/nodes/{name}:revoke"),
        ("POST", "/api/v1/nodes/{name}:token"),
        ("DELETE", "/api/v1/migrationpolicies/{name}"),
        ("PATCH", "/api/v1/migrationpolicies/{name}"),
        ("POST", "/api/v1/migrationpolicies"),
        ("PUT", "/api/v1/config"),
        ("PUT", "/api/v1/migrationpolicies/{name}"),
    }
)
_OPERATORS_READS = frozenset({"/api/v1/vms/{name}/screenshot", "/api/v1/incidents/{name}/screenshot"})
"""What a guest shows may be anything that somebody has left open there."""
_ADMINS_FACTS = (
    ev.ApiTokenIssued,
    ev.ApiTokenRevoked,
    ev.ConfigChanged,
    ev.JoinTokenIssued,
    ev.MigrationPolicyApplied,
    ev.MigrationPolicyDeleted,
    ev.NodeApproved,
    ev.NodeDeleted,
    ev.NodeRevoked,
    ev.NodeTokenIssued,
)


class Rights(Struct, frozen=True):
    """Who asks, and what it may. scope: empty for every VM and all else; digest: of the token it came with."""

    who: str
    role: ApiRole
    scope: Selector = ()
    digest: str = ""

    def has(self, role: ApiRole) -> bool:
        """Tell whether it has this role or a higher one."""
        return _RANKS.index(self.role) >= _RANKS.index(role)


def check_route(rights: Rights, route: Route, state: State, names: Mapping[str, str]) -> None:
    """Refuse a route that asks for more; Problem 403, or 404 for a VM that the caller is not to know of."""
    if route.path.startswith(TOKENS_PATH) or (route.method, route.path) in _ADMINS_ROUTES:
        needed = ApiRole.ADMIN
    else:
        gives = route.method in WRITES or route.path in _OPERATORS_READS
        needed = ApiRole.OPERATOR if gives else ApiRole.VIEWER
    if not rights.has(needed):
        raise _forbidden(f"the token of {rights.who} is for the role {rights.role}; this takes the role {needed}")
    if not rights.scope:
        return
    if route.path == _APPLY_PATH:  # each of its documents is looked at in check_fact, before the first is written
        return
    if not (route.path == _VMS_PATH or route.path.startswith(f"{_VMS_PATH}/")):
        raise _forbidden(f"the token of {rights.who} is limited to some VMs, and this is about more than them")
    record = state.vms.get(names.get("name", ""))
    if record is not None and not selects(rights.scope, record.labels):
        raise not_found("VM", record.name)


def check_fact(rights: Rights, state: State, fact: Event) -> None:
    """Refuse a write that the caller may not do; Problem 403."""
    if not rights.has(ApiRole.ADMIN) and (isinstance(fact, _ADMINS_FACTS) or _changes_a_host(state, fact)):
        raise _forbidden(f"the token of {rights.who} is for the role {rights.role}; this takes the role admin")
    if rights.scope and not _within(rights.scope, state, fact):
        raise _forbidden(f"the token of {rights.who} is limited to VMs with other labels")


def _changes_a_host(state: State, fact: Event) -> bool:
    """Tell whether a Node is made, or more of it changed than labels, taints and whether it takes VMs."""
    if not isinstance(fact, ev.NodeApplied):
        return False
    node = state.nodes.get(fact.name)
    if node is None:
        return True
    old = structs.replace(node.spec, taints=fact.spec.taints, unschedulable=fact.spec.unschedulable)
    return old != fact.spec


def _within(scope: Selector, state: State, fact: Event) -> bool:
    name = getattr(fact, "vm", "") or getattr(fact, "name", "")
    about_vms = (ev.VmApplied, ev.VmDeleteRequested, ev.VmCommanded, ev.MigrationRequested, ev.VmGoneConfirmed)
    if not isinstance(fact, about_vms) or (isinstance(fact, ev.VmApplied) and not selects(scope, fact.labels)):
        return False
    record = state.vms.get(name)
    return isinstance(fact, ev.VmApplied) if record is None else selects(scope, record.labels)


def _forbidden(detail: str) -> Problem:
    return Problem(HTTPStatus.FORBIDDEN, detail)
