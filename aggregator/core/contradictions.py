"""Settings that cannot stand beside each other, each told in one sentence with both values and the sum.

Pure. What is refused here would break a promise quietly: a node that is judged before it had the time to speak,
a lease that ends between two beats, a brake that nothing passes. Taste is not refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite

import msgspec

from aggregator.core.config import ClusterConfig, ConfigStruct, Duration, share_of
from fleet.lease import LeaseSettings
from fleet.units import format_duration

RECONNECT_DELAY_S_MAX = 5.0
OFF_ORDER_S = 10.0
BEATS_IN_A_LEASE = 3
READINESS_S_MAX = 3600.0
GUARD_GROUP = (3, 15)
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
    "rebalance.mode": ("Off", "Suggest", "Auto"),
}
_LEAST = {
    "fencesInFlightMax": 1,
    "recovery.perNodeMax": 1,
    "recovery.clusterMax": 1,
    "migration.clusterMax": 1,
    "migration.outboundPerNodeMax": 1,
    "migration.inboundPerNodeMax": 1,
    "migration.completionTimeoutPerGiB": 1,
    "migration.progressTimeout": 1,
    "migration.maxDowntimeMs": 1,
    "flap.nodePerDayMax": 1,
}
"""Numbers that must be at least so much; every other one at least 0."""
_MAY_BE_ZERO = ("brake.window", "rebalance.hold", "fenceQuiet")
"""Times that may be none at all; every other one is longer than 0 s."""
_SHARES = ("startupGrace.seen", "lostNodesMax", "rebalance.margin")


def contradictions(config: ClusterConfig) -> list[str]:
    """Return one sentence per setting that cannot stand, alone or beside the others; empty if all is well."""
    alone = [*_alone(config)]
    return alone or [*_silences(config), *_doubts(config), *_leases(config), *_fences(config), *_repeats(config)]


def settings_of(config: ConfigStruct, before: str = "") -> Iterator[tuple[str, object]]:
    """Yield every setting under its name in text: `flap.vmPerHourMax`, with its value."""
    for field in msgspec.structs.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, ConfigStruct):
            yield from settings_of(value, f"{before}{field.encode_name}.")
        else:
            yield before + field.encode_name, value


def _alone(config: ClusterConfig) -> Iterator[str]:
    """Yield what is wrong with a setting whatever the others are."""
    for name, value in settings_of(config):
        if name in _CHOICES and value not in _CHOICES[name]:
            yield f"{name} is {value!r}; it must be one of {', '.join(_CHOICES[name])}"
        elif name in _SHARES and isinstance(value, int | str):
            yield from _share(name, value)
        elif isinstance(value, Duration):
            yield from _time(name, value)
        elif isinstance(value, int) and not isinstance(value, bool) and value < _LEAST.get(name, 0):
            yield f"{name} is {value}; it must be at least {_LEAST.get(name, 0)}"
        elif isinstance(value, float) and not (isfinite(value) and value > 0):
            yield f"{name} is {value:g}; it must be above 0"
    for name, weight in config.placement.weights.items():
        if weight < 0:
            yield f"placement.weights.{name} is {weight}; it must be at least 0"
    address = config.reference_address
    if address is not None and not _ADDRESS.fullmatch(address):
        yield f"referenceAddress is {address!r}; it must be a host or HOST:PORT, like 10.0.0.1 or [::1]:443"


def _time(name: str, value: float) -> Iterator[str]:
    if not isfinite(value) or value < 0:
        yield f"{name} is {value:g}; a time is a number of seconds from 0, written like 90s"
    elif value == 0 and name not in _MAY_BE_ZERO:
        yield f"{name} is 0s; it must be longer than 0s"


def _share(name: str, value: int | str) -> Iterator[str]:
    try:
        of_hundred = share_of(value, 100)
    except ValueError as error:
        yield f"{name}: {error}"
        return
    if of_hundred < 0 or (isinstance(value, str) and value.endswith("%") and of_hundred > 100):  # noqa: PLR2004
        yield f"{name} is {value}; a share lies between 0% and 100%, a number from 0"
    elif name == "lostNodesMax" and of_hundred == 0:
        yield f"{name} is {value}: no node would ever be recovered; to only watch set mode: Observe"


def _text(seconds: float) -> str:
    return format_duration(round(seconds, 3))


def _silences(config: ClusterConfig) -> Iterator[str]:
    """Yield what would judge a node that is only slow."""
    beat, suspect, lost = config.heartbeat, config.suspect_after, config.lost_after
    if suspect < 2 * beat:
        yield (
            f"suspectAfter {_text(suspect)} is less than two heartbeats (2 × {_text(beat)} = {_text(2 * beat)}); "
            "one late beat would mark every node"
        )
    if lost <= suspect:
        yield f"lostAfter {_text(lost)} must be longer than suspectAfter {_text(suspect)}"
    if config.lost_after_one_plane < lost:
        yield (
            f"lostAfterOnePlane {_text(config.lost_after_one_plane)} must not be shorter than lostAfter {_text(lost)}: "
            "it is the longer wait, where only one plane could be probed"
        )
    if config.rescue_after < lost:
        yield (
            f"rescueAfter {_text(config.rescue_after)} must not be shorter than lostAfter {_text(lost)}: "
            "VMs would be moved off a host before it is known whether it is lost"
        )


def _doubts(config: ClusterConfig) -> Iterator[str]:
    """Yield what would judge nodes after a pause of the aggregator itself."""
    unseen = config.heartbeat + config.self_lag_max
    if config.suspect_after <= unseen:
        yield (
            f"suspectAfter {_text(config.suspect_after)} must be longer than a heartbeat and an own lag that goes "
            f"unnoticed ({_text(config.heartbeat)} + selfLagMax {_text(config.self_lag_max)} = {_text(unseen)}); "
            "a pause of the aggregator would mark every node"
        )
    back = 2 * RECONNECT_DELAY_S_MAX
    if config.startup_grace.at_most < back:
        yield (
            f"startupGrace.atMost {_text(config.startup_grace.at_most)} is shorter than twice the time agents take to "
            f"connect again (2 × {_text(RECONNECT_DELAY_S_MAX)} = {_text(back)}); nodes coming back would be judged"
        )


def _leases(config: ClusterConfig) -> Iterator[str]:
    """Yield what breaks the lease arithmetic (fleet.lease)."""
    lease, needed = config.lease, BEATS_IN_A_LEASE * config.heartbeat
    if lease < needed:
        yield (
            f"lease {_text(lease)} is shorter than three heartbeats (3 × {_text(config.heartbeat)} = {_text(needed)}); "
            "one lost beat, or the way through a relaying peer, would end it"
        )
    if lease < config.suspect_after:
        yield (
            f"lease {_text(lease)} must not be shorter than suspectAfter {_text(config.suspect_after)}: a node would "
            "act as isolated (isolationPolicy) before anybody suspects it"
        )
    if config.self_fence == "watchdog":
        yield from _watchdog(config)


def _watchdog(config: ClusterConfig) -> Iterator[str]:
    times = LeaseSettings(lease_s=config.lease, watchdog_s=config.watchdog)
    total = times.take_over_after_s
    terms = (
        f"lease {_text(config.lease)} + 2 × watchdog {_text(config.watchdog)} + tick {_text(times.tick_s)} + reset "
        f"{_text(times.reset_s)} = {_text(times.dead_after_s)}, with margin and writes in flight {_text(total)}"
    )
    for name, value in (("unseenAtLeast", config.unseen_at_least), ("lostAfterOnePlane", config.lost_after_one_plane)):
        if value < total:
            yield f"{name} {_text(value)} is shorter than the time in which a watchdog ends a node ({terms})"
    if config.watchdog < 2 * times.tick_s:
        yield (
            f"watchdog {_text(config.watchdog)} is less than two ticks of its keeper (2 × {_text(times.tick_s)} = "
            f"{_text(2 * times.tick_s)}); a node that is well would be reset"
        )
    if not GUARD_GROUP[0] <= config.guard_group <= GUARD_GROUP[1]:
        yield f"guardGroup is {config.guard_group}; a guard group has {GUARD_GROUP[0]} to {GUARD_GROUP[1]} members"


def _fences(config: ClusterConfig) -> Iterator[str]:
    """Yield what keeps a fence device's word from ever counting, or lets two attempts overlap."""
    if config.readiness_every > READINESS_S_MAX:
        yield (
            f"readinessEvery {_text(config.readiness_every)} is longer than {_text(READINESS_S_MAX)}; a device "
            "that was not asked for so long proves nothing when its node fails"
        )
    if 0 < config.fence_quiet < OFF_ORDER_S:
        yield (
            f"fenceQuiet {_text(config.fence_quiet)} is shorter than an off order may take ({_text(OFF_ORDER_S)}); "
            "two attempts on one node would overlap"
        )


def _repeats(config: ClusterConfig) -> Iterator[str]:
    """Yield pairs of a first and a last value that stand the wrong way round."""
    migration = config.migration
    if migration.retry_from > migration.retry_max:
        yield (
            f"migration.retryFrom {_text(migration.retry_from)} must not be longer than migration.retryMax "
            f"{_text(migration.retry_max)}"
        )
