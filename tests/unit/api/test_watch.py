"""Watches: what changes arrives, once, and a watch that broke off is taken up where it ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest

from aggregator.api import watch
from aggregator.api.lists import RENDERS
from aggregator.core.events import NodeApplied
from aggregator.core.objects import NodeSpec
from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm
from tests.unit.api.world import TOKEN, World

LIMIT_S = 30.0


class Event(NamedTuple):
    """One server-sent event."""

    name: str
    id: str
    data: Any

    @property
    def about(self) -> str:
        return str(self.data["object"].get("metadata", {}).get("name", ""))


@asynccontextmanager
async def watching(api: Api, path: str, **headers: str) -> AsyncIterator[AsyncIterator[Event]]:
    """Open a watch; what it yields are its events, each awaited with a generous limit."""
    sent = {"Authorization": f"Bearer {TOKEN}", **headers}
    async with api.session.get(api.base + path, headers=sent) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield events(response)


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    while True:
        raw = await asyncio.wait_for(response.content.readline(), LIMIT_S)
        if not raw:
            return
        line = raw.decode().rstrip("\n")
        if line and not line.startswith(":"):
            key, _, value = line.partition(": ")
            fields[key] = value
        elif fields:
            yield Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
            fields = {}


async def until(found: AsyncIterator[Event], name: str) -> list[Event]:
    """Return the events up to and with the first of this name."""
    seen = []
    async for event in found:
        seen.append(event)
        if event.name == name:
            return seen
    raise AssertionError(f"no {name} came: {seen}")


async def test_a_watch_begins_with_what_is_there_and_goes_on(api: Api, world: World) -> None:
    await api("PUT", "/api/v1/vms/a", a_vm("a", strategy="Halted"))
    async with watching(api, "/api/v1/vms?watch=1") as found:
        first = await until(found, "BOOKMARK")
        assert [(event.name, event.about) for event in first[:-1]] == [("ADDED", "a")]
        await api("PATCH", "/api/v1/vms/a", {"metadata": {"labels": {"x": "y"}}})
        changed = (await until(found, "MODIFIED"))[-1]
        assert changed.data["object"]["metadata"]["labels"] == {"x": "y"}
        await api("DELETE", "/api/v1/vms/a")
        gone = (await until(found, "DELETED"))[-1]
        assert gone.about == "a"
        assert "a" not in world.state.vms


async def test_a_watch_is_taken_up_where_it_ended(api: Api, world: World) -> None:
    """By resourceVersion of a list, of an event, and by Last-Event-ID: nothing is missed or doubled."""
    listed = (await api("GET", "/api/v1/nodes")).body
    await api("POST", "/api/v1/nodes/n1:cordon")
    async with watching(api, f"/api/v1/nodes?watch=1&resourceVersion={listed['resourceVersion']}") as found:
        event = await anext(found)
        assert (event.name, event.about) == ("MODIFIED", "n1")
    await api("POST", "/api/v1/nodes/n2:cordon")
    async with watching(api, "/api/v1/nodes?watch=1", **{"Last-Event-ID": event.id}) as found:
        event = await anext(found)
        assert (event.name, event.about) == ("MODIFIED", "n2")
    await api("POST", "/api/v1/nodes/n3:cordon")
    async with watching(api, f"/api/v1/nodes?watch=1&resourceVersion={event.id}") as found:
        assert (await anext(found)).about == "n3"


@pytest.mark.parametrize("version", ["1", "999999"])
async def test_a_version_nobody_remembers_begins_anew(api: Api, version: str) -> None:
    async with watching(api, f"/api/v1/nodes?watch=1&resourceVersion={version}") as found:
        names = [event.name for event in await until(found, "BOOKMARK")]
        assert names == ["RESYNC", "ADDED", "ADDED", "ADDED", "BOOKMARK"]


async def test_a_reader_that_falls_behind_begins_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring is bounded: a reader that missed what it lost is told so, and one that did not is not."""
    monkeypatch.setattr(watch, "CHANGES_MAX", 2)
    hub = watch.Hub(world, RENDERS)
    hub.touch()
    number = hub.newest
    for name in ("n1", "n2", "n3"):
        world.core.cordon(name)
    hub.snapshot("nodes", ())
    assert hub.after("nodes", number) is None
    kept = hub.after("nodes", number + 1)
    assert kept is not None
    assert [dict(change.after or {})["virtward/hostname"] for change in kept] == ["n2", "n3"]
    await hub.close()


async def test_a_selector_sees_objects_come_and_go(api: Api) -> None:
    async with watching(api, "/api/v1/nodes?watch=1&labelSelector=rack%3Dr1") as found:
        assert [event.name for event in await until(found, "BOOKMARK")] == ["BOOKMARK"]
        await api("PATCH", "/api/v1/nodes/n1", {"metadata": {"labels": {"rack": "r1"}}})
        assert (await anext(found)).name == "ADDED"
        await api("PATCH", "/api/v1/nodes/n1", {"metadata": {"labels": {"rack": "r2"}}})
        assert (await anext(found)).name == "DELETED"


async def test_beats_alone_are_no_news(api: Api, world: World) -> None:
    async with watching(api, "/api/v1/nodes?watch=1") as found:
        await until(found, "BOOKMARK")
        world.run(20)
        await api("POST", "/api/v1/nodes/n2:cordon")
        event = await anext(found)
        assert (event.name, event.about) == ("MODIFIED", "n2")


async def test_events_are_followed_by_position(api: Api, world: World) -> None:
    listed = (await api("GET", "/api/v1/events")).body
    positions = [int(item["metadata"]["name"]) for item in listed["items"]]
    assert positions == sorted(positions)
    async with watching(api, f"/api/v1/events?watch=1&resourceVersion={listed['resourceVersion']}") as found:
        await api("POST", "/api/v1/nodes/n1:cordon")
        event = await anext(found)
        assert event.data["object"]["kind"] == "NodeApplied"
        assert event.data["object"]["node"] == "n1"
        assert event.id == event.about == str(world.state.position)
    one = await api("GET", f"/api/v1/events/{event.id}")
    assert one.body == event.data["object"]


async def test_a_watch_of_events_skips_nothing_that_is_folded_and_not_yet_journalled(api: Api, world: World) -> None:
    durable = world.state.position
    world.durable = durable
    listed = (await api("GET", "/api/v1/events")).body
    world.run(1)
    await world.submit(NodeApplied(at=world.now(), name="n9", labels={}, spec=NodeSpec()))
    async with watching(api, f"/api/v1/events?watch=1&resourceVersion={listed['resourceVersion']}") as found:
        again = (await api("GET", "/api/v1/events")).body  # while the line is not in the journal
        assert again["resourceVersion"] == str(durable)
        world.durable = None
        world.tell()
        event = await anext(found)
        assert (event.data["object"]["kind"], event.data["object"]["node"]) == ("NodeApplied", "n9")


async def test_events_can_be_narrowed(api: Api, world: World) -> None:
    world.core.silent.add("n1")
    world.run(5)
    items = (await api("GET", "/api/v1/events?node=n1&kind=NodeSuspect&limit=1")).body["items"]
    assert [(item["kind"], item["node"]) for item in items] == [("NodeSuspect", "n1")]
    assert items[0]["at"].endswith("Z")


async def test_watches_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.api.lists.WATCHERS_MAX", 1)
    async with watching(api, "/api/v1/nodes?watch=1") as found:
        await until(found, "BOOKMARK")
        answer = await api("GET", "/api/v1/vms?watch=1")
        assert (answer.status, answer.detail) == (503, "1 watches are open already; try again later")
