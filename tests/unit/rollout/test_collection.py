"""The Ansible collection: every variable is specified, nothing but ansible.builtin is used, secrets are not shown."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.own_checks import NAMES as OWN_CHECKS

ROOT = Path(__file__).parents[3]
COLLECTION = ROOT / "ansible"
ROLES = sorted(path.name for path in (COLLECTION / "roles").iterdir())
LINT = ROOT / ".ansible-venv/bin/ansible-lint"
KEYWORDS = frozenset(
    {"name", "when", "tags", "vars", "register", "loop", "loop_control", "notify", "become", "changed_when"}
    | {"failed_when", "check_mode", "no_log", "delegate_to", "block", "environment"}
)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tasks_in(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in found:
        if "block" in task:
            yield from tasks_in(task["block"])
        else:
            yield task


def all_tasks() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(COLLECTION.glob("roles/*/tasks/*.yml")) + sorted(COLLECTION.glob("roles/*/handlers/*.yml")):
        for task in tasks_in(read(path)):
            yield str(path.relative_to(COLLECTION)), task
    for path in sorted(COLLECTION.glob("playbooks/*.yml")):
        for play in read(path):
            for key in ("tasks", "pre_tasks", "post_tasks", "handlers"):
                for task in tasks_in(play.get(key, [])):
                    yield str(path.relative_to(COLLECTION)), task


def module_of(task: dict[str, Any]) -> str:
    (module,) = set(task) - KEYWORDS
    return module


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_of_a_role_is_specified_with_its_default(role: str) -> None:
    defaults = read(COLLECTION / f"roles/{role}/defaults/main.yml")
    options = read(COLLECTION / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert set(defaults) == set(options)
    for name, option in options.items():
        assert option["description"]
        assert option["type"]
        if not option.get("required"):
            assert option["default"] == defaults[name], name
        assert name.startswith(f"virtward_{role}_")


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_of_a_role_is_used(role: str) -> None:
    defaults = read(COLLECTION / f"roles/{role}/defaults/main.yml")
    text = "".join(
        path.read_text()
        for folder in ("tasks", "templates", "vars", "handlers")
        for path in (COLLECTION / f"roles/{role}/{folder}").glob("*")
    )
    assert [name for name in defaults if name not in text] == []


def test_the_role_knows_every_check_that_the_agent_has() -> None:
    options = read(COLLECTION / "roles/agent/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert options["virtward_agent_checks_own"]["choices"] == list(OWN_CHECKS)
    assert options["virtward_agent_checks_own"]["default"] == list(OWN_CHECKS)


def test_only_ansibles_own_modules_and_ours_are_used() -> None:
    for where, task in all_tasks():
        assert task.get("name"), f"{where}: a task without a name"
        module = module_of(task)
        assert module.startswith(("ansible.builtin.", "virtward.fleet.")), f"{where}: {module}"


def test_commands_say_whether_they_change_anything() -> None:
    for where, task in all_tasks():
        if module_of(task) == "ansible.builtin.command":
            said = "changed_when" in task or "creates" in task["ansible.builtin.command"]
            assert said, f"{where}: {task['name']}"


def test_secrets_are_not_shown() -> None:
    secret = re.compile(r"token\.stdout|fencing_secrets\[|lookup\('ansible.builtin.password'|node, token")
    found = 0
    for where, task in all_tasks():
        if secret.search(str(task)) or "['/opt/virtward/bin/virtward', 'node', 'token'" in str(task):
            found += 1
            assert task.get("no_log") is True, f"{where}: {task['name']}"
    assert found == 6


def test_units_are_the_ones_that_ship() -> None:
    for name in ("agent", "aggregator"):
        link = COLLECTION / f"roles/{name}/files/virtward-{name}.service"
        assert link.resolve() == ROOT / f"systemd/virtward-{name}.service"


@pytest.mark.skipif(not LINT.exists(), reason="ansible-lint comes with make setup-rollout")
def test_ansible_lint_finds_nothing_in_its_production_profile(tmp_path: Path) -> None:
    place = tmp_path / "ansible_collections/virtward/fleet"
    shutil.copytree(COLLECTION, place)
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path), "HOME": str(tmp_path), "NO_COLOR": "1"}
    environment["PATH"] = f"{LINT.parent}:/usr/bin:/bin"
    done = subprocess.run(
        [str(LINT), "--offline", "-q"], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not LINT.exists(), reason="Ansible comes with make setup-rollout")
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("role", ROLES),
        ("module", sorted(path.stem for path in (COLLECTION / "plugins/modules").glob("*.py"))),
        ("inventory", sorted(path.stem for path in (COLLECTION / "plugins/inventory").glob("*.py"))),
    ],
)
def test_ansible_doc_tells_of_everything(tmp_path: Path, kind: str, names: list[str]) -> None:
    """What a person asks for first: ansible-doc -t role virtward.fleet.agent."""
    place = tmp_path / "ansible_collections/virtward/fleet"
    shutil.copytree(COLLECTION, place)
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path), "HOME": str(tmp_path), "NO_COLOR": "1"}
    environment["PATH"] = f"{LINT.parent}:/usr/bin:/bin"
    words = [str(LINT.with_name("ansible-doc")), "-t", kind, "--json", *(f"virtward.fleet.{name}" for name in names)]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert sorted(told) == [f"virtward.fleet.{name}" for name in names]
    for found in told.values():
        options = found["entry_points"]["main"]["options"] if kind == "role" else found["doc"]["options"]
        assert options
        assert all(option["description"] for option in options.values())
