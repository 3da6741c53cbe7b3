"""What each verb sends, prints and returns, against a server whose words the test chooses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Virtward
from tests.unit.cli.speaker import Speaker

VM = {
    "apiVersion": "virtward/v1",
    "kind": "VirtualMachine",
    "metadata": {"name": "web-1", "labels": {"app": "web"}, "resourceVersion": "7"},
    "spec": {"runStrategy": "Always", "domainXML": "<domain>\n</domain>\n"},
    "status": {
        "phase": "Running",
        "node": "h1",
        "run": 3,
        "restarts": 1,
        "reason": "",
        "since": "2026-01-01T00:00:00.000Z",
    },
}


def _vm(**status: object) -> dict[str, object]:
    return {**VM, "status": {**VM["status"], **status}}  # type: ignore[dict-item]


def test_get_prints_a_table(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says("GET", "/api/v1/vms?labelSelector=app%3Dweb", {"items": [VM], "resourceVersion": "9"})
    code, out, _ = virtward("get", "vms", "-l", "app=web")
    head, row = out.splitlines()
    assert code == 0
    assert head.split() == ["NAME", "PHASE", "NODE", "STRATEGY", "RESTARTS", "SINCE", "REASON"]
    assert row.split()[:5] == ["web-1", "Running", "h1", "Always", "1"]
    assert head.index("NODE") == row.index("h1")


def test_get_prints_json_yaml_and_names(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says("GET", "/api/v1/vms", {"items": [VM], "resourceVersion": "9"})
    speaker.says("GET", "/api/v1/vms/web-1", VM)
    assert json.loads(virtward("get", "vms", "-o", "json")[1]) == {"items": [VM]}
    assert json.loads(virtward("get", "vm/web-1", "-o", "json")[1]) == VM
    assert "  domainXML: |\n    <domain>\n" in virtward("get", "vm", "web-1", "-o", "yaml")[1]
    assert virtward("get", "vms", "-o", "name")[1] == "vm/web-1\n"


def test_an_empty_list_says_so_beside_the_output(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says("GET", "/api/v1/vms", {"items": []})
    assert virtward("get", "vms") == (0, "", "no vms found\n")


def test_a_watch_goes_on_from_the_list_and_after_a_break(
    speaker: Speaker, virtward: Virtward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.verbs.get.RECONNECTS_MAX", 1)
    speaker.says("GET", "/api/v1/vms", {"items": [_vm(phase="Starting")], "resourceVersion": "5"})
    data = [json.dumps({"type": kind, "object": VM}).encode() for kind in ("MODIFIED", "DELETED")]
    speaker.streams["/api/v1/vms"] = [
        b": hello\n\nid: 6\nevent: MODIFIED\ndata: " + data[0] + b"\n\n",
        b"id: 7\ndata: " + data[1] + b"\n\n",
    ]
    code, out, err = virtward("get", "vms", "-w")
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["Starting", "Running", "Deleted"]
    asked = [heard.target for heard in speaker.heard if "watch" in heard.target]
    assert asked[0] == "/api/v1/vms?resourceVersion=5&watch=1"
    assert asked[1] == "/api/v1/vms?resourceVersion=6&watch=1"
    assert asked[2] == "/api/v1/vms?resourceVersion=7&watch=1"
    assert code == 1  # the server is gone for good after the tries it gets
    assert "the watch broke off" in err


def test_the_token_is_sent_as_a_bearer(speaker: Speaker, virtward: Virtward, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    speaker.says("GET", "/api/v1/nodes", {"items": []})
    virtward("--token-file", str(tmp_path / "token"), "get", "nodes")
    assert speaker.heard[0].authorization == "Bearer s3cret"


def test_a_refusal_is_the_problems_detail_in_one_line(speaker: Speaker, virtward: Virtward) -> None:
    speaker.refuses("GET", "/api/v1/vms/none", 404, "there is no VM\nnone.")
    assert virtward("get", "vm", "none") == (1, "", "virtward: there is no VM none\n")
    speaker.refuses("GET", "/api/v1/vms", 401, "the token is not known")
    assert "VIRTWARD_TOKEN_FILE" in virtward("get", "vms")[2]


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"", b"{"])
def test_an_answer_that_is_no_aggregators_is_said_to_be_so(speaker: Speaker, virtward: Virtward, answer: bytes) -> None:
    speaker.says("GET", "/api/v1/explain/vms/a", answer, status=500 if answer in (b"", b"{") else 200)
    code, out, err = virtward("explain", "vm", "a")
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_every_fault_of_a_file_is_a_line(speaker: Speaker, virtward: Virtward, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("kind: Node\n")
    problem = {"title": "No", "detail": "a is wrong (and 1 more)", "errors": ["a is wrong", "b is wrong."]}
    speaker.says("POST", "/api/v1/apply", problem, status=422)
    code, _, err = virtward("apply", "-f", str(tmp_path / "x.yaml"))
    assert (code, err) == (1, "virtward: a is wrong (and 1 more)\nvirtward: b is wrong\n")


def test_a_fault_is_told_with_its_file_and_document(speaker: Speaker, virtward: Virtward, tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("kind: Node\n")
    two.write_text("kind: Node\n---\nkind: Node\n")
    speaker.refuses("POST", "/api/v1/apply", 422, "document 3: spec.colour: there is no such field")
    _, _, err = virtward("apply", "-f", str(one), "-f", str(two))
    assert err == f"virtward: {two}, document 2: spec.colour: there is no such field\n"
    speaker.refuses("POST", "/api/v1/apply", 422, "document 1: spec: it is missing")
    assert virtward("apply", "-f", str(one))[2] == f"virtward: {one}: spec: it is missing\n"


def test_status_names_what_is_wrong_and_the_way_out(speaker: Speaker, virtward: Virtward) -> None:
    found = {
        "version": "1.2",
        "ready": True,
        "mode": "Act",
        "leader": {"term": 3, "position": 9, "since": "2026-01-01T00:00:00.000Z"},
        "nodes": {"total": 3, "Lost": 1, "Up": 2},
        "vms": {"total": 2, "Running": 2},
        "unprotected": 1,
        "incidents": [
            {"name": "inc-1", "title": "h2 is Lost", "opened": "x", "wayOut": "virtward fence h2 --confirm-off"}
        ],
        "drains": [{"name": "h1", "blocked": ["a"]}],
        "migrations": ["m-1"],
        "holds": ["the brake is closed"],
        "settings": {"lostAfter": "5s"},
    }
    speaker.says("GET", "/api/v1/status", found)
    _, out, _ = virtward("status")
    assert "nodes       3: 1 Lost, 2 Up" in out
    assert "way out: virtward fence h2 --confirm-off" in out
    assert "h1 is blocked by a" in out
    assert "the brake is closed" in out
    assert "lostAfter 5s" in out
    speaker.says("GET", "/api/v1/status", {})
    assert virtward("status")[0] == 0


def test_nobody_listening_is_one_sentence(virtward: Virtward, speaker: Speaker) -> None:
    code, _, err = virtward("--api", "http://127.0.0.1:1", "get", "vms")
    assert code == 1
    assert err.startswith("virtward: cannot reach the aggregator at http://127.0.0.1:1: Connection refused")


def test_apply_sends_all_documents_at_once(speaker: Speaker, virtward: Virtward, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("kind: VirtualMachine\nmetadata: {name: a}\n---\nkind: Node\nmetadata: {name: h1}\n")
    answer = {
        "items": [
            {"kind": "VirtualMachine", "name": "a", "result": "created"},
            {"kind": "Node", "name": "h1", "result": "unchanged"},
        ],
        "warnings": ["a: <on_crash> restart bypasses the run strategy"],
    }
    speaker.says("POST", "/api/v1/apply?dryRun=1", answer)
    code, out, err = virtward("apply", "-f", str(file), "--dry-run", "--strict")
    assert code == 0
    assert out == "vm/a: created (dry run)\nnode/h1: unchanged (dry run)\n"
    assert err == "warning: a: <on_crash> restart bypasses the run strategy\n"
    sent = speaker.bodies("POST")[0]
    assert sent["strict"] is True
    assert [document["kind"] for document in sent["documents"]] == ["VirtualMachine", "Node"]


def test_a_broken_file_is_never_sent(speaker: Speaker, virtward: Virtward, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("kind: Node\n---\nkind: [\n")
    code, _, err = virtward("apply", "-f", str(file))
    assert code == 1
    assert "line 4" in err or "line 3" in err
    assert speaker.heard == []


def test_stop_waits_until_it_is_stopped(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says("GET", "/api/v1/vms/web-1", VM, _vm(phase="Stopping"), _vm(phase="Stopped", node=None))
    speaker.says("POST", "/api/v1/vms/web-1:stop")
    code, out, _ = virtward("stop", "vm/web-1", "--force", "--wait")
    assert (code, speaker.bodies("POST")) == (0, [{"force": True}])
    assert out.splitlines() == ["vm/web-1: stop ordered", "vm/web-1: Stopping on h1", "vm/web-1: Stopped"]


def test_restart_is_done_only_when_a_newer_run_is_running(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says("GET", "/api/v1/vms/web-1", VM, VM, _vm(phase="Starting", run=4), _vm(run=4))
    speaker.says("POST", "/api/v1/vms/web-1:restart")
    code, out, _ = virtward("restart", "web-1", "--wait")
    assert code == 0
    assert out.splitlines()[-1] == "vm/web-1: Running on h1"
    assert "vm/web-1: Starting on h1" in out


def test_waiting_ends_with_exit_1_when_the_time_is_over(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says("GET", "/api/v1/vms/web-1", _vm(phase="Pending", node=None, reason="NoNodeFits"))
    speaker.says("POST", "/api/v1/vms/web-1:start")
    code, _, err = virtward("start", "web-1", "--wait", "--timeout", "0s")
    assert code == 1
    assert "not done after 0s: vm/web-1: Pending (NoNodeFits)" in err


def test_migrate_follows_its_migration_and_tells_a_failure(speaker: Speaker, virtward: Virtward) -> None:
    def migration(phase: str, **status: object) -> dict[str, object]:
        return {
            "metadata": {"name": "m-4"},
            "spec": {"vm": "web-1"},
            "status": {"phase": phase, "source": "h1", "target": "h2", **status},
        }

    speaker.says("POST", "/api/v1/vms/web-1:migrate", migration("Queued"))
    speaker.says(
        "GET", "/api/v1/migrations/m-4", migration("Running", percent=40), migration("Failed", reason="no route")
    )
    code, out, err = virtward("migrate", "web-1", "--to", "node/h2", "--wait")
    assert speaker.bodies("POST") == [{"to": "h2"}]
    assert "migration/m-4: Running web-1 from h1 to h2, 40 %" in out
    assert (code, err) == (1, "virtward: vm web-1 was not moved: no route\n")


def test_drain_plans_orders_and_says_what_is_blocked(speaker: Speaker, virtward: Virtward) -> None:
    blocked = [{"vm": "b", "reason": "a host device"}]
    plan = [{"vm": "a", "method": "live migration", "to": "h2"}]
    speaker.says("POST", "/api/v1/nodes/h1:drain", {"status": {"phase": "Planned", "plan": plan, "blocked": blocked}})
    _, out, _ = virtward("drain", "h1", "--dry-run", "--deadline", "10m")
    assert speaker.bodies("POST")[-1] == {"dryRun": True, "force": False, "deadlineSeconds": 600.0}
    assert out.splitlines() == ["drain/h1: would move", "  a: live migration to h2", "  b: stays, a host device"]
    speaker.says("POST", "/api/v1/nodes/h1:drain", {"status": {"phase": "Running", "done": 0, "total": 2}})
    speaker.says(
        "GET",
        "/api/v1/drains/h1",
        {"status": {"phase": "Running", "done": 1, "total": 2, "blocked": blocked}},
        {"status": {"phase": "Expired", "done": 1, "total": 2}},
    )
    code, out, err = virtward("drain", "h1", "--wait")
    assert code == 1
    assert "drain/h1: Running, 1 of 2 VMs moved; blocked: b: a host device" in out
    assert "the drain of h1 ended Expired" in err


def test_drain_by_selector_goes_in_turn(speaker: Speaker, virtward: Virtward) -> None:
    waits = "h1 is in maintenance; virtward uncordon h1 when it is done"
    items = [
        {"metadata": {"name": "h1"}, "status": {"phase": "Running", "done": 1, "total": 4, "etaSeconds": 90.0}},
        {"metadata": {"name": "h2"}, "status": {"phase": "Waiting", "waitsFor": waits}},
    ]
    speaker.says("POST", "/api/v1/drains", {"items": items})
    _, out, _ = virtward("drain", "-l", "rack=r1")
    assert speaker.bodies("POST")[-1] == {"dryRun": False, "force": False, "labelSelector": "rack=r1"}
    assert out.splitlines() == [
        "drain/h1: Running, 1 of 4 VMs moved, about 90s to go",
        f"drain/h2: Waiting: {waits}",
    ]


def test_a_drain_is_paused_resumed_and_cancelled(speaker: Speaker, virtward: Virtward) -> None:
    for change, said in (("pause", "paused"), ("resume", "resumed"), ("cancel", "cancelled")):
        speaker.says("POST", f"/api/v1/drains/h1:{change}")
        _, out, _ = virtward("drain", "h1", f"--{change}")
        assert out == f"drain/h1: {said}\n"


def test_taints_and_labels_are_all_checked_before_the_first_is_sent(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says("POST", "/api/v1/nodes/h1:taint")
    speaker.says("PATCH", "/api/v1/nodes/h1")
    assert virtward("taint", "node", "h1", "a=b:NoSchedule", "c:Never")[0] == 2
    assert virtward("label", "node/h1", "a=b", "c")[0] == 2
    assert speaker.heard == []
    assert virtward("taint", "node", "h1", "a=b:NoSchedule", "c-")[0] == 0
    assert virtward("label", "node/h1", "virtward/zone=z1", "old-")[0] == 0
    assert speaker.bodies("POST") == [{"taint": "a=b:NoSchedule"}, {"taint": "c-"}]
    assert speaker.bodies("PATCH") == [{"metadata": {"labels": {"virtward/zone": "z1", "old": None}}}]


def test_a_refused_vouching_is_an_error_where_nobody_can_type(speaker: Speaker, virtward: Virtward) -> None:
    speaker.refuses("POST", "/api/v1/nodes/h1:fence", 409, "h1 still beats")
    assert virtward("fence", "h1", "--confirm-off")[::2] == (1, "virtward: h1 still beats\n")
    assert speaker.bodies("POST") == [{"confirmOff": True}]
    assert virtward("fence", "h1", "--confirm-off", "--typed-name", "h1")[0] == 1
    assert speaker.bodies("POST")[-1] == {"confirmOff": True, "typedName": "h1"}


def test_config_set_sends_one_merge_with_plain_values(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says("PATCH", "/api/v1/config")
    assert (
        virtward(
            "config",
            "set",
            "lostAfter=12s",
            "migration.clusterMax=8",
            "migration.allowPostCopy=true",
            "brake.window=0s",
        )[0]
        == 0
    )
    assert speaker.bodies("PATCH") == [
        {"lostAfter": "12s", "migration": {"clusterMax": 8, "allowPostCopy": True}, "brake": {"window": "0s"}}
    ]


def test_config_get_shows_one_setting(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says(
        "GET",
        "/api/v1/config",
        {"kind": "ClusterConfig", "spec": {"lostAfter": "8s", "migration": {"clusterMax": 5}, "x": None}},
    )
    assert virtward("config", "get", "migration.clusterMax")[1] == "5\n"
    assert virtward("config", "get", "x")[1] == "null\n"
    assert virtward("config", "get", "lost")[0] == 1


def test_names_are_percent_encoded(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says("DELETE", "/api/v1/vms/a%2Fb%3Ac?force=1")
    assert virtward("delete", "vm", "a:c", "--force")[0] == 1  # another name, another path
    assert speaker.heard[0].target == "/api/v1/vms/a%3Ac?force=1"


def test_edit_keeps_the_text_when_it_is_refused(
    speaker: Speaker, virtward: Virtward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i s/Always/Halted/ $1\n")
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    speaker.says("GET", "/api/v1/vms/web-1", VM)
    speaker.says("PUT", "/api/v1/vms/web-1", VM)
    assert virtward("edit", "vm", "web-1")[1] == "vm/web-1: configured\n"
    sent = speaker.bodies("PUT")[0]
    assert sent["spec"]["runStrategy"] == "Halted"
    assert sent["metadata"]["resourceVersion"] == "7"
    assert "status" not in sent
    speaker.refuses("PUT", "/api/v1/vms/web-1", 409, "somebody changed web-1 meanwhile")
    code, _, err = virtward("edit", "vm", "web-1")
    assert code == 1
    kept = Path(err.split("kept in ")[1].strip())
    assert "Halted" in kept.read_text()
    kept.unlink()


def test_describe_shows_what_is_known_and_leaves_out_what_is_not(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says(
        "GET",
        "/api/v1/vms/web-1",
        _vm(rejected={"h2": ["TaintToleration", "NodeResourcesFit"]}, bound=[{"node": "h1", "why": "owner"}]),
    )
    events = [
        {"at": "2026-01-01T00:00:00.000Z", "kind": "VmStarted", "vm": name, "reason": "ordered"} for name in ("web-1",)
    ]
    speaker.says("GET", "/api/v1/events?vm=web-1&limit=20", {"items": events})
    _, out, _ = virtward("describe", "vm", "web-1")
    assert "h2: TaintToleration, NodeResourcesFit" in out
    assert "h1 (owner)" in out
    assert out.count("VmStarted") == 1
    assert "Migration:" not in out


def test_describe_says_of_a_repeated_observation_how_often_and_until_when(speaker: Speaker, virtward: Virtward) -> None:
    once = {"at": "2026-01-01T00:00:00.000Z", "what": "IncidentOpened", "detail": "h1 fell silent", "times": 1}
    often = {
        "at": "2026-01-01T00:00:01.000Z",
        "what": "ProbeAnswered",
        "detail": "h1: h2 asked it on control: agent: no answer within 1 s",
        "who": "h2",
        "times": 12,
        "lastAt": "2026-01-01T00:00:13.000Z",
    }
    incident = {"metadata": {"name": "inc-1"}, "status": {"title": "h1 fell silent", "steps": [once, often]}}
    speaker.says("GET", "/api/v1/incidents/inc-1", incident)
    _, out, _ = virtward("describe", "incident", "inc-1")
    assert "no answer within 1 s  (12 times, last 2026-01-01T00:00:13.000Z)" in out
    assert out.count("times") == 1


def test_disarm_and_arm_name_their_scope(speaker: Speaker, virtward: Virtward) -> None:
    speaker.says("POST", "/api/v1/disarm", {"holds": ["node h1 is disarmed"]})
    speaker.says("POST", "/api/v1/arm", {"holds": []})
    assert virtward("disarm", "--node", "h1", "--vm", "web-1")[0] == 2
    assert virtward("disarm", "--for", "soon")[0] == 2
    assert speaker.heard == []
    assert virtward("disarm", "--for", "2h", "--node", "node/h1")[:2] == (
        0,
        "node/h1: disarmed for 2h\n  node h1 is disarmed\n",
    )
    assert virtward("arm")[:2] == (0, "the fleet: armed\n")
    assert virtward("disarm", "-l", "rack=r1", "--vm", "web-1")[0] == 2
    assert virtward("disarm", "-l", "rack=r1")[1].startswith("everything labelled rack=r1: disarmed until it is armed")
    assert virtward("arm", "-l", "rack=r1")[1] == "everything labelled rack=r1: armed\n"
    labelled = {"labelSelector": "rack=r1"}
    assert speaker.bodies("POST") == [{"node": "h1", "forSeconds": 7200.0}, {}, labelled, labelled]
