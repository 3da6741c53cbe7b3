"""Every kind of bad manifest is refused with one sentence that names the place."""

from __future__ import annotations

from typing import Any

import pytest

from aggregator.core.manifest import ManifestError, check_object, read_objects
from tests.unit.manifest.builders import LABEL_KEY, LABEL_VALUE, a_node, a_vm, refusal

METADATA: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "metadata.name: it is required and missing"),
    ({"name": 5}, 'metadata.name: 5 is a number and must be text; write it in quotes: "5"'),
    ({"name": "  "}, "metadata.name: a VM needs a name"),
    ({"name": "a/b"}, "metadata.name: 'a/b' holds a slash, a line break or a control character, which libvirt refuses"),
    (
        {"name": "a\nb"},
        "metadata.name: 'a\\nb' holds a slash, a line break or a control character, which libvirt refuses",
    ),
    ({"name": "a" * 254}, "metadata.name: the name has 254 characters; at most 253 are allowed"),
    (
        {"name": "ü" * 126},
        ("metadata.name: the name takes 252 bytes; libvirt names files after it and takes none of more than 247"),
    ),
    (
        {"namespace": "default"},
        "metadata.namespace: there are no namespaces here, names are unique in the whole fleet; leave it out",
    ),
    ({"labels": {"app": "a" * 64}}, f"metadata.labels.app: '{'a' * 64}' {LABEL_VALUE}"),
    ({"labels": {"A.b/c": "d"}}, f"metadata.labels[A.b/c]: 'A.b/c' {LABEL_KEY}"),
    ({"labels": {"a/b/c": "d"}}, f"metadata.labels[a/b/c]: 'a/b/c' {LABEL_KEY}"),
    (
        {"finalizers": []},
        (
            "metadata.finalizers: there is no such field; "
            "known here: name, uid, labels, annotations, resourceVersion, generation, creationTimestamp"
        ),
    ),
]


@pytest.mark.parametrize(("metadata", "sentence"), METADATA, ids=[sentence[:70] for _, sentence in METADATA])
def test_bad_metadata_is_refused(metadata: dict[str, Any], sentence: str) -> None:
    assert refusal(a_vm(**metadata)) == sentence


@pytest.mark.parametrize("name", ["a", "Ünïcode VM", "a b:c@d#1", "x" * 247, "-", "100%"])
def test_whatever_libvirt_takes_is_a_name(name: str) -> None:
    raw = a_vm({"domainXML": f"<domain><name>{name}</name></domain>"}, name=name)
    assert check_object(raw).metadata.name == name


NODE_SPECS: list[tuple[dict[str, Any], str]] = [
    ({"taints": [{"key": "a"}]}, "spec.taints[0].effect: it is required and missing"),
    (
        {"taints": [{"key": "a", "effect": "Never"}]},
        "spec.taints[0].effect: 'Never' is not known; it must be one of NoSchedule, PreferNoSchedule, NoExecute",
    ),
    (
        {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]},
        "spec.taints[1]: the taint a with effect NoSchedule stands here twice",
    ),
    ({"taints": [{"key": "a b", "effect": "NoSchedule"}]}, f"spec.taints[0].key: 'a b' {LABEL_KEY}"),
    ({"unschedulable": "yes"}, "spec.unschedulable: 'yes' is neither true nor false"),
    (
        {"fencing": [{"agent": "reboot"}]},
        "spec.fencing[0].agent: 'reboot' is no fence program; write its name, like fence_ipmilan",
    ),
    (
        {"fencing": [{"agent": "fence_x", "timeout": "x"}]},
        "spec.fencing[0].timeout: 'x' is not a duration; write it like 90s, 5m or 1h30m",
    ),
    ({"fencing": [{"agent": "fence_x", "params": {"ip": ["a"]}}]}, "spec.fencing[0].params.ip: a list is not text"),
    (
        {"fencing": [{"agent": "fence_x", "params": {"ip": "a\nb=c"}}]},
        "spec.fencing[0].params.ip: a parameter is one line",
    ),
    (
        {"fencing": [{"agent": "fence_x", "identity": "Me"}]},
        "spec.fencing[0].identity: 'Me' is not known; it must be one of InBand, Operator",
    ),
    ({"afterFence": "Off"}, "spec.afterFence: 'Off' is not known; it must be one of On, StayOff"),
    ({"selfFence": "yes"}, "spec.selfFence: 'yes' is not known; it must be one of none, watchdog"),
    (
        {"cordoned": True},
        (
            "spec.cordoned: there is no such field; known here: "
            "unschedulable, taints, fencing, afterFence, selfFence, migrationAddress, migrationBandwidth"
        ),
    ),
]


@pytest.mark.parametrize(("spec", "sentence"), NODE_SPECS, ids=[sentence[:70] for _, sentence in NODE_SPECS])
def test_a_bad_node_spec_is_refused(spec: dict[str, Any], sentence: str) -> None:
    assert refusal(a_node(spec)) == sentence


OBJECTS: list[tuple[Any, str]] = [
    ("web-1", "'web-1' is no object; it is a mapping with apiVersion, kind, metadata and spec"),
    ({"kind": "Pod"}, "kind: 'Pod' is not known; it must be one of VirtualMachine, Node, MigrationPolicy"),
    (
        {"apiVersion": "virtward/v1"},
        "kind: it is required and missing; it must be one of VirtualMachine, Node, MigrationPolicy",
    ),
    ({"kind": "Node"}, "apiVersion: it is required and missing; write virtward/v1"),
    ({"kind": "Node", "apiVersion": "v1"}, "apiVersion: 'v1' is not known; write virtward/v1"),
    (
        {"kind": "Incident", "apiVersion": "virtward/v1"},
        "kind: Incident objects are made by virtward and cannot be written",
    ),
    ({**a_vm(), "spec": None}, "spec: it is required and missing"),
    (
        {**a_vm(), "spec": "x"},
        "spec: 'x' is not a mapping; it holds fields like runStrategy, evictionStrategy, restartPriority",
    ),
    ({**a_vm(), "sepc": {}}, "sepc: there is no such field; did you mean spec?"),
]


@pytest.mark.parametrize(("raw", "sentence"), OBJECTS, ids=[sentence[:70] for _, sentence in OBJECTS])
def test_what_is_no_object_of_ours_is_refused(raw: Any, sentence: str) -> None:
    assert refusal(raw) == sentence


KUBEVIRT = """
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: web-1, namespace: default}
spec:
  running: true
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {disk: ssd}
      terminationGracePeriodSeconds: 30
      domain:
        cpu: {cores: 2}
        devices: {disks: [{name: a, disk: {bus: virtio}}]}
        resources: {requests: {memory: 4Gi}}
      volumes: [{name: a, containerDisk: {image: x}}]
      accessCredentials: []
"""


def test_a_kubevirt_manifest_is_told_where_each_field_belongs() -> None:
    with pytest.raises(ManifestError) as refused:
        read_objects(KUBEVIRT)
    assert str(refused.value) == (
        "document 1: this is a manifest in KubeVirt's shape; move each field: apiVersion kubevirt.io/v1 → virtward/v1, "
        "spec.running → spec.runStrategy, spec.template.metadata.labels → metadata.labels, "
        "spec.template.spec.nodeSelector → spec.nodeSelector, "
        "spec.template.spec.terminationGracePeriodSeconds → spec.terminationGracePeriodSeconds, "
        "spec.template.spec.domain.cpu → spec.domain.cpu, "
        "spec.template.spec.domain.devices.disks → spec.domain.disks, "
        "spec.template.spec.domain.resources.requests → spec.resources.requests, "
        "spec.template.spec.volumes → spec.domain.disks, "
        "spec.template.spec.accessCredentials → (nothing here does this), "
        "metadata.namespace → (there are no namespaces here, names are unique in the whole fleet; leave it out)"
    )


def test_kubevirts_shape_under_our_own_api_version_is_told_too() -> None:
    spec = {"running": True, "template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}
    assert refusal({**a_vm(), "spec": spec}) == (
        "this is a manifest in KubeVirt's shape; move each field: spec.running → spec.runStrategy, "
        "spec.template.spec.nodeSelector → spec.nodeSelector"
    )


def test_a_kubevirt_instance_is_told_in_its_own_paths() -> None:
    raw = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"}}
    assert refusal({**raw, "spec": {"domain": {"devices": {"disks": [1]}}, "nodeSelector": {"a": "b"}}}) == (
        "this is a manifest in KubeVirt's shape; move each field: apiVersion kubevirt.io/v1 → virtward/v1, "
        "spec.domain.devices.disks → spec.domain.disks"
    )


TEXTS = [
    ("a: b: c", "document 1: line 1, column 5: mapping values are not allowed in this context"),
    ("a: 1\n---\na: [1,\n  b: {", "document 2: line 5, column 1: did not find expected node content"),
    ("kind: Node\nkind: Node", "document 1: line 2, column 1: the key 'kind' stands here twice"),
    (
        "a: !!python/object:os.system x",
        "document 1: line 1, column 4: the tag !!python/object:os.system is not understood here",
    ),
    ("a: *b", "document 1: line 1, column 4: there is no anchor &b before this alias"),
    ("? [a]\n: b", "document 1: line 1, column 3: a key must be plain text"),
    ("a: \x01", "document 1: it is no text that YAML allows: control characters are not allowed"),
    ("", "there is no object in this text"),
    ("---\n---\n", "there is no object in this text"),
    ("[" * 100_000, "document 1: line 1, column 66: it is nested deeper than 64 levels"),
    ('{"kind": "Node",}x', "document 1: line 1, column 18: did not find expected <document start>"),
    ("kind: List\nitems: 5", "document 1: items: it must be a list of objects"),
    (
        "items:\n- {kind: Pod}",
        "document 1: items[0].kind: 'Pod' is not known; it must be one of VirtualMachine, Node, MigrationPolicy",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), TEXTS, ids=[sentence[:60] for _, sentence in TEXTS])
def test_broken_text_is_refused_with_line_and_column(text: str, sentence: str) -> None:
    with pytest.raises(ManifestError) as refused:
        read_objects(text)
    assert str(refused.value) == sentence


def test_the_document_that_is_wrong_is_named_and_one_name_stands_once() -> None:
    node = "apiVersion: virtward/v1\nkind: Node\nmetadata: {name: kvm2}\n"
    with pytest.raises(ManifestError, match=r"^document 3: spec: 5 is not a mapping"):
        read_objects(f"{node}---\n---\n{node}spec: 5\n")
    with pytest.raises(ManifestError) as refused:
        read_objects(f"{node}---\n{node}")
    assert str(refused.value) == ("document 2: metadata.name: document 1 holds a Node 'kvm2' already; keep one of them")


def test_aliases_that_expand_without_end_are_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{key}: &{key} [{', '.join([f'*{before}'] * 10)}]" for before, key in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    with pytest.raises(ManifestError, match=r"line 6, column 20: aliases expand to more than 1 Mi characters"):
        read_objects("\n".join(lines))
