"""What is read is what was meant, and what is written is read back the same."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.manifest import check_object, dump_yaml, plain_object, read_objects
from aggregator.core.objects import Node, VirtualMachine
from aggregator.core.yaml_text import Plain, TextError, read_yaml, write_yaml
from fleet.model import RunStrategy

FULL = """
apiVersion: virtward/v1
kind: VirtualMachine
metadata: {name: web-1, labels: {app: web, tier: front, kubernetes.io/arch: x86_64}}
spec:
  runStrategy: Always
  evictionStrategy: None
  restartPriority: 500
  dependsOn: [{vm: db-1, condition: Running, timeout: 300}]
  nodeSelector: {disk: ssd, kubernetes.io/hostname: kvm1}
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [z1]}]}]
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}
      preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 5, podAffinityTerm: {topologyKey: topology.kubernetes.io/zone, labelSelector: {}}}
  tolerations: [{key: maintenance, operator: Exists, effect: NoExecute, tolerationSeconds: 600}]
  topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: DoNotSchedule
    labelSelector: {matchLabels: {app: web}}
  resources: {requests: {cpu: 2, memory: 4Gi}}
  terminationGracePeriodSeconds: 180
  isolationPolicy: Keep
  hostState: Require
  migration: {bandwidthPerMigration: 0, completionTimeoutPerGiB: 150, maxDowntimeMs: 300, allowPostCopy: false}
  livenessProbe: {guestAgentPing: {}, initialDelaySeconds: 60, periodSeconds: 10, failureThreshold: 3}
  readinessProbe: {tcpSocket: {port: 443}}
  domainXML: |
    <domain type='kvm'>
      <name>web-1</name>
    </domain>
---
apiVersion: virtward/v1
kind: Node
metadata: {name: kvm2, labels: {topology.kubernetes.io/zone: z1, disk: ssd}}
spec:
  unschedulable: false
  taints: [{key: dedicated, value: db, effect: NoSchedule}]
  fencing: [{agent: fence_ipmilan, params: {ip: 10.9.0.2, username: ops, cipher: 3, lanplus: true}, timeout: 30s}]
  afterFence: On
  selfFence: none
  migrationAddress: 10.8.0.2
status: {state: Up, allocatable: {cpu: 16, memory: 64Gi}}
"""


def full() -> tuple[VirtualMachine, Node]:
    vm, node = read_objects(FULL)
    return cast("VirtualMachine", vm), cast("Node", node)


def test_the_manifest_of_the_manual_is_read() -> None:
    vm, node = full()
    assert vm.spec.run_strategy is RunStrategy.ALWAYS
    assert vm.spec.eviction_strategy == "None"
    assert vm.spec.resources is not None
    assert vm.spec.resources.requests == {"cpu": "2", "memory": "4Gi"}
    assert vm.spec.depends_on[0].timeout == "300"
    assert node.spec.after_fence == "On"
    assert node.spec.fencing[0].params == {"ip": "10.9.0.2", "username": "ops", "cipher": "3", "lanplus": "true"}


def test_kubernetes_names_are_read_as_ours_everywhere() -> None:
    vm, node = full()
    affinity = vm.spec.affinity
    assert affinity is not None
    assert affinity.vm_anti_affinity is not None
    assert affinity.node_affinity is not None
    assert affinity.node_affinity.required is not None
    assert vm.metadata.labels["virtward/arch"] == "x86_64"
    assert vm.spec.node_selector == {"disk": "ssd", "virtward/hostname": "kvm1"}
    assert affinity.node_affinity.required.node_selector_terms[0].match_expressions[0].key == "virtward/zone"
    assert affinity.vm_anti_affinity.required[0].topology_key == "virtward/hostname"
    assert affinity.vm_anti_affinity.preferred[0].vm_affinity_term.topology_key == "virtward/zone"
    assert vm.spec.topology_spread_constraints[0].topology_key == "virtward/zone"
    assert node.metadata.labels == {"virtward/zone": "z1", "disk": "ssd"}


def test_get_o_yaml_applied_again_changes_nothing() -> None:
    written = full()
    assert read_objects(dump_yaml(*written)) == list(written)
    listed = write_yaml({"items": [plain_object(each) for each in written]})
    assert read_objects(listed) == list(written)


def test_a_minimal_vm_keeps_what_is_required_when_written() -> None:
    raw: Plain = {
        "apiVersion": "virtward/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "a"},
        "spec": {"runStrategy": "Always", "domainXML": "<domain><name>a</name></domain>"},
    }
    assert plain_object(check_object(raw)) == raw


def test_json_is_read_as_well_and_for_judging_alone_a_vm_needs_no_definition() -> None:
    text = '{"apiVersion": "virtward/v1",\n\t"kind": "VirtualMachine", "metadata": {"name": "a"}}'
    assert read_objects(text, complete=False)[0].metadata.name == "a"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),
        ("On", "On"),
        ("yes", "yes"),
        ("2026-01-01", "2026-01-01"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("True", True),
        ("-3", -3),
        ("1.5", 1.5),
        ("None", "None"),
        ("null", None),
        ("'5'", "5"),
        ("!!str 5", "5"),
    ],
)
def test_words_stay_what_they_look_like(text: str, value: Plain) -> None:
    assert read_yaml(f"a: {text}") == [{"a": value}]


def test_merge_keys_and_aliases_are_understood() -> None:
    assert read_yaml("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: *x") == [
        {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}, "e": {"b": 1, "c": 2}}
    ]


_texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=10,
)


@given(_plain)
def test_what_is_written_is_read_back_the_same(value: Any) -> None:
    assert read_yaml(write_yaml({"value": value})) == [{"value": value}]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_sentence(text: str) -> None:
    try:
        read_yaml(text)
        told = ""
    except TextError as error:
        told = str(error)
    assert "\n" not in told


def test_read_yaml_of_line_breaks_and_quotes() -> None:
    for text in (
        "a\nb\n",
        "a\n\n",
        "  a\n b",
        "#",
        "- a",
        "a: b",
        "'",
        '"',
        "0189",
        "1e3",
        "1.",
        "~",
        "=",
        "<<",
        "!x",
        "&x",
    ):
        assert read_yaml(write_yaml({"a": text})) == [{"a": text}], text
