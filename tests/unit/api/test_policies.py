"""MigrationPolicies through the API: written, read, merged, deleted, refused where they are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from aggregator.core.migration_drive import drive_of
from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm
from tests.unit.api.world import World

PATH = "/api/v1/migrationpolicies"


def a_policy(name: str = "databases", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "virtward/v1",
        "kind": "MigrationPolicy",
        "metadata": {"name": name},
        "spec": {"selectors": {"virtualMachineInstanceSelector": {"app": "db"}}, **spec},
    }


async def test_a_policy_is_applied_beside_a_vm_and_drives_its_migrations(api: Api, world: World) -> None:
    vm = a_vm("web-1")
    vm["metadata"]["labels"] = {"app": "db"}
    body = {"documents": [a_policy(allowAutoConverge=True, maxDowntimeMs=900), vm]}
    answer = await api("POST", "/api/v1/apply", body)
    assert (answer.status, [item["kind"] for item in answer.body["items"]]) == (
        200,
        ["MigrationPolicy", "VirtualMachine"],
    )
    drive = drive_of(world.state, world.state.vms["web-1"])
    assert (drive.auto_converge, drive.downtime_ms_max) == (True, 900)


async def test_what_is_read_can_be_written_again_and_changes_nothing(api: Api, world: World) -> None:
    assert (await api("POST", PATH, a_policy(progressTimeout=30))).status == 201
    assert (await api("POST", PATH, a_policy())).status == 409
    read = (await api("GET", f"{PATH}/databases")).body
    position = world.position
    assert (await api("PUT", f"{PATH}/databases", read)).status == 200
    assert world.position == position
    listed = (await api("GET", PATH)).body["items"]
    assert [item["metadata"]["name"] for item in listed] == ["databases"]


async def test_a_patch_merges_and_an_old_version_is_refused(api: Api) -> None:
    old = (await api("PUT", f"{PATH}/databases", a_policy(progressTimeout=30))).body
    patched = (await api("PATCH", f"{PATH}/databases", {"spec": {"allowAutoConverge": True}})).body
    assert patched["spec"]["progressTimeout"] == 30
    assert patched["spec"]["allowAutoConverge"] is True
    assert (await api("PUT", f"{PATH}/databases", old)).status == 409


async def test_a_deleted_policy_is_gone(api: Api, world: World) -> None:
    await api("PUT", f"{PATH}/databases", a_policy())
    assert (await api("DELETE", f"{PATH}/databases")).status == 200
    assert (await api("GET", f"{PATH}/databases")).status == 404
    assert (await api("DELETE", f"{PATH}/databases")).status == 404
    assert not world.state.migration_policies


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"maxDowntimeMs": 0}, "spec.maxDowntimeMs: 0 is out of range"),
        ({"bandwidthPerMigration": "fast"}, "spec.bandwidthPerMigration"),
        ({"selectors": {"namespaceSelector": {"a": "b"}}}, "spec.selectors.namespaceSelector"),
        ({"completionTimeoutPerGib": 1}, "spec.completionTimeoutPerGib"),
    ],
)
async def test_bad_policies_are_refused_with_the_path(api: Api, world: World, spec: dict[str, Any], said: str) -> None:
    answer = await api("PUT", f"{PATH}/databases", a_policy(**spec))
    assert (answer.status, said in answer.detail) == (422, True), answer.detail
    assert not world.state.migration_policies


async def test_post_copy_is_not_promised(api: Api) -> None:
    documents = [a_policy(allowPostCopy=True), a_vm("a", migration={"allowPostCopy": True})]
    answer = await api("POST", "/api/v1/apply?dryRun=1", {"documents": documents})
    assert sorted(answer.body["warnings"]) == [
        "MigrationPolicy databases: spec.allowPostCopy is kept, but nothing acts on it yet; leave it out",
        "VM a: spec.migration.allowPostCopy is kept, but nothing acts on it yet; leave it out",
    ]
