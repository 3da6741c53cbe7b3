"""Views of the state that need no HTTP: times, summaries, secrets, selectors, XML."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.api.definition import with_uuid
from aggregator.api.problems import Problem
from aggregator.api.selector import read_selector
from aggregator.core.events import PowerAnswer
from aggregator.core.explain import explain_node, explain_vm
from aggregator.core.moments import rfc3339, span
from aggregator.core.secrets import HIDDEN, hide_xml, is_secret, restore_xml
from aggregator.core.selector import selects
from aggregator.core.views_fleet import fleet_view
from aggregator.core.views_node import node_view
from aggregator.core.views_vm import unprotected
from fleet.domain_xml import parse_domain
from tests.unit.api.manifests import domain_xml
from tests.unit.core.fleet import Fleet

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UUID = "11111111-2222-4333-8444-555555555555"


@given(st.integers(min_value=1, max_value=253_402_300_799_000))
def test_times_are_those_of_the_standard_library(milliseconds: int) -> None:
    moment = EPOCH + timedelta(milliseconds=milliseconds)
    expected = moment.strftime("%Y-%m-%dT%H:%M:%S.").rjust(20, "0") + f"{moment.microsecond // 1000:03d}Z"
    assert rfc3339(milliseconds / 1000) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0 s"),
        (0.84, "0.8 s"),
        (9.97, "10 s"),
        (42, "42 s"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (1e5, "1 d 3 h"),
    ],
)
def test_spans_are_short(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ("", {}, True),
        ("app=web", {"app": "web"}, True),
        ("app==web,tier!=front", {"app": "web"}, True),
        ("app=web,tier!=front", {"app": "web", "tier": "front"}, False),
        ("zone in (a, b),app", {"zone": "b", "app": ""}, True),
        ("zone notin (a,b)", {"zone": "a"}, False),
        ("zone notin (a,b)", {}, True),
        ("!old", {"old": "x"}, False),
        ("virtward/zone=z1", {"virtward/zone": "z1"}, True),
    ],
)
def test_selectors_mean_what_kubernetes_means(selector: str, labels: dict[str, str], *, selected: bool) -> None:
    assert selects(read_selector(selector), labels) is selected


@pytest.mark.parametrize("selector", ["a=b=c", "in (a)", "a in b", ",", "a in (b", "x" * 3000])
def test_what_is_no_selector_is_refused(selector: str) -> None:
    with pytest.raises(Problem):
        read_selector(selector)


def test_which_fence_parameters_are_secret() -> None:
    secrets = [name for name in ("passwd", "password", "snmp_priv_passwd", "token", "api_secret") if is_secret(name)]
    assert len(secrets) == 5
    assert not any(is_secret(name) for name in ("password_file", "passwd_script", "ip", "username", "port"))


def test_hidden_passwords_come_back_in_their_order() -> None:
    kept = "<d><graphics passwd='one'/><graphics port='1' passwd=\"two\"/></d>"
    shown = hide_xml(kept)
    assert ("one" in shown, "two" in shown, shown.count(HIDDEN)) == (False, False, 2)
    assert restore_xml(shown, kept) == kept
    assert restore_xml(shown.replace("port='1'", "port='2'"), kept) == kept.replace("port='1'", "port='2'")
    changed = shown.replace(HIDDEN, "new", 1)
    assert restore_xml(changed, kept).count("new") == 1
    with pytest.raises(ValueError, match="no earlier password"):
        restore_xml(shown, "<d/>")


@pytest.mark.parametrize(
    "xml",
    [
        domain_xml("grün"),
        "<?xml version='1.0'?>\n<!-- <domain> -->\n<domain\n id='3'>\n <name>x</name><memory>1</memory></domain>",
        "<domain a='/>'><name>x</name><memory>1</memory></domain>",
    ],
)
def test_a_uuid_is_put_in_and_nothing_else_changes(xml: str) -> None:
    made = with_uuid(xml, UUID)
    assert made.replace(f"<uuid>{UUID}</uuid>", "") == xml
    assert parse_domain(made).uuid == UUID


def test_a_vm_says_why_it_would_not_come_back() -> None:
    fleet = Fleet()
    fleet.run(12)
    fleet.apply("v")
    fleet.run(2)
    assert unprotected(fleet.state, fleet.vm("v")) == ("", "")
    owner = fleet.vm("v").owner
    for other in {"n1", "n2", "n3"} - {owner}:
        fleet.cordon(other)
    assert unprotected(fleet.state, fleet.vm("v"))[0] == "NoOtherNode"
    fleet.power[owner] = PowerAnswer.OFF
    fleet.run(12)
    reason, sentence = unprotected(fleet.state, fleet.vm("v"))
    assert reason == "NodeNotFenceable"
    assert "the device says off while the node beats" in sentence


def test_explanations_name_what_is_waited_for_and_what_helps() -> None:
    fleet = Fleet()
    fleet.apply("v")
    fleet.run(2)
    calm = explain_vm(fleet.state, fleet.vm("v"), fleet.state.history).text
    assert calm.startswith("VM v is Running on n")
    assert "What you can do" not in calm
    for name in ("n1", "n2", "n3"):
        fleet.cordon(name)
    fleet.apply("w")
    fleet.run(2)
    stuck = explain_vm(fleet.state, fleet.vm("w"), [line for line in fleet.state.history if line.vm == "w"])
    assert "No node takes it now:\n  n1: NodeUnschedulable (the node is cordoned)" in stuck.text
    assert stuck.steps[-1].at.endswith("Z")
    assert any(step.kind == "PlacementRefused" for step in stuck.steps)
    closed = explain_node(fleet.state, fleet.node("n1"), fleet.state.history).text
    assert "It is cordoned by a person" in closed
    assert "virtward uncordon n1" in closed


def test_a_nodes_view_is_whole() -> None:
    fleet = Fleet(1)
    fleet.run(12)
    node = node_view(fleet.state, fleet.node("n1"))
    assert node.status is not None
    assert {c.type: c.status for c in node.status.conditions} == {
        "Ready": "True",
        "LibvirtReady": "Unknown",
        "StorageReachable": "Unknown",
        "Degraded": "False",
        "Fenceable": "True",
        "Maintenance": "False",
    }
    assert node.status.capacity == {"cpu": "8", "memory": "8Gi"}
    fleet.silent.add("n1")
    fleet.run(4)
    silent = node_view(fleet.state, fleet.node("n1")).status
    assert silent is not None
    assert (silent.state, silent.conditions[0].status) == ("Suspect", "False")
    assert [(taint.key, taint.effect) for taint in silent.taints] == [("virtward/not-ready", "NoSchedule")]
    assert (silent.taints[0].time_added or "").endswith("Z")


def test_the_summary_counts_and_names_what_holds() -> None:
    fleet = Fleet()
    fleet.apply("v")
    fleet.run(2)
    shown = fleet_view(fleet.state, fleet.now)
    assert (shown["nodes"], shown["vms"]) == ({"total": 3, "Up": 3}, {"total": 1, "Running": 1})
    assert (shown["holds"], shown["incidents"]) == ([], [])
    assert shown["settings"] == {"unseenAtLeast": "5s", "readinessEvery": "5s"}
