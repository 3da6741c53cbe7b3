"""`virtward cordon | uncordon | drain | taint | label`: what people do to nodes beforehand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from cli.client import path_of
from cli.document import Document, Json, documents, duration, look, name_of, number, text
from cli.errors import Failure, WrongUsage
from cli.options import node_argument, selector_option, timeout_option, wait_option
from cli.progress import seconds_of, wait_for
from cli.resources import SINGULAR, Target, name_in, read_target

if TYPE_CHECKING:
    from cli.session import Session

ENDED = ("Done", "Cancelled", "Expired", "Failed")
CHANGES = {"cancel": "cancelled", "pause": "paused", "resume": "resumed"}
_KEY = r"(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?"
_TAINT = re.compile(rf"^{_KEY}(=[A-Za-z0-9_.-]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$")
_TAINT_OFF = re.compile(rf"^{_KEY}(:(NoSchedule|PreferNoSchedule|NoExecute))?-$")
_LABEL = re.compile(rf"^{_KEY}=([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$")
_LABEL_OFF = re.compile(rf"^{_KEY}-$")


@click.command()
@node_argument()
@click.pass_obj
def cordon(session: Session, names: tuple[str, ...]) -> None:
    """Put no more VMs on nodes; those that run there stay."""
    for node in _nodes(names):
        session.client.post(path_of("nodes", node, "cordon"))
        click.echo(f"node/{node}: cordoned")


@click.command()
@node_argument()
@click.option("--bring-back", is_flag=True, help="Ask the VMs that a drain moved away to return.")
@click.pass_obj
def uncordon(session: Session, names: tuple[str, ...], *, bring_back: bool) -> None:
    """Let nodes take VMs again, also ones that failed too often; a drain of them ends, done or not."""
    for node in _nodes(names):
        session.client.post(path_of("nodes", node, "uncordon"), {"bringBack": bring_back})
        click.echo(f"node/{node}: uncordoned" + (", its VMs come back" if bring_back else ""))


@click.command()
@node_argument(required=False)
@selector_option
@click.option("--dry-run", is_flag=True, help="Show what would move, and what could not.")
@click.option("--deadline", metavar="TIME", help="When to give up, for example 10m.")
@click.option("--force", is_flag=True, help="Shut VMs down that cannot be moved live.")
@click.option("--pause", "change", flag_value="pause", help="Begin nothing more until --resume.")
@click.option("--resume", "change", flag_value="resume", help="Go on with a paused drain.")
@click.option("--cancel", "change", flag_value="cancel", help="Cancel the drain; what moved stays moved.")
@wait_option
@timeout_option
@click.pass_obj
def drain(  # noqa: PLR0913 (click hands every option over by name)
    session: Session,
    names: tuple[str, ...],
    selector: str | None,
    *,
    dry_run: bool,
    deadline: str | None,
    force: bool,
    change: str | None,
    wait: bool,
    timeout: str,
) -> None:
    """Move all VMs off nodes, live where possible, and keep the nodes free until uncordon.

    With -l the nodes are emptied one failure domain (rack, else zone, else node) after another: the
    next one begins when the nodes of the one before are uncordoned and all the others are Up.
    """
    if change:
        for node in _nodes(names) or _selected(session, selector):
            session.client.post(path_of("drains", node, change))
            click.echo(f"drain/{node}: {CHANGES[change]}")
        return
    body: dict[str, Json] = {"dryRun": dry_run, "force": force}
    if deadline is not None:
        body["deadlineSeconds"] = seconds_of(deadline)
    begun = _begin(session, names, selector, body)
    for node, found in begun.items():
        click.echo("\n".join(plan_lines(node, found)) if dry_run else drain_line(node, found))
    if wait and not dry_run:
        for node, found in begun.items():
            _wait(session, node, drain_line(node, found), timeout)


def _begin(
    session: Session, names: tuple[str, ...], selector: str | None, body: dict[str, Json]
) -> dict[str, Document]:
    """Order the drains, or ask for their plans; by labels they go in turn."""
    if names:
        return {node: session.client.post(path_of("nodes", node, "drain"), body) for node in _nodes(names)}
    if not selector:
        raise WrongUsage("say which nodes: by name, or with -l by their labels")
    answer = session.client.post(path_of("drains"), {**body, "labelSelector": selector})
    return {name_of(found): found for found in documents(answer, "items")}


def _wait(session: Session, node: str, shown: str, timeout: str) -> None:
    ended = wait_for(
        lambda: session.client.get(path_of("drains", node)),
        done=lambda now: text(now, "status.phase") in ENDED,
        line=lambda now: drain_line(node, now),
        timeout=timeout,
        shown=shown,
    )
    phase = text(ended, "status.phase")
    if phase != "Done":
        raise Failure(f"the drain of {node} ended {phase}: {drain_line(node, ended)}")


def drain_line(node: str, found: Document) -> str:
    """Return one drain in a line: how far, and what is in its way."""
    phase = text(found, "status.phase", "Running")
    done, total = number(found, "status.done"), number(found, "status.total")
    line = f"drain/{node}: {phase}, {done:.0f} of {total:.0f} VMs moved"
    if waits := text(found, "status.waitsFor"):
        return f"drain/{node}: {phase}: {waits}"
    if (eta := number(found, "status.etaSeconds")) and phase not in ENDED:
        line += f", about {duration(eta)} to go"
    blocked = [_blocked(item) for item in documents(found, "status.blocked")]
    return line + (f"; blocked: {'; '.join(blocked)}" if blocked else "")


def _blocked(item: Document) -> str:
    way = text(item, "wayOut")
    return f"{text(item, 'vm')}: {text(item, 'reason')}" + (f" (way out: {way})" if way else "")


def plan_lines(node: str, found: Document) -> list[str]:
    """Return what a drain would do, a line a VM."""
    lines = []
    for step in documents(found, "status.plan"):
        what = text(step, "method") or text(step, "action", "move")
        target = text(step, "to") or text(step, "target")
        reason = text(step, "reason")
        eta, wave = number(step, "etaSeconds"), text(step, "wave")
        about = f", about {duration(eta)}" if eta and not look(step, "forecast") else ""
        when = f"wave {wave}{about}" if target and wave else ""
        told = text(step, "forecast.words")
        why = "; ".join(part for part in (when, told, reason) if part)
        where = f" to {target}" if target else ""
        lines.append(f"  {text(step, 'vm')}: {what}{where}" + (f" ({why})" if why else ""))
    for item in documents(found, "status.blocked"):
        way = text(item, "wayOut")
        stays = f"  {text(item, 'vm')}: stays, {text(item, 'reason')}"
        lines.append(stays + (f" (way out: {way})" if way else ""))
    if not lines:
        return [f"drain/{node}: there is nothing to move"]
    eta = number(found, "status.etaSeconds")
    return [f"drain/{node}: would move" + (f", in about {duration(eta)}" if eta else ""), *lines]


def _nodes(names: tuple[str, ...]) -> list[str]:
    return [name_in("nodes", name) for name in names]


def _selected(session: Session, selector: str | None) -> list[str]:
    if not selector:
        raise WrongUsage("say which nodes: by name, or with -l by their labels")
    answer = session.client.get(path_of("nodes"), labelSelector=selector)
    found = [name_of(node) for node in documents(answer, "items")]
    if not found:
        raise Failure(f"no node has the labels {selector}")
    return found


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="node NODE KEY=VALUE:EFFECT | KEY-")
@click.pass_obj
def taint(session: Session, words: tuple[str, ...]) -> None:
    """Mark a node: key=value:Effect; key- takes the mark off.

    NoSchedule keeps new VMs away, PreferNoSchedule rather so, NoExecute also moves those that run.
    """
    target, changes = object_and_rest(words, ("nodes",))
    for change in changes:
        if not _TAINT.match(change) and not _TAINT_OFF.match(change):
            raise WrongUsage(
                f"{change!r} is no taint; write key=value:NoSchedule (or PreferNoSchedule, "
                "NoExecute), or key- to take it off"
            )
    for change in changes:
        session.client.post(path_of("nodes", target.name, "taint"), {"taint": change})
        click.echo(f"{target}: {'untainted' if change.endswith('-') else 'tainted'} {change}")


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="node|vm NAME KEY=VALUE | KEY-")
@click.pass_obj
def label(session: Session, words: tuple[str, ...]) -> None:
    """Set labels of a node or VM: key=value; key- takes one off. Moves nothing that runs."""
    target, changes = object_and_rest(words, ("nodes", "vms"))
    labels: dict[str, Json] = {}
    for change in changes:
        if _LABEL_OFF.match(change):
            labels[change[:-1]] = None
        elif _LABEL.match(change):
            key, _, value = change.partition("=")
            labels[key] = value
        else:
            raise WrongUsage(f"{change!r} is no label; write key=value, or key- to take it off")
    session.client.patch(path_of(target.collection, target.name), {"metadata": {"labels": labels}})
    click.echo(f"{target}: labelled {' '.join(changes)}")


def object_and_rest(words: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[Target, tuple[str, ...]]:
    """Return the object that the first words name (`node kvm2`, `node/kvm2`) and the other words."""
    from cli.resources import collection_of

    if "/" in words[0] and "=" not in words[0]:
        target, rest = read_target(words[0]), words[1:]
    elif len(words) > 1:
        target, rest = Target(collection_of(words[0]), words[1]), words[2:]
    else:
        raise WrongUsage(f"say which {SINGULAR[allowed[0]]}")
    if target.collection not in allowed:
        raise WrongUsage(f"this verb takes {' and '.join(SINGULAR[name] for name in allowed)}s")
    if not rest:
        raise WrongUsage(f"say what to change on {target}")
    return target, rest
