"""What guests' screens show: now, and before a run was ended because its guest hung."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from aggregator.api.calls import Call
from aggregator.api.problems import Problem, not_found
from aggregator.api.router import Route
from aggregator.api.vm_state import vm_record
from aggregator.fleet_access import NoPictureError


async def of_vm(call: Call) -> web.StreamResponse:
    """Answer a PNG of what the VM's guest shows now."""
    record = vm_record(call.fleet.state, call.name)
    return await _picture(call, record.uuid, "")


async def of_incident(call: Call) -> web.StreamResponse:
    """Answer the PNG that is kept beside an incident."""
    if call.name not in call.fleet.state.incidents:
        raise not_found("incident", call.name)
    return await _picture(call, "", call.name)


async def _picture(call: Call, uuid: str, incident: str) -> web.StreamResponse:
    try:
        png = await (call.fleet.kept_picture(incident) if incident else call.fleet.take_picture(uuid))
    except NoPictureError as error:
        raise Problem(HTTPStatus.NOT_FOUND if incident else HTTPStatus.CONFLICT, str(error)) from None
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=png, content_type="image/png", headers=headers)


ROUTES = [
    Route("GET", "/api/v1/vms/{name}/screenshot", of_vm, "what the VM's guest shows now, as PNG"),
    Route("GET", "/api/v1/incidents/{name}/screenshot", of_incident, "what its guest showed before the end, as PNG"),
]
