"""`virtward place` agrees with kube-scheduler's own plugins on every recorded verdict."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cli import place
from cli.errors import Failure, WrongUsage

RECORDED = Path(__file__).parents[2] / "conformance" / "placement.jsonl.gz"
VERDICTS = 1431
TOLERANCE = 1
NOT_RECORDED = "BalancedAllocation"
FILTERS = {
    "NodeUnschedulable",
    "TaintToleration",
    "NodeAffinity",
    "NodeResourcesFit",
    "TopologySpread",
    "VMAffinity",
}


def differences(expected: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """Return in words where a result is not what was recorded."""
    found = []
    if result["feasible"] != expected["feasible"]:
        found.append(f"feasible {result['feasible']}, recorded {expected['feasible']}")
    if result["rejected"] != expected["rejected"]:
        found.append(f"rejected {result['rejected']}, recorded {expected['rejected']}")
    if expected["scores"].keys() - result["scores"].keys():
        found.append(f"scores of {sorted(expected['scores'].keys() - result['scores'].keys())} are missing")
    for rule, scores in result["scores"].items():
        recorded = expected["scores"].get(rule)
        if rule == NOT_RECORDED:
            continue
        if recorded is None:
            same = len(set(scores.values())) <= 1
        else:
            same = recorded.keys() == scores.keys() and all(
                abs(recorded[node] - score) <= TOLERANCE for node, score in scores.items()
            )
        if not same:
            found.append(f"{rule} {scores}, recorded {recorded}")
    return found


def placed(capsys: pytest.CaptureFixture[str], path: str, **options: Any) -> list[dict[str, Any]]:
    """Return what `virtward place` printed."""
    chosen = {"all_scores": False, "output": "json", **options}
    profile = chosen.pop("profile", None)
    assert place.run(path, profile, **chosen) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_recorded_verdict_is_reproduced(capsys: pytest.CaptureFixture[str]) -> None:
    results = placed(capsys, str(RECORDED), all_scores=True)
    with gzip.open(RECORDED) as recorded:
        scenarios = [json.loads(line) for line in recorded]
    assert [result["name"] for result in results] == [scenario["name"] for scenario in scenarios]
    compared, wrong = 0, []
    for scenario, result in zip(scenarios, results, strict=True):
        for expected, verdict in zip(scenario["expect"], result["results"], strict=True):
            assert verdict["vm"] == expected["vm"]
            compared += 1
            wrong += [f"{scenario['name']} {verdict['vm']}: {text}" for text in differences(expected, verdict)]
    assert compared == VERDICTS
    assert not wrong, "\n".join(wrong[:10])


def test_the_choice_is_the_highest_weighted_sum_then_fewest_vms_then_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Checked against the scores it printed itself, with the default weights written out here."""
    weights = {"TaintToleration": 3, "NodeAffinity": 2, "VMAffinity": 2, "TopologySpread": 2}
    weights |= {"LeastAllocated": 1, "BalancedAllocation": 1}
    with gzip.open(RECORDED) as recorded:
        scenarios = [json.loads(line) for line in recorded]
    for scenario, result in zip(scenarios, placed(capsys, str(RECORDED)), strict=True):
        vms = [vm["status"]["node"] for vm in scenario["running"]]
        for verdict in result["results"]:
            if not verdict["feasible"]:
                assert verdict["node"] is None
                assert verdict["scores"] == {}
                continue
            assert set(verdict["scores"]) == set(weights)
            order = [
                (-sum(w * verdict["scores"][rule][node] for rule, w in weights.items()), vms.count(node), node)
                for node in verdict["feasible"]
            ]
            assert verdict["node"] == min(order)[2]


def test_profiles_print_their_own_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "one.jsonl"
    file.write_bytes(gzip.decompress(RECORDED.read_bytes()).split(b"\n")[0])
    high = placed(capsys, str(file), profile="HighNodeUtilization")[0]["results"][0]
    assert set(high["scores"]) == {"TaintToleration", "NodeAffinity", "VMAffinity", "TopologySpread", "MostAllocated"}
    bare = placed(capsys, str(file), profile="NoScoring")[0]["results"][0]
    assert bare["scores"] == {}
    assert bare["node"] == min(bare["feasible"])


def test_a_vm_without_requests_asks_for_what_its_domain_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    xml = "<domain type='kvm'><name>a</name><memory unit='GiB'>2</memory><vcpu>1</vcpu></domain>"
    node = json.loads(A_NODE) | {"status": {"allocatable": {"cpu": 4, "memory": "1Gi"}}}
    scenario = {"name": "x", "nodes": [node], "pending": [json.loads(A_VM % json.dumps({"domainXML": xml}))]}
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps(scenario), encoding="utf-8")
    assert placed(capsys, str(file))[0]["results"][0]["rejected"] == {"n1": ["NodeResourcesFit"]}


def test_stdin_is_read_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(RECORDED.read_bytes())))
    assert len(placed(capsys, "-")) == 400


A_NODE = '{"apiVersion": "virtward/v1", "kind": "Node", "metadata": {"name": "n1"}}'
A_VM = '{"apiVersion": "virtward/v1", "kind": "VirtualMachine", "metadata": {"name": "a"}, "spec": %s}'


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"name": "x"', "line 2: broken JSON: Input data was truncated; one scenario stands on one line"),
        ("[1]", "line 2: a list is no scenario; it is a mapping with name, nodes, running and pending"),
        ("{}", "line 2: name: a scenario has a name"),
        (
            '{"name": "x", "nods": []}',
            "line 2: nods: there is no such field; known here: name, nodes, running, pending",
        ),
        ('{"name": "x", "nodes": {}}', "line 2: nodes: a mapping is not a list"),
        (
            f'{{"name": "x", "nodes": [{A_NODE}, {A_NODE}]}}',
            "line 2: nodes[1].metadata.name: 'n1' stands twice in nodes",
        ),
        (
            f'{{"name": "x", "nodes": [{A_VM % "{}"}]}}',
            "line 2: nodes[0]: it is a VirtualMachine; here stand only Nodes",
        ),
        (
            f'{{"name": "x", "nodes": [{A_NODE}], "running": [{A_VM % "{}"}]}}',
            "line 2: running[0].status.node: a running VM has the node it runs on here",
        ),
        (
            '{"name": "x", "pending": [%s]}' % (A_VM % '{"tolerations": [{"operator": "Equals", "key": "a"}]}'),
            "line 2: pending[0].spec.tolerations[0].operator: 'Equals' is not known; it must be one of Equal, Exists",
        ),
    ],
)
def test_bad_input_names_line_and_path_and_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, sentence: str
) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(f'{{"name": "good", "nodes": [{A_NODE}], "pending": [{A_VM % "{}"}]}}\n{line}\n', encoding="utf-8")
    with pytest.raises(Failure) as refused:
        place.run(str(file), None, all_scores=False, output="json")
    assert str(refused.value) == f"{file} {sentence}"
    assert capsys.readouterr().out == ""


def test_a_file_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"cannot read .*nowhere: No such file or directory"):
        place.run(str(tmp_path / "nowhere"), None, all_scores=False, output=None)
    half = tmp_path / "half.gz"
    half.write_bytes(RECORDED.read_bytes()[:5000])
    with pytest.raises(Failure, match=r"half\.gz is broken gzip"):
        place.run(str(half), None, all_scores=False, output=None)
    with pytest.raises(WrongUsage, match="there is no profile 'Low'"):
        place.run(str(RECORDED), "Low", all_scores=False, output=None)
