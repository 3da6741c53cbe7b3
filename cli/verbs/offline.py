"""`virtward place`: the verbs that need no fleet. Their work is done elsewhere; here are their words."""

from __future__ import annotations

import sys

import click


@click.command()
@click.argument("file", metavar="FILE.jsonl[.gz]|-", type=click.Path(allow_dash=True))
@click.option("--profile", metavar="P", help="LowNodeUtilization (default), HighNodeUtilization or NoScoring.")
@click.option("--all-scores", is_flag=True, help="The scores of all rules, also of those that do not count.")
@click.option("-o", "--output", type=click.Choice(("json",)), help="How to print; JSON wherever stdout is no terminal.")
def place(file: str, profile: str | None, output: str | None, *, all_scores: bool) -> None:
    """Judge placement scenarios, one a line: which nodes may take a VM, which would be best, and why."""
    from cli.place import run

    code = run(file, profile, all_scores=all_scores, output=output)
    if code:
        sys.exit(code)
