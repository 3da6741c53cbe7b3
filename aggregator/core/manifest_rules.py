"""What a VirtualMachine or a Node may say: syntax of labels, operators, quantities, ranges.

Knows Kubernetes' validation rules as far as we share its fields. Works on shaped Structs and raises
ManifestError with path and one sentence; changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from aggregator.core.manifest_ladder import check_ladder
from aggregator.core.manifest_walk import ManifestError, not_one_of, show, step
from aggregator.core.objects import (
    Dependency,
    LabelSelector,
    MigrationPolicy,
    MigrationSettings,
    Node,
    NodeSelectorTerm,
    Probe,
    SelectorRequirement,
    Taint,
    TaintEffect,
    Toleration,
    TopologySpreadConstraint,
    VirtualMachine,
    VmAffinity,
    VmAffinityTerm,
    VmSpec,
)
from fleet.domain_xml import DomainXmlError, parse_tree
from fleet.units import parse_duration_s, parse_quantity

_T = TypeVar("_T")

NAME_LENGTH_MAX = 253
VM_NAME_BYTES_MAX = 247  # a file name of 255 bytes less .xml.new, which libvirt writes first (seen with 9.0)
LABEL_LENGTH_MAX = 63
PRIORITY_MAX = 1000
WEIGHT_MAX = 100
PORT_MAX = 65535

_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NODE_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_NOT_XML = re.compile(r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
_PROBE_TEXTS = (
    ("host", re.compile(r"[A-Za-z0-9:][-A-Za-z0-9_.:]{0,252}"), "is neither a host name nor an address"),
    ("path", re.compile(r"/[!-~]{0,1023}"), "is no path; it begins with / and has no spaces"),
    ("scheme", re.compile(r"HTTPS?"), "is not known; it must be one of HTTP, HTTPS"),
)
_LABEL_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_NODE_OPERATORS = (*_LABEL_OPERATORS, "Gt", "Lt")
_FIELD_OPERATORS = ("In", "NotIn")
_NODE_NAME_FIELD = "metadata.name"


def check_vm(vm: VirtualMachine) -> None:
    """Refuse a VirtualMachine that says what it may not."""
    name = vm.metadata.name
    check_vm_name(name, "metadata.name")
    _labels(vm.metadata.labels, "metadata.labels")
    spec = vm.spec
    _between(spec.restart_priority, 0, PRIORITY_MAX, "spec.restartPriority")
    _labels(spec.node_selector, "spec.nodeSelector")
    _affinity(spec)
    _each(spec.tolerations, "spec.tolerations", _toleration)
    _each(spec.topology_spread_constraints, "spec.topologySpreadConstraints", _spread)
    _each(spec.depends_on, "spec.dependsOn", lambda item, path: _dependency(item, path, name))
    _requests(spec)
    if spec.termination_grace_period_seconds is not None:
        _at_least(spec.termination_grace_period_seconds, 0, "spec.terminationGracePeriodSeconds")
    if spec.host_state:
        _one_of(spec.host_state, ("Require", "Recreate"), "spec.hostState")
    if spec.boot_policy is not None:
        _one_of(spec.boot_policy, ("LastOwner",), "spec.bootPolicy")
    if spec.migration is not None:
        _migration(spec.migration, "spec.migration")
    for probe, path in ((spec.liveness_probe, "spec.livenessProbe"), (spec.readiness_probe, "spec.readinessProbe")):
        if probe is not None:
            _probe(probe, path)
    if spec.liveness_probe is not None and spec.liveness_probe.success_threshold != 1:
        raise ManifestError("spec.livenessProbe.successThreshold", "of a liveness probe it must be 1")
    if spec.domain_xml:
        _domain_xml(vm)


def check_node(node: Node) -> None:
    """Refuse a Node that says what it may not."""
    name, spec = node.metadata.name, node.spec
    if not _NODE_NAME.fullmatch(name) or len(name) > NAME_LENGTH_MAX:
        raise ManifestError("metadata.name", f"{show(name)} is no host name; letters, digits, '-', '_' and '.'")
    _labels(node.metadata.labels, "metadata.labels")
    _taints(spec.taints, "spec.taints")
    check_ladder(spec.fencing)
    _one_of(spec.after_fence, ("On", "StayOff"), "spec.afterFence")
    _one_of(spec.self_fence, ("none", "watchdog"), "spec.selfFence")
    if spec.migration_bandwidth is not None:
        _quantity(spec.migration_bandwidth, "spec.migrationBandwidth")
    if re.search(r"\s", spec.migration_address):
        raise ManifestError("spec.migrationAddress", f"{show(spec.migration_address)} is no address")
    if node.status is not None:
        _taints(node.status.taints, "status.taints")
        for key in ("cpu", "memory"):
            if key in node.status.allocatable:
                _quantity(node.status.allocatable[key], f"status.allocatable.{key}")


def check_policy(policy: MigrationPolicy) -> None:
    """Refuse a MigrationPolicy that says what it may not."""
    name = policy.metadata.name
    if not _NODE_NAME.fullmatch(name) or len(name) > NAME_LENGTH_MAX:
        raise ManifestError("metadata.name", f"{show(name)} is no name; letters, digits, '-', '_' and '.'")
    _labels(policy.metadata.labels, "metadata.labels")
    selector = policy.spec.selectors.virtual_machine_instance_selector
    _labels(selector, "spec.selectors.virtualMachineInstanceSelector")
    _migration(policy.spec, "spec")


def check_vm_name(name: str, path: str) -> None:
    """Refuse what libvirt takes for no domain name."""
    if not name.strip():
        raise ManifestError(path, "a VM needs a name")
    if len(name) > NAME_LENGTH_MAX:
        raise ManifestError(path, f"the name has {len(name)} characters; at most {NAME_LENGTH_MAX} are allowed")
    size = len(name.encode("utf-8", errors="replace"))
    if size > VM_NAME_BYTES_MAX:
        text = f"the name takes {size} bytes; libvirt names files after it and takes none of more than"
        raise ManifestError(path, f"{text} {VM_NAME_BYTES_MAX}")
    if "/" in name or "\n" in name or _NOT_XML.search(name):
        raise ManifestError(
            path, f"{show(name)} holds a slash, a line break or a control character, which libvirt refuses"
        )


def check_label_key(key: str, path: str) -> None:
    """Refuse what Kubernetes takes for no label key: an optional prefix/ and a name."""
    prefix, slash, name = key.rpartition("/")
    good_prefix = not slash or (len(prefix) <= NAME_LENGTH_MAX and bool(_LABEL_PREFIX.fullmatch(prefix)))
    if not (good_prefix and len(name) <= LABEL_LENGTH_MAX and _LABEL_NAME.fullmatch(name)):
        problem = (
            f"{show(key)} is no label key; at most {LABEL_LENGTH_MAX} letters, digits, '-', '_' and '.', "
            "beginning and ending with a letter or digit, after an optional prefix and '/'"
        )
        raise ManifestError(path, problem)


def check_label_value(value: str, path: str) -> None:
    """Refuse what Kubernetes takes for no label value."""
    if value and (len(value) > LABEL_LENGTH_MAX or not _LABEL_NAME.fullmatch(value)):
        problem = (
            f"{show(value)} is no label value; at most {LABEL_LENGTH_MAX} letters, digits, '-', '_' and '.', "
            "beginning and ending with a letter or digit"
        )
        raise ManifestError(path, problem)


def _labels(labels: Mapping[str, str], path: str) -> None:
    for key, value in labels.items():
        check_label_key(key, step(path, key))
        check_label_value(value, step(path, key))


def _each(items: Iterable[_T], path: str, check: Callable[[_T, str], None]) -> None:
    for place, item in enumerate(items):
        check(item, step(path, place))


def _affinity(spec: VmSpec) -> None:
    affinity = spec.affinity
    if affinity is None:
        return
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    if (nodes := affinity.node_affinity) is not None:
        path = "spec.affinity.nodeAffinity"
        if nodes.required is not None:
            terms = step(step(path, required), "nodeSelectorTerms")
            if not nodes.required.node_selector_terms:
                raise ManifestError(terms, "at least one term is needed, or no node would ever do")
            _each(nodes.required.node_selector_terms, terms, _node_term)
        for place, preference in enumerate(nodes.preferred):
            here = step(step(path, preferred), place)
            _between(preference.weight, 1, WEIGHT_MAX, step(here, "weight"))
            _node_term(preference.preference, step(here, "preference"))
    for name, vms in (("vmAffinity", affinity.vm_affinity), ("vmAntiAffinity", affinity.vm_anti_affinity)):
        if vms is not None:
            _vm_affinity(vms, step("spec.affinity", name), required, preferred)


def _vm_affinity(affinity: VmAffinity, path: str, required: str, preferred: str) -> None:
    _each(affinity.required, step(path, required), _vm_term)
    for place, weighted in enumerate(affinity.preferred):
        here = step(step(path, preferred), place)
        _between(weighted.weight, 1, WEIGHT_MAX, step(here, "weight"))
        _vm_term(weighted.vm_affinity_term, step(here, "vmAffinityTerm"))


def _vm_term(term: VmAffinityTerm, path: str) -> None:
    check_label_key(term.topology_key, step(path, "topologyKey"))
    _selector(term.label_selector, step(path, "labelSelector"))


def _selector(selector: LabelSelector | None, path: str) -> None:
    if selector is not None:
        _labels(selector.match_labels, step(path, "matchLabels"))
        for place, requirement in enumerate(selector.match_expressions):
            here = step(step(path, "matchExpressions"), place)
            _requirement(requirement, here, _LABEL_OPERATORS)
            _each(requirement.values, step(here, "values"), check_label_value)


def _node_term(term: NodeSelectorTerm, path: str) -> None:
    for place, requirement in enumerate(term.match_expressions):
        here = step(step(path, "matchExpressions"), place)
        _requirement(requirement, here, _NODE_OPERATORS)
        if requirement.operator in _FIELD_OPERATORS:
            _each(requirement.values, step(here, "values"), check_label_value)
    for place, field in enumerate(term.match_fields):
        here = step(step(path, "matchFields"), place)
        _one_of(field.key, (_NODE_NAME_FIELD,), step(here, "key"))
        _one_of(field.operator, _FIELD_OPERATORS, step(here, "operator"))
        if len(field.values) != 1:
            raise ManifestError(step(here, "values"), f"{field.operator} on a field takes exactly one value")


def _requirement(requirement: SelectorRequirement, path: str, operators: tuple[str, ...]) -> None:
    operator, values = requirement.operator, requirement.values
    check_label_key(requirement.key, step(path, "key"))
    _one_of(operator, operators, step(path, "operator"))
    here = step(path, "values")
    if operator in ("Exists", "DoesNotExist") and values:
        raise ManifestError(here, f"{operator} takes no values; leave them out")
    if operator in ("In", "NotIn") and not values:
        raise ManifestError(here, f"{operator} needs at least one value")
    if operator in ("Gt", "Lt") and (len(values) != 1 or not re.fullmatch(r"[-+]?[0-9]{1,18}", values[0])):
        raise ManifestError(here, f"{operator} takes exactly one value, a whole number in quotes")


def _toleration(toleration: Toleration, path: str) -> None:
    _one_of(toleration.operator, ("Equal", "Exists"), step(path, "operator"))
    if toleration.effect:
        _one_of(toleration.effect, tuple(TaintEffect), step(path, "effect"))
    if toleration.key:
        check_label_key(toleration.key, step(path, "key"))
    elif toleration.operator != "Exists":
        raise ManifestError(step(path, "key"), "without a key the operator must be Exists, which tolerates every taint")
    if toleration.operator == "Exists" and toleration.value:
        raise ManifestError(step(path, "value"), "Exists takes no value; leave it out or write operator: Equal")
    check_label_value(toleration.value, step(path, "value"))
    if toleration.toleration_seconds is not None:
        if toleration.effect not in ("", TaintEffect.NO_EXECUTE):
            raise ManifestError(step(path, "tolerationSeconds"), "it has a meaning for the effect NoExecute only")
        _at_least(toleration.toleration_seconds, 0, step(path, "tolerationSeconds"))


def _spread(constraint: TopologySpreadConstraint, path: str) -> None:
    _at_least(constraint.max_skew, 1, step(path, "maxSkew"))
    check_label_key(constraint.topology_key, step(path, "topologyKey"))
    _one_of(constraint.when_unsatisfiable, ("DoNotSchedule", "ScheduleAnyway"), step(path, "whenUnsatisfiable"))
    _selector(constraint.label_selector, step(path, "labelSelector"))


def _dependency(dependency: Dependency, path: str, own_name: str) -> None:
    check_vm_name(dependency.vm, step(path, "vm"))
    if dependency.vm == own_name:
        raise ManifestError(step(path, "vm"), "a VM cannot depend on itself")
    _one_of(dependency.condition, ("Running", "GuestAgent", "Ready"), step(path, "condition"))
    _duration(dependency.timeout, step(path, "timeout"))


def _requests(spec: VmSpec) -> None:
    for name, quantity in (spec.resources.requests if spec.resources else {}).items():
        path = step("spec.resources.requests", name)
        if name not in ("cpu", "memory"):
            raise ManifestError(path, "only cpu and memory can be requested")
        _quantity(quantity, path)


def _migration(migration: MigrationSettings, path: str) -> None:
    if migration.bandwidth_per_migration is not None:
        _quantity(migration.bandwidth_per_migration, step(path, "bandwidthPerMigration"))
    for value, lowest, name in (
        (migration.completion_timeout_per_gib, 1, "completionTimeoutPerGiB"),
        (migration.progress_timeout, 1, "progressTimeout"),
        (migration.max_downtime_ms, 1, "maxDowntimeMs"),
        (migration.parallel_connections, 0, "parallelConnections"),
    ):
        if value is not None:
            _at_least(value, lowest, step(path, name))


def _probe(probe: Probe, path: str) -> None:
    ways = {
        "guestAgentPing": probe.guest_agent_ping,
        "tcpSocket": probe.tcp_socket,
        "httpGet": probe.http_get,
    }
    chosen = [name for name, way in ways.items() if way is not None]
    if len(chosen) != 1:
        raise ManifestError(
            path, f"a probe is exactly one of {', '.join(ways)}; here are {' and '.join(chosen) or 'none'}"
        )
    for name, way, known in (
        ("tcpSocket", probe.tcp_socket, ("port", "host")),
        ("httpGet", probe.http_get, ("port", "host", "path", "scheme")),
        ("guestAgentPing", probe.guest_agent_ping, ()),
    ):
        if way is not None:
            _probe_way(way, step(path, name), known)
    _at_least(probe.initial_delay_seconds, 0, step(path, "initialDelaySeconds"))
    for value, name in (
        (probe.period_seconds, "periodSeconds"),
        (probe.timeout_seconds, "timeoutSeconds"),
        (probe.success_threshold, "successThreshold"),
        (probe.failure_threshold, "failureThreshold"),
    ):
        _at_least(value, 1, step(path, name))


def _probe_way(way: Mapping[str, int | str], path: str, known: tuple[str, ...]) -> None:
    for name in way:
        if name not in known:
            raise ManifestError(
                step(path, name), f"there is no such field; known here: {', '.join(known) or 'nothing'}"
            )
    if "port" in known:
        port = way.get("port")
        if not isinstance(port, int) or not 1 <= port <= PORT_MAX:
            raise ManifestError(
                step(path, "port"), f"{show(port)} is no port; it must be a number from 1 to {PORT_MAX}"
            )
    for name, good, problem in _PROBE_TEXTS:
        if name in way and not (isinstance(way[name], str) and good.fullmatch(str(way[name]))):
            raise ManifestError(step(path, name), f"{show(way[name])} {problem}")


def _taints(taints: tuple[Taint, ...], path: str) -> None:
    seen = set()
    for place, taint in enumerate(taints):
        here = step(path, place)
        check_label_key(taint.key, step(here, "key"))
        check_label_value(taint.value, step(here, "value"))
        if (taint.key, taint.effect) in seen:
            raise ManifestError(here, f"the taint {taint.key} with effect {taint.effect} stands here twice")
        seen.add((taint.key, taint.effect))


def _domain_xml(vm: VirtualMachine) -> None:
    """Refuse XML that cannot be this VM's domain; libvirt has the last word when it defines it."""
    path, text = "spec.domainXML", vm.spec.domain_xml
    try:
        root = parse_tree(text)
    except DomainXmlError as error:
        raise ManifestError(path, str(error)) from None
    except ValueError:
        raise ManifestError(path, "it holds characters that XML does not allow") from None
    name, uuid = root.findtext("name"), root.findtext("uuid")
    if name != vm.metadata.name:
        raise ManifestError(path, f"its <name> is {show(name)}; it must be metadata.name, {show(vm.metadata.name)}")
    if uuid and vm.metadata.uid and uuid.strip().lower() != vm.metadata.uid.lower():
        raise ManifestError(path, f"its <uuid> is {show(uuid)}; metadata.uid says {show(vm.metadata.uid)}")


def _one_of(value: str, words: tuple[str, ...], path: str) -> None:
    if value not in words:
        raise ManifestError(path, not_one_of(value, words))


def _between(value: int, lowest: int, highest: int, path: str) -> None:
    if not lowest <= value <= highest:
        raise ManifestError(path, f"{value} is out of range; it must be from {lowest} to {highest}")


def _at_least(value: float, lowest: int, path: str) -> None:
    if not value >= lowest:
        raise ManifestError(path, f"{show(value)} is out of range; it must be at least {lowest}")


def _quantity(value: str | int, path: str) -> None:
    try:
        parse_quantity(value)
    except ValueError as error:
        raise ManifestError(path, str(error)) from None


def _duration(value: str, path: str) -> None:
    try:
        parse_duration_s(value)
    except ValueError as error:
        raise ManifestError(path, str(error)) from None
