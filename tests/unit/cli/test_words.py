"""The words of the command line: kinds, names, verbs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cli.errors import WrongUsage
from cli.main import HINTS, VERBS, LazyVerbs, run, virtward
from cli.resources import read_targets


@pytest.mark.parametrize(
    ("words", "collection", "names"),
    [
        (("nodes",), "nodes", []),
        (("node", "kvm2"), "nodes", ["kvm2"]),
        (("no", "kvm2", "node/kvm3"), "nodes", ["kvm2", "kvm3"]),
        (("node/kvm2", "nodes/kvm3"), "nodes", ["kvm2", "kvm3"]),
        (("VM", "web-1"), "vms", ["web-1"]),
        (("virtualmachine/web-1",), "vms", ["web-1"]),
    ],
)
def test_plural_singular_and_slash_mean_the_same(words: tuple[str, ...], collection: str, names: list[str]) -> None:
    assert read_targets(words) == (collection, names)


@pytest.mark.parametrize("words", [("vm/a", "node/b"), ("vm/",), ("thing", "a"), ("vm", "node/b"), ()])
def test_what_names_no_object_is_a_wrong_command_line(words: tuple[str, ...]) -> None:
    with pytest.raises(WrongUsage):
        read_targets(words)


def test_every_verb_can_be_imported_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(virtward, LazyVerbs)
    for verb in VERBS:
        assert run([verb, "--help"]) == 0
        assert "Usage:" in capsys.readouterr().out


def test_virshs_words_get_one_line_with_ours(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("list", "shutdown", "destroy", "resume", "dumpxml"):
        assert run([word, "web-1"]) == 2
        error = capsys.readouterr().err
        assert HINTS[word] in error
        assert error.count("\n") == 1


def test_a_slip_of_the_finger_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["drian", "h1"]) == 2
    assert "did you mean 'drain'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [["get"], ["start"], ["get", "vms", "--no-such"], ["get", "vms", "-o", "xml"], ["drain"], ["taint", "node/h1"]],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_2(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line) == 2
    error = capsys.readouterr().err
    assert error.startswith("virtward: ")
    assert error.count("\n") == 1


def test_nothing_heavy_is_imported_before_a_verb_needs_it() -> None:
    heavy = "{'numpy', 'aiohttp', 'rich', 'yaml', 'highspy', 'simulator', 'aggregator'}"
    code = f"import sys, cli.main, cli.verbs.get; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_completion_offers_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"_VIRTWARD_COMPLETE": "bash_complete", "COMP_WORDS": "virtward unc", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", "from cli.main import main; main()"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**environment, "PATH": "/usr/bin", "PYTHONPATH": "."}
    )
    assert done.stdout.split() == ["plain,uncordon"]
