"""Every kind of bad manifest is refused with one sentence that names the place."""

from __future__ import annotations

from typing import Any

import pytest

from aggregator.core.manifest import ManifestError, check_object, read_objects

XML = "<domain><name>web-1</name></domain>"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def a_vm(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "virtward/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "web-1", **metadata},
        "spec": {"runStrategy": "Always", "domainXML": XML, **(spec or {})},
    }


def a_node(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "virtward/v1", "kind": "Node", "metadata": {"name": "kvm2", **metadata}, "spec": spec or {}}


def refusal(raw: Any) -> str:
    with pytest.raises(ManifestError) as refused:
        check_object(raw)
    return str(refused.value)


def nodes_with(requirement: dict[str, Any]) -> dict[str, Any]:
    term = {"matchExpressions": [requirement]}
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}}}


def vms_with(requirement: dict[str, Any], kind: str = "vmAffinity") -> dict[str, Any]:
    term = {"topologyKey": "virtward/zone", "labelSelector": {"matchExpressions": [requirement]}}
    return {"affinity": {kind: {REQUIRED: [term]}}}


STRATEGIES = "Always, RerunOnFailure, Manual, Halted, Once"
LABEL_VALUE = (
    "is no label value; at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
)
LABEL_KEY = (
    "is no label key; at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, "
    "after an optional prefix and '/'"
)
TERM = f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0]"
VM_TERM = f"spec.affinity.vmAffinity.{REQUIRED}[0].labelSelector.matchExpressions[0]"

VM_SPECS: list[tuple[dict[str, Any], str]] = [
    ({"runStrategy": "Alway"}, f"spec.runStrategy: 'Alway' is not known; it must be one of {STRATEGIES}"),
    ({"runStrategy": True}, f"spec.runStrategy: true is not known; it must be one of {STRATEGIES}"),
    ({"runStrategy": None}, f"spec.runStrategy: it is required and missing; it must be one of {STRATEGIES}"),
    (
        {"evictionStrategy": "Migrate"},
        (
            "spec.evictionStrategy: 'Migrate' is not known; it must be one of "
            "LiveMigrate, LiveMigrateIfPossible, None, External"
        ),
    ),
    (
        {"isolationPolicy": "Kill"},
        "spec.isolationPolicy: 'Kill' is not known; it must be one of Keep, Shutdown, Destroy",
    ),
    ({"hostState": "Keep"}, "spec.hostState: 'Keep' is not known; it must be one of Require, Recreate"),
    ({"nodeselector": {}}, "spec.nodeselector: there is no such field; did you mean nodeSelector?"),
    ({"tolerations": [{"kye": "a"}]}, "spec.tolerations[0].kye: there is no such field; did you mean key?"),
    (
        {"resources": {"limits": {}}},
        "spec.resources.limits: there is no such field; known here: requests",
    ),
    ({"restartPriority": 1001}, "spec.restartPriority: 1001 is out of range; it must be from 0 to 1000"),
    ({"restartPriority": -1}, "spec.restartPriority: -1 is out of range; it must be from 0 to 1000"),
    ({"restartPriority": "high"}, "spec.restartPriority: 'high' is not a number"),
    ({"restartPriority": 1.5}, "spec.restartPriority: 1.5 is not a whole number"),
    ({"restartPriority": 2**70}, f"spec.restartPriority: {2**70} is too large"),
    (
        {"terminationGracePeriodSeconds": -1},
        "spec.terminationGracePeriodSeconds: -1 is out of range; it must be at least 0",
    ),
    ({"nodeSelector": {"gen": 5}}, 'spec.nodeSelector.gen: 5 is a number and must be text; write it in quotes: "5"'),
    ({"nodeSelector": {"a": True}}, 'spec.nodeSelector.a: true is not text here; write it in quotes: "true"'),
    ({"nodeSelector": ["a"]}, "spec.nodeSelector: a list is not a mapping of names to values"),
    ({"nodeSelector": {"a b": "c"}}, f"spec.nodeSelector[a b]: 'a b' {LABEL_KEY}"),
    ({"nodeSelector": {"a": "ü"}}, f"spec.nodeSelector.a: 'ü' {LABEL_VALUE}"),
    (
        {"nodeSelector": {"kubernetes.io/arch": "arm64", "virtward/arch": "x86_64"}},
        "spec.nodeSelector[kubernetes.io/arch]: it is read as virtward/arch, which has another value here",
    ),
    ({"tolerations": {}}, "spec.tolerations: a mapping is not a list; begin each item with a dash"),
    (
        {"tolerations": [{"key": "a", "operator": "exists"}]},
        "spec.tolerations[0].operator: 'exists' is not known; it must be one of Equal, Exists",
    ),
    (
        {"tolerations": [{"key": "a", "effect": "NoRun"}]},
        "spec.tolerations[0].effect: 'NoRun' is not known; it must be one of NoSchedule, PreferNoSchedule, NoExecute",
    ),
    (
        {"tolerations": [{"value": "a"}]},
        "spec.tolerations[0].key: without a key the operator must be Exists, which tolerates every taint",
    ),
    (
        {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
        "spec.tolerations[0].value: Exists takes no value; leave it out or write operator: Equal",
    ),
    (
        {"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5}]},
        "spec.tolerations[0].tolerationSeconds: it has a meaning for the effect NoExecute only",
    ),
    (
        nodes_with({"key": "gen", "operator": "Gt", "values": ["1", "2"]}),
        f"{TERM}.values: Gt takes exactly one value, a whole number in quotes",
    ),
    (
        nodes_with({"key": "gen", "operator": "Lt", "values": ["x"]}),
        f"{TERM}.values: Lt takes exactly one value, a whole number in quotes",
    ),
    (
        nodes_with({"key": "gen", "operator": "Gt", "values": [5]}),
        f'{TERM}.values[0]: 5 is a number and must be text; write it in quotes: "5"',
    ),
    (
        nodes_with({"key": "gen", "operator": "Equals", "values": ["x"]}),
        f"{TERM}.operator: 'Equals' is not known; it must be one of In, NotIn, Exists, DoesNotExist, Gt, Lt",
    ),
    (nodes_with({"key": "gen", "operator": "In"}), f"{TERM}.values: In needs at least one value"),
    (
        nodes_with({"key": "gen", "operator": "Exists", "values": ["a"]}),
        f"{TERM}.values: Exists takes no values; leave them out",
    ),
    (nodes_with({"operator": "Exists"}), f"{TERM}.key: it is required and missing"),
    (
        vms_with({"key": "gen", "operator": "Gt", "values": ["1"]}),
        f"{VM_TERM}.operator: 'Gt' is not known; it must be one of In, NotIn, Exists, DoesNotExist",
    ),
    (vms_with({"key": "-x", "operator": "Exists"}), f"{VM_TERM}.key: '-x' {LABEL_KEY}"),
    (
        {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": []}}}},
        (
            f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms: "
            "at least one term is needed, or no node would ever do"
        ),
    ),
    (
        {
            "affinity": {
                "nodeAffinity": {
                    REQUIRED: {
                        "nodeSelectorTerms": [
                            {"matchFields": [{"key": "metadata.uid", "operator": "In", "values": ["x"]}]}
                        ]
                    }
                }
            }
        },
        (
            f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchFields[0].key: "
            "'metadata.uid' is not known; "
            "it must be one of metadata.name"
        ),
    ),
    (
        {"affinity": {"nodeAffinity": {PREFERRED: [{"weight": 0, "preference": {}}]}}},
        f"spec.affinity.nodeAffinity.{PREFERRED}[0].weight: 0 is out of range; it must be from 1 to 100",
    ),
    (
        {"affinity": {"vmAntiAffinity": {PREFERRED: [{"weight": 101, "vmAffinityTerm": {"topologyKey": "a"}}]}}},
        f"spec.affinity.vmAntiAffinity.{PREFERRED}[0].weight: 101 is out of range; it must be from 1 to 100",
    ),
    (
        {"affinity": {"podAffinity": {REQUIRED: [{"topologyKey": "a", "namespaces": ["x"]}]}}},
        (
            f"spec.affinity.podAffinity.{REQUIRED}[0].namespaces: there are no namespaces here, "
            "names are unique in the whole fleet; leave it out"
        ),
    ),
    (
        {"affinity": {"podAffinity": {}, "vmAffinity": {}}},
        "spec.affinity.podAffinity: it is another name for vmAffinity, which stands here too; keep one of them",
    ),
    (
        {"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "a"}]},
        "spec.topologySpreadConstraints[0].maxSkew: 0 is out of range; it must be at least 1",
    ),
    (
        {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "Ignore"}]},
        (
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: 'Ignore' is not known; "
            "it must be one of DoNotSchedule, ScheduleAnyway"
        ),
    ),
    (
        {"topologySpreadConstraints": [{"maxSkew": 1}]},
        "spec.topologySpreadConstraints[0].topologyKey: it is required and missing",
    ),
    (
        {"resources": {"requests": {"cpu": "2x"}}},
        "spec.resources.requests.cpu: '2x' is not a quantity; write it like 2, 500m or 4Gi",
    ),
    (
        {"resources": {"requests": {"cpu": "-1"}}},
        "spec.resources.requests.cpu: '-1' is not a quantity; write it like 2, 500m or 4Gi",
    ),
    (
        {"resources": {"requests": {"cpu": ".nan"}}},
        "spec.resources.requests.cpu: '.nan' is not a quantity; write it like 2, 500m or 4Gi",
    ),
    (
        {"resources": {"requests": {"memory": "9E9"}}},
        "spec.resources.requests.memory: '9E9' is not a quantity; write it like 2, 500m or 4Gi",
    ),
    (
        {"resources": {"requests": {"memory": "9999E"}}},
        "spec.resources.requests.memory: '9999E' is larger than any machine",
    ),
    ({"resources": {"requests": {"gpu": 1}}}, "spec.resources.requests.gpu: only cpu and memory can be requested"),
    ({"dependsOn": [{"vm": "web-1"}]}, "spec.dependsOn[0].vm: a VM cannot depend on itself"),
    (
        {"dependsOn": [{"vm": "db", "condition": "Up"}]},
        "spec.dependsOn[0].condition: 'Up' is not known; it must be one of Running, GuestAgent, Ready",
    ),
    (
        {"dependsOn": [{"vm": "db", "timeout": "soon"}]},
        "spec.dependsOn[0].timeout: 'soon' is not a duration; write it like 90s, 5m or 1h30m",
    ),
    ({"migration": {"maxDowntimeMs": 0}}, "spec.migration.maxDowntimeMs: 0 is out of range; it must be at least 1"),
    ({"migration": {"allowPostCopy": "yes"}}, "spec.migration.allowPostCopy: 'yes' is neither true nor false"),
    (
        {"livenessProbe": {}},
        "spec.livenessProbe: a probe is exactly one of guestAgentPing, tcpSocket, httpGet; here are none",
    ),
    (
        {"livenessProbe": {"guestAgentPing": {}, "tcpSocket": {"port": 1}}},
        (
            "spec.livenessProbe: a probe is exactly one of guestAgentPing, tcpSocket, httpGet; "
            "here are guestAgentPing and tcpSocket"
        ),
    ),
    (
        {"readinessProbe": {"tcpSocket": {"port": 70000}}},
        "spec.readinessProbe.tcpSocket.port: 70000 is no port; it must be a number from 1 to 65535",
    ),
    (
        {"readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 0}},
        "spec.readinessProbe.periodSeconds: 0 is out of range; it must be at least 1",
    ),
    ({"domainXML": ""}, "spec: exactly one of domainXML and domain is required; both are missing"),
    ({"domain": {"memory": "1Gi"}}, "spec.domain: spec.domainXML stands here too; write exactly one of the two"),
    ({"domainXML": "<domain>\n<name>"}, "spec.domainXML: broken XML at line 2, column 7 of it"),
    ({"domainXML": "<vm/>"}, "spec.domainXML: it begins with <vm>; it must be libvirt's <domain>"),
    ({"domainXML": "<!DOCTYPE x><domain/>"}, "spec.domainXML: a DOCTYPE or an entity has no place in a domain"),
    (
        {"domainXML": "<domain><name>web-2</name></domain>"},
        "spec.domainXML: its <name> is 'web-2'; it must be metadata.name, 'web-1'",
    ),
    ({"domainXML": "<domain/>"}, "spec.domainXML: its <name> is nothing; it must be metadata.name, 'web-1'"),
]


@pytest.mark.parametrize(("spec", "sentence"), VM_SPECS, ids=[sentence[:70] for _, sentence in VM_SPECS])
def test_a_bad_vm_spec_is_refused_with_its_path(spec: dict[str, Any], sentence: str) -> None:
    assert refusal(a_vm(spec)) == sentence


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


@pytest.mark.parametrize("name", ["a", "Ünïcode VM", "a b:c@d#1", "x" * 253, "-", "100%"])
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
    ({"kind": "Pod"}, "kind: 'Pod' is not known; it must be one of VirtualMachine, Node"),
    ({"apiVersion": "virtward/v1"}, "kind: it is required and missing; it must be one of VirtualMachine, Node"),
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
    ("items:\n- {kind: Pod}", "document 1: items[0].kind: 'Pod' is not known; it must be one of VirtualMachine, Node"),
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
