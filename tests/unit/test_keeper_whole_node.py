"""When an agent says that it has told everything, with a libvirtd that comes late."""

from __future__ import annotations

from agent.keeper_types import LinkOpened
from fleet.messages import Beat, Delta, FullState, Welcome
from fleet.model import QemuState
from tests.unit.keeper_harness import LEADER, Node, a_vm, sent_of


def _welcomed(node: Node) -> None:
    node.link += 1
    node.step(LinkOpened(node.link))
    node.hear(Welcome(1, LEADER, node.session, 1.0, ()))


def test_a_list_that_is_not_whole_is_waited_with_as_long_as_the_first_may_take() -> None:
    node = Node()
    _welcomed(node)
    assert sent_of(node.listed(complete=False), FullState) == []
    (full,) = sent_of(node.listed(a_vm(QemuState.RUNNING)), FullState)
    assert full.complete
    assert len(full.vms) == 1


def test_a_node_whose_libvirt_comes_late_is_told_whole_in_the_same_session() -> None:
    node = Node()
    _welcomed(node)
    node.listed(complete=False)
    first, *more = sent_of(node.tick(6.0), FullState)
    assert (first.complete, more) == (False, [])
    (second,) = sent_of(node.listed(a_vm(QemuState.RUNNING)), FullState)
    assert (second.complete, second.session) == (True, first.session)
    assert sent_of(node.listed(a_vm(QemuState.RUNNING)), FullState) == []
    beats = sent_of(node.tick(3.0), Beat)
    sequences = [beat.sequence for beat in sent_of(node.effects, Beat)]
    assert sequences == sorted(set(sequences))
    assert {beat.generation for beat in beats} == {1 + len(sent_of(node.effects, Delta))}
