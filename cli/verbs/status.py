"""`virtward status` and `virtward version`: the fleet in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import Document, details_text, documents, mapping, text
from cli.errors import Failure
from cli.render import as_json, as_yaml

if TYPE_CHECKING:
    from cli.session import Session


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
    """Return the summary for a person."""
    lines = [f"aggregator  {api}"]
    for key in found:
        value = found[key]
        if isinstance(value, dict):
            lines.append(f"{key:<11} {details_text(value)}")
        elif isinstance(value, list):
            lines.append(f"{key:<11} {len(value)}")
            lines += [f"  {_item(item)}" for item in documents({"list": value}, "list")]
            lines += [f"  {item}" for item in value if isinstance(item, str)]
        else:
            lines.append(f"{key:<11} {text(found, key, '-')}")
    return lines


def _item(item: Document) -> str:
    name = text(item, "metadata.name") or text(item, "name")
    rest = details_text({k: v for k, v in item.items() if k not in ("metadata", "name")})
    return f"{name}  {rest}".strip()


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
