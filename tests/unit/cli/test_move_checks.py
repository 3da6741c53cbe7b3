"""`virtward migrate --check`: what it prints, and how it exits."""

from __future__ import annotations

from tests.unit.cli.conftest import Virtward
from tests.unit.cli.speaker import Speaker


def test_migrate_check_says_what_each_check_says_and_moves_nothing(speaker: Speaker, virtward: Virtward) -> None:
    checks = [
        {"name": "Ports", "status": "True", "message": "h2: 64 of 64 ports are free"},
        {"name": "QEMUVersion", "status": "False", "message": "h1 has QEMU 8.0, h2 has 7.2, which is older"},
        {"name": "Agent", "status": "Unknown", "message": "h1 was not asked"},
    ]
    found = {"vm": "web-1", "source": "h1", "target": "h2", "possible": False, "checks": checks}
    speaker.says("GET", "/api/v1/vms", {"items": [{"metadata": {"name": "web-1"}}]})
    speaker.says("POST", "/api/v1/vms/web-1:checkMigration", {**found, "forecast": {"words": "about 3 s"}})
    code, out, err = virtward("migrate", "web-1", "h2", "--check")
    assert speaker.bodies("POST") == [{"to": "h2"}]
    assert out.splitlines() == [
        "web-1 from h1 to h2:",
        "  Ports        ok  h2: 64 of 64 ports are free",
        "  QEMUVersion  no  h1 has QEMU 8.0, h2 has 7.2, which is older",
        "  Agent        ?   h1 was not asked",
        "forecast: about 3 s",
    ]
    assert (code, err) == (1, "virtward: web-1 from h1 to h2: not now; against it: QEMUVersion\n")
    speaker.says("POST", "/api/v1/nodes/h1:checkMigration", {"source": "h1", "target": "h2", "checks": checks[:1]})
    code, out, _ = virtward("migrate", "h1", "h2", "--check")
    assert (code, out.splitlines()[0]) == (0, "whatever moves from h1 to h2:")
    code, _, err = virtward("migrate", "web-1", "h2")
    assert (code, "say where to with --to h2" in err) == (2, True)
