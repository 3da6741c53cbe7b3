"""The words of the core's events: states, phases, outcomes, proofs, and what every event carries.

Knows no event in particular; facts.py and transitions.py do.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class ApiRole(StrEnum):
    """What a person's token is for: to look, to run the fleet, to change who and what belongs to it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class NodeState(StrEnum):
    """Where a node stands; the table of steps is in nodes.py."""

    JOINING = "Joining"
    UNSEEN = "Unseen"
    UP = "Up"
    SUSPECT = "Suspect"
    AGENT_LOST = "AgentLost"
    LOST = "Lost"
    FENCING = "Fencing"
    FENCED = "Fenced"


class VmPhase(StrEnum):
    """What people see of a VM (interfaces.md, words in status)."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    PAUSED = "Paused"
    MIGRATING = "Migrating"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    RECOVERING = "Recovering"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    UNKNOWN = "Unknown"


class RunOutcome(StrEnum):
    """How a run ended (product.md, run strategies)."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"
    EVICTED = "Evicted"


class MigrationPhase(StrEnum):
    """How far one migration is; the table of steps is in migrate.py."""

    QUEUED = "Queued"
    PREPARING = "Preparing"
    RUNNING = "Running"
    HANDING_OVER = "HandingOver"
    DISCARDING = "Discarding"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class ProofKind(StrEnum):
    """Why a node, or one VM on it, is known to be inert (safety.md)."""

    RELEASED = "Released"
    POWER_OFF = "PowerOff"
    REBOOTED = "Rebooted"
    NOT_HERE = "NotHere"  # complete report of a session opened after the binding was made
    SELF_FENCED = "SelfFenced"
    CRASH_KERNEL = "CrashKernel"
    OPERATOR = "Operator"


class PowerAnswer(StrEnum):
    """What a fence device's answer comes to; only OFF, ON and CRASHED are knowledge."""

    ON = "On"
    OFF = "Off"
    CRASHED = "Crashed"  # the node's crash kernel was heard
    DONE = "Done"  # the program says the off or on order was carried out
    ERROR = "Error"
    TIMEOUT = "Timeout"
    MISSING = "Missing"  # the program is not there or did not run


class VmVerb(StrEnum):
    """What a person may command of a VM."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    PAUSE = "pause"
    UNPAUSE = "unpause"


class Event(Struct, frozen=True, kw_only=True, tag_field="e", tag=True):
    """Base of all facts and transitions."""

    at: float


class Transition(Event, frozen=True, kw_only=True):
    """Base of all decisions: why, and the journal position of the fact behind it."""

    reason: str = ""
    cause: int = 0
