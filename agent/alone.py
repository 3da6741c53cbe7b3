"""Starting a VM again that failed while no aggregator answers, as if by an order of the agent's own. Pure.

With an aggregator there the agent only reports: what it has called Released may run elsewhere a moment later. So this
happens instead of the release, not after it: the VM stays bound to this node, the run gets the next number, its
epoch stays. Only under a fresh lease of a session of this agent's own start (safety.md, sessions): an agent or a host
that has just begun has none, and knows nothing of what was decided meanwhile. Once a VM and session: whether a VM
that fails again is worth another try is for the aggregator to say, which counts.
"""

from __future__ import annotations

from agent.conversation import Conversation, Phase
from agent.desk import Desk
from agent.guard import may_restart
from agent.records import Promise, Standing
from agent.works import Works
from fleet.messages import Order, StartVm
from fleet.model import EndReason, SessionKey

NOT_DEFINED_ANEW = ""  # an empty XML: what is defined here is what failed


class Alone:
    """Takes up the restarts."""

    def __init__(self, desk: Desk, conversation: Conversation, works: Works) -> None:
        self._desk = desk
        self._conversation = conversation
        self._works = works
        self._session: SessionKey | None = None
        self._tried: dict[str, None] = {}  # in that session
        self._orders = 0

    def starts_again(self, promise: Promise, end: EndReason) -> bool:
        """Begin the next run of a VM whose QEMU is seen to be gone; False if that is not to be done."""
        desk, session = self._desk, self._desk.memory.session
        if self._conversation.phase is Phase.STANDING or session is None or desk.memory.highest is None:
            return False
        if session != self._session:
            self._session, self._tried = session, {}
        failed = promise.standing is Standing.RUNS and promise.receive is None and end is EndReason.CRASHED
        if not failed or promise.uuid in self._tried or desk.quarantined or desk.orders_of(promise.uuid):
            return False
        if not may_restart(promise.isolation, desk.guard.direct_lease_from_s(), desk.now):
            return False
        self._tried[promise.uuid] = None
        self._orders += 1
        order = Order(
            order_id=f"alone-{desk.settings.agent_start}-{self._orders}",
            uuid=promise.uuid,
            name=promise.name,
            epoch=promise.epoch,
            leader=desk.memory.highest,
            session=session,
            body=StartVm(
                NOT_DEFINED_ANEW,
                promise.run + 1,
                isolation=promise.isolation,
                probes=promise.probes,
                kept=promise.kept,
            ),
        )
        desk.note("started again without the aggregator", promise.uuid, f"run {promise.run + 1}", warning=True)
        self._works.take_up(order)
        return True
