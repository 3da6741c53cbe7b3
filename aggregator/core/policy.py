"""ClusterConfig: every number the core decides by, with its default, checked against the others.

Pure. Durations are seconds in memory and `3s` in text. Contradictions are refused with the
arithmetic spelled out (`contradictions`). The brake's formula lives here (product.md, defaults).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil, floor

import msgspec
from msgspec import Struct, field

from fleet.units import format_duration, parse_duration_s

RECONNECT_DELAY_S_MAX = 5.0


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
    """When running VMs are moved for balance."""

    mode: str = "Suggest"
    hold: Duration = Duration(600)
    margin: str = "10%"
    moves_per_hour_max: int = 6


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


_ADDRESS = re.compile(
    r"\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}|[0-9A-Fa-f:]*::?[0-9A-Fa-f:.]+|[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?"
)
_CHOICES = {
    "mode": ("Observe", "Act"),
    "profile": ("LowNodeUtilization", "HighNodeUtilization", "NoScoring"),
    "evictionStrategy": ("LiveMigrate", "LiveMigrateIfPossible", "None", "External"),
    "selfFence": ("none", "watchdog"),
    "agentLost": ("rescueThenFence", "leave"),
    "storageLossPolicy": ("Recover", "Wait"),
}


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


def read_config(raw: Mapping[str, object]) -> ClusterConfig:
    """Return the config that `raw` overrides the defaults with; ValueError names the path."""
    try:
        config = msgspec.convert(raw, ClusterConfig, dec_hook=decode_config_value)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    problems = contradictions(config)
    if problems:
        raise ValueError("; ".join(problems))
    return config


def write_config(config: ClusterConfig) -> dict[str, object]:
    """Return the plain form that read_config reads back."""
    plain = msgspec.to_builtins(config, enc_hook=encode_config_value)
    return msgspec.convert(plain, dict[str, object])


def contradictions(config: ClusterConfig) -> list[str]:
    """Return one sentence per setting that cannot stand beside the others; empty if all is well."""
    found = []
    plain = {name: getattr(config, _snake(name)) for name in _CHOICES}
    for name, value in plain.items():
        if value not in _CHOICES[name]:
            found.append(f"{name} is {value!r}; it must be one of {', '.join(_CHOICES[name])}")
    if config.heartbeat <= 0:
        found.append("heartbeat must be longer than 0s")
    if config.suspect_after < 2 * config.heartbeat:
        found.append(
            f"suspectAfter {format_duration(config.suspect_after)} is less than two heartbeats "
            f"(2 × {format_duration(config.heartbeat)}); one late beat would mark every node"
        )
    if config.lost_after <= config.suspect_after:
        found.append(
            f"lostAfter {format_duration(config.lost_after)} must be longer than "
            f"suspectAfter {format_duration(config.suspect_after)}"
        )
    if config.lost_after_one_plane < config.lost_after:
        found.append(
            f"lostAfterOnePlane {format_duration(config.lost_after_one_plane)} must not be shorter "
            f"than lostAfter {format_duration(config.lost_after)}"
        )
    for name, number in (
        ("fencesInFlightMax", config.fences_in_flight_max),
        ("recovery.perNodeMax", config.recovery.per_node_max),
        ("recovery.clusterMax", config.recovery.cluster_max),
        ("migration.clusterMax", config.migration.cluster_max),
    ):
        if number < 1:
            found.append(f"{name} is {number}; it must be at least 1")
    if min(config.overcommit.cpu, config.overcommit.memory) <= 0:
        found.append("overcommit ratios must be above 0")
    address = config.reference_address
    if address is not None and not _ADDRESS.fullmatch(address):
        found.append(f"referenceAddress is {address!r}; it must be a host or HOST:PORT, like 10.0.0.1 or [::1]:443")
    found.extend(_bad_shares(config))
    return found


def _bad_shares(config: ClusterConfig) -> list[str]:
    found = []
    for name, text in (
        ("startupGrace.seen", config.startup_grace.seen),
        ("lostNodesMax", config.lost_nodes_max),
    ):
        try:
            if text is not None:
                share_of(text, 100)
        except ValueError as error:
            found.append(f"{name}: {error}")
    return found


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


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


def lost_nodes_max(config: ClusterConfig, nodes: int, largest_domain: int) -> int:
    """Return how many nodes may be lost at once before the brake closes (product.md, defaults).

    largest_domain: nodes in the largest rack or zone, 0 where none is labelled.
    """
    if config.lost_nodes_max is not None:
        return share_of(config.lost_nodes_max, nodes)
    share = floor(nodes * 0.20)
    return max(1, min(floor(nodes * 0.49), max(4, share, largest_domain)))


def off_orders_per_hour_max(config: ClusterConfig, nodes: int) -> int:
    """Return how many `off` orders an hour need no person."""
    if config.brake.off_orders_per_hour_max is not None:
        return config.brake.off_orders_per_hour_max
    return max(2, floor(nodes * 0.05))
