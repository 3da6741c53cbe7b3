"""Settings that cannot stand beside each other are refused with both values and the sum; the others stand."""

from __future__ import annotations

import pytest

from aggregator.core import events as ev
from aggregator.core.config import ClusterConfig
from aggregator.core.contradictions import contradictions, settings_of
from aggregator.core.policy import read_config, write_config
from tests.unit.core.fleet import Fleet

WATCHDOG = {"selfFence": "watchdog"}
REFUSED: list[tuple[dict[str, object], str]] = [
    ({"mode": "Perhaps"}, "mode is 'Perhaps'; it must be one of Observe, Act"),
    ({"rebalance": {"mode": "Always"}}, "rebalance.mode is 'Always'; it must be one of Off, Suggest, Auto"),
    ({"heartbeat": "0s"}, "heartbeat is 0s; it must be longer than 0s"),
    ({"suspectAfter": "1500ms"}, "suspectAfter 1500ms is less than two heartbeats (2 × 1s = 2s); one late beat"),
    ({"lostAfter": "3s"}, "lostAfter 3s must be longer than suspectAfter 3s"),
    ({"lostAfterOnePlane": "5s"}, "lostAfterOnePlane 5s must not be shorter than lostAfter 8s"),
    ({"rescueAfter": "5s"}, "rescueAfter 5s must not be shorter than lostAfter 8s"),
    (
        {"selfLagMax": "2500ms"},
        "suspectAfter 3s must be longer than a heartbeat and an own lag that goes unnoticed (1s + ",
    ),
    ({"selfLagMax": "2500ms"}, "selfLagMax 2500ms = 3500ms)"),
    (
        {"startupGrace": {"atMost": "8s"}},
        "startupGrace.atMost 8s is shorter than twice the time agents take to connect",
    ),
    ({"startupGrace": {"atMost": "8s"}}, "(2 × 5s = 10s)"),
    ({"lease": "2s"}, "lease 2s is shorter than three heartbeats (3 × 1s = 3s)"),
    ({"suspectAfter": "7s"}, "lease 6s must not be shorter than suspectAfter 7s: a node would act as isolated"),
    (
        {**WATCHDOG, "unseenAtLeast": "5s"},
        "unseenAtLeast 5s is shorter than the time in which a watchdog ends a node (lease 6s + 2 × watchdog 3s",
    ),
    (
        {**WATCHDOG, "unseenAtLeast": "5s"},
        " + tick 500ms + reset 500ms = 13s, with margin and writes in flight 16260ms)",
    ),
    (
        {**WATCHDOG, "watchdog": "12s"},
        "lostAfterOnePlane 30s is shorter than the time in which a watchdog ends a node (lease 6s + 2 × watchdog 12s",
    ),
    ({**WATCHDOG, "watchdog": "500ms"}, "watchdog 500ms is less than two ticks of its keeper (2 × 500ms = 1s)"),
    ({**WATCHDOG, "guardGroup": 20}, "guardGroup is 20; a guard group has 3 to 15 members"),
    ({"readinessEvery": "2h"}, "readinessEvery 2h is longer than 1h"),
    ({"readinessEvery": "0s"}, "readinessEvery is 0s; it must be longer than 0s"),
    ({"fenceQuiet": "4s"}, "fenceQuiet 4s is shorter than an off order may take (10s)"),
    ({"startupGrace": {"seen": "140%"}}, "startupGrace.seen is 140%; a share lies between 0% and 100%"),
    ({"startupGrace": {"seen": "most"}}, "startupGrace.seen: 'most' is neither a number nor a percentage"),
    ({"rebalance": {"margin": "101%"}}, "rebalance.margin is 101%; a share lies between 0% and 100%"),
    ({"lostNodesMax": 0}, "lostNodesMax is 0: no node would ever be recovered; to only watch set mode: Observe"),
    ({"lostNodesMax": "0%"}, "lostNodesMax is 0%: no node would ever be recovered"),
    ({"lostNodesMax": -1}, "lostNodesMax is -1; a share lies between 0% and 100%, a number from 0"),
    ({"lostNodesMax": "120%"}, "lostNodesMax is 120%; a share"),
    ({"brake": {"offOrdersPerHourMax": -1}}, "brake.offOrdersPerHourMax is -1; it must be at least 0"),
    ({"fencesInFlightMax": 0}, "fencesInFlightMax is 0; it must be at least 1"),
    ({"flap": {"vmPerHourMax": -1}}, "flap.vmPerHourMax is -1; it must be at least 0"),
    ({"flap": {"nodePerDayMax": 0}}, "flap.nodePerDayMax is 0; it must be at least 1"),
    ({"flap": {"powerOnPerDayMax": -2}}, "flap.powerOnPerDayMax is -2; it must be at least 0"),
    ({"restart": {"budget": -1}}, "restart.budget is -1; it must be at least 0"),
    ({"migration": {"inboundPerNodeMax": 0}}, "migration.inboundPerNodeMax is 0; it must be at least 1"),
    ({"migration": {"parallelConnections": -1}}, "migration.parallelConnections is -1; it must be at least 0"),
    ({"migration": {"retryFrom": "10m"}}, "migration.retryFrom 10m must not be longer than migration.retryMax 5m"),
    ({"overcommit": {"cpu": 0}}, "overcommit.cpu is 0; it must be above 0"),
    (
        {"placement": {"weights": {"LeastAllocated": -1}}},
        "placement.weights.LeastAllocated is -1; it must be at least 0",
    ),
    ({"referenceAddress": "not a host"}, "referenceAddress is 'not a host'; it must be a host or HOST:PORT"),
    ({"heartbeat": -1}, "must not be negative"),
    ({"eviction": {"deadline": "0s"}}, "eviction.deadline is 0s; it must be longer than 0s"),
]


@pytest.mark.parametrize(("settings", "sentence"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_stand_is_refused_with_the_arithmetic(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the sentence is looked at below)
        read_config(settings)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"unseenAtLeast": "5s", "readinessEvery": "5s", "rescueAfter": "30s", "storageLossAfter": "10s"},
        {"brake": {"window": "0s", "offOrdersPerHourMax": 100}},
        {"brake": {"offOrdersPerHourMax": 0}, "flap": {"vmPerHourMax": 0}, "fenceQuiet": "0s"},
        {"lostNodesMax": "100%", "startupGrace": {"seen": "0%"}},
        {"heartbeat": "500ms", "suspectAfter": "2s", "lostAfter": "4s", "lease": "3s"},
        WATCHDOG,
    ],
    ids=str,
)
def test_everything_else_stands(settings: dict[str, object]) -> None:
    assert contradictions(read_config(settings)) == []


def test_every_setting_is_looked_at_under_the_name_that_people_write() -> None:
    names = [name for name, _ in settings_of(ClusterConfig())]
    assert {"heartbeat", "startupGrace.atMost", "flap.vmPerHourMax", "migration.completionTimeoutPerGiB"} <= set(names)
    assert len(names) == len(set(names)) > 50


def test_a_journal_from_before_a_rule_is_read_all_the_same() -> None:
    """What was taken once is history; the start of the aggregator says that it cannot stay."""
    fleet = Fleet()
    old = write_config(ClusterConfig()) | {"lease": "2s"}
    with pytest.raises(ValueError, match="lease 2s"):
        read_config(old)
    fleet.settle(ev.ConfigChanged(at=fleet.now, config=old))
    assert fleet.state.config.lease == pytest.approx(2)
