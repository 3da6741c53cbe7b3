"""Stories are read strictly: every mistake is one sentence that names its place."""

from pathlib import Path

import msgspec
import pytest

from simulator.command import run_story
from simulator.faults import Cut, Power, Signal
from simulator.run import Player
from simulator.seeds import read_seeds, run_random
from simulator.story import read_story
from simulator.story_error import StoryError

GOOD = """
name: short
nodes: 3
vms: [{name: a, node: n1, cpu: "2", memory: 4Gi, spec: {runStrategy: Always}}]
events:
- {at: 30s, power: n1, to: off}
- {at: 1m, cut: n2, plane: all, direction: in}
- {at: 70s, kill: agent@n3}
- {at: 80s, do: drain, node: n2}
expect:
- {t: 30..45s, event: NodeFenced, node: n1}
"""


def test_a_story_is_read() -> None:
    story = read_story(GOOD, "file")
    assert story.name == "short"
    assert story.until == 380.0
    power, cut, kill, drain = story.happenings
    assert isinstance(power.fault, Power)
    assert power.fault.to == "off"  # a bare off is a truth value to YAML
    assert isinstance(cut.fault, Cut)
    assert len(cut.fault.planes) == 4
    assert isinstance(kill.fault, Signal)
    assert (drain.verb, drain.arguments) == ("drain", {"node": "n2"})
    assert (story.expectations[0].earliest, story.expectations[0].latest) == (30.0, 45.0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nodes: [", "line"),
        ("- a", "the story: this must be a mapping"),
        ("nodez: 3", "nodez: this key is not known"),
        ("aggregators: 4", "aggregators: 4 cannot be simulated; 1 to 3 can"),
        ("nodes: 0", "nodes: 0 nodes cannot be simulated"),
        ("nodes: [{name: a, watchdog: true}]", r"nodes\[0\].watchdog: this simulator knows no watchdog yet"),
        ("nodes: [{name: a}, {name: a}]", "nodes: the name a is used twice"),
        ("vms: [{name: a, node: n9}]", r"vms\[0\].node: there is no node n9"),
        ("vms: [{name: a, spec: {runStrategie: Always}}]", r"vms\[0\].spec: .*runStrategie"),
        ("vms: [{name: a, memory: much}]", r"vms\[0\].memory: 'much' is not a quantity"),
        ("config: {suspectAfter: 1s}", "config: suspectAfter 1s is less than two heartbeats"),
        ("events: [{power: n1, to: 'off'}]", r"events\[0\].at: a time is missing"),
        ("events: [{at: 1s, power: n9, to: 'off'}]", r"events\[0\].power: 'n9' is not one of n1, n2, n3"),
        ("events: [{at: 1s, power: n1, to: sideways}]", r"events\[0\].to: 'sideways' is not one of off, on, cycle"),
        ("events: [{at: 1s, power: n1, cut: n1}]", r"events\[0\]: an event has exactly one of"),
        (
            "events: [{at: 1s, power: n1, to: 'off', plane: bmc}]",
            r"events\[0\].plane: this key does not belong to power",
        ),
        ("events: [{at: 1s, store: away}]", r"events\[0\].store: 'away' is not one of lost, back, rolledBack"),
        ("events: [{at: 1s, do: dance}]", r"events\[0\].do: 'dance' is not one of"),
        ("events: [{at: 1s, kill: aggregator@2}]", r"events\[0\].kill: aggregator@2 is none of aggregator@1"),
        ("events: [{at: 1s, kill: agent@n1, when: Monday}]", r"events\[0\].when: 'Monday' is neither"),
        ("expect: [{t: 5s, event: NodeUp}]", r"expect\[0\].t: '5s' is no span of time"),
        ("expect: [{t: 1..5s, violation: S1}]", r"expect\[0\].vm: an expected violation names its VM"),
        ("events: [{at: 50s, pause: n1}]\nuntil: 10s", "until: the story would end before its last event"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(StoryError, match=sentence):
        read_story(text, "file")


def test_golden_output_is_kept_compared_and_rewritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "short.yaml"
    path.write_text(GOOD, encoding="utf-8")
    assert run_story(path, "text", rewrite=True) == 0
    golden = tmp_path / "short.out"
    assert golden.read_text(encoding="utf-8") == capsys.readouterr().out
    assert run_story(path, "text") == 0
    golden.write_text("something else\n", encoding="utf-8")
    assert run_story(path, "text") == 1
    assert "the output differs" in capsys.readouterr().err


def test_an_unmet_expectation_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "short.yaml"
    path.write_text("vms: 1\nexpect: [{t: 0..20s, event: NodeLost, node: n1}]\nuntil: 20s\n", encoding="utf-8")
    assert run_story(path, "text") == 1
    assert "expected and not seen in 0..20 s: event NodeLost node n1" in capsys.readouterr().err


def test_only_the_violation_that_a_story_foretells_is_forgiven() -> None:
    """A person of the story may break an invariant by hand; anything else that breaks is a failure as ever."""
    foretold = (Path(__file__).parents[2] / "stories" / "copy-that-nobody-ordered-is-left-alone.yaml").read_text()
    performance = Player(read_story(foretold, "by hand")).play()
    assert [bad.invariant for bad in performance.summary.violations] == ["S1"]
    assert performance.good
    for other in (
        foretold.replace("vm: v1}\n- {t: 20", "vm: v2}\n- {t: 20"),
        foretold.replace("violation: S1", "violation: S2"),
    ):
        performance = Player(read_story(other, "by hand")).play()
        assert len(performance.unforeseen) == len(performance.unmet) == 1
        assert not performance.good


def test_a_missing_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_story(tmp_path / "none.yaml", "text") == 1
    assert "No such file" in capsys.readouterr().err


def test_json_is_a_line_per_event_and_the_summary_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "short.yaml"
    path.write_text(GOOD, encoding="utf-8")
    assert run_story(path, "json") == 0
    lines = [msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines()]
    fenced = next(line for line in lines if line.get("event") == "NodeFenced")
    assert list(fenced) == ["t", "event", "node", "reason", "cause"]
    summary = lines[-1]["summary"]
    assert summary["nodes"]["n1"] == {"state": "Fenced"}
    assert summary["vms"]["a"]["starts"] == 1
    assert list(summary["vms"]["a"]) == ["node", "phase", "starts", "downtime_s"]
    assert list(summary["fences"][0]) == ["t", "node", "rung", "outcome", "proof"]
    assert summary["violations"] == []


def test_seeds_are_read_with_both_ends() -> None:
    assert list(read_seeds("3..5")) == [3, 4, 5]
    assert list(read_seeds("7")) == [7]
    for bad in ("", "a..b", "5..3", "..4"):
        with pytest.raises(ValueError, match="are no seeds"):
            read_seeds(bad)


def test_random_prints_a_line_a_seed_and_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_random("1..2", 2, 2, "json") == 0
    lines = [msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines[:-1]] == [1, 2]
    assert lines[-1]["summary"]["scenarios"] == 2
    assert lines[-1]["summary"]["failed_seeds"] == []
