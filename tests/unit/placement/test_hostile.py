"""Whatever stands in a scenario: a clear error that names the path, or a correct answer. Nothing in between."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aggregator.core.manifest import ManifestError
from aggregator.core.yaml_text import Plain
from aggregator.placement.scenario import judge_scenario, read_scenario
from aggregator.placement.types import ScoreSettings, Verdict
from fleet.units import parse_bytes, parse_cpu_m

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
LABELS = 100_000
ABSURD = (
    "NaN",
    "nan",
    "inf",
    "-1",
    "-0",
    "0",
    "1e30",
    "9" * 50,
    "",
    " ",
    "4",
    "0x10",
    "1.5",
    "500m",
    "8Gi",
    "16777216Ti",
)

quantities: st.SearchStrategy[Plain] = st.one_of(
    st.sampled_from(ABSURD), st.integers(-(2**70), 2**70), st.floats(), st.none(), st.booleans(), st.text(max_size=5)
)


def a_node(name: str = "n1", cpu: Plain = "4", memory: Plain = "8Gi", labels: dict[str, Plain] | None = None) -> Plain:
    metadata: Plain = {"name": name, "labels": labels or {}}
    allocatable: Plain = {"cpu": cpu, "memory": memory}
    return {"apiVersion": "virtward/v1", "kind": "Node", "metadata": metadata, "status": {"allocatable": allocatable}}


def a_vm(name: str = "v1", spec: dict[str, Plain] | None = None, labels: dict[str, Plain] | None = None) -> Plain:
    metadata: Plain = {"name": name, "labels": labels or {}}
    return {"apiVersion": "virtward/v1", "kind": "VirtualMachine", "metadata": metadata, "spec": spec or {}}


def verdicts(nodes: list[Plain], pending: list[Plain]) -> list[Verdict]:
    scenario = read_scenario({"name": "hostile", "nodes": nodes, "pending": pending})
    return judge_scenario(scenario, ScoreSettings(), all_scores=True)


def refused_path(nodes: list[Plain], pending: list[Plain]) -> str | None:
    try:
        verdicts(nodes, pending)
    except ManifestError as error:
        return error.path
    return None


def written(quantity: Plain) -> str:
    """A quantity as a manifest is read: minus nothing is nothing."""
    return "0" if isinstance(quantity, float) and quantity == 0 else str(quantity)


@settings(max_examples=300, deadline=None)
@example(cpu=0, memory=-0.0, cpu_wanted=0, memory_wanted=-0.0)
@given(quantities, quantities, quantities, quantities)
def test_any_capacity_and_any_request(cpu: Plain, memory: Plain, cpu_wanted: Plain, memory_wanted: Plain) -> None:
    wanted: Plain = {"requests": {"cpu": cpu_wanted, "memory": memory_wanted}}
    node, vm = a_node(cpu=cpu, memory=memory), a_vm(spec={"resources": wanted})
    path = refused_path([node], [vm])
    if path is not None:
        assert path.startswith(("nodes[0].status.allocatable", "pending[0].spec.resources.requests"))
        return
    verdict = verdicts([node], [vm])[0]
    cpu_fits = parse_cpu_m(written(cpu_wanted)) <= parse_cpu_m(written(cpu))
    memory_fits = parse_bytes(written(memory_wanted)) <= parse_bytes(written(memory))
    assert verdict.node == ("n1" if cpu_fits and memory_fits else None)
    assert all(0 <= score <= 100 for scores in verdict.scores.values() for score in scores.values())


def node_term(key: str, operator: str, *values: Plain) -> dict[str, Plain]:
    expressions: Plain = [{"key": key, "operator": operator, "values": list(values)}]
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}}}


def preference(weight: int) -> dict[str, Plain]:
    term: Plain = {"weight": weight, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}
    return {"affinity": {"nodeAffinity": {PREFERRED: [term]}}}


TERM = f"pending[0].spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0]"


@pytest.mark.parametrize(
    ("nodes", "vms", "path"),
    [
        ([a_node()], [a_vm(spec=node_term("a", "Near", "1"))], f"{TERM}.operator"),
        ([a_node()], [a_vm(spec=node_term("a", "Gt", "1", "2"))], f"{TERM}.values"),
        ([a_node()], [a_vm(spec=preference(0))], f"pending[0].spec.affinity.nodeAffinity.{PREFERRED}[0].weight"),
        ([a_node(labels={"-bad-": "x"})], [a_vm()], "nodes[0].metadata.labels[-bad-]"),
        ([a_node(labels={"a": "no spaces"})], [a_vm()], "nodes[0].metadata.labels.a"),
        ([a_node(), a_node()], [a_vm()], "nodes[1].metadata.name"),
        ([a_node()], [a_vm(), a_vm()], "pending[1].metadata.name"),
    ],
)
def test_what_is_refused_is_named_by_its_path(nodes: list[Plain], vms: list[Plain], path: str) -> None:
    with pytest.raises(ManifestError) as refused:
        verdicts(nodes, vms)
    assert refused.value.path == path


def test_no_node_and_no_vm_are_answers() -> None:
    assert verdicts([a_node()], []) == []
    assert verdicts([], [a_vm()]) == [Verdict(vm="v1")]


def test_a_hundred_thousand_labels() -> None:
    labels: dict[str, Plain] = {f"key-{number}": "value" for number in range(LABELS)}
    vm = a_vm(spec={"nodeSelector": {f"key-{LABELS - 1}": "value"}}, labels=labels)
    verdict = verdicts([a_node(labels=labels), a_node("n2")], [vm])[0]
    assert (verdict.node, verdict.rejected) == ("n1", {"n2": ("NodeAffinity",)})
