"""`virtward get`: lists of objects, once or as they change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import click

from cli.client import Unreachable, path_of
from cli.document import Document, documents, mapping, name_of, text
from cli.errors import WrongUsage
from cli.options import complete_objects, output_option, selector_option
from cli.progress import hold
from cli.render import Table, as_yaml, print_objects, print_table
from cli.resources import ALIASES, SINGULAR, read_targets

if TYPE_CHECKING:
    from cli.client import Client
    from cli.session import Session

RECONNECTS_MAX = 10  # in a row, without an event between: enough for an aggregator that restarts
RECONNECT_DELAY_S_MAX = 2.0


class Wanted(NamedTuple):
    """Which objects a command line asks for. No names: all that the selector leaves."""

    collection: str
    names: list[str]
    query: dict[str, str]


@click.command(short_help="Show objects.")
@click.argument("objects", nargs=-1, metavar="KIND [NAME...]", shell_complete=complete_objects)
@output_option
@selector_option
@click.option("-w", "--watch", is_flag=True, help="Go on showing what changes.")
@click.pass_obj
def get(session: Session, objects: tuple[str, ...], output: str | None, selector: str | None, *, watch: bool) -> None:
    r"""Show nodes, vms, migrations, drains, incidents or events.

    \b
    virtward get vms
    virtward get node kvm2 -o yaml
    virtward get vms -l app=web -w
    """
    if not objects:
        raise WrongUsage(f"say what to get: {', '.join(ALIASES)}")
    collection, names = read_targets(objects)
    if selector and names:
        raise WrongUsage("a selector and names together make no sense; give one of them")
    wanted = Wanted(collection, names, {"labelSelector": selector} if selector else {})
    found, version = fetch(session.client, wanted)
    table = show(wanted, found, output, watching=watch)
    if watch:
        follow(session.client, wanted, version, table, output)


def fetch(client: Client, wanted: Wanted) -> tuple[list[Document], str]:
    """Return the objects asked for and the resourceVersion they were read at."""
    if wanted.names:
        found = [client.get(path_of(wanted.collection, name)) for name in wanted.names]
        return found, ""
    answer = client.get(path_of(wanted.collection), **wanted.query)
    return documents(answer, "items"), text(answer, "resourceVersion")


def show(wanted: Wanted, found: list[Document], output: str | None, *, watching: bool) -> Table | None:
    """Print what was found; return the table for a watch to go on with."""
    if output in (None, "wide"):
        if not found and not watching:
            click.echo(f"no {wanted.collection} found", err=True)
            return None
        return print_table(wanted.collection, found, wide=output == "wide")
    if watching:
        for document in found:
            show_change(wanted.collection, document, output)
    else:
        print_objects(wanted.collection, found, output, single=len(wanted.names) == 1)
    return None


def show_change(collection: str, document: Document, output: str) -> None:
    """Print one object of a watch: JSON on a line of its own, YAML as a document."""
    if output == "name":
        click.echo(f"{SINGULAR[collection]}/{name_of(document)}")
    elif output == "json":
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        click.echo("---\n" + as_yaml(document))


def follow(client: Client, wanted: Wanted, version: str, table: Table | None, output: str | None) -> None:
    """Print changes until interrupted; a stream that breaks off is taken up where it ended.

    A watch of named objects is the watch of their collection, filtered here.
    """
    if wanted.names:
        version = text(client.get(path_of(wanted.collection)), "resourceVersion")
    broken = 0
    while True:
        since = {"resourceVersion": version} if version else {}
        try:
            for event in client.watch(path_of(wanted.collection), **wanted.query, **since):
                broken = 0
                version = event.id or version
                kind = text(event.data, "type") or event.name
                document = mapping(event.data, "object") or mapping({"data": event.data}, "data")
                if name_of(document) and (not wanted.names or name_of(document) in wanted.names):
                    _print_change(wanted.collection, document, table, output, gone=kind == "DELETED")
        except Unreachable:
            broken += 1
            if broken > RECONNECTS_MAX:
                raise
            hold(min(RECONNECT_DELAY_S_MAX, 0.1 * 2.0**broken))


def _print_change(collection: str, document: Document, table: Table | None, output: str | None, *, gone: bool) -> None:
    if table is None:
        show_change(collection, document, output or "json")
    else:
        click.echo(table.gone(document) if gone else table.lines([document])[0])
