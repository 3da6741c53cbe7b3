"""Reading JSON that may be newer or poorer than this client."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cli.document import Json, age, documents, duration, look, number, show, strings, text
from cli.tables import memory, node_state

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def test_what_is_missing_is_empty() -> None:
    odds: list[Json] = [None, [], "x", {"status": None}, {"status": [1]}]
    for odd in odds:
        assert look(odd, "status.phase") is None
        assert text(odd, "status.phase", "-") == "-"
        assert number(odd, "status.phase") == 0
        assert documents(odd, "status.phase") == []
        assert strings(odd, "status.phase") == []


def test_values_read_as_a_person_writes_them() -> None:
    values: list[Json] = [2.0, 2.5, True, None, ["a", 1], {"b": 1, "a": "x"}]
    assert [show(value) for value in values] == [
        "2",
        "2.5",
        "True",
        "",
        "a,1",
        "a=x,b=1",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (3.21, "3.2s"),
        (59, "59s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (3600, "60m"),
        (10800, "3h"),
        (86400 * 3, "3d"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_ages_need_a_time_with_a_zone() -> None:
    assert age("2026-01-01T11:59:18.000Z", NOW) == "42s"
    assert age("2026-01-01T12:00:05Z", NOW) == "0s"
    assert age("2026-01-01T11:00:00", NOW) == "-"
    assert age("", NOW) == "-"


def test_memory_is_rounded_for_the_eye() -> None:
    assert [memory(text) for text in ("16384Ki", "4Gi", "1500Mi", "512", "", "lots")] == [
        "16Mi",
        "4Gi",
        "1.5Gi",
        "512",
        "-",
        "lots",
    ]


def test_a_cordon_and_the_systems_own_taints_both_disable_scheduling() -> None:
    up = {"status": {"state": "Up"}}
    cordoned = {"spec": {"unschedulable": True}, "status": {"state": "Up"}}
    drained = {"status": {"state": "Up", "taints": [{"key": "virtward/maintenance", "effect": "NoSchedule"}]}}
    suspect = {"status": {"state": "Suspect", "taints": [{"key": "virtward/not-ready", "effect": "NoSchedule"}]}}
    dedicated = {"spec": {"taints": [{"key": "db", "effect": "NoSchedule"}]}, "status": {"state": "Up"}}
    shown = [node_state(node) for node in (up, cordoned, drained, suspect, dedicated)]  # type: ignore[arg-type]
    assert shown == [
        "Up",
        "Up,SchedulingDisabled",
        "Up,Maintenance,SchedulingDisabled",
        "Suspect,SchedulingDisabled",
        "Up",
    ]
