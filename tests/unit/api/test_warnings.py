"""What a manifest may say, and nobody shall rely on yet, is said back."""

from __future__ import annotations

from tests.unit.api.conftest import Api
from tests.unit.api.manifests import a_vm


async def test_settings_that_nothing_acts_on_are_named_and_strict_refuses_them(api: Api) -> None:
    body = {"documents": [a_vm("a", migration={"allowPostCopy": True})]}
    answer = await api("POST", "/api/v1/apply?dryRun=1", body)
    assert answer.status == 200
    assert answer.body["warnings"] == [
        f"VM a: spec.{name} is kept, but nothing acts on it yet; leave it out" for name in ("migration.allowPostCopy",)
    ]
    strict = await api("POST", "/api/v1/apply", {**body, "strict": True})
    assert strict.status == 422
    assert "spec.migration.allowPostCopy is kept" in strict.detail
