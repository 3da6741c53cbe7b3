"""`virtward rebalance`: which move would make the fleet more balanced, and what it waits for; nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import text
from cli.render import as_json, as_yaml

if TYPE_CHECKING:
    from cli.session import Session


@click.command()
@click.option("-o", "--output", type=click.Choice(("json", "yaml")), help="How to print.")
@click.pass_obj
def rebalance(session: Session, output: str | None) -> None:
    """Say which VM would be moved for balance next, and why. Whether it is done is rebalance.mode of the settings."""
    found = session.client.get(path_of("rebalance"))
    if output:
        click.echo(as_json(found) if output == "json" else as_yaml(found))
        return
    click.echo(f"{text(found, 'mode')}, {text(found, 'profile')}: {text(found, 'words')}")
