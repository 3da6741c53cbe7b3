"""`virtward fence` and `confirm-gone`: how a person proves, or vouches, that nothing runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cli.client import Refused, path_of
from cli.document import Json
from cli.options import node_argument, vm_argument
from cli.resources import name_in

if TYPE_CHECKING:
    from cli.session import Session

CONFLICT = 409


@click.command()
@node_argument(several=False)
@click.option(
    "--confirm-off",
    is_flag=True,
    help="I have seen that it is off: count that as the proof, and ask no device.",
)
@click.option("--typed-name", metavar="NODE", help="The node's name again, where it is asked for.")
@click.pass_obj
def fence(session: Session, name: str, *, confirm_off: bool, typed_name: str | None) -> None:
    """Switch a node off through its fence device; its VMs start elsewhere after the proof."""
    node = name_in("nodes", name)
    try:
        _order(session, node, confirm_off=confirm_off, typed_name=typed_name)
    except Refused as refusal:
        if refusal.code != CONFLICT or typed_name or not confirm_off or not sys.stdin.isatty():
            raise
        click.echo(f"{refusal}.", err=True)
        click.echo("If it is not off, its VMs will run twice and their disks will be lost.", err=True)
        again = click.prompt("Type the node's name again to vouch for it", err=True)
        _order(session, node, confirm_off=True, typed_name=again)
    click.echo(f"node/{node}: " + ("vouched to be off" if confirm_off else "fencing ordered"))


def _order(session: Session, node: str, *, confirm_off: bool, typed_name: str | None) -> None:
    body: Json = {"confirmOff": confirm_off, "typedName": typed_name}
    session.client.post(path_of("nodes", node, "fence"), body)


@click.command("confirm-gone")
@vm_argument(several=False)
@click.pass_obj
def confirm_gone(session: Session, name: str) -> None:
    """Vouch that no old run of a VM is left anywhere, so that it may start again."""
    vm = name_in("vms", name)
    session.client.post(path_of("vms", vm, "confirmGone"))
    click.echo(f"vm/{vm}: vouched to be gone")
