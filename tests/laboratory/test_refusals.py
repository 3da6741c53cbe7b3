"""What is refused is refused in one clear sentence, by the real command, and nothing has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cli.client import path_of
from cli.document import documents
from lab.scene import Scene
from tests.laboratory.lab_steps import fresh_name

COMMAND_S_MAX = 60


class Refusal(NamedTuple):
    """What a person types, the manifest it reads, and what the sentence must name."""

    words: str
    manifest: Callable[[str], str] | None
    place: tuple[str, ...]
    exit_code: int = 1


REFUSALS = {
    "broken YAML": Refusal("apply -f FILE", lambda m: m.replace("metadata: {", "metadata: {{ "), ("FILE", "line")),
    "unknown field": Refusal(
        "apply -f FILE", lambda m: m.replace("  runStrategy:", "  runStrategie: x\n  runStrategy:"), ("runStrategie",)
    ),
    "KubeVirt's shape": Refusal(
        "apply -f FILE",
        lambda m: m.replace("  runStrategy: Always", "  running: true\n  template: {spec: {nodeSelector: {a: b}}}"),
        ("spec.running", "spec.runStrategy"),
    ),
    "bad quantity": Refusal("apply -f FILE", lambda m: m.replace("100m", "100x"), ("spec.resources.requests.cpu",)),
    "XML that libvirt refuses": Refusal(
        "apply -f FILE", lambda m: m.replace("machine='pc'", "machine='pdp11'"), ("domainXML", "pdp11")
    ),
    "XML that is none": Refusal("apply -f FILE", lambda m: m.replace("</domain>", "</dom>"), ("domainXML",)),
    "a VM name twice in a file": Refusal("apply -f FILE", lambda m: f"{m}---\n{m}", ("fresh", "document")),
    "a VM name taken by another": Refusal(
        "apply -f FILE", lambda m: m.replace("fresh", "v1").replace("name='v1'", "name='other'"), ("v1", "uuid")
    ),
    "two VMs with one disk": Refusal(
        "apply -f FILE", lambda m: m.replace('nbd\' name="fresh"', 'nbd\' name="v1"'), ("v1", "disk")
    ),
    "no file": Refusal("apply -f /nowhere/vm.yaml", None, ("/nowhere/vm.yaml",)),
    "unknown node": Refusal("cordon nope", None, ("nope",)),
    "unknown VM": Refusal("stop nope", None, ("nope",)),
    "wrong token": Refusal("--token-file WRONG get vms", None, ("token",)),
    "no token": Refusal("--token-file /nowhere/token get vms", None, ("/nowhere/token",)),
    "a word that is none": Refusal("frobnicate v1", None, ("frobnicate",), 2),
    "a taint that is none": Refusal("taint node h1 a=b:Never", None, ("Never",), 2),
    "an option that is none": Refusal("get vms --frobnicate", None, ("--frobnicate",), 2),
}

FILES = {
    "aggregator, unknown key": ("aggregator", "api_listen", "api_listn", ("FILE", "api_listn")),
    "aggregator, no TOML": ("aggregator", "api_listen =", "api_listen = =", ("FILE", "line 2")),
    "aggregator, bad duration": ("aggregator", '"30s"', '"30 parsecs"', ("FILE", "rescueAfter")),
    "agent, unknown key": ("agent", "state_dir", "state_folder", ("FILE", "state_folder")),
    "agent, out of range": ("agent", "every_s = 2.5", "every_s = 0.1", ("FILE", "bmc_identity_every_s", "0.1")),
    "agent, wrong type": ("agent", 'node = "h1"', "node = 5", ("FILE", "node")),
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Scene]:
    """One laboratory for all rows: nothing may change, so none disturbs another."""
    with Scene(fresh_name(), ("v1",)) as made:
        made.up(hosts=1)
        made.apply("v1")
        yield made


def run(scene: Scene, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of virtward's as a person does in the laboratory's shell."""
    program = Path(sys.executable).with_name(words[0])
    environment = {**os.environ, **scene.laboratory.environment()}
    return subprocess.run(
        [program, *words[1:]], env=environment, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False
    )


def everything(scene: Scene) -> dict[str, object]:
    """Return all that a person has written or ordered, without what time alone changes."""
    found: dict[str, object] = {"config": scene.client.get("/api/v1/config")}
    for collection in ("nodes", "vms", "migrations", "drains"):
        items = documents(scene.client.get(path_of(collection)), "items")
        found[collection] = [[item.get("metadata"), item.get("spec")] for item in items]
    return found


def check_sentence(told: subprocess.CompletedProcess[str], exit_code: int, place: tuple[str, ...]) -> None:
    """One line on stderr that names the place; no traceback, no output."""
    assert (told.returncode, told.stdout) == (exit_code, "")
    assert "Traceback" not in told.stderr
    assert len(told.stderr.splitlines()) == 1, told.stderr
    for word in place:
        assert word in told.stderr


@pytest.mark.parametrize("row", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_one_sentence_and_changes_nothing(fleet: Scene, tmp_path: Path, row: Refusal) -> None:
    """Exit 1 (2: the command line itself was wrong), the place is named, and every object is as it was."""
    file, wrong = tmp_path / "vm.yaml", tmp_path / "token"
    wrong.write_text("not-the-token-of-this-fleet")
    if row.manifest is not None:
        good = fleet.laboratory.vm("fresh")
        assert row.manifest(good) != good
        file.write_text(row.manifest(good))
    before = everything(fleet)
    named = {"FILE": str(file), "WRONG": str(wrong)}
    told = run(fleet, "virtward", *(named.get(word, word) for word in row.words.split()))
    check_sentence(told, row.exit_code, tuple(named.get(word, word) for word in row.place))
    assert everything(fleet) == before


@pytest.mark.parametrize(("daemon", "right", "wrong", "place"), FILES.values(), ids=FILES)
def test_a_wrong_configuration_file_is_one_sentence(
    fleet: Scene, tmp_path: Path, daemon: str, right: str, wrong: str, place: tuple[str, ...]
) -> None:
    """The laboratory's own file with one mistake in it: the daemon does not start."""
    file = tmp_path / "daemon.toml"
    places = {"agent": fleet.laboratory.host("h1").dir, "aggregator": fleet.laboratory.aggregator.dir}
    good = (places[daemon] / f"{daemon}.toml").read_text()
    file.write_text(good.replace(right, wrong, 1))
    assert file.read_text() != good
    told = run(fleet, f"virtward-{daemon}", "--config", str(file))
    check_sentence(told, 1, tuple(word.replace("FILE", str(file)) for word in place))


def test_a_refused_document_keeps_its_neighbours_out(fleet: Scene, tmp_path: Path) -> None:
    """A file is applied as a whole or not at all, and the guest has counted on through all of this module."""
    file = tmp_path / "two.yaml"
    bad = fleet.laboratory.vm("second").replace("100m", "much")
    file.write_text(fleet.laboratory.vm("fresh") + "---\n" + bad)
    before = run(fleet, "virtward", "get", "vms", "-o", "name")
    told = run(fleet, "virtward", "apply", "-f", str(file))
    check_sentence(told, 1, (str(file), "document 2"))
    after = run(fleet, "virtward", "get", "vms", "-o", "name")
    assert (after.stdout, after.returncode) == (before.stdout, 0)
    assert after.stdout.split() == ["vm/v1"]
    fleet.wait(fleet.all_count_once, "the guest to count on")
    assert fleet.starts("v1") == 1
    assert fleet.faults() == []
