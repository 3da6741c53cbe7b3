"""Every fault in a VM's spec is refused with one sentence that names its path."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.manifest.builders import LABEL_KEY, LABEL_VALUE, PREFERRED, REQUIRED, a_vm, refusal


def nodes_with(requirement: dict[str, Any]) -> dict[str, Any]:
    term = {"matchExpressions": [requirement]}
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}}}


def vms_with(requirement: dict[str, Any], kind: str = "vmAffinity") -> dict[str, Any]:
    term = {"topologyKey": "virtward/zone", "labelSelector": {"matchExpressions": [requirement]}}
    return {"affinity": {kind: {REQUIRED: [term]}}}


STRATEGIES = "Always, RerunOnFailure, Manual, Halted, Once"
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
    (
        {"livenessProbe": {"guestAgentPing": {}, "successThreshold": 2}},
        "spec.livenessProbe.successThreshold: of a liveness probe it must be 1",
    ),
    (
        {"readinessProbe": {"httpGet": {"port": 80, "path": "healthz"}}},
        "spec.readinessProbe.httpGet.path: 'healthz' is no path; it begins with / and has no spaces",
    ),
    (
        {"readinessProbe": {"httpGet": {"port": 80, "scheme": "ftp"}}},
        "spec.readinessProbe.httpGet.scheme: 'ftp' is not known; it must be one of HTTP, HTTPS",
    ),
    (
        {"readinessProbe": {"tcpSocket": {"port": 80, "host": "a b"}}},
        "spec.readinessProbe.tcpSocket.host: 'a b' is neither a host name nor an address",
    ),
    ({"domainXML": ""}, "spec: exactly one of domainXML and domain is required; both are missing"),
    ({"domain": {"memory": "1Gi"}}, "spec.domain: spec.domainXML stands here too; write exactly one of the two"),
    ({"domainXML": "<domain>\n<name>"}, "spec.domainXML: the XML is broken at line 2, column 6"),
    ({"domainXML": "<vm/>"}, "spec.domainXML: the XML is a <vm>, not a <domain>"),
    ({"domainXML": "<!DOCTYPE x><domain/>"}, "spec.domainXML: the XML has a document type, which is not accepted"),
    (
        {"domainXML": "<domain><name>web-2</name></domain>"},
        "spec.domainXML: its <name> is 'web-2'; it must be metadata.name, 'web-1'",
    ),
    ({"domainXML": "<domain>\ud800</domain>"}, "spec.domainXML: it holds characters that XML does not allow"),
    ({"domainXML": "<a>" * 99 + "</a>" * 99}, "spec.domainXML: the XML is nested deeper than 64 levels"),
    ({"domainXML": "<domain/>"}, "spec.domainXML: its <name> is nothing; it must be metadata.name, 'web-1'"),
]


WRITTEN_FOR_PODS: list[tuple[dict[str, Any], str]] = [
    (
        {"affinity": {"podAffinity": {PREFERRED: [{"weight": 9, "podAffinityTerm": {"topologyKey": "a b"}}]}}},
        f"spec.affinity.podAffinity.{PREFERRED}[0].podAffinityTerm.topologyKey: 'a b' {LABEL_KEY}",
    ),
    (
        {"affinity": {"podAntiAffinity": {PREFERRED: [{"weight": 0, "vmAffinityTerm": {"topologyKey": "a"}}]}}},
        f"spec.affinity.podAntiAffinity.{PREFERRED}[0].weight: 0 is out of range; it must be from 1 to 100",
    ),
    ({"nodeSelector": {"kubernetes.io/arch": "ä"}}, f"spec.nodeSelector[kubernetes.io/arch]: 'ä' {LABEL_VALUE}"),
]


@pytest.mark.parametrize(("spec", "sentence"), WRITTEN_FOR_PODS, ids=[s[:50] for _, s in WRITTEN_FOR_PODS])
def test_a_path_has_the_names_that_were_written(spec: dict[str, Any], sentence: str) -> None:
    assert refusal(a_vm(spec)) == sentence


@pytest.mark.parametrize(("spec", "sentence"), VM_SPECS, ids=[sentence[:70] for _, sentence in VM_SPECS])
def test_a_bad_vm_spec_is_refused_with_its_path(spec: dict[str, Any], sentence: str) -> None:
    assert refusal(a_vm(spec)) == sentence
