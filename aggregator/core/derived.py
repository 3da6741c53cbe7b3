"""What follows from the state and is asked at every look: who needs one, and where things lie.

Never the truth and never written down: it is made anew wherever it is missing. fold notes what an event
may have changed, rest.py works it out again before decide looks. Plain record; knows no rule.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from msgspec import Struct, field

from aggregator.core.state_node import NodeRecord
from aggregator.core.state_vm import MigrationRecord, VmRecord
from aggregator.core.words import NodeState
from fleet.model import SessionKey

if TYPE_CHECKING:
    from aggregator.core.seating import Seating

Ground = tuple[NodeState, bool, SessionKey | None, str, bool]
"""What the rest of a VM hangs on at its node: state, connected, session, boot, proven inert."""


class Derived(Struct, eq=False):
    """stale: all of it; stale_nodes, stale_vms: what is said of these.

    Lists are in the order of the state. What is None has not been asked for since it changed.
    """

    stale: bool = True
    stale_nodes: dict[str, None] = field(default_factory=dict)
    stale_vms: dict[str, None] = field(default_factory=dict)
    nodes: dict[str, NodeRecord] = field(default_factory=dict)  # as they were looked at
    vms: dict[str, VmRecord] = field(default_factory=dict)
    grounds: dict[str, Ground] = field(default_factory=dict)  # by node
    checked_at: dict[str, float] = field(default_factory=dict)  # by node at rest: its fence device asked longest ago
    active_nodes: list[NodeRecord] = field(default_factory=list)
    resting_nodes: list[NodeRecord] = field(default_factory=list)
    failed: list[NodeRecord] = field(default_factory=list)  # convicted or found off at some time
    fallen: list[NodeRecord] = field(default_factory=list)  # not Up, or silent at some time
    checked_first_at: float = inf  # the least of checked_at
    active: dict[str, None] = field(default_factory=dict)  # VMs that are not at rest
    active_vms: list[VmRecord] = field(default_factory=list)
    brake_limit: int | None = None
    bound: dict[str, list[VmRecord]] | None = None  # by node
    open_migrations: list[MigrationRecord] | None = None
    executing: list[NodeRecord] | None = None  # with a NoExecute taint
    seating: Seating | None = None
    unseated_all: bool = True  # who sits where is to be looked at for everybody; else for these:
    unseated_nodes: dict[str, None] = field(default_factory=dict)
    unseated_vms: dict[str, None] = field(default_factory=dict)

    def note_node(self, name: str) -> None:
        """Forget what hangs on a node."""
        self.brake_limit = None
        self.executing = None
        self.stale_nodes[name] = None
        self.unseated_nodes[name] = None

    def note_vm(self, name: str) -> None:
        """Forget what hangs on a VM."""
        self.bound = self.open_migrations = None
        self.stale_vms[name] = None
        self.unseated_vms[name] = None

    def note_all(self) -> None:
        """Forget everything."""
        self.brake_limit = None
        self.executing = None
        self.bound = self.open_migrations = None
        self.unseated_all = True
        self.stale = True
        self.stale_nodes.clear()
        self.stale_vms.clear()
