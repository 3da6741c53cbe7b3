"""`virtward node token | revoke | approve`: how a node joins the fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import text
from cli.errors import Failure
from cli.options import node_argument
from cli.resources import name_in

if TYPE_CHECKING:
    from cli.session import Session


@click.group()
def node() -> None:
    """Let nodes join: a token for the agent, and the approval to take VMs."""


@node.command()
@node_argument(several=False)
@click.pass_obj
def token(session: Session, name: str) -> None:
    """Make a token for a node's agent and print it, once: it is not shown again."""
    made = session.client.post(path_of("nodes", name_in("nodes", name), "token"))
    secret = text(made, "token")
    if not secret:
        raise Failure("the aggregator's answer holds no token")
    click.echo(secret)


@node.command()
@node_argument()
@click.pass_obj
def revoke(session: Session, names: tuple[str, ...]) -> None:
    """End what nodes' agents can show: keys, join token, session. Their VMs run on, unwatched."""
    for name in names:
        known = name_in("nodes", name)
        session.client.post(path_of("nodes", known, "revoke"))
        click.echo(f"node/{known}: revoked; it joins again with: virtward node token {known}")


@node.command()
@node_argument()
@click.pass_obj
def approve(session: Session, names: tuple[str, ...]) -> None:
    """Let nodes that have joined take VMs."""
    for name in names:
        joined = name_in("nodes", name)
        session.client.post(path_of("nodes", joined, "approve"))
        click.echo(f"node/{joined}: approved")
