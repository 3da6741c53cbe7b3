"""`virtward migrate` and `cancel`: one VM from one node to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import Document, name_of, number, text
from cli.errors import Failure
from cli.options import complete_names, timeout_option, vm_argument, wait_option
from cli.progress import wait_for
from cli.resources import name_in

if TYPE_CHECKING:
    from cli.session import Session

ENDED = ("Succeeded", "Failed", "Cancelled")


@click.command()
@vm_argument(several=False)
@click.option("--to", metavar="NODE", shell_complete=complete_names("nodes"), help="Where to; else the best.")
@wait_option
@timeout_option
@click.pass_obj
def migrate(session: Session, name: str, to: str | None, *, wait: bool, timeout: str) -> None:
    """Move a running VM to another node without stopping it."""
    vm = name_in("vms", name)
    target = name_in("nodes", to) if to else None
    migration = session.client.post(path_of("vms", vm, "migrate"), {"to": target})
    made = name_of(migration)
    first = f"migration/{made}: {migration_line(migration)}"
    click.echo(first)
    if not wait:
        return
    ended = wait_for(
        lambda: session.client.get(path_of("migrations", made)),
        done=lambda now: text(now, "status.phase") in ENDED,
        line=lambda now: f"migration/{made}: {migration_line(now)}",
        timeout=timeout,
        shown=first,
    )
    if text(ended, "status.phase") != "Succeeded":
        reason = text(ended, "status.reason", "no reason was given")
        raise Failure(f"vm {vm} was not moved: {reason}")


def migration_line(migration: Document) -> str:
    """Return one migration in a line: what, whither, how far, why."""
    vm = text(migration, "spec.vm")
    target = text(migration, "status.target") or text(migration, "spec.target")
    source = text(migration, "status.source")
    percent = number(migration, "status.percent")
    reason = text(migration, "status.reason")
    phase = text(migration, "status.phase", "Queued")
    way = (f" from {source}" if source else "") + (f" to {target}" if target else "")
    words = text(migration, "status.progress")
    far = f", {percent:.0f} %" if percent and phase not in ENDED else ""
    far += f": {words}" if words and phase not in ENDED else ""
    return f"{phase} {vm}{way}{far}" + (f" ({reason})" if reason else "")


@click.command()
@click.argument("name", metavar="MIGRATION", shell_complete=complete_names("migrations"))
@click.pass_obj
def cancel(session: Session, name: str) -> None:
    """Cancel a migration; the VM stays where it is."""
    migration = name_in("migrations", name)
    session.client.post(path_of("migrations", migration, "cancel"))
    click.echo(f"migration/{migration}: cancel ordered")
