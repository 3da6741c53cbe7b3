"""`virtward screenshot`: what a guest's screen shows, as a PNG file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.errors import Failure, WrongUsage
from cli.options import complete_names
from cli.resources import name_in

if TYPE_CHECKING:
    from cli.session import Session

SIGNATURE = b"\x89PNG\r\n\x1a\n"
STDOUT = "-"


@click.command()
@click.argument("vm", required=False, shell_complete=complete_names("vms"))
@click.option("--incident", metavar="NAME", help="What was kept beside an incident, not what is shown now.")
@click.option("-f", "--file", "target", metavar="FILE", required=True, help="Where to write the PNG; - for stdout.")
@click.pass_obj
def screenshot(session: Session, vm: str | None, incident: str | None, target: str) -> None:
    """Write what a VM's guest shows now, or showed before its end, to a PNG file."""
    if (vm is None) == (incident is None):
        raise WrongUsage("screenshot takes a VM, or --incident NAME")
    collection, name = ("vms", name_in("vms", vm)) if vm is not None else ("incidents", str(incident))
    png = session.client.get_bytes(f"{path_of(collection, name)}/screenshot")
    if not png.startswith(SIGNATURE):
        raise Failure("the aggregator's answer is no PNG")
    if target == STDOUT:
        sys.stdout.buffer.write(png)
        return
    try:
        Path(target).write_bytes(png)
    except OSError as error:
        raise Failure(f"{target}: cannot be written: {error.strerror or error}") from None
    click.echo(f"{target}: {len(png)} bytes")
