"""`virtward token create | list | revoke`: who may use the API, and for what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import text
from cli.errors import Failure

if TYPE_CHECKING:
    from cli.document import Json
    from cli.session import Session

ROLES = ("viewer", "operator", "admin")


@click.group()
def token() -> None:
    """Tokens of the API: to look (viewer), to run the fleet (operator), to change who belongs to it (admin)."""


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default="viewer", show_default=True)
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="Only VMs with these labels.")
@click.option("--days", type=int, default=90, show_default=True, help="How long it is good.")
@click.option(
    "--certificate", metavar="FILE", help="No token: a key, which stays here, and a certificate, in a new file."
)
@click.pass_obj
def create(session: Session, name: str, role: str, selector: str, days: int, certificate: str | None) -> None:
    """Make a token and print it, once: it is not shown again.

    With --certificate a key is made here, and the aggregator signs for it: VIRTWARD_CERT_FILE, or cert_file in
    client.toml, shows it from then on. `virtward token revoke` ends both kinds.
    """
    body: dict[str, Json] = {"name": name, "role": role, "selector": selector, "days": days}
    if certificate is not None:
        _certify(session, Path(certificate), body)
        return
    secret = text(session.client.post("/api/v1/tokens", body), "token")
    if not secret:
        raise Failure("the aggregator's answer holds no token")
    click.echo(secret)


def _certify(session: Session, file: Path, body: dict[str, Json]) -> None:
    from fleet.identity import key_text, make_request, new_key

    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Failure(f"{file} cannot be made: {error.strerror or error}") from None
    with os.fdopen(handle, "wb") as written:
        key = new_key()
        try:
            answer = session.client.post("/api/v1/tokens", {**body, "request": make_request(key)})
        except Failure:
            file.unlink()
            raise
        written.write(key_text(key) + text(answer, "certificate").encode("ascii"))
    click.echo(f"{file}: the key and certificate of {body['name']}")


@token.command(name="list")
@click.pass_obj
def show(session: Session) -> None:
    """List the tokens, without their secrets."""
    found = session.client.get("/api/v1/tokens").get("items", [])
    for item in found if isinstance(found, list) else []:
        if not isinstance(item, dict):
            continue
        ends = "ended" if item["expired"] else "ends"
        limited = f", only {item['selector']}" if item["selector"] else ""
        click.echo(f"{item['name']}: {item['role']}{limited}, {ends} {item['expires']}, made by {item['issuedBy']}")


@token.command()
@click.argument("name")
@click.pass_obj
def revoke(session: Session, name: str) -> None:
    """End a token, and the page's sessions that were opened with it."""
    session.client.delete(path_of("tokens", name))
    click.echo(f"token/{name}: revoked")
