"""`virtward config get | set`: the fleet's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import Document, Json, look, mapping, show
from cli.errors import Failure, WrongUsage
from cli.manifests import plain_value
from cli.render import as_json, as_yaml

if TYPE_CHECKING:
    from cli.session import Session


@click.group()
def config() -> None:
    """Show or change the fleet's settings (ClusterConfig)."""


@config.command("get")
@click.argument("key", required=False, metavar="[KEY]")
@click.option("-o", "--output", type=click.Choice(("json", "yaml")), default="yaml", help="How to print.")
@click.pass_obj
def get_config(session: Session, key: str | None, output: str) -> None:
    """Print all settings, or one: lostAfter, migration.clusterMax."""
    settings: Json = settings_of(session.client.get(path_of("config")))
    if key:
        parent, _, last = key.rpartition(".")
        holder = look(settings, parent) if parent else settings
        if not isinstance(holder, dict) or last not in holder:
            raise Failure(f"there is no setting {key!r}; virtward config get lists them")
        settings = holder[last]
    if isinstance(settings, (dict, list)):
        click.echo(as_json(settings) if output == "json" else as_yaml(settings))
    else:
        click.echo(as_json(settings) if output == "json" else show(settings) or "null")


def settings_of(answer: Document) -> Document:
    """Return the settings in an answer: a ClusterConfig's spec, or the answer itself."""
    return mapping(answer, "spec") or answer


@config.command("set")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
@click.pass_obj
def set_config(session: Session, changes: tuple[str, ...], *, dry_run: bool) -> None:
    """Change settings: lostAfter=12s migration.clusterMax=8; all of them or none."""
    patch: Document = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise WrongUsage(f"{change!r} sets nothing; write KEY=VALUE")
        _put(patch, key.split("."), plain_value(value))
    query = {"dryRun": "1"} if dry_run else {}
    session.client.patch(path_of("config"), patch, **query)
    for change in changes:
        click.echo(f"config: {change}" + (" (dry run)" if dry_run else ""))


def _put(patch: Document, path: list[str], value: Json) -> None:
    here = patch
    for part in path[:-1]:
        below = here.setdefault(part, {})
        if not isinstance(below, dict):
            raise WrongUsage(f"{'.'.join(path)}: {part} was already given a value")
        here = below
    here[path[-1]] = value
