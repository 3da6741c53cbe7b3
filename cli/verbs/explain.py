"""`virtward explain`: why a VM or a node is as it is, from the same stream the core decides by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import Document, documents, text
from cli.errors import WrongUsage
from cli.options import complete_objects
from cli.render import as_json, as_yaml
from cli.resources import read_targets

if TYPE_CHECKING:
    from cli.session import Session

STEPS_MAX = 15


@click.command()
@click.argument("objects", nargs=-1, required=True, metavar="vm|node NAME", shell_complete=complete_objects)
@click.option("-o", "--output", type=click.Choice(("json", "yaml")), help="How to print.")
@click.pass_obj
def explain(session: Session, objects: tuple[str, ...], output: str | None) -> None:
    """Say why a VM or a node is as it is: the state, its reason, and the steps that led there."""
    collection, names = read_targets(objects, ("vms", "nodes"))
    if len(names) != 1:
        raise WrongUsage("explain takes one name")
    found = session.client.get(path_of(f"explain/{collection}", names[0]))
    if output:
        click.echo(as_json(found) if output == "json" else as_yaml(found))
        return
    click.echo(text(found, "text", "there is nothing to explain"))
    steps = documents(found, "steps")
    if steps:
        click.echo("\nHow it came to this:")
    if len(steps) > STEPS_MAX:
        click.echo(f"  … {len(steps) - STEPS_MAX} earlier ones; -o json shows them all")
    for step in steps[-STEPS_MAX:]:
        click.echo("  " + step_line(step))


def step_line(step: Document) -> str:
    """Return one step: when, what, why."""
    parts = [text(step, "at"), text(step, "kind") or text(step, "what"), text(step, "reason")]
    extra = text(step, "message") or text(step, "detail")
    return "  ".join(part for part in [*parts, extra] if part)
