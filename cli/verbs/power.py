"""`virtward start | stop | restart | pause | unpause`: orders about a VM's runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import click

from cli.client import path_of
from cli.document import Document, Json, name_of, number, text
from cli.options import timeout_option, vm_argument, wait_option
from cli.progress import wait_for
from cli.resources import name_in

if TYPE_CHECKING:
    from cli.session import Session


class PowerVerb(NamedTuple):
    """A verb: its words for a person, and how one sees that it is done."""

    name: str
    said: str
    done: Callable[[Document, Document], bool]  # (the VM before, the VM now)
    forceable: bool = False


def _phase(*phases: str) -> Callable[[Document, Document], bool]:
    return lambda _before, now: text(now, "status.phase") in phases


def _run_again(before: Document, now: Document) -> bool:
    newer = number(now, "status.run") > number(before, "status.run")
    return newer and text(now, "status.phase") == "Running"


VERBS = (
    PowerVerb("start", "start ordered", _phase("Running")),
    PowerVerb("stop", "stop ordered", _phase("Stopped", "Succeeded", "Failed"), forceable=True),
    PowerVerb("restart", "restart ordered", _run_again, forceable=True),
    PowerVerb("pause", "pause ordered", _phase("Paused")),
    PowerVerb("unpause", "unpause ordered", _phase("Running")),
)


def _command(verb: PowerVerb, text_of_help: str) -> click.Command:
    def order(session: Session, /, names: tuple[str, ...], **options: object) -> None:
        before = run(session, verb, names, force=bool(options.get("force")))
        if options["wait"]:
            for vm in before:
                _wait(session, verb, vm, str(options["timeout"]))

    decorated = click.pass_obj(order)
    if verb.forceable:
        decorated = click.option(
            "--force", is_flag=True, help="Pull the plug: do not ask the guest, do not wait for it."
        )(decorated)
    decorated = vm_argument()(wait_option(timeout_option(decorated)))
    return click.command(verb.name, help=text_of_help)(decorated)


def run(session: Session, verb: PowerVerb, names: tuple[str, ...], *, force: bool) -> list[Document]:
    """Order the verb for each VM and return the VMs as they were before."""
    body: Json = {"force": True} if force else {}
    before = [session.client.get(path_of("vms", name_in("vms", name))) for name in names]
    for found in before:
        vm = name_of(found)
        session.client.post(path_of("vms", vm, verb.name), body)
        click.echo(f"vm/{vm}: {verb.said}")
    return before


def _wait(session: Session, verb: PowerVerb, before: Document, timeout: str) -> None:
    vm = name_of(before)
    wait_for(
        lambda: session.client.get(path_of("vms", vm)),
        done=lambda now: verb.done(before, now),
        line=lambda now: f"vm/{vm}: {_where(now)}",
        timeout=timeout,
    )


def _where(vm: Document) -> str:
    node, reason = text(vm, "status.node"), text(vm, "status.reason")
    phase = text(vm, "status.phase", "Pending")
    return phase + (f" on {node}" if node else "") + (f" ({reason})" if reason else "")


start = _command(VERBS[0], "Start VMs. Ends a CrashLoopBackOff.")
stop = _command(VERBS[1], "Shut VMs down: the guest is asked, and after its grace switched off.")
restart = _command(VERBS[2], "Shut VMs down and start them again, where there is room.")
pause = _command(VERBS[3], "Hold the CPUs of VMs; their memory stays.")
unpause = _command(VERBS[4], "Let held VMs go on.")
