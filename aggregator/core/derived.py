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
    from aggregator.placement.table import Table

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
    seats: tuple[int, Table] | None = None  # as they were after so many events

    def note_nodes(self) -> None:
        """Forget what hangs on any node."""
        self.brake_limit = None

    def note_vms(self) -> None:
        """Forget what hangs on any VM."""
        self.bound = self.open_migrations = None

    def note_all(self) -> None:
        """Forget everything."""
        self.note_nodes()
        self.note_vms()
        self.seats = None
        self.stale = True
        self.stale_nodes.clear()
        self.stale_vms.clear()
