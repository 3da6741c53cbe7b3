"""`virtward disarm` and `arm`: hands off the fleet or a part of it for a while, and on again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import strings
from cli.errors import WrongUsage
from cli.progress import seconds_of
from cli.resources import name_in

if TYPE_CHECKING:
    from cli.document import Json
    from cli.session import Session

node_option = click.option("--node", metavar="NODE", help="Only this node, and the VMs that run or ran there last.")
vm_option = click.option("--vm", metavar="VM", help="Only this VM.")
labels_option = click.option(
    "-l", "--selector", metavar="SELECTOR", help="Only nodes and VMs with these labels: rack=r1,tier!=x."
)


@click.command()
@click.option("--for", "for_", metavar="TIME", help="How long: 30m, 2h; without it, until it is armed again.")
@node_option
@vm_option
@labels_option
@click.pass_obj
def disarm(session: Session, for_: str | None, node: str | None, vm: str | None, selector: str | None) -> None:
    """Fence, start, restart and move nothing by itself; people's own orders are still obeyed."""
    scope, body = _scope(node, vm, selector)
    if for_ is not None:
        body["forSeconds"] = seconds_of(for_)
    found = session.client.post(path_of("disarm"), body)
    click.echo(f"{scope}: disarmed " + (f"for {for_}" if for_ else "until it is armed again"))
    for sentence in strings(found, "holds"):
        click.echo(f"  {sentence}")


@click.command()
@node_option
@vm_option
@labels_option
@click.pass_obj
def arm(session: Session, node: str | None, vm: str | None, selector: str | None) -> None:
    """Act again by itself; what was silent meanwhile is judged from now on."""
    scope, body = _scope(node, vm, selector)
    found = session.client.post(path_of("arm"), body)
    click.echo(f"{scope}: armed")
    for sentence in strings(found, "holds"):
        click.echo(f"  still: {sentence}")


def _scope(node: str | None, vm: str | None, selector: str | None) -> tuple[str, dict[str, Json]]:
    if bool(node) + bool(vm) + bool(selector) > 1:
        raise WrongUsage("say one of --node, --vm and -l")
    if selector:
        return f"everything labelled {selector}", {"labelSelector": selector}
    if node:
        return f"node/{name_in('nodes', node)}", {"node": name_in("nodes", node)}
    if vm:
        return f"vm/{name_in('vms', vm)}", {"vm": name_in("vms", vm)}
    return "the fleet", {}
