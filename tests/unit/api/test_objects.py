"""Writing objects: apply, PUT, PATCH, dry runs, versions, secrets, and what bad input says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from aggregator.core.objects import FencingRung, NodeSpec
from aggregator.core.secrets import HIDDEN
from aggregator.fleet_access import DefinitionVerdict
from fleet.model import QemuState, VmReport
from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_node, a_vm, domain_xml
from tests.unit.api.world import World

UUID = "11111111-2222-4333-8444-555555555555"


async def test_a_vm_is_created_runs_and_can_be_read(api: Api, world: World) -> None:
    answer = await api("PUT", "/api/v1/vms/web-1", a_vm(labels={"app": "web"}))
    assert answer.status == 201
    world.run(2)
    vm = (await api("GET", "/api/v1/vms/web-1")).body
    assert (vm["apiVersion"], vm["kind"], vm["spec"]["runStrategy"]) == ("virtward/v1", "VirtualMachine", "Always")
    assert (vm["status"]["phase"], vm["status"]["run"], vm["status"]["epoch"]) == ("Running", 1, 1)
    assert vm["status"]["node"] in ("n1", "n2", "n3")
    assert vm["status"]["bound"][0]["node"] == vm["status"]["node"]
    assert f"<uuid>{vm['metadata']['uid']}</uuid>" in vm["spec"]["domainXML"]
    assert {condition["type"]: condition["status"] for condition in vm["status"]["conditions"]} == {
        "Ready": "True",
        "LiveMigratable": "True",
        "Protected": "True",
        "AgentConnected": "False",
        "RestartRequired": "False",
    }
    assert world.checked == [vm["spec"]["domainXML"]]


async def test_what_is_got_can_be_applied_and_changes_nothing(api: Api, world: World) -> None:
    """Of VMs and nodes alike, with their status, and with hidden passwords."""
    world.core.join("n4", NodeSpec(fencing=(FencingRung(agent="fence_x", params={"ip": "a", "password": "s3cret"}),)))
    await api("POST", "/api/v1/nodes/n1:taint", {"taint": "dedicated=db:NoExecute"})
    graphics = "<graphics type='vnc' passwd='hunter2'/>"
    await api("PUT", "/api/v1/vms/web-1", a_vm(xml=domain_xml("web-1", devices=graphics), nodeSelector={"a": "b"}))
    world.run(2)
    found = (await api("GET", "/api/v1/vms")).body["items"] + (await api("GET", "/api/v1/nodes")).body["items"]
    assert "hunter2" not in str(found)
    assert "s3cret" not in str(found)
    position = world.state.position
    answer = await api("POST", "/api/v1/apply", {"documents": found})
    assert {item["result"] for item in answer.body["items"]} == {"unchanged"}, answer
    assert world.state.position == position
    assert "hunter2" in world.state.vms["web-1"].spec.domain_xml
    assert world.state.nodes["n4"].spec.fencing[0].params["password"] == "s3cret"


async def test_a_hidden_password_survives_a_change_beside_it(api: Api, world: World) -> None:
    world.core.join("n4", NodeSpec(fencing=(FencingRung(agent="fence_x", params={"ip": "a", "passwd": "s3cret"}),)))
    await api("PATCH", "/api/v1/nodes/n4", {"metadata": {"labels": {"rack": "r1"}}, "spec": {"afterFence": "StayOff"}})
    record = world.state.nodes["n4"]
    assert record.labels["rack"] == "r1"
    assert (record.spec.after_fence, record.spec.fencing[0].params["passwd"]) == ("StayOff", "s3cret")
    shown = (await api("GET", "/api/v1/nodes/n4")).body["spec"]["fencing"][0]["params"]
    assert shown == {"ip": "a", "passwd": HIDDEN}
    fencing = [{"agent": "fence_y", "params": {"ip": "b", "passwd": HIDDEN}}]
    answer = await api("PUT", "/api/v1/nodes/n4", a_node("n4", fencing=fencing))
    assert (answer.status, answer.detail) == (
        422,
        (
            "spec.fencing[0].params.passwd is '(hidden)', and there is no earlier value to keep; "
            "write the value, or better a password_file"
        ),
    )


async def test_apply_tells_created_configured_and_unchanged(api: Api) -> None:
    first = await api("POST", "/api/v1/apply", {"documents": [a_vm("a"), a_node("n9")]})
    assert [item["result"] for item in first.body["items"]] == ["created", "created"]
    second = await api("POST", "/api/v1/apply", {"documents": [a_vm("a"), a_node("n9", unschedulable=True)]})
    assert [(i["kind"], i["name"], i["result"]) for i in second.body["items"]] == [
        ("VirtualMachine", "a", "unchanged"),
        ("Node", "n9", "configured"),
    ]


async def test_apply_reads_yaml(api: Api, world: World) -> None:
    text = "---\napiVersion: virtward/v1\nkind: Node\nmetadata: {name: n8}\nspec: {afterFence: On}\n"
    answer = await api("POST", "/api/v1/apply", text, headers={"Content-Type": "application/yaml"})
    assert answer.body == {"items": [{"kind": "Node", "name": "n8", "result": "created"}], "warnings": []}
    assert world.state.nodes["n8"].spec.after_fence == "On"


WRITES: list[tuple[str, str, Any]] = [
    ("POST", "/api/v1/apply", {"documents": [a_vm("b"), a_node("n7")]}),
    ("PUT", "/api/v1/vms/b", a_vm("b")),
    ("POST", "/api/v1/vms", a_vm("b")),
    ("PATCH", "/api/v1/vms/web-1", {"metadata": {"labels": {"x": "y"}}}),
    ("DELETE", "/api/v1/vms/web-1?force=1&", None),
    ("POST", "/api/v1/vms/web-1:stop", None),
    ("POST", "/api/v1/vms/web-1:restart", {"force": True}),
    ("POST", "/api/v1/vms/web-1:pause", None),
    ("POST", "/api/v1/vms/web-1:migrate", {"to": None}),
    ("PUT", "/api/v1/nodes/n7", a_node("n7")),
    ("PATCH", "/api/v1/nodes/n3", {"spec": {"unschedulable": True}}),
    ("POST", "/api/v1/nodes/n3:cordon", None),
    ("POST", "/api/v1/nodes/n3:drain", {"force": True}),
    ("POST", "/api/v1/nodes/n3:taint", {"taint": "a=b:NoSchedule"}),
    ("POST", "/api/v1/nodes/n3:token", None),
    ("POST", "/api/v1/nodes/n3:fence", {"confirmOff": True, "typedName": "n3"}),
    ("DELETE", "/api/v1/nodes/n3", None),
    ("PUT", "/api/v1/config", {"lostAfter": "12s"}),
    ("PATCH", "/api/v1/config", {"migration": {"clusterMax": 7}}),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES, ids=lambda value: str(value)[:40])
async def test_a_dry_run_is_checked_and_changes_nothing(
    api: Api, world: World, method: str, path: str, body: Any
) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm(nodeSelector={"virtward/hostname": "n1"}))
    await api("PATCH", "/api/v1/vms/web-1", {"spec": {"nodeSelector": None}})
    world.run(2)
    before, position = msgspec.to_builtins(world.state, enc_hook=float), world.state.position
    dry = await api(method, path + ("&" if "?" in path else "?") + "dryRun=1", body)
    assert dry.status in (200, 201), dry
    assert world.state.position == position
    assert msgspec.to_builtins(world.state, enc_hook=float) == before
    real = await api(method, path, body)
    assert real.status == dry.status
    assert world.state.position > position, "the write itself would have changed something"


async def test_an_old_version_is_refused_and_none_writes_over(api: Api, world: World) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm())
    old = (await api("GET", "/api/v1/vms/web-1")).body
    await api("PATCH", "/api/v1/vms/web-1", {"spec": {"restartPriority": 900}})
    read_at, now = old["metadata"]["resourceVersion"], world.state.vms["web-1"].version
    answer = await api("PUT", "/api/v1/vms/web-1", old)
    assert (answer.status, answer.detail) == (
        409,
        (
            f"VM web-1 was changed since it was read (resourceVersion {read_at}, now {now}); "
            "read it again, or leave metadata.resourceVersion out to write over it"
        ),
    )
    del old["metadata"]["resourceVersion"]
    assert (await api("PUT", "/api/v1/vms/web-1", old)).status == 200
    stale = a_vm("gone")
    stale["metadata"]["resourceVersion"] = "7"
    assert "has been deleted since it was read" in (await api("PUT", "/api/v1/vms/gone", stale)).detail


async def test_a_change_between_check_and_fold_is_not_lost(api: Api, world: World) -> None:
    """Two people write at once: the later fact is built anew on the state it is folded into."""
    world.before_fold.append(lambda: world.core.cordon("n1"))
    await api("PATCH", "/api/v1/nodes/n1", {"metadata": {"labels": {"rack": "r7"}}})
    record = world.state.nodes["n1"]
    assert (record.spec.unschedulable, record.labels["rack"]) == (True, "r7")


async def test_a_patch_merges_and_null_deletes(api: Api, world: World) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm(labels={"app": "web", "old": "1"}, restartPriority=700))
    patch = {"metadata": {"labels": {"old": None, "new": "2"}}, "spec": {"restartPriority": None}}
    answer = await api("PATCH", "/api/v1/vms/web-1", patch)
    assert answer.body["metadata"]["labels"] == {"app": "web", "new": "2"}
    assert world.state.vms["web-1"].spec.restart_priority == 500
    assert len(world.checked) == 1, "the XML did not change, so no libvirt is asked again"


async def test_the_same_key_does_a_write_once(api: Api, world: World) -> None:
    key = {"Idempotency-Key": "k1"}
    first = await api("POST", "/api/v1/nodes/n9:token", headers=key)
    position = world.state.position
    again = await api("POST", "/api/v1/nodes/n9:token", headers=key)
    assert (again.body, world.state.position) == (first.body, position)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await api("POST", "/api/v1/nodes/n8:token", headers=key)
    assert (other.status, other.detail) == (
        422,
        "this Idempotency-Key was used for another request; take a new one",
    )


BAD: list[tuple[dict[str, Any], str]] = [
    (a_vm(uresources={}), "document 1: spec.uresources: "),
    (a_vm("web-1", strategy="Allways"), "document 1: spec.runStrategy: "),
    (a_vm(resources={"requests": {"memory": "4Gib"}}), "document 1: spec.resources.requests.memory: "),
    (
        {**a_vm(), "apiVersion": "kubevirt.io/v1", "spec": {"running": True}},
        "document 1: ",
    ),
    (
        a_vm(xml=domain_xml("other")),
        "document 1: spec.domainXML: its <name> is 'other'; it must be metadata.name, 'web-1'",
    ),
    (a_vm(xml="<domain>"), "document 1: spec.domainXML: the XML is broken at line 1"),
    (
        a_vm(xml="<domain type='qemu'><name>web-1</name></domain>"),
        "spec.domainXML: domain/memory: is missing or is no number",
    ),
    (a_vm(xml=domain_xml("web-1", uuid="zz")), "spec.domainXML: domain/uuid: 'zz' is no uuid"),
    (a_node("n9", fencing=[{"agent": "ipmi"}]), "document 1: spec.fencing[0].agent: "),
    ({"kind": "Incident", "apiVersion": "virtward/v1", "metadata": {"name": "x"}}, "document 1: kind: "),
    (a_vm(xml=domain_xml("web-1", devices=f"<graphics passwd='{HIDDEN}'/>")), "spec.domainXML holds passwd='(hidden)'"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "start"), BAD, ids=lambda value: str(value)[:40])
async def test_bad_manifests_change_nothing_and_say_where(
    api: Api, world: World, document: dict[str, Any], start: str
) -> None:
    position = world.state.position
    answer = await api("POST", "/api/v1/apply", {"documents": [document, a_vm("fine")]})
    assert answer.status == 422
    assert answer.detail.startswith(start), answer.detail
    assert world.state.position == position


@pytest.mark.parametrize(
    ("documents", "sentence"),
    [
        (
            [a_vm("a"), a_vm("a")],
            "document 2: metadata.name: document 1 holds a VirtualMachine 'a' already; keep one of them",
        ),
        (
            [a_vm("a", xml=domain_xml("a", uuid=UUID)), a_vm("b", xml=domain_xml("b", uuid=UUID))],
            f"VM b: its uuid {UUID} is also that of VM a; each VM has its own",
        ),
        (
            [a_vm("a", xml=domain_xml("a", disk="one")), a_vm("b", xml=domain_xml("b", disk="one"))],
            ("VM b: disk vda (nbd://10.3.0.1:10809/one) is already written by VM a, and a disk has one writer; "
            "take another disk, or mark it <readonly/> or <shareable/> in both"),
        ),
        (
            [a_vm("b", xml=domain_xml("b", disk="disk-of-web-1"))],
            ("VM b: disk vda (nbd://10.3.0.1:10809/disk-of-web-1) is already written by VM web-1, and a disk has one "
            "writer; take another disk, or mark it <readonly/> or <shareable/> in both"),
        ),
        (
            [a_vm("web-1", xml=domain_xml("web-1", uuid=UUID))],
            ("spec.domainXML: its <uuid> is 11111111-2222-4333-8444-555555555555, but VM web-1 has UID; "
            "a uuid cannot change: leave it out, or delete the VM first"),
        ),
        (
            [a_vm(name, dependsOn=[{"vm": need}]) for name, need in ("ab", "bc", "ca")],
            "VM a: spec.dependsOn runs in a circle: a → b → c → a",
        ),
        (["text"], "document 1: "),
    ],
)  # fmt: skip
async def test_what_only_a_comparison_shows(api: Api, world: World, documents: list[Any], sentence: str) -> None:
    uid = (await api("PUT", "/api/v1/vms/web-1", a_vm())).body["metadata"]["uid"]
    position = world.state.position
    answer = await api("POST", "/api/v1/apply", {"documents": documents})
    assert answer.status == 422
    assert answer.detail.startswith(sentence.replace("UID", uid)), answer.detail
    assert world.state.position == position


async def test_shared_and_read_only_disks_have_any_number_of_users(api: Api) -> None:
    shareable = domain_xml("a", disk="one").replace("<target", "<shareable/><target")
    iso = "<disk type='file' device='cdrom'><source file='/iso/debian.iso'/><target dev='sda'/></disk>"
    documents = [
        a_vm("a", xml=shareable),
        a_vm("b", xml=shareable.replace(">a<", ">b<")),
        a_vm("c", xml=domain_xml("c", devices=iso)),
        a_vm("d", xml=domain_xml("d", devices=iso)),
    ]
    assert (await api("POST", "/api/v1/apply", {"documents": documents})).status == 200


async def test_a_disk_taken_between_check_and_fold_is_refused(api: Api, world: World) -> None:
    from aggregator.api.definition import disks_in  # noqa: PLC0415
    from aggregator.core.events import VmApplied  # noqa: PLC0415
    from aggregator.core.objects import VmSpec  # noqa: PLC0415

    other = domain_xml("thief", disk="disk-of-web-1", uuid=UUID)
    spec = VmSpec(domain_xml=other)
    fact = VmApplied(at=world.now(), name="thief", uuid=UUID, spec=spec, labels={}, disks=disks_in(other))
    world.before_fold.append(lambda: world.core.settle(fact))
    answer = await api("PUT", "/api/v1/vms/web-1", a_vm())
    assert (answer.status, "already written by VM thief" in answer.detail) == (409, True)
    assert "web-1" not in world.state.vms


async def test_a_domain_that_runs_unmanaged_is_not_made_a_second_time(api: Api, world: World) -> None:
    report = VmReport(UUID, "wild", QemuState.RUNNING)
    world.core.settle(world.core.reported("n2", report))
    for manifest in (a_vm("x", xml=domain_xml("x", uuid=UUID)), a_vm("wild")):
        answer = await api("PUT", f"/api/v1/vms/{manifest['metadata']['name']}", manifest)
        assert answer.status == 422
        assert f"node n2 runs a domain 'wild' ({UUID}) that virtward does not manage" in answer.detail


async def test_what_libvirt_refuses_is_refused_in_its_words(api: Api, world: World) -> None:
    world.verdict = DefinitionVerdict(ok=False, message="unsupported configuration:\nno such machine", node="n2")
    answer = await api("PUT", "/api/v1/vms/web-1", a_vm())
    assert (answer.status, answer.detail) == (
        422,
        "VM web-1: libvirt on n2 refuses spec.domainXML: unsupported configuration: no such machine",
    )
    assert world.state.vms == {}


async def test_warnings_come_with_the_answer_and_strict_refuses_them(api: Api, world: World) -> None:
    world.verdict = DefinitionVerdict(ok=None, message="no node is Up")
    reboot = "<on_reboot>destroy</on_reboot>"
    odd = a_vm("a", xml=domain_xml("a", extra=reboot), nodeSelector={"virtward/hostname": "nowhere"})
    body = {"documents": [odd]}
    answer = await api("POST", "/api/v1/apply?dryRun=1", body)
    assert answer.body["warnings"] == [
        (
            "VM a: spec.domainXML: <on_reboot> is 'destroy', which bypasses spec.runStrategy; "
            "write 'restart' or leave it out"
        ),
        (
            "VM a: spec.nodeSelector[virtward/hostname] asks for node 'nowhere', which nobody knows; "
            "it waits until there is one"
        ),
        "no libvirt has checked the XML of 1 VMs yet: no node is Up",
    ]
    strict = await api("POST", "/api/v1/apply", {**body, "strict": True})
    assert (strict.status, strict.detail.endswith("(and 2 more)"), len(strict.body["errors"])) == (422, True, 3)
    assert "a" not in world.state.vms
    put = await api("PUT", "/api/v1/vms/a", odd)
    assert (put.status, "virtward" in put.headers["Warning"]) == (201, True)


async def test_deleting_a_vm_that_runs_needs_force_and_leaves_a_tombstone(api: Api, world: World) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm())
    world.run(2)
    answer = await api("DELETE", "/api/v1/vms/web-1")
    assert (answer.status, answer.detail) == (
        409,
        f"VM web-1 runs on {world.state.vms['web-1'].owner}; stop it first, or delete it with --force (?force=1)",
    )
    world.core.deaf.update(("n1", "n2", "n3"))
    assert (await api("DELETE", "/api/v1/vms/web-1?force=1")).status == 200
    assert "web-1 is being deleted" in (await api("PUT", "/api/v1/vms/web-1", a_vm())).detail
    assert "web-1 is being deleted" in (await api("POST", "/api/v1/vms/web-1:start")).detail


async def test_a_node_with_a_bound_vm_is_not_deleted(api: Api, world: World) -> None:
    await api("PUT", "/api/v1/vms/web-1", a_vm())
    world.run(2)
    owner = world.state.vms["web-1"].owner
    answer = await api("DELETE", f"/api/v1/nodes/{owner}")
    assert (answer.status, answer.detail) == (409, f"1 VMs are bound to node {owner} (web-1); drain it first")
    free = next(name for name in ("n1", "n2", "n3") if name != owner)
    assert (await api("DELETE", f"/api/v1/nodes/{free}")).status == 200
    assert free not in world.state.nodes


@pytest.mark.parametrize(
    ("taint", "status", "outcome"),
    [
        ("dedicated=db:NoSchedule", 200, [("dedicated", "db", "NoSchedule")]),
        ("old:NoExecute", 200, [("old", "", "NoExecute")]),
        ("dedicated=db:Never", 400, "taint: 'Never' is no effect; there are NoSchedule, PreferNoSchedule, NoExecute"),
        ("dedicated", 400, "taint: 'dedicated' is none; write key=value:Effect, or key- to remove it"),
        ("dedicated-", 422, "taint: there is no taint 'dedicated' to remove"),
        ("=x:NoSchedule", 400, "taint: '=x:NoSchedule' is none; write key=value:Effect, or key- to remove it"),
    ],
)
async def test_taints(api: Api, world: World, taint: str, status: int, outcome: Any) -> None:
    answer = await api("POST", "/api/v1/nodes/n1:taint", {"taint": taint})
    assert answer.status == status
    if status != 200:
        assert answer.detail == outcome
        return
    assert [(t.key, t.value, t.effect) for t in world.state.nodes["n1"].spec.taints] == outcome
    assert answer.body["spec"]["taints"][0]["timeAdded"].endswith("Z")
    await api("POST", "/api/v1/nodes/n1:taint", {"taint": f"{outcome[0][0]}-"})
    assert world.state.nodes["n1"].spec.taints == ()


async def test_settings_are_read_changed_and_checked(api: Api, world: World) -> None:
    assert (await api("GET", "/api/v1/config")).body["lostAfter"] == "8s"
    changed = await api("PATCH", "/api/v1/config", {"migration": {"clusterMax": 9}, "unseenAtLeast": None})
    assert changed.body["migration"]["clusterMax"] == 9
    assert changed.body["migration"]["progressTimeout"] == 150
    assert changed.body["unseenAtLeast"] == "2m"
    bad = await api("PUT", "/api/v1/config", {"lostAfter": "2s"})
    assert (bad.status, bad.detail) == (422, "ClusterConfig: lostAfter 2s must be longer than suspectAfter 3s")
    unknown = await api("PATCH", "/api/v1/config", {"lostafter": "9s"})
    assert "lostafter" in unknown.detail
    assert world.state.config.migration.cluster_max == 9
