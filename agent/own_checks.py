"""What an agent checks of its host without anybody's program: pressure, links, storage, its own disk. Pure.

Each is an outcome like a check program's (agent.verdicts), steadied and, by configuration, tainting as those are.
Numbers are cut to steps, so that what is told changes when the host does and not with every look.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from agent.verdicts import Outcome

FINE, DEGRADED, FAILING = 0, 1, 2
WAITS_PERCENT = {  # (resource, PSI line, degraded from, failing from): of a minute, in which some or all had to wait
    "node-memory": ("memory", "full", 5, 25),
    "node-io": ("io", "full", 30, 70),
    "node-cpu": ("cpu", "some", 80, 101),  # guests that share processors wait; it kills nobody
}
STORAGE_MS_DEGRADED = 500.0
FREE_PERCENT_DEGRADED, FREE_PERCENT_FAILING = 5, 1
STEP_PERCENT = 10
NAMES = (*WAITS_PERCENT, "node-nic", "node-storage", "node-disk")


class Measured(Struct, frozen=True):
    """What was read of a host. None or empty: it could not be, and nothing is said.

    waits: by resource and line ("memory full"), percent of the last minute. carriers: by network device that has had a
    carrier, whether it has one. storage_ms: by storage, how long its last answer took. free_percent: of the file
    system under the agent's state.
    """

    waits: Mapping[str, float] = {}
    carriers: Mapping[str, bool] = {}
    storage_ms: Mapping[str, float] = {}
    free_percent: float | None = None


def judge(measured: Measured) -> dict[str, Outcome]:
    """Return what each check says, by name."""
    found = {name: _waits(measured, *limits) for name, limits in WAITS_PERCENT.items()}
    return found | {"node-nic": _nic(measured), "node-storage": _storage(measured), "node-disk": _disk(measured)}


def _waits(measured: Measured, resource: str, line: str, degraded: float, failing: float) -> Outcome:
    percent = measured.waits.get(f"{resource} {line}")
    if percent is None:
        return Outcome(None, "the kernel tells no pressure")
    code = FAILING if percent >= failing else DEGRADED if percent >= degraded else FINE
    who = "all processes" if line == "full" else "some processes"
    return Outcome(code, f"{who} wait for {resource}, {_step(percent)} % of the time or more")


def _nic(measured: Measured) -> Outcome:
    dark = sorted(name for name, carrier in measured.carriers.items() if not carrier)
    return Outcome(DEGRADED if dark else FINE, f"no carrier on {', '.join(dark)}" if dark else "")


def _storage(measured: Measured) -> Outcome:
    """Whether one answers at all is StorageReachable's to say."""
    slow = sorted(name for name, took in measured.storage_ms.items() if took >= STORAGE_MS_DEGRADED)
    limit = f"{STORAGE_MS_DEGRADED:g} ms or more"
    return Outcome(DEGRADED if slow else FINE, f"{', '.join(slow)}: an answer takes {limit}" if slow else "")


def _disk(measured: Measured) -> Outcome:
    if measured.free_percent is None:
        return Outcome(None, "the file system tells no size")
    free = measured.free_percent
    code = FAILING if free < FREE_PERCENT_FAILING else DEGRADED if free < FREE_PERCENT_DEGRADED else FINE
    return Outcome(code, f"less than {FREE_PERCENT_DEGRADED} % free where the agent keeps its state" if code else "")


def _step(percent: float) -> int:
    return int(percent // STEP_PERCENT * STEP_PERCENT)
