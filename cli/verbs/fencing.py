"""`virtward fence` and `confirm-gone`: how a person proves, or vouches, that nothing runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cli.client import Refused, path_of
from cli.document import Document
from cli.options import node_argument, vm_argument
from cli.resources import name_in

if TYPE_CHECKING:
    from cli.session import Session

ASKS_FOR_NAME = "type its name again"  # what the aggregator says where a name typed again would be taken

typed_name_option = click.option(
    "--typed-name", metavar="NAME", help="The name again, where the aggregator asks for it."
)


@click.command()
@node_argument(several=False)
@click.option(
    "--confirm-off",
    is_flag=True,
    help="I have seen that it is off: count that as the proof, and ask no device.",
)
@typed_name_option
@click.pass_obj
def fence(session: Session, name: str, *, confirm_off: bool, typed_name: str | None) -> None:
    """Switch a node off through its fence device; its VMs start elsewhere after the proof."""
    node = name_in("nodes", name)
    vouch(session, path_of("nodes", node, "fence"), {"confirmOff": confirm_off}, typed_name)
    click.echo(f"node/{node}: " + ("vouched to be off" if confirm_off else "fencing ordered"))


@click.command("confirm-gone")
@vm_argument(several=False)
@typed_name_option
@click.pass_obj
def confirm_gone(session: Session, name: str, typed_name: str | None) -> None:
    """Vouch that no old run of a VM is left anywhere, so that it may start again."""
    vm = name_in("vms", name)
    vouch(session, path_of("vms", vm, "confirmGone"), {}, typed_name)
    click.echo(f"vm/{vm}: vouched to be gone")


def vouch(session: Session, path: str, body: Document, typed_name: str | None) -> None:
    """Send what a person vouches for; where something speaks against it, ask for the name on a terminal."""
    if typed_name is not None:
        body = {**body, "typedName": typed_name}
    try:
        session.client.post(path, body)
    except Refused as refusal:
        if ASKS_FOR_NAME not in str(refusal) or typed_name is not None or not sys.stdin.isatty():
            raise
        click.echo(f"{refusal}.", err=True)
        click.echo("If you are wrong, virtual machines will run twice and their disks will be lost.", err=True)
        again = click.prompt("Type the name again to vouch for it", err=True)
        session.client.post(path, {**body, "typedName": again})
