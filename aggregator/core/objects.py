"""The objects people write and read: VirtualMachine, Node, Migration, Drain, Incident, Event.

Field names follow Kubernetes and KubeVirt; on the wire they are camelCase. Knows shapes
only: reading text and refusing bad input is manifest.py's, rendering is views.py's work.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field

from fleet.model import EvictionStrategy, IsolationPolicy, RunStrategy

API_VERSION = "virtward/v1"


class ApiStruct(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Base of everything a person may write: unknown fields are an error."""


class TaintEffect(StrEnum):
    """What a taint does to VMs that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Taint(ApiStruct, frozen=True, kw_only=True):
    """A mark on a node that keeps VMs away. time_added: fleet seconds, set by the system."""

    key: str
    value: str = ""
    effect: TaintEffect
    time_added: str | None = None


class Toleration(ApiStruct, frozen=True, kw_only=True):
    """Lets a VM onto tainted nodes. An empty key with Exists matches every taint."""

    key: str = ""
    operator: str = "Equal"  # Equal | Exists
    value: str = ""
    effect: str = ""
    toleration_seconds: float | None = None


class SelectorRequirement(ApiStruct, frozen=True, kw_only=True):
    """One expression of a selector."""

    key: str
    operator: str  # In | NotIn | Exists | DoesNotExist | Gt | Lt
    values: tuple[str, ...] = ()


class LabelSelector(ApiStruct, frozen=True, kw_only=True):
    """Selects by labels; both parts must hold. Empty selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[SelectorRequirement, ...] = ()


class NodeSelectorTerm(ApiStruct, frozen=True, kw_only=True):
    """All of its expressions must hold; a term without any matches nothing."""

    match_expressions: tuple[SelectorRequirement, ...] = ()
    match_fields: tuple[SelectorRequirement, ...] = ()


class NodeSelector(ApiStruct, frozen=True, kw_only=True):
    """Terms are ORed."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = ()


class PreferredNodeTerm(ApiStruct, frozen=True, kw_only=True):
    """A node preference with its weight, 1..100."""

    weight: int
    preference: NodeSelectorTerm


class NodeAffinity(ApiStruct, frozen=True, kw_only=True):
    """Where a VM may and would rather run."""

    required: NodeSelector | None = field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: tuple[PreferredNodeTerm, ...] = field(default=(), name="preferredDuringSchedulingIgnoredDuringExecution")


class VmAffinityTerm(ApiStruct, frozen=True, kw_only=True):
    """VMs chosen by the selector, on nodes that share the topology key's value."""

    topology_key: str
    label_selector: LabelSelector | None = None


class WeightedVmAffinityTerm(ApiStruct, frozen=True, kw_only=True):
    """A VM preference with its weight, 1..100."""

    weight: int
    vm_affinity_term: VmAffinityTerm


class VmAffinity(ApiStruct, frozen=True, kw_only=True):
    """Affinity or anti-affinity towards other VMs."""

    required: tuple[VmAffinityTerm, ...] = field(default=(), name="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: tuple[WeightedVmAffinityTerm, ...] = field(
        default=(), name="preferredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(ApiStruct, frozen=True, kw_only=True):
    """All affinity rules of a VM."""

    node_affinity: NodeAffinity | None = None
    vm_affinity: VmAffinity | None = None
    vm_anti_affinity: VmAffinity | None = None


class TopologySpreadConstraint(ApiStruct, frozen=True, kw_only=True):
    """Keeps matching VMs evenly spread over a topology key."""

    max_skew: int
    topology_key: str
    when_unsatisfiable: str = "DoNotSchedule"  # | ScheduleAnyway
    label_selector: LabelSelector | None = None


class Resources(ApiStruct, frozen=True, kw_only=True):
    """Requests as quantities: cpu, memory."""

    requests: dict[str, str] = {}


class Dependency(ApiStruct, frozen=True, kw_only=True):
    """Another VM that has to reach a condition first."""

    vm: str
    condition: str = "Running"  # | GuestAgent | Ready
    timeout: str = "300s"


class MigrationSettings(ApiStruct, frozen=True, kw_only=True):
    """How a VM is live-migrated; None: the cluster's setting."""

    bandwidth_per_migration: int | str | None = None
    completion_timeout_per_gib: int | None = field(default=None, name="completionTimeoutPerGiB")
    progress_timeout: int | None = None
    max_downtime_ms: int | None = None
    allow_auto_converge: bool | None = None
    allow_post_copy: bool | None = None
    parallel_connections: int | None = None


class MigrationSelectors(ApiStruct, frozen=True, kw_only=True):
    """Which VMs a policy is for: those that carry all of these labels; none named: every VM."""

    virtual_machine_instance_selector: dict[str, str] = {}


class MigrationPolicySpec(MigrationSettings, frozen=True, kw_only=True):
    """How the VMs that are selected are live-migrated, where they say nothing themselves."""

    selectors: MigrationSelectors = MigrationSelectors()


class MigrationPolicy(ApiStruct, frozen=True, kw_only=True):
    """Settings for the live migrations of all VMs with some labels."""

    api_version: str = field(default=API_VERSION)
    kind: str = "MigrationPolicy"
    metadata: Metadata
    spec: MigrationPolicySpec = MigrationPolicySpec()


class Probe(ApiStruct, frozen=True, kw_only=True):
    """A check of the guest; exactly one of the three ways."""

    guest_agent_ping: dict[str, str] | None = None
    tcp_socket: dict[str, int | str] | None = None
    http_get: dict[str, int | str] | None = None
    initial_delay_seconds: int = 0
    period_seconds: int = 10
    timeout_seconds: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3


class VmSpec(ApiStruct, frozen=True, kw_only=True):
    """What a person orders of a VM (product.md, objects)."""

    run_strategy: RunStrategy = RunStrategy.ALWAYS
    eviction_strategy: EvictionStrategy | None = None
    restart_priority: int = 500
    depends_on: tuple[Dependency, ...] = ()
    node_selector: dict[str, str] = {}
    affinity: Affinity | None = None
    tolerations: tuple[Toleration, ...] = ()
    topology_spread_constraints: tuple[TopologySpreadConstraint, ...] = ()
    resources: Resources | None = None
    termination_grace_period_seconds: int | None = None
    isolation_policy: IsolationPolicy = IsolationPolicy.KEEP
    host_state: str = ""  # Require | Recreate; empty: its TPM's state is required, its NVRAM is not
    boot_policy: str | None = None  # LastOwner
    migration: MigrationSettings | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    domain_xml: str = field(default="", name="domainXML")


class Metadata(ApiStruct, frozen=True, kw_only=True):
    """Names and labels an object. uid and resourceVersion are the system's."""

    name: str
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""


class ApiCondition(ApiStruct, frozen=True, kw_only=True):
    """A condition in a status."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class BindingView(ApiStruct, frozen=True, kw_only=True):
    """One node that a VM is bound to, and why."""

    node: str
    boot_id: str = field(default="", name="bootID")
    why: str = ""


class VmStatus(ApiStruct, frozen=True, kw_only=True):
    """What is true of a VM now."""

    phase: str = "Pending"
    node: str | None = None
    epoch: int = 0
    run: int = 0
    restarts: int = 0
    reason: str = ""
    message: str = ""
    since: str = ""
    bound: tuple[BindingView, ...] = ()
    migration: str | None = None
    evacuation_node_name: str = ""  # the node it has to leave: drained, or tainted NoExecute
    evacuation_reason: str = ""  # why it has not left yet
    rejected: dict[str, tuple[str, ...]] = {}  # node -> rules, while it cannot be placed
    conditions: tuple[ApiCondition, ...] = ()


class VirtualMachine(ApiStruct, frozen=True, kw_only=True):
    """A VM under virtward's care."""

    api_version: str = field(default=API_VERSION)
    kind: str = "VirtualMachine"
    metadata: Metadata
    spec: VmSpec
    status: VmStatus | None = None


class FencingDevice(ApiStruct, frozen=True, kw_only=True):
    """One of several devices of a rung: a fence_* program and its parameters, as in a rung with one."""

    agent: str
    params: dict[str, str] = {}
    identity: str = "InBand"  # | Operator
    guid: str = ""


class FencingRung(ApiStruct, frozen=True, kw_only=True):
    """One rung of a node's fencing ladder: a fence_* program and its parameters, or several devices.

    params go to the program's stdin; `<name>_file` params are read by the aggregator.
    identity `Operator`: a person vouches that the device is this node's own.
    devices: instead of agent, where only all of them off together mean that the machine is off.
    proof: what its answer proves, PowerOff or CrashKernel (fence_kdump, which is only listened to).
    timeout: of one question or order to it; an off order gets at most 10 s, a status question 8 s.
    """

    agent: str = ""
    params: dict[str, str] = {}
    devices: tuple[FencingDevice, ...] = ()
    proof: str = "PowerOff"  # | CrashKernel
    timeout: str = "30s"
    tries: int = 2
    identity: str = "InBand"  # | Operator
    guid: str = ""


class NodeSpec(ApiStruct, frozen=True, kw_only=True):
    """What a person orders of a node."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    fencing: tuple[FencingRung, ...] = ()
    after_fence: str = "On"  # | StayOff
    self_fence: str = "none"
    migration_address: str = ""
    migration_bandwidth: int | str | None = None


class NodeDisarming(ApiStruct, frozen=True, kw_only=True):
    """By whom this one node is disarmed, since when, and until when (empty: until it is armed again)."""

    since: str
    until: str = ""
    who: str = ""


class Load(ApiStruct, frozen=True, kw_only=True):
    """How loaded a node is, by its last beat. waits: percent of the time in which a process waited, by resource."""

    cpu_percent: int = 0
    memory_available: str = ""
    waits: dict[str, int] = {}


class NodeStatus(ApiStruct, frozen=True, kw_only=True):
    """What is true of a node now."""

    state: str = "Joining"
    since: str = ""
    reason: str = ""
    approved: bool = False
    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    conditions: tuple[ApiCondition, ...] = ()
    taints: tuple[Taint, ...] = ()  # the system's; the operator's are in spec
    boot_id: str = field(default="", name="bootID")
    agent_start: str = ""  # another word after each start of its agent
    disarmed: NodeDisarming | None = None  # by its own name; what holds the whole fleet is in `status`
    addresses: dict[str, str] = {}
    versions: dict[str, str] = {}
    vms: int = 0
    last_beat_ago: float | None = None
    load: Load | None = None


class Node(ApiStruct, frozen=True, kw_only=True):
    """A KVM host."""

    api_version: str = field(default=API_VERSION)
    kind: str = "Node"
    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus | None = None
