"""The entry of `virtward`: finds the verb, runs it, turns every failure into one sentence.

A verb's module is imported when the verb is used, so that the command starts at once. Exit
codes: 0 success, 1 failure, 2 the command line itself was wrong.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NamedTuple

import click

from cli.errors import Failure, WrongUsage, sentence
from cli.session import Session

PROGRAM = "virtward"
INTERRUPTED = 130


class Verb(NamedTuple):
    """Where a verb is written, and its line in --help."""

    place: str
    help: str


VERBS = {
    "get": Verb("get:get", "Show objects: nodes, vms, migrations, drains, incidents, events."),
    "describe": Verb("describe:describe", "Show everything about one object, events included."),
    "explain": Verb("explain:explain", "Say why a VM or a node is as it is."),
    "screenshot": Verb("screenshot:screenshot", "Write what a VM's guest shows to a PNG file."),
    "status": Verb("status:status", "Show how the fleet is, in a few lines."),
    "rebalance": Verb("rebalance:rebalance", "Say which VM would be moved for balance next, and why."),
    "whatif": Verb("whatif:whatif", "Say which VMs would return where if nodes were lost."),
    "apply": Verb("apply:apply", "Create or change objects from a file; all of it or nothing."),
    "delete": Verb("apply:delete", "Delete a VM or a node from virtward's care."),
    "edit": Verb("apply:edit", "Change a VM in your editor."),
    "start": Verb("power:start", "Start a VM."),
    "stop": Verb("power:stop", "Shut a VM down."),
    "restart": Verb("power:restart", "Shut a VM down and start it again."),
    "pause": Verb("power:pause", "Hold a VM's CPUs."),
    "unpause": Verb("power:unpause", "Let a held VM go on."),
    "migrate": Verb("move:migrate", "Move a running VM to another node."),
    "cancel": Verb("move:cancel", "Cancel a migration."),
    "cordon": Verb("maintenance:cordon", "Put no more VMs on a node."),
    "uncordon": Verb("maintenance:uncordon", "Let a node take VMs again; ends a drain."),
    "drain": Verb("maintenance:drain", "Move all VMs off nodes."),
    "taint": Verb("maintenance:taint", "Mark a node so that VMs keep away, or take the mark off."),
    "label": Verb("maintenance:label", "Set or take off labels of a node or VM."),
    "fence": Verb("fencing:fence", "Make sure that a node runs nothing any more."),
    "confirm-gone": Verb("fencing:confirm_gone", "Vouch that a VM's old run is gone for good."),
    "disarm": Verb("arming:disarm", "Fence, start and move nothing by itself, for a while."),
    "arm": Verb("arming:arm", "Let virtward act by itself again."),
    "node": Verb("node:node", "Let nodes join: token, approve, revoke."),
    "token": Verb("token:token", "Make, list and revoke tokens of the API, with a role each."),
    "config": Verb("config:config", "Show or change the fleet's settings."),
    "place": Verb("offline:place", "Judge placement scenarios from a file, without a fleet."),
    "simulate": Verb("offline:simulate", "Play a story of faults on a fake clock, with the code that ships."),
    "completion": Verb("completion:completion", "Print the shell's completion script."),
    "version": Verb("status:version", "Print the versions of this command and of the aggregator."),
}

HINTS = {
    "list": "virtward get vms",
    "shutdown": "virtward stop VM",
    "destroy": "virtward stop VM --force",
    "reboot": "virtward restart VM",
    "suspend": "virtward pause VM",
    "resume": "virtward unpause VM",
    "dumpxml": "virtward get vm VM -o yaml",
    "dominfo": "virtward describe vm VM",
    "define": "virtward apply -f FILE",
    "create": "virtward apply -f FILE",
    "undefine": "virtward delete vm VM",
    "nodeinfo": "virtward describe node NODE",
}


class LazyVerbs(click.Group):
    """A group that imports a verb's module only when that verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the help text."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb."""
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name].place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"cli.verbs.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing any."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; for virsh's words and for slips of the finger say what was meant."""
        word = args[0]
        if word not in VERBS and not word.startswith("-"):
            raise WrongUsage(unknown_verb(word))
        return super().resolve_command(ctx, args)


def unknown_verb(word: str) -> str:
    """Return the sentence for a verb that does not exist."""
    if word in HINTS:
        return f"{word!r} is virsh's word; here it is: {HINTS[word]}"
    import difflib

    near = difflib.get_close_matches(word, VERBS, n=1)
    return f"there is no verb {word!r}" + (f"; did you mean {near[0]!r}" if near else f"; {PROGRAM} --help lists them")


@click.command(cls=LazyVerbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--api", metavar="URL", help="The aggregator's address. [$VIRTWARD_API]")
@click.option("--token-file", metavar="FILE", help="The file your token lies in. [$VIRTWARD_TOKEN_FILE]")
@click.option("--ca-file", metavar="FILE", help="The authority of an https:// aggregator. [$VIRTWARD_CA_FILE]")
@click.pass_context
def virtward(ctx: click.Context, api: str | None, token_file: str | None, ca_file: str | None) -> None:
    """Keep virtual machines running on plain libvirt hosts.

    Address, token and authority come from the options, the environment, ~/.config/virtward/client.toml,
    or a laboratory on this machine, in this order.
    """
    ctx.obj = Session(api, token_file, ca_file)


def run(arguments: list[str]) -> int:
    """Run one command line and return the exit code."""
    try:
        code = virtward.main(arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        usage = error.ctx.command_path if error.ctx else PROGRAM
        complain(f"{sentence(error.format_message())}; {usage} --help shows how")
        return 2
    except WrongUsage as error:
        complain(str(error))
        return 2
    except click.ClickException as error:
        complain(sentence(error.format_message()))
        return 1
    except Failure as error:
        complain(str(error))
        for further in error.more:
            complain(further)
        return 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; leave without complaint, and without Python's own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def complain(what: str) -> None:
    """Say one sentence on stderr."""
    click.echo(f"{PROGRAM}: {what}", err=True)


def main() -> None:
    """Run as a program."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
