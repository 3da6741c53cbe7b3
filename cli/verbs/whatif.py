"""`virtward whatif`: which VMs would return where if nodes were lost, asked of the live fleet; nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import Document, documents, look, mapping, strings, text
from cli.render import as_json, as_yaml

if TYPE_CHECKING:
    from cli.session import Session

GAP = "   "
UNPLACED_SHOWN_MAX = 10


@click.command()
@click.option("--fail", metavar="NODE[,NODE…]", help="The nodes that are to be thought away.")
@click.option("-o", "--output", type=click.Choice(("json", "yaml")), help="How to print.")
@click.pass_obj
def whatif(session: Session, fail: str | None, output: str | None) -> None:
    """Say which VMs would return where, which not and why. Without --fail: the standing report on each part."""
    client = session.client
    found = client.get(path_of("readiness")) if fail is None else client.get(path_of("whatif"), fail=fail)
    if output:
        click.echo(as_json(found) if output == "json" else as_yaml(found))
        return
    click.echo("\n".join(report_lines(found) if fail is None else loss_lines(found)))


def loss_lines(found: Document) -> list[str]:
    """Return what would become of the VMs: those that stay down first, for they are why one asks."""
    fates = documents(found, "vms")
    down = [fate for fate in fates if look(fate, "node") is None]
    names = ", ".join(strings(found, "failed"))
    lines = [f"{len(fates)} VMs run on {names}: {len(fates) - len(down)} would return, {len(down)} would not"]
    rows = [[text(f, "vm"), text(f, "lostOn"), "stays down", text(f, "why")] for f in down]
    rows += [[text(f, "vm"), text(f, "lostOn"), text(f, "node"), text(f, "note")] for f in fates if f not in down]
    lines += _table(["VM", "FROM", "TO", "BECAUSE"], rows) if rows else []
    if text(found, "brake"):
        lines.append(f"brake: {text(found, 'brake')}")
    estimate = mapping(found, "estimate")
    lines.append(
        f"about {text(estimate, 'powerLostS')} s after a loss of power, {text(estimate, 'hungS')} s after a hang "
        f"({text(estimate, 'madeOf')})"
    )
    return lines


def report_lines(found: Document) -> list[str]:
    """Return the standing report: each part that not every VM would come back of, and why."""
    parts = documents(found, "parts")
    bad = [part for part in parts if mapping(part, "unplaced")]
    lines = [f"as of {text(found, 'at')}: {len(parts) - len(bad)} of {len(parts)} nodes, racks and zones could be lost"]
    for part in bad:
        unplaced = list(mapping(part, "unplaced").items())
        of = f"{len(unplaced)} of {text(part, 'vms')} VMs"
        lines.append(f"{text(part, 'kind')} {text(part, 'name')}: {of} would not return")
        lines += [f"  {vm}: {why}" for vm, why in unplaced[:UNPLACED_SHOWN_MAX]]
        if len(unplaced) > UNPLACED_SHOWN_MAX:
            lines.append(f"  … {len(unplaced) - UNPLACED_SHOWN_MAX} more; -o json shows them all")
    return lines


def _table(headings: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    lines = [GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [headings, *rows]]
    return [line.rstrip() for line in lines]
