"""The application over the aggregator itself: real loop, real journal, no agents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from msgspec import structs

from aggregator.api.app import make_app
from aggregator.fault_point import FaultPoint
from aggregator.fleet import Fleet, open_fleet
from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_node, a_vm, domain_xml
from tests.unit.api.test_watch import until, watching
from tests.unit.api.world import TOKEN
from tests.unit.shell.identity_world import settings_of


async def opened(state_dir: Path) -> tuple[Fleet, web.AppRunner, str]:
    """Begin a life of the aggregator and listen."""
    settings = structs.replace(settings_of(state_dir), token_sha256=sha256(TOKEN.encode()).hexdigest())
    fleet = await open_fleet(settings, FaultPoint(""))
    runner = web.AppRunner(make_app(fleet), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return fleet, runner, f"http://{host}:{port}"


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Api]:
    fleet, runner, base = await opened(tmp_path)
    async with aiohttp.ClientSession() as session:
        yield Api(fleet, base, session)
    await runner.cleanup()
    await fleet.close()


async def test_what_was_answered_is_there_after_a_restart(tmp_path: Path) -> None:
    fleet, runner, base = await opened(tmp_path)
    async with aiohttp.ClientSession() as session:
        api = Api(fleet, base, session)
        body = {"documents": [a_node("n1"), *(a_vm(f"v{number}") for number in range(60))]}
        answer = await api("POST", "/api/v1/apply", body)
        assert {item["result"] for item in answer.body["items"]} == {"created"}
        assert answer.body["warnings"][0].startswith("no libvirt has checked the XML of 60 VMs yet")
        before = (await api("GET", "/api/v1/vms")).body["items"]
    await runner.cleanup()
    await fleet.close()
    fleet, runner, base = await opened(tmp_path)
    async with aiohttp.ClientSession() as session:
        api = Api(fleet, base, session)
        after = (await api("GET", "/api/v1/vms")).body["items"]
        assert [(vm["metadata"], vm["spec"]) for vm in after] == [(vm["metadata"], vm["spec"]) for vm in before]
        assert (await api("POST", "/api/v1/apply", {"documents": after})).body["items"][0]["result"] == "unchanged"
    await runner.cleanup()
    await fleet.close()


async def test_refusals_and_dry_runs_leave_the_journal_as_it_is(real: Api) -> None:
    await real("PUT", "/api/v1/vms/web-1", a_vm())
    position = real.world.state.position
    clash = a_vm("b", xml=domain_xml("b", disk="disk-of-web-1"))
    assert (await real("PUT", "/api/v1/vms/b", clash)).status == 422
    assert (await real("POST", "/api/v1/vms/web-1:stop")).status == 409
    assert (await real("PUT", "/api/v1/vms/c?dryRun=1", a_vm("c"))).status == 201
    assert real.world.state.position == position


async def test_changes_are_watched_and_told(real: Api) -> None:
    async with watching(real, "/api/v1/nodes?watch=1") as found:
        await until(found, "BOOKMARK")
        assert (await real("PUT", "/api/v1/nodes/n1", a_node("n1"))).status == 201
        assert (await until(found, "ADDED"))[-1].about == "n1"
    events = (await real("GET", "/api/v1/events?node=n1")).body["items"]
    assert [event["kind"] for event in events] == ["NodeApplied"]
    text = (await real("GET", "/api/v1/explain/nodes/n1")).body["text"]
    assert text.startswith("Node n1 is Joining since ")
    assert "virtward node approve n1" in text
    assert (await real("GET", "/readyz", open=True)).status == 200
