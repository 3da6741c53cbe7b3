"""`virtward migrate` and `cancel`: one VM from one node to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import Document, documents, name_of, number, text
from cli.errors import Failure, WrongUsage
from cli.options import complete_names, timeout_option, vm_argument, wait_option
from cli.progress import wait_for
from cli.resources import name_in

if TYPE_CHECKING:
    from cli.session import Session

ANSWERS = {"True": "ok", "False": "no"}
ENDED = ("Succeeded", "Failed", "Cancelled")


@click.command()
@vm_argument(several=False)
@click.argument("node", required=False, shell_complete=complete_names("nodes"))
@click.option("--to", metavar="NODE", shell_complete=complete_names("nodes"), help="Where to; else the best.")
@click.option("--check", is_flag=True, help="Only say whether it could move now, and how that would go.")
@wait_option
@timeout_option
@click.pass_obj
def migrate(  # noqa: PLR0913 (click hands every option over by name)
    session: Session, name: str, node: str | None, to: str | None, *, check: bool, wait: bool, timeout: str
) -> None:
    """Move a running VM to another node without stopping it.

    With --check nothing is moved: `migrate VM NODE --check` says what every check of that move says, and
    `migrate NODE NODE --check` whether the way between two nodes is open.
    """
    if check:
        _check(session, name, node or to)
        return
    if node:
        raise WrongUsage(f"say where to with --to {node}")
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


def _check(session: Session, name: str, to: str | None) -> None:
    """Print what every check says; Failure if one of them says no."""
    target = name_in("nodes", to) if to else None
    collection = "nodes" if target and _is_node(session, name) else "vms"
    found = session.client.post(path_of(collection, name_in(collection, name), "checkMigration"), {"to": target})
    click.echo("\n".join(check_lines(found)))
    against = [text(each, "name") for each in documents(found, "checks") if text(each, "status") == "False"]
    if against:
        raise Failure(f"{_move(found)}: not now; against it: {', '.join(dict.fromkeys(against))}")


def _is_node(session: Session, name: str) -> bool:
    if "/" in name:
        return name.startswith("node")
    names = [name_of(each) for each in documents(session.client.get(path_of("vms")), "items")]
    return name not in names


def _move(found: Document) -> str:
    what = text(found, "vm") or "whatever moves"
    target = text(found, "target")
    return f"{what} from {text(found, 'source')}" + (f" to {target}" if target else "")


def check_lines(found: Document) -> list[str]:
    """Return a line for each check, and how the move would go."""
    checks = documents(found, "checks")
    width = max((len(text(each, "name")) for each in checks), default=0)
    lines = [f"{_move(found)}:"]
    for each in checks:
        word = ANSWERS.get(text(each, "status"), "?")
        lines.append(f"  {text(each, 'name').ljust(width)}  {word.ljust(2)}  {text(each, 'message')}".rstrip())
    words = text(found, "forecast.words")
    return [*lines, f"forecast: {words}"] if words else lines


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
