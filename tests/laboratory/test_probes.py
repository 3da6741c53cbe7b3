"""Guests that are asked how they are, with a real guest agent: there, hanging, ended and begun anew."""

from __future__ import annotations

import pytest

from agent.pictures import SIGNATURE
from cli.document import documents, look, text
from cli.errors import Failure
from lab.manifest import GuestKind
from lab.scene import Scene
from tests.laboratory.scenes import SceneMaker

PROBES = """\
  livenessProbe: {guestAgentPing: {}, initialDelaySeconds: 60, periodSeconds: 2, timeoutSeconds: 2, failureThreshold: 3}
  readinessProbe: {guestAgentPing: {}, periodSeconds: 1, timeoutSeconds: 2}
"""


def condition(fleet: Scene, vm: str, kind: str) -> str:
    """Return status and reason of a condition of a VM; empty when it has none."""
    found = [c for c in documents(fleet.get("vms", vm), "status.conditions") if text(c, "type") == kind]
    return f"{text(found[0], 'status')} {text(found[0], 'reason')}" if found else ""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_guest_whose_agent_stops_answering_is_ended_as_failed_and_started_again(scene: SceneMaker) -> None:
    """Ready only when its agent answers; a guest that waits for that is started then; a hang is found and mended."""
    fleet = scene("tux", "app", hosts=1)
    manifest = fleet.laboratory.vm("tux", GuestKind.LINUX)
    manifest = manifest.replace("<memballoon", "<video><model type='vga'/></video>\n        <memballoon")
    fleet.apply_text(manifest.replace("  domainXML: |", f"{PROBES}  domainXML: |"))
    after = fleet.laboratory.vm("app", GuestKind.TINY)
    depends = "  dependsOn: [{vm: tux, condition: Ready, timeout: 200s}]\n"
    fleet.apply_text(after.replace("  domainXML: |", f"{depends}  domainXML: |"))
    fleet.wait(lambda: fleet.phase("tux") == "Running", "tux to run")
    assert condition(fleet, "tux", "Ready") != "True ReadinessProbeSucceeded"
    assert "app" not in fleet.where()
    fleet.wait(lambda: condition(fleet, "tux", "AgentConnected") == "True Connected", "its guest agent", 150)
    fleet.wait(lambda: condition(fleet, "tux", "Ready") == "True ReadinessProbeSucceeded", "tux to be ready", 60)
    fleet.wait(lambda: fleet.counts("app"), "the guest that waited for it to count", 30)
    fleet.wait(lambda: fleet.counts("tux"), "tux to count")
    assert fleet.client.get_bytes("/api/v1/vms/tux/screenshot").startswith(SIGNATURE)
    with pytest.raises(Failure, match="h1 has no screenshot"):
        fleet.client.get_bytes("/api/v1/vms/app/screenshot")
    fleet.laboratory.order_guest("tux", "hang")
    fleet.wait(lambda: condition(fleet, "tux", "Ready") == "False ReadinessProbeFailed", "the readiness probe to fail")
    fleet.wait(lambda: fleet.starts("tux") == 2 and fleet.counts("tux"), "tux to be started again", 200)
    assert fleet.starts("app") == 1
    (incident,) = documents(fleet.client.get("/api/v1/incidents"), "items")
    assert text(incident, "status.title").startswith("tux's liveness probe failed: the guest agent does not answer")
    assert look(incident, "status.screenshot") is True
    kept = f"/api/v1/incidents/{text(incident, 'metadata.name')}/screenshot"
    assert fleet.client.get_bytes(kept).startswith(SIGNATURE)
    assert fleet.faults() == []
