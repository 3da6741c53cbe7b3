"""Fencing ladders as people write them: one device or several, and a sentence with the path for what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from aggregator.core.manifest import check_object
from aggregator.core.objects import FencingDevice, Node
from aggregator.core.secrets import HIDDEN, hide_rung, restore_ladder
from tests.unit.manifest.builders import a_node, refusal

FEED = {"agent": "fence_apc", "params": {"ip": "10.9.1.1", "plug": "4", "password": "x"}, "identity": "Operator"}
OTHER = {**FEED, "params": {"ip": "10.9.1.2", "plug": "4", "password": "y"}}
ONE_OR_SEVERAL = "a rung has either one device (agent, params) or several (devices); move it into a device"
TOGETHER = "fence_kdump and proof: CrashKernel belong together; it listens, and everything else switches"
KDUMP = {"agent": "fence_kdump", "params": {"nodename": "10.1.0.1"}, "proof": "CrashKernel"}


def ladder(*rungs: dict[str, Any]) -> dict[str, Any]:
    return a_node({"fencing": list(rungs)})


def test_a_rung_with_several_devices_is_read() -> None:
    node = check_object(ladder({"devices": [FEED, OTHER], "timeout": "20s", "tries": 1}, KDUMP))
    assert isinstance(node, Node)
    first, second = node.spec.fencing
    assert first.devices[1] == FencingDevice(agent="fence_apc", params=OTHER["params"], identity="Operator")  # type: ignore[arg-type]
    assert (first.agent, first.proof, second.proof) == ("", "PowerOff", "CrashKernel")


@pytest.mark.parametrize(
    ("rung", "sentence"),
    [
        ({}, "spec.fencing[0].agent: '' is no fence program; write its name, like fence_ipmilan"),
        (
            {"agent": "fence_ipmilan", "devices": [FEED, OTHER]},
            f"spec.fencing[0].agent: {ONE_OR_SEVERAL}",
        ),
        (
            {"params": {"ip": "10.9.0.1"}, "devices": [FEED, OTHER]},
            f"spec.fencing[0].params: {ONE_OR_SEVERAL}",
        ),
        ({"devices": [FEED, FEED]}, "spec.fencing[0].devices[1]: this is the same device as devices[0]"),
        (
            {"devices": [FEED, {**OTHER, "identity": "Me"}]},
            "spec.fencing[0].devices[1].identity: 'Me' is not known; it must be one of InBand, Operator",
        ),
        (
            {"devices": [FEED, {**OTHER, "agent": "reboot"}]},
            "spec.fencing[0].devices[1].agent: 'reboot' is no fence program; write its name, like fence_ipmilan",
        ),
        ({"devices": [FEED, KDUMP]}, "spec.fencing[0].devices[1].proof: there is no such field"),
        (
            {"agent": "fence_kdump", "params": {"nodename": "10.1.0.1"}},
            f"spec.fencing[0].proof: {TOGETHER}",
        ),
        (
            {"agent": "fence_ipmilan", "proof": "CrashKernel"},
            f"spec.fencing[0].proof: {TOGETHER}",
        ),
        (
            {"agent": "fence_kdump", "proof": "CrashKernel"},
            "spec.fencing[0].params.nodename: the node's address, from which its crash kernel will speak, is missing",
        ),
        (
            {"agent": "fence_ipmilan", "proof": "Hope"},
            "spec.fencing[0].proof: 'Hope' is not known; it must be one of PowerOff, CrashKernel",
        ),
        ({"agent": "fence_x", "tries": 0}, "spec.fencing[0].tries: 0 is out of range; it must be from 1 to 10"),
    ],
)
def test_what_could_not_be_asked_is_refused_with_its_place(rung: dict[str, Any], sentence: str) -> None:
    assert refusal(ladder(rung)).startswith(sentence)


def test_secrets_of_every_device_are_hidden_and_come_back() -> None:
    node = check_object(ladder({"devices": [FEED, OTHER]}))
    assert isinstance(node, Node)
    kept = node.spec.fencing
    shown = tuple(hide_rung(rung) for rung in kept)
    assert [device.params["password"] for device in shown[0].devices] == [HIDDEN, HIDDEN]
    assert restore_ladder(shown, kept) == kept
    with pytest.raises(ValueError, match=r"spec\.fencing\[0\]\.devices\[0\]\.params\.password"):
        restore_ladder(shown, ())
