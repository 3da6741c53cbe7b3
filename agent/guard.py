"""What the agent does with its VMs when the node has lost its lease (product.md, isolationPolicy). Pure.

Without a watchdog a lease proves nothing to anybody: nobody starts a VM elsewhere because of what is
decided here, only because of what was then persisted and told. Lost is the lease of a node whose
last answered beat was sent longer ago than the policy allows. An agent that has just started counts
from its start, so that its own restart is no isolation; an answer through a peer counts as well.
"""

from __future__ import annotations

from enum import StrEnum

from fleet.lease import NodeLease
from fleet.model import Isolation, IsolationPolicy


class Verdict(StrEnum):
    """What shall become of a VM that runs here."""

    KEEP = "Keep"
    SHUT_DOWN = "ShutDown"
    DESTROY = "Destroy"


_VERDICTS = {IsolationPolicy.SHUTDOWN: Verdict.SHUT_DOWN, IsolationPolicy.DESTROY: Verdict.DESTROY}


def judge(isolation: Isolation, counted_from_s: float, now_s: float) -> Verdict:
    """Say what becomes of a VM; counted_from_s: when the newest answered beat was sent."""
    if now_s < counted_from_s + isolation.after_s:
        return Verdict.KEEP
    return _VERDICTS.get(isolation.policy, Verdict.KEEP)


def may_restart(isolation: Isolation, lease_from_s: float, now_s: float) -> bool:
    """Say whether a run that failed may be begun again without a word from the aggregator."""
    return isolation.restart and now_s < lease_from_s + isolation.after_s


class Guard:
    """The node's lease, across sessions."""

    def __init__(self) -> None:
        self.lease = NodeLease(Isolation().after_s)
        self._counted_from_s = float("-inf")
        self._direct = False

    def begun(self, now_s: float) -> None:
        """The agent has started: silence counts from now."""
        self._counted_from_s = now_s

    def session_opened(self, *, direct: bool) -> None:
        """Remember the last session's answers, and let none of them count in the new one. direct: through no peer."""
        self._direct = direct
        self._counted_from_s = self.counted_from_s()
        self.lease.end()

    def direct_lease_from_s(self) -> float:
        """Return since when the lease of the last session counts; minus infinity if a peer carried it."""
        return self.lease.counted_from_s() if self._direct else float("-inf")

    def counted_from_s(self) -> float:
        """Return since when the node is alone."""
        return max(self._counted_from_s, self.lease.counted_from_s())
