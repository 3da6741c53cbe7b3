"""Asks what guests write to their memory, so that a plan can say how their moves would go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aggregator.core.forecast import Forecast
from aggregator.core.migration_drive import moves_at_once
from aggregator.core.preflight import departure_question, forecast_of
from aggregator.core.views_drain import drain_plan
from aggregator.fleet_access import FleetAccess
from fleet.messages import MoveChecked

MEASURED_MAX = 64  # guests of one plan; the rest is planned without


async def foretell(fleet: FleetAccess, nodes: Sequence[str], *, force: bool) -> dict[str, Forecast]:
    """Return how the live moves off these nodes would go, by VM; of MEASURED_MAX VMs at most."""
    moves = [
        (step.vm, step.to)
        for node in nodes
        for step in drain_plan(fleet.state, node, force=force)
        if step.method == "LiveMigrate"
    ][:MEASURED_MAX]
    answers = await asyncio.gather(*[_measured(fleet, vm, to) for vm, to in moves])
    state = fleet.state
    at_once = moves_at_once(state)
    return {
        vm: forecast_of(state, state.vms[vm], to, answer, at_once=at_once)
        for (vm, to), answer in zip(moves, answers, strict=True)
        if vm in state.vms
    }


async def _measured(fleet: FleetAccess, name: str, to: str) -> MoveChecked | None:
    record = fleet.state.vms.get(name)
    if record is None:
        return None
    return await fleet.ask_move(record.owner, departure_question(record, fleet.state.nodes.get(to)))
