"""`virtward status` and `virtward version`: the fleet in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import Document, details_text, documents, look, mapping, show, strings, text
from cli.errors import Failure
from cli.render import as_json, as_yaml

if TYPE_CHECKING:
    from cli.session import Session

LOSSES_SHOWN_MAX = 8
WAYS_SHOWN_MAX = 8


@click.command()
@click.option("-o", "--output", type=click.Choice(("json", "yaml")), help="How to print.")
@click.pass_obj
def status(session: Session, output: str | None) -> None:
    """Show how the fleet is: nodes, VMs, open incidents, and what holds anything up."""
    found = session.client.get(path_of("status"))
    if output:
        click.echo(as_json(found) if output == "json" else as_yaml(found))
        return
    click.echo("\n".join(status_lines(session.settings.api, found)))


def status_lines(api: str, found: Document) -> list[str]:
    """Return the summary for a person: what is, what is wrong, what holds anything up."""
    leader = mapping(found, "leader")
    ready = "" if look(found, "ready") is not False else ", NOT READY"
    lines = [
        _line("aggregator", f"{api}, version {text(found, 'version', '?')}, mode {text(found, 'mode', '?')}{ready}"),
        _line("leader", f"term {text(leader, 'term', '?')} since {text(leader, 'since', '?')}"),
        _line("nodes", _counts(mapping(found, "nodes"))),
        _line(
            "vms", _counts(mapping(found, "vms")) + f"; {text(found, 'unprotected', '0')} would not come back by itself"
        ),
        _line("migrations", ", ".join(strings(found, "migrations")) or "none"),
    ]
    ways = documents(found, "closedWays")
    lines += [_line("ways", f"{len(ways)} closed: no guest could move there now")] if ways else []
    lines += [f"  {text(w, 'source')} to {text(w, 'target')}: {text(w, 'why')}" for w in ways[:WAYS_SHOWN_MAX]]
    lines.append(_line("rebalance", text(found, "rebalance", "?")))
    lines.append(_line("losses", _losses(found)))
    drains = documents(found, "drains")
    lines.append(_line("drains", ", ".join(text(each, "name") for each in drains) or "none"))
    lines += [
        f"  {text(each, 'name')} is blocked by {text(each, 'blocked')}" for each in drains if text(each, "blocked")
    ]
    incidents = documents(found, "incidents")
    lines.append(_line("incidents", f"{len(incidents)} open" if incidents else "none open"))
    for each in incidents:
        lines.append(f"  {text(each, 'name')}  {text(each, 'opened')}  {text(each, 'title')}")
        lines += [f"    way out: {text(each, 'wayOut')}"] if text(each, "wayOut") else []
    holds = strings(found, "holds")
    lines.append(_line("holds", "none" if not holds else ""))
    lines += [f"  {sentence}" for sentence in holds]
    lines.append(_line("settings", details_text(mapping(found, "settings")) or "all at their defaults"))
    return lines


def _losses(found: Document) -> str:
    """Say whether the loss of each node, rack and zone could be borne: the standing N+1 report."""
    uncovered = look(found, "uncoveredLosses")
    if uncovered is None:
        return "the first report on what the fleet could bear is being made"
    names = strings(found, "uncoveredLosses")
    if not names:
        return "every VM would return after the loss of any node, rack or zone"
    shown = ", ".join(names[:LOSSES_SHOWN_MAX]) + (", …" if len(names) > LOSSES_SHOWN_MAX else "")
    return f"not every VM would return after the loss of {shown}; why: virtward whatif"


def _line(heading: str, value: str) -> str:
    return f"{heading:<12}{value}".rstrip()


def _counts(found: Document) -> str:
    kinds = ", ".join(f"{show(count)} {word}" for word, count in found.items() if word != "total")
    return text(found, "total", "0") + (f": {kinds}" if kinds else "")


@click.command()
@click.option("-o", "--output", type=click.Choice(("json",)), help="How to print.")
@click.pass_obj
def version(session: Session, output: str | None) -> None:
    """Print the versions of this command and, if it can be reached, of the aggregator."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        own = version_of("virtward")
    except PackageNotFoundError:
        own = "unknown"
    try:
        server = text(mapping({"s": session.client.get(path_of("status"))}, "s"), "version", "unknown")
        problem = ""
    except Failure as error:
        server, problem = "", str(error)
    if output == "json":
        click.echo(as_json({"client": own, "aggregator": server or None}))
        return
    click.echo(f"virtward    {own}")
    click.echo(f"aggregator  {server or 'unknown: ' + problem}")
