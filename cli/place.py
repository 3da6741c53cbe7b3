"""`virtward place`: placement scenarios from a file, one a line, judged without any fleet.

Reads and prints; the judging is aggregator.placement's, imported only when the verb runs (numpy
costs a tenth of a second). All lines are judged before the first is printed: bad input prints nothing.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import Failure, WrongUsage

if TYPE_CHECKING:
    from aggregator.placement.scenario import Scenario
    from aggregator.placement.table import Table
    from aggregator.placement.types import PlacementVm, ScoreSettings, Verdict

INPUT_BYTES_MAX = 512 * 1024 * 1024  # after unpacking
GZIP_MAGIC = b"\x1f\x8b"
STDIN = "-"


def run(path: str, profile: str | None, *, all_scores: bool, output: str | None) -> int:
    """Judge the scenarios of a file (`-`: stdin) and print the results; return the exit code.

    profile None: LowNodeUtilization. output: "json", or None for a table on a terminal and JSON elsewhere.
    Failure names file, line and path of bad input.
    """
    from aggregator.placement.types import LOW_NODE_UTILIZATION, PROFILES, ScoreSettings

    settings = ScoreSettings(profile=profile or LOW_NODE_UTILIZATION)
    if settings.profile not in PROFILES:
        raise WrongUsage(f"there is no profile {profile!r}; it is one of {', '.join(PROFILES)}")
    where = "stdin" if path == STDIN else path
    as_json = output == "json" or not sys.stdout.isatty()
    render = _json_line if as_json else _text
    printed = [render(scenario, settings, all_scores=all_scores) for scenario in _scenarios(_read(path, where), where)]
    for each in printed:
        sys.stdout.write(each)
    sys.stdout.flush()
    return 0


def _read(path: str, where: str) -> bytes:
    try:
        raw = sys.stdin.buffer.read(INPUT_BYTES_MAX + 1) if path == STDIN else _file(path)
        if raw.startswith(GZIP_MAGIC):
            with gzip.open(io.BytesIO(raw)) as packed:
                raw = packed.read(INPUT_BYTES_MAX + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Failure(f"{where} is broken gzip: {error}") from None
    except OSError as error:
        raise Failure(f"cannot read {where}: {error.strerror or error}") from None
    if len(raw) > INPUT_BYTES_MAX:
        raise Failure(f"{where} is larger than {INPUT_BYTES_MAX >> 20} MiB; split it")
    return raw


def _file(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(INPUT_BYTES_MAX + 1)


def _scenarios(raw: bytes, where: str) -> Iterator[Scenario]:
    import msgspec

    from aggregator.core.manifest import ManifestError
    from aggregator.placement.scenario import read_scenario

    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield read_scenario(msgspec.json.decode(line))
        except ManifestError as error:
            raise Failure(f"{where} line {number}: {error}") from None
        except (msgspec.DecodeError, UnicodeError) as error:
            problem = str(error).removeprefix("JSON is malformed: ")
            raise Failure(f"{where} line {number}: broken JSON: {problem}; one scenario stands on one line") from None
        except RecursionError:
            raise Failure(f"{where} line {number}: it is nested too deeply") from None


def _json_line(scenario: Scenario, settings: ScoreSettings, *, all_scores: bool) -> str:
    import msgspec

    from aggregator.placement.scenario import judge_scenario

    results = [
        {"vm": v.vm, "feasible": v.feasible, "rejected": v.rejected, "scores": v.scores, "node": v.node}
        for v in judge_scenario(scenario, settings, all_scores=all_scores)
    ]
    return msgspec.json.encode({"name": scenario.name, "results": results}).decode() + "\n"


def _text(scenario: Scenario, settings: ScoreSettings, *, all_scores: bool) -> str:
    """Return a table per pending VM: who fits and how well, who does not and why."""
    from aggregator.placement.place import judge
    from aggregator.placement.scenario import table_of

    table = table_of(scenario)
    parts = [f"{scenario.name}: {len(scenario.nodes)} nodes, {len(scenario.running)} VMs running\n"]
    for vm in scenario.pending:
        verdict = judge(vm, table, settings, 0, all_scores=all_scores)
        parts.append(_vm_text(vm, verdict, table, settings))
    return "\n".join(parts) + "\n"


def _vm_text(vm: PlacementVm, verdict: Verdict, table: Table, settings: ScoreSettings) -> str:
    from aggregator.core.choice import columns
    from aggregator.placement.place import reasons

    total = len(verdict.feasible) + len(verdict.rejected)
    chosen = f"goes to {verdict.node}" if verdict.node else "fits nowhere"
    lines = [f"{vm.name}: {chosen} ({len(verdict.feasible)} of {total} nodes would do)"]
    if verdict.feasible:
        lines += columns(_score_rows(verdict, table, settings))
    if verdict.rejected:
        rows = [["NODE", "REJECTED BY", "BECAUSE"]]
        for node in verdict.rejected:
            for place, (rule, why) in enumerate(sorted(reasons(vm, table, node).items())):
                rows.append(["" if place else node, rule, why])
        lines += columns(rows)
    return "\n".join(lines) + "\n"


def _score_rows(verdict: Verdict, table: Table, settings: ScoreSettings) -> list[list[str]]:
    """Return the score table, best node first, with the weighted sum that decides."""
    from aggregator.placement.rules import PROFILE_SCORES

    counted = [rule.name for rule in PROFILE_SCORES[settings.profile]]
    shown = list(verdict.scores)
    heads = [f"{rule} ×{settings.weight(rule)}" if rule in counted else f"({rule})" for rule in shown]
    rows = []
    for node in verdict.feasible:
        total = sum(verdict.scores[rule][node] * settings.weight(rule) for rule in counted)
        vms = int(table.vms[table.columns.slot_of[node]])
        first = node != verdict.node, -total, vms, node
        rows.append((first, [node, str(vms), *(str(verdict.scores[rule][node]) for rule in shown), str(total)]))
    return [["NODE", "VMS", *heads, "SUM"], *(row for _, row in sorted(rows))]
