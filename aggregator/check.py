"""`virtward-aggregator --check`: is this machine ready for an aggregator, and where it is not, what to do.

Knows files, ports and, where an aggregator runs already, its API; changes nothing and opens no store.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import msgspec

from aggregator.authority import PUBLIC_NAME
from aggregator.settings import Settings
from fleet.environment import Finding, check_clock, check_directory, check_listen, ok, problem, warning
from fleet.tls import https_trust

API_S_MAX = 5.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - addresses to ask, not to listen on


class _Condition(msgspec.Struct):
    type: str
    status: str
    message: str = ""


class _Status(msgspec.Struct):
    state: str = ""
    conditions: tuple[_Condition, ...] = ()


class _Metadata(msgspec.Struct):
    name: str


class _Node(msgspec.Struct):
    metadata: _Metadata
    status: _Status


class _Nodes(msgspec.Struct):
    items: tuple[_Node, ...]


def look_around(settings: Settings) -> Iterator[Finding]:
    """Look at everything the aggregator will meet, one finding after the other."""
    running = _ask(settings)
    for key, endpoint in (("api_listen", settings.api), ("agents_listen", settings.agents)):
        yield check_listen(key, endpoint.host, endpoint.port, ours=running is not None)
    yield check_directory("state_dir", settings.state_dir)
    yield check_fence_programs(settings.fence_agents_dir)
    yield check_clock()
    if running is None:
        yield warning(
            "no aggregator answers here yet, so the fence devices' status is not known: look again when it runs"
        )
    else:
        yield from devices(running)


def check_fence_programs(directory: Path) -> Finding:
    """Say whether there are programs to fence with."""
    count = sum(1 for _ in directory.glob("fence_*"))
    if count == 0:
        return problem(f"fence_agents_dir {directory} holds no fence_* program: install fence-agents")
    return ok(f"{count} fence programs in {directory}")


def devices(nodes: bytes) -> Iterator[Finding]:
    """Say of each node in an answer of the API whether its fence device has proven itself."""
    try:
        found = msgspec.json.decode(nodes, type=_Nodes).items
    except msgspec.DecodeError as error:
        yield problem(f"the API's answer is not understood ({error}): is another program listening there?")
        return
    if not found:
        yield warning("no node has joined yet: `virtward node token NAME` makes a token for its agent")
    for node in found:
        name = node.metadata.name
        for condition in node.status.conditions:
            if condition.type != "Fenceable":
                continue
            if condition.status == "True":
                yield ok(f"node {name} ({node.status.state}) can be fenced: {condition.message}")
            else:
                yield warning(
                    f"node {name} ({node.status.state}) cannot be fenced, so its loss would need a person: "
                    f"{condition.message or 'no device is known'}; see docs/FENCING.md"
                )


def _connection(settings: Settings, host: str) -> http.client.HTTPConnection:
    if not settings.api_tls:
        return http.client.HTTPConnection(host, settings.api.port, timeout=API_S_MAX)
    own = settings.api_certificate or settings.state_dir / PUBLIC_NAME
    context = https_trust(own)
    context.check_hostname = False  # by whatever name its owner had it certified: it is this very machine
    return http.client.HTTPSConnection(host, settings.api.port, timeout=API_S_MAX, context=context)


def _ask(settings: Settings) -> bytes | None:
    """Return the list of nodes from the aggregator that runs here; None if none does, or not with this token."""
    host = ANY.get(settings.api.host, settings.api.host)
    try:
        token = settings.token_path.read_text(encoding="ascii").strip()
        connection = _connection(settings, host)
        connection.request("GET", "/api/v1/nodes", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        body = answer.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException, UnicodeDecodeError):
        return None
    return body if answer.status == http.client.OK else None
