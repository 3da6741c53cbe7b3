"""Whom the aggregator takes for the machine that it knows under a name."""

from __future__ import annotations

import pytest

from aggregator.core.welcome import answer_hello
from fleet.messages import Hello, Refusal, Welcome
from fleet.model import LedgerState, NodeFacts, SessionKey
from tests.unit.core.fleet import Fleet


def _hello(*, boot: str = "boot1-n1", machine: str = "machine-n1", host: str = "host-n1") -> Hello:
    return Hello(
        protocol_min=1,
        protocol_max=1,
        node="n1",
        session=SessionKey(boot, "another start", 9),
        facts=NodeFacts(machine_id=machine, host_uuid=host),
        ledger=LedgerState.SOUND,
        highest=None,
    )


@pytest.mark.parametrize(
    ("hello", "taken"),
    [
        (_hello(), True),
        (_hello(boot="boot2-n1"), True),
        (_hello(machine="machine-n7"), False),
        (_hello(host="host-n7"), False),
        (_hello(host=""), True),  # libvirt is silent, and this boot is known to be this machine's
        (_hello(host="", boot="boot2-n1"), False),  # would prove the last boot inert: only the same machine may
    ],
)
def test_a_machine_is_known_by_its_machine_id_and_its_libvirts_uuid(hello: Hello, *, taken: bool) -> None:
    answer = answer_hello(Fleet().state, hello, "t")
    assert isinstance(answer, Welcome if taken else Refusal)


def test_a_host_uuid_that_comes_later_is_learnt_and_then_binds() -> None:
    fleet = Fleet()
    fleet.state.nodes["n1"].host_uuid = ""
    assert isinstance(answer_hello(fleet.state, _hello(boot="boot2-n1"), "t"), Welcome)
    fleet.connect("n1")
    assert isinstance(answer_hello(fleet.state, _hello(host="host-n7"), "t"), Refusal)
