"""The records of ClusterConfig: every number the core decides by, with its default (interfaces.md).

Pure. Durations are seconds in memory and `3s` in text. Knows shapes; what the numbers mean is in policy.py,
which of them cannot stand beside each other in contradictions.py.
"""

from __future__ import annotations

from math import ceil, floor

from msgspec import Struct, field

from fleet.units import format_duration, parse_duration_s


class Duration(float):
    """Seconds; written `90s` in text."""


class ConfigStruct(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of the parts of ClusterConfig."""


class StartupGrace(ConfigStruct, frozen=True, kw_only=True):
    """After a start nobody is judged until this share of nodes was seen, or this long."""

    seen: str = "60%"
    at_most: Duration = Duration(120)


class Brake(ConfigStruct, frozen=True, kw_only=True):
    """Over which time the brake counts, and how many `off` orders an hour it lets through."""

    window: Duration = Duration(900)
    off_orders_per_hour_max: int | None = None  # None: max(2, 5 % of the nodes)


class Flap(ConfigStruct, frozen=True, kw_only=True):
    """How often may a VM fail over an hour, a node fail a day, be powered on a day."""

    vm_per_hour_max: int = 3
    node_per_day_max: int = 3
    power_on_per_day_max: int = 2


class RecoveryLimits(ConfigStruct, frozen=True, kw_only=True):
    """Starts in flight at once."""

    per_node_max: int = 4
    cluster_max: int = 20


class RestartLimits(ConfigStruct, frozen=True, kw_only=True):
    """Back-off and budget of restarts."""

    backoff_max: Duration = Duration(300)
    budget: int = 5
    window: Duration = Duration(1800)


class MigrationLimits(ConfigStruct, frozen=True, kw_only=True):
    """Migrations in flight at once and how each is driven."""

    cluster_max: int = 5
    outbound_per_node_max: int = 2
    inbound_per_node_max: int = 2
    bandwidth_per_migration: int | str = 0
    completion_timeout_per_gib: int = field(default=150, name="completionTimeoutPerGiB")
    progress_timeout: int = 150
    max_downtime_ms: int = 300
    allow_auto_converge: bool = False
    allow_post_copy: bool = False
    parallel_connections: int = 0
    retry_from: Duration = Duration(20)
    retry_max: Duration = Duration(300)


class EvictionSettings(ConfigStruct, frozen=True, kw_only=True):
    """How long a drain may take; None: no deadline."""

    deadline: Duration | None = None


class Overcommit(ConfigStruct, frozen=True, kw_only=True):
    """allocatable = capacity × ratio."""

    cpu: float = 1.0
    memory: float = 1.0


class PlacementSettings(ConfigStruct, frozen=True, kw_only=True):
    """Weights of the score rules and the solver's time budget."""

    weights: dict[str, int] = field(
        default_factory=lambda: {
            "TaintToleration": 3,
            "NodeAffinity": 2,
            "VMAffinity": 2,
            "TopologySpread": 2,
            "LeastAllocated": 1,
            "MostAllocated": 5,
            "BalancedAllocation": 1,
        }
    )
    solver_budget: Duration = Duration(1)


class Rebalance(ConfigStruct, frozen=True, kw_only=True):
    """When running VMs are moved for balance.

    hold: for how long nobody has come to or gone from either node before a move between them. margin: in hundredths
    of a node. cooldown: for how long a VM stays after it has come to a node, or was tried to be moved.
    """

    mode: str = "Suggest"
    hold: Duration = Duration(600)
    margin: str = "10%"
    moves_per_hour_max: int = 6
    cooldown: Duration = Duration(3600)


class Events(ConfigStruct, frozen=True, kw_only=True):
    """How long history is kept."""

    keep: Duration = Duration(30 * 86400)


class ClusterConfig(ConfigStruct, frozen=True, kw_only=True):
    """All settings of a fleet (interfaces.md, ClusterConfig)."""

    mode: str = "Act"
    profile: str = "LowNodeUtilization"
    eviction_strategy: str = "LiveMigrate"
    heartbeat: Duration = Duration(1)
    suspect_after: Duration = Duration(3)
    lost_after: Duration = Duration(8)
    lost_after_one_plane: Duration = Duration(30)
    unseen_at_least: Duration = Duration(120)
    startup_grace: StartupGrace = StartupGrace()
    self_lag_max: Duration = Duration(0.5)
    readiness_every: Duration = Duration(180)
    lost_nodes_max: int | str | None = None
    brake: Brake = Brake()
    fences_in_flight_max: int = 2
    fence_quiet: Duration = Duration(180)
    self_fence: str = "none"
    lease: Duration = Duration(6)
    watchdog: Duration = Duration(3)
    guard_group: int = 7
    rescue_after: Duration = Duration(300)
    agent_lost: str = "rescueThenFence"
    storage_loss_policy: str = "Recover"
    storage_loss_after: Duration = Duration(30)
    reference_address: str | None = None
    flap: Flap = Flap()
    recovery: RecoveryLimits = RecoveryLimits()
    restart: RestartLimits = RestartLimits()
    migration: MigrationLimits = MigrationLimits()
    eviction: EvictionSettings = EvictionSettings()
    overcommit: Overcommit = Overcommit()
    placement: PlacementSettings = PlacementSettings()
    rebalance: Rebalance = Rebalance()
    statistics_every: Duration = Duration(15)
    events: Events = Events()


def decode_config_value(kind: type, value: object) -> object:
    """msgspec hook: read a Duration from `3s` or a number of seconds."""
    if kind is Duration:
        if isinstance(value, (str, int, float)):
            return Duration(parse_duration_s(value))
        raise ValueError(f"{value!r} is not a duration; write it like 90s")
    if kind is object:
        return value
    raise NotImplementedError(kind)


def encode_config_value(value: object) -> object:
    """msgspec hook: write a Duration as `3s`."""
    if isinstance(value, Duration):
        return format_duration(value)
    raise NotImplementedError(type(value))


def share_of(text: int | str, total: int, *, up: bool = False) -> int:
    """Return a number of nodes from `3` or `20%` of total, rounded down (or up); ValueError otherwise."""
    if isinstance(text, int):
        return text
    if text.endswith("%"):
        try:
            return (ceil if up else floor)(float(text[:-1]) * total / 100)
        except ValueError:
            pass
    elif text.isdigit():
        return int(text)
    raise ValueError(f"{text!r} is neither a number nor a percentage")
