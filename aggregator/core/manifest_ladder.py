"""What a node's fencing ladder may say: rungs with one device or several, and what each can prove.

Works on shaped Structs and raises ManifestError with path and one sentence; changes nothing.
"""

from __future__ import annotations

import re

from aggregator.core.fencing_device import CRASH_KERNEL, CRASH_LISTENER, PROOFS, devices_of
from aggregator.core.manifest_walk import ManifestError, not_one_of, show, step
from aggregator.core.objects import FencingDevice, FencingRung
from fleet.units import parse_duration_s

TRIES_MAX = 10
RUNGS_MAX = 10
DEVICES_MAX = 8
_FENCE_AGENT = re.compile(r"fence_[a-z0-9_]+")


def check_ladder(rungs: tuple[FencingRung, ...]) -> None:
    """Refuse a ladder that could not be asked, or whose answers would mean nothing."""
    if len(rungs) > RUNGS_MAX:
        raise ManifestError("spec.fencing", f"a ladder of {len(rungs)} rungs is too long; at most {RUNGS_MAX}")
    for place, rung in enumerate(rungs):
        _rung(rung, step("spec.fencing", place))


def _rung(rung: FencingRung, path: str) -> None:
    if rung.devices:
        _several(rung, path)
    else:
        _device(devices_of(rung)[0], path)
    try:
        parse_duration_s(rung.timeout)
    except ValueError as error:
        raise ManifestError(step(path, "timeout"), str(error)) from None
    if not 1 <= rung.tries <= TRIES_MAX:
        raise ManifestError(step(path, "tries"), f"{rung.tries} is out of range; it must be from 1 to {TRIES_MAX}")
    if rung.proof not in PROOFS:
        raise ManifestError(step(path, "proof"), not_one_of(rung.proof, PROOFS))
    listens = rung.agent == CRASH_LISTENER
    if listens is not (rung.proof == CRASH_KERNEL):
        problem = (
            f"{CRASH_LISTENER} and proof: {CRASH_KERNEL} belong together; it listens, and everything else switches"
        )
        raise ManifestError(step(path, "proof"), problem)
    if listens and not rung.params.get("nodename"):
        problem = "the node's address, from which its crash kernel will speak, is missing"
        raise ManifestError(step(step(path, "params"), "nodename"), problem)


def _several(rung: FencingRung, path: str) -> None:
    for name, given in (("agent", rung.agent), ("params", rung.params), ("guid", rung.guid)):
        if given:
            problem = "a rung has either one device (agent, params) or several (devices); move it into a device"
            raise ManifestError(step(path, name), problem)
    where = step(path, "devices")
    if len(rung.devices) > DEVICES_MAX:
        raise ManifestError(where, f"{len(rung.devices)} devices are too many for one rung; at most {DEVICES_MAX}")
    for place, device in enumerate(rung.devices):
        _device(device, step(where, place))
        if device.agent == CRASH_LISTENER:
            raise ManifestError(step(step(where, place), "agent"), f"{CRASH_LISTENER} needs a rung of its own")
        for earlier, other in enumerate(rung.devices[:place]):
            if (device.agent, device.params) == (other.agent, other.params):
                raise ManifestError(step(where, place), f"this is the same device as devices[{earlier}]")


def _device(device: FencingDevice, path: str) -> None:
    if not _FENCE_AGENT.fullmatch(device.agent):
        problem = f"{show(device.agent)} is no fence program; write its name, like fence_ipmilan"
        raise ManifestError(step(path, "agent"), problem)
    if device.identity not in ("InBand", "Operator"):
        raise ManifestError(step(path, "identity"), not_one_of(device.identity, ("InBand", "Operator")))
    for key, value in device.params.items():
        if "\n" in key or "\n" in value or "=" in key:
            raise ManifestError(step(step(path, "params"), key), "a parameter is one line")
