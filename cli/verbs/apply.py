"""`virtward apply | delete | edit`: what should be, from files and editors."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.client import Refused, path_of
from cli.document import Document, Json, documents, name_of, text
from cli.errors import Failure, WrongUsage
from cli.manifests import Manifest, dump_yaml, read_manifests
from cli.options import complete_objects
from cli.resources import KINDS, SINGULAR, read_targets

if TYPE_CHECKING:
    from cli.session import Session

WRITTEN = ("vms", "nodes", "migrationpolicies")
_WORDS = {kind: SINGULAR[collection] for collection, kind in KINDS.items()}


@click.command()
@click.option("-f", "--file", "files", multiple=True, required=True, metavar="FILE|-", help="Manifests.")
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
@click.option("--strict", is_flag=True, help="Refuse what would otherwise be a warning.")
@click.option("-o", "--output", type=click.Choice(("json", "name")), help="How to print the result.")
@click.pass_obj
def apply(session: Session, files: tuple[str, ...], *, dry_run: bool, strict: bool, output: str | None) -> None:
    """Create or change objects from files of YAML or JSON; - is stdin.

    All documents are checked first; on any error nothing is applied.
    """
    if files.count("-") > 1:
        raise WrongUsage("stdin can be read only once")
    manifests = [manifest for file in files for manifest in read_manifests(file)]
    query = {"dryRun": "1"} if dry_run else {}
    body: Json = {"documents": [manifest.document for manifest in manifests], "strict": strict}
    try:
        answer = session.client.post("/api/v1/apply", body, **query)
    except Refused as refusal:
        problem = Failure(placed(str(refusal), manifests))
        problem.more = tuple(placed(sentence, manifests) for sentence in refusal.more)
        raise problem from None
    for warning in documents({"warnings": _warnings(answer)}, "warnings"):
        click.echo(f"warning: {text(warning, 'message')}", err=True)
    if output == "json":
        from cli.render import as_json

        click.echo(as_json(answer))
        return
    for item in documents(answer, "items"):
        word = _WORDS.get(text(item, "kind"), text(item, "kind").lower())
        named = f"{word}/{text(item, 'name')}"
        result = "" if output == "name" else ": " + text(item, "result")
        click.echo(named + result + (" (dry run)" if dry_run and not output else ""))


def placed(sentence: str, manifests: list[Manifest]) -> str:
    """Return a sentence of the aggregator with `document 3:` turned into the place where that stands."""
    found = re.match(r"document ([0-9]+)(?=[:,])", sentence)
    if not found or not 0 < int(found.group(1)) <= len(manifests):
        return sentence
    return manifests[int(found.group(1)) - 1].place + sentence[found.end() :]


def _warnings(answer: Document) -> Json:
    found = answer.get("warnings")
    listed = found if isinstance(found, list) else []
    return [item if isinstance(item, dict) else {"message": item} for item in listed]


@click.command()
@click.argument("objects", nargs=-1, metavar="vm|node|migrationpolicy NAME...", shell_complete=complete_objects)
@click.option("--force", is_flag=True, help="Also a VM that runs: it is stopped first.")
@click.pass_obj
def delete(session: Session, objects: tuple[str, ...], *, force: bool) -> None:
    """Delete VMs, nodes or migration policies from virtward's care. Never touches disks."""
    collection, names = read_targets(objects, WRITTEN)
    if not names:
        raise WrongUsage(f"say which {SINGULAR[collection]}")
    for name in names:
        query = {"force": "1"} if force else {}
        session.client.delete(path_of(collection, name), **query)
        click.echo(f"{SINGULAR[collection]}/{name}: deleted")


@click.command()
@click.argument("objects", nargs=-1, required=True, metavar="vm NAME", shell_complete=complete_objects)
@click.pass_obj
def edit(session: Session, objects: tuple[str, ...]) -> None:
    """Change a VM, a node or a migration policy in your editor ($VISUAL or $EDITOR)."""
    collection, names = read_targets(objects, WRITTEN)
    if len(names) != 1:
        raise WrongUsage("edit takes one name")
    found = session.client.get(path_of(collection, names[0]))
    found.pop("status", None)
    with tempfile.TemporaryDirectory(prefix="virtward-edit-") as folder:
        file = Path(folder) / f"{names[0]}.yaml"
        before = dump_yaml(found)
        file.write_text(before, encoding="utf-8")
        _run_editor(file)
        if file.read_text(encoding="utf-8") == before:
            click.echo(f"{SINGULAR[collection]}/{names[0]}: unchanged")
            return
        _put_back(session, collection, names[0], file)


def _put_back(session: Session, collection: str, name: str, file: Path) -> None:
    try:
        manifests = read_manifests(str(file))
        if len(manifests) != 1 or name_of(manifests[0].document) != name:
            raise Failure(f"the file must hold one manifest, of {name}")
        session.client.put(path_of(collection, name), manifests[0].document)
    except Failure as error:
        handle, kept = tempfile.mkstemp(prefix=f"virtward-{name}-", suffix=".yaml")
        with os.fdopen(handle, "w", encoding="utf-8") as copy:
            copy.write(file.read_text(encoding="utf-8"))
        raise Failure(f"{error}; nothing changed, your text is kept in {kept}") from None
    click.echo(f"{SINGULAR[collection]}/{name}: configured")


def _run_editor(file: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.run([*shlex.split(editor), str(file)], check=False).returncode
    except (OSError, ValueError) as error:
        raise Failure(f"cannot run the editor {editor!r}: {error}; set EDITOR to another") from None
    if code:
        raise Failure(f"the editor {editor!r} ended with {code}; nothing changed")
