"""What `apply` says of a VM that it takes: what its owner should know before the day it matters."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm, domain_xml

CHANNEL = "<devices><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices>"


@pytest.mark.parametrize(
    ("extra", "spec", "said"),
    [
        ("<devices><tpm><backend type='emulator'/></tpm></devices>", {}, ["the state of its TPM stays on its host"]),
        ("<devices><tpm><backend type='emulator'/></tpm></devices>", {"hostState": "Recreate"}, []),
        (
            "",
            {"livenessProbe": {"guestAgentPing": {}}},
            ["livenessProbe.guestAgentPing asks the guest agent, and spec"],
        ),
        ("", {"readinessProbe": {"guestAgentPing": {}}}, ["readinessProbe.guestAgentPing asks the guest agent"]),
        ("", {"readinessProbe": {"tcpSocket": {"port": 22}}}, []),
        (CHANNEL, {"livenessProbe": {"guestAgentPing": {}}}, []),
        ("<os firmware='efi'/>", {}, ["its NVRAM stays on its host"]),
        ("<os firmware='efi'/>", {"hostState": "Require"}, []),
        ("<os firmware='efi'><nvram>/srv/nfs/a.fd</nvram></os>", {}, []),
    ],
)
async def test_what_will_matter_later_is_said_at_once(
    api: Api, extra: str, spec: dict[str, Any], said: list[str]
) -> None:
    body = {"documents": [a_vm("a", xml=domain_xml("a", extra=extra), **spec)]}
    warnings = (await api("POST", "/api/v1/apply?dryRun=1", body)).body["warnings"]
    assert len(warnings) == len(said)
    assert all(words in warning for words, warning in zip(said, warnings, strict=True))
