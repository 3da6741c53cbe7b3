"""Ending VMs on a node that has lost its lease, as if by an order of the agent's own. Pure.

agent.guard says what becomes of a VM; here it is begun like any other ending: persisted first, taken
up again after a restart, Released only when its QEMU is gone. Such an order is never taken back:
when the aggregator is there again it reads that the run was ended, and decides where the next one is.
"""

from __future__ import annotations

from agent.desk import Desk
from agent.guard import Verdict, judge
from agent.records import Promise, Standing
from agent.works import Works
from fleet.messages import DestroyVm, Order, ShutdownVm
from fleet.model import EndReason, IsolationPolicy, Leadership, QemuState, SessionKey

HERE = (QemuState.RUNNING, QemuState.PAUSED)


class Isolated:
    """Watches the runs whose policy asks for it."""

    def __init__(self, desk: Desk, works: Works) -> None:
        self.desk = desk
        self.works = works
        self._watched: tuple[str, ...] = ()
        self._watched_of = -1  # how many records were persisted when they were listed
        self._orders = 0

    def advance(self) -> None:
        """End what shall not run on, or see to it that it is looked at when the lease is over."""
        desk = self.desk
        counted_from_s = desk.guard.counted_from_s()
        for uuid in self._list():
            promise = desk.memory.promises[uuid]
            verdict = judge(promise.isolation, counted_from_s, desk.now)
            if verdict is Verdict.KEEP:
                desk.wake_at(counted_from_s + promise.isolation.after_s)
            elif desk.state(uuid) in HERE and not desk.orders_of(uuid):  # what is in hand for it ends first
                self._end(promise, verdict)

    def _list(self) -> tuple[str, ...]:
        desk = self.desk
        if self._watched_of != desk.persisted:
            self._watched_of = desk.persisted
            self._watched = tuple(
                uuid
                for uuid, promise in desk.memory.promises.items()
                if promise.isolation.policy is not IsolationPolicy.KEEP and promise.standing is Standing.RUNS
            )
        return self._watched

    def _end(self, promise: Promise, verdict: Verdict) -> None:
        desk, run = self.desk, promise.run
        self._orders += 1
        graceful = verdict is Verdict.SHUT_DOWN and promise.isolation.grace_s > 0
        body: ShutdownVm | DestroyVm = DestroyVm(run, EndReason.ISOLATED)
        if graceful:
            body = ShutdownVm(run, promise.isolation.grace_s, EndReason.ISOLATED)
        order = Order(
            order_id=f"isolated-{desk.settings.agent_start}-{self._orders}",
            uuid=promise.uuid,
            name=promise.name,
            epoch=promise.epoch,
            leader=desk.memory.highest or Leadership(0, "", 0),
            session=desk.memory.session or SessionKey(desk.settings.boot_id, desk.settings.agent_start, 0),
            body=body,
        )
        alone_s = desk.now - desk.guard.counted_from_s()
        detail = f"no beat was answered for {alone_s:.1f} s, its policy is {promise.isolation.policy}"
        desk.note("node isolated", promise.uuid, detail, warning=True)
        self.works.take_up(order)
