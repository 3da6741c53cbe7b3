"""/openapi.json, made from the table of routes and the types: it cannot differ from what is served."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from aggregator.api.calls import Call, answer
from aggregator.api.router import WRITES, Route
from aggregator.core.explain import Explanation
from aggregator.core.objects import MigrationPolicy, Node, VirtualMachine
from aggregator.core.policy import ClusterConfig, write_config
from aggregator.core.preflight import MigrationCheck
from aggregator.core.views import EventView, Incident, Migration
from aggregator.core.views_drain import Drain
from aggregator.core.whatif import Readiness, WhatIf

_OBJECT: dict[str, object] = {"type": "object"}


class _Order(Struct, rename="camel", forbid_unknown_fields=True):
    """Base of what verbs take."""


class VerbOrder(_Order):
    """force: do not wait for the guest."""

    force: bool = False


class MigrateOrder(_Order):
    """to: the node; null lets placement choose."""

    to: str | None = None


class DrainOrder(_Order):
    """force: shut VMs down that cannot be moved live. dryRun: only the plan."""

    dry_run: bool = False
    deadline_seconds: float | None = None
    force: bool = False


class DrainsOrder(_Order):
    """labelSelector: which nodes. The rest as in DrainOrder."""

    label_selector: str
    dry_run: bool = False
    deadline_seconds: float | None = None
    force: bool = False


class Uncordon(_Order):
    """bringBack: ask the VMs that the drain moved away to return."""

    bring_back: bool = False


class TaintOrder(_Order):
    """taint: key=value:Effect, key:Effect, or key- and key:Effect- to remove."""

    taint: str


class FenceOrder(_Order):
    """confirmOff: a person vouches that the node is off. typedName: its name again, where it is asked for."""

    confirm_off: bool = False
    typed_name: str | None = None


class GoneOrder(_Order):
    """typedName: the VM's name again, where it is asked for."""

    typed_name: str | None = None


class DisarmOrder(_Order):
    """node, vm or labelSelector, or none of them for the fleet. forSeconds: after that it arms itself; null: no end."""

    node: str | None = None
    vm: str | None = None
    label_selector: str | None = None
    for_seconds: float | None = None


class ArmOrder(_Order):
    """node, vm or labelSelector, or none of them for the fleet."""

    node: str | None = None
    vm: str | None = None
    label_selector: str | None = None


class Apply(_Order):
    """documents: manifests. strict: what would be a warning is an error."""

    documents: list[dict[str, object]]
    strict: bool = False


class AppliedItem(_Order):
    """One object and what became of it."""

    kind: str
    name: str
    result: Literal["created", "configured", "unchanged"]


class Applied(_Order):
    """What an apply did."""

    items: list[AppliedItem]
    warnings: list[str]


class Token(_Order):
    """A join token; it is shown once."""

    token: str


class List(_Order):
    """A collection; resourceVersion is where a watch may go on from."""

    items: list[dict[str, object]]
    resource_version: str


class Problem(Struct):
    """An error (RFC 9457). detail: one sentence. errors: all sentences, where there are several."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[str] = []


_TYPES = (
    VirtualMachine, Node, MigrationPolicy, Migration, Drain, Incident, EventView, Explanation, VerbOrder, MigrateOrder,
    DrainOrder, DrainsOrder, Uncordon, TaintOrder, FenceOrder, GoneOrder, DisarmOrder, ArmOrder, Apply, Applied,
    Token, List, Problem, WhatIf, Readiness, MigrationCheck,
)  # fmt: skip


def document(routes: Iterable[Route], version: str) -> dict[str, object]:
    """Return the OpenAPI 3.1 document of a table of routes."""
    _, schemas = msgspec.json.schema_components(
        _TYPES, schema_hook=_anything, ref_template="#/components/schemas/{name}"
    )
    schemas = {**schemas, "Patch": {**_OBJECT, "description": "a merge patch (RFC 7396); null deletes"}}
    schemas["Status"] = _OBJECT
    schemas["Rebalance"] = _OBJECT
    schemas["ClusterConfig"] = _settings(write_config(ClusterConfig()))
    paths: dict[str, dict[str, object]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "virtward", "version": version, "description": "Names are percent-encoded."},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {"Problem": {"description": "An error", "content": _content("Problem", "problem+json")}},
        },
    }


def _anything(kind: type) -> dict[str, object]:
    """msgspec hook: a value that may be any JSON."""
    if kind is object:
        return {"description": "any value"}
    raise NotImplementedError(kind)


def _settings(defaults: dict[str, object]) -> dict[str, object]:
    """Return the schema of settings, from their defaults: that is where their keys and forms are known."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            key: _settings(value) if isinstance(value, dict) and key != "weights" else {"default": value}
            for key, value in defaults.items()
        },
    }


def _content(schema: str, subtype: str = "json") -> dict[str, object]:
    return {f"application/{subtype}": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _operation(route: Route) -> dict[str, object]:
    names = re.findall(r"\{(\w+)\}", route.path)
    parameters: list[dict[str, object]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    queries = ["dryRun"] if route.method in WRITES and route.path.startswith("/api/") else []
    if route.answer == "List":
        queries = ["labelSelector", "watch", "resourceVersion"]
    parameters += [{"name": name, "in": "query", "schema": {"type": "string"}} for name in queries]
    if route.method in WRITES and route.path.startswith("/api/"):
        parameters.append({"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}})
    found: dict[str, object] = {
        "summary": route.summary,
        "operationId": _operation_id(route),
        "parameters": parameters,
        "responses": {
            "2XX": {"description": "done", **({"content": _content(route.answer)} if route.answer else {})},
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if route.body:
        found["requestBody"] = {"content": _content(route.body)}
    if route.is_open:
        found["security"] = []
    return found


def _operation_id(route: Route) -> str:
    words = re.findall(r"[A-Za-z0-9]+", route.path.removeprefix("/api/v1").replace("{name}", "one"))
    return "_".join([route.method.lower(), *words])


def openapi_route(routes: Iterable[Route], version: str) -> Route:
    """Return the route of the document itself, which lists itself too."""

    async def get_openapi(_call: Call) -> web.StreamResponse:
        return answer(document([*routes, own], version))

    own = Route("GET", "/openapi.json", get_openapi, "this document")
    return own
