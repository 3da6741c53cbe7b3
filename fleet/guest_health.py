"""What is asked of a guest itself, and what was found: probes, and whether its guest agent is there."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

PAUSED_BY_WATCHDOG = "watchdog"  # the reason a node tells of a guest that its watchdog device has stopped


class ProbeWay(StrEnum):
    """How a guest is asked: through its guest agent, by a connection to a port, or by an HTTP GET."""

    PING = "ping"
    TCP = "tcp"
    HTTP = "http"


class ProbeKind(StrEnum):
    """What an answer means: whether the run lives, or whether the guest is ready for its work."""

    LIVENESS = "liveness"
    READINESS = "readiness"


class GuestProbe(Struct, frozen=True):
    """One question to a guest, asked again and again. Seconds; thresholds are answers in a row.

    host: empty for the guest's own address, as libvirt knows it. A redirect (3xx) is a good answer, as in Kubernetes.
    """

    way: ProbeWay
    host: str = ""
    port: int = 0
    path: str = "/"
    scheme: str = "http"
    initial_delay_s: float = 0.0
    period_s: float = 10.0
    timeout_s: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3


class GuestProbes(Struct, frozen=True):
    """The probes of a VM. None: nothing is asked."""

    liveness: GuestProbe | None = None
    readiness: GuestProbe | None = None


class GuestHealth(Struct, frozen=True):
    """What an agent found of a run's guest. Empty is not known, which is no evidence either way.

    agent: Connected | Disconnected, by libvirt. ready: True | False, by the readiness probe. failed: why the liveness
    probe has failed. why: what the readiness probe said last.
    """

    agent: str = ""
    ready: str = ""
    why: str = ""
    failed: str = ""
