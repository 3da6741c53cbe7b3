"""`virtward place` and `simulate`: the verbs that need no fleet. Their work is done elsewhere; here are their words."""

from __future__ import annotations

from pathlib import Path

import click

from cli.errors import WrongUsage


@click.command()
@click.argument("file", metavar="FILE.jsonl[.gz]|-", type=click.Path(allow_dash=True))
@click.option("--profile", metavar="P", help="LowNodeUtilization (default), HighNodeUtilization or NoScoring.")
@click.option("--all-scores", is_flag=True, help="The scores of all rules, also of those that do not count.")
@click.option("-o", "--output", type=click.Choice(("json",)), help="How to print; JSON wherever stdout is no terminal.")
def place(file: str, profile: str | None, output: str | None, *, all_scores: bool) -> None:
    """Judge placement scenarios, one a line: which nodes may take a VM, which would be best, and why."""
    from cli.place import run

    _end(run(file, profile, all_scores=all_scores, output=output))


@click.command()
@click.argument("story", required=False, metavar="[STORY.yaml]", type=click.Path(path_type=Path))
@click.option("--rewrite", is_flag=True, help="Keep the output beside the story, as what is expected from now on.")
@click.option("--random", "random_seeds", is_flag=True, help="Made-up stories, one for each seed.")
@click.option("--seeds", metavar="A..B", help="The seeds of --random, both included.")
@click.option("--nodes", type=click.IntRange(1, 1000), help="With --random: so many nodes, not 2 to 7.")
@click.option("--vms", type=click.IntRange(1, 10_000), help="With --random: so many VMs.")
@click.option("--jobs", type=click.IntRange(1, 256), help="With --random: so many processes side by side.")
@click.option("-o", "--output", type=click.Choice(("json",)), help="A line of JSON for each event.")
def simulate(  # noqa: PLR0913 (click hands every option over by name)
    story: Path | None,
    seeds: str | None,
    nodes: int | None,
    vms: int | None,
    jobs: int | None,
    output: str | None,
    *,
    rewrite: bool,
    random_seeds: bool,
) -> None:
    """Play a story, or stories drawn from seeds, with the code that ships, on a clock that is not real."""
    if random_seeds == (story is not None):
        raise WrongUsage("simulate takes either a story, or --random with --seeds A..B")
    if not random_seeds and (seeds or nodes or vms or jobs):
        raise WrongUsage("--seeds, --nodes, --vms and --jobs belong to --random")
    if random_seeds and (rewrite or not seeds):
        raise WrongUsage("--random takes --seeds A..B and no --rewrite")
    if story is not None:
        from simulator.command import run_story

        _end(run_story(story, output or "text", rewrite=rewrite))
        return
    from simulator.seeds import read_seeds, run_random

    try:
        read_seeds(seeds or "")
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    _end(run_random(seeds or "", nodes, vms, output or "text", jobs or 1))


def _end(code: int) -> None:
    """End with a verb's own exit code; it has said why itself."""
    click.get_current_context().exit(code)
