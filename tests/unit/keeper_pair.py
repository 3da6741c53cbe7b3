"""The two ends of a migration, for the tests of the keeper: a source that runs the VM, a target that awaits it."""

from __future__ import annotations

from agent.keeper_types import (
    AnswerPeer,
    Effect,
    PeerNoticeReceived,
    TellPeer,
)
from fleet.messages import (
    MigrateVm,
    ReleasedNotice,
    ReleasedReceipt,
)
from tests.unit.keeper_harness import (
    LEADER,
    SECRET,
    UUID,
    Node,
)

PEER = ("10.0.0.2:8422", "10.0.1.2:8422")
MIGRATE = MigrateVm("m1", 1, "h2", 2, "qemu+tls://10.0.1.2/system", "10.0.1.2", PEER, SECRET, timeout_s=60.0)
NOTICE = ReleasedNotice(UUID, "m1", "h1", 1, 2, SECRET, LEADER)


def a_source(*, tls: bool = False) -> Node:
    node = Node("h1", migration_tls=tls)
    node.connect()
    node.start()
    return node


def a_target() -> Node:
    node = Node("h2")
    node.connect()
    node.permit()
    return node


def notice(node: Node, what: ReleasedNotice = NOTICE) -> list[Effect]:
    return node.step(PeerNoticeReceived(1, what))


def tells(effects: list[Effect]) -> list[TellPeer]:
    return [e for e in effects if isinstance(e, TellPeer)]


def receipt(effects: list[Effect]) -> ReleasedReceipt:
    (answer,) = [e for e in effects if isinstance(e, AnswerPeer)]
    return answer.receipt
