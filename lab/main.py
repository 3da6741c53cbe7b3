"""virtward-lab: the laboratory's command line.

Knows click and the words people type; every deed is the Laboratory's. Errors are one sentence on stderr, exit code 1.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import click
import msgspec

from lab import laboratory as laboratories
from lab import status, targets
from lab.bmc import BmcMode
from lab.errors import LaboratoryError
from lab.guest_log import GuestLine
from lab.laboratory import ORDERS, Laboratory
from lab.layout import Plane, base_dir
from lab.manifest import TICK_MS, GuestKind
from lab.planes import Direction

DEFAULT_NAME = "lab"
PLANES = click.Choice([*(plane.value for plane in Plane), "all"])


def _chosen(name: str | None) -> Laboratory:
    """The laboratory of --name, of $VIRTWARD_LAB_NAME, the one that came up last, or the only one there is."""
    name = name or os.environ.get("VIRTWARD_LAB_NAME")
    current = base_dir() / "current"
    if not name and current.is_symlink() and current.exists():
        name = str(current.readlink())
    there = laboratories.names()
    if not name and len(there) == 1:
        name = there[0]
    return Laboratory(name or DEFAULT_NAME)


def _with_name(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--name", default=None, metavar="NAME", help="Which laboratory; default: the one that came up last."
    )(command)


class _Group(click.Group):
    """Turns what went wrong into one sentence."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except LaboratoryError as error:
            click.echo(f"virtward-lab: {error}", err=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            click.echo(f"virtward-lab: {error.strerror or error}: {error.filename or 'the system refused'}", err=True)
        raise SystemExit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """One machine as several real KVM hosts: cut, freeze and power them off at will."""


@main.command()
@click.option("--hosts", default=3, show_default=True, help="How many hosts.")
@click.option("--aggregators", default=1, show_default=True, help="How many aggregators.")
@click.option("--aggregators-on-hosts", is_flag=True, help="Run them on h1..hN.")
@click.option("--no-agents", is_flag=True, help="Hosts, storage and BMCs only.")
@click.option("--fencing", type=click.Choice(["ipmi", "none"]), default="ipmi", show_default=True)
@click.option(
    "--name", default=DEFAULT_NAME, show_default=True, help="At most 6 characters; in every namespace and link."
)
def up(*, hosts: int, aggregators: int, aggregators_on_hosts: bool, no_agents: bool, fencing: str, name: str) -> None:
    """Build a laboratory, or complete the one that is there."""
    if aggregators != 1:
        raise LaboratoryError(
            f"--aggregators {aggregators} is not possible yet: the laboratory has exactly one aggregator"
        )
    if aggregators_on_hosts:
        raise LaboratoryError(
            "--aggregators-on-hosts is not possible yet: the aggregator runs in a namespace of its own"
        )
    Laboratory(name).up(hosts=hosts, agents=not no_agents, fencing=fencing)


@main.command()
@_with_name
def down(name: str | None) -> None:
    """Remove everything that a laboratory made, and nothing else."""
    _chosen(name).down()


@main.command()
@click.argument("host")
@_with_name
def uri(host: str, name: str | None) -> None:
    """Print a host's libvirt URI for virsh in this shell."""
    click.echo(_chosen(name).host(host).uri())


@main.command()
@click.argument("vm_name", metavar="NAME")
@click.option("--host", default="", help="The host it prefers.")
@click.option("--guest", type=click.Choice([kind.value for kind in GuestKind]), default="tiny", show_default=True)
@click.option(
    "--memory",
    "memory_mib",
    type=click.IntRange(8, 65536),
    default=None,
    help="MiB; default: 16 for tiny, 128 for linux.",
)
@click.option(
    "--dirty", "dirty_mib_per_s", type=click.IntRange(0, 100000), default=0, help="MiB of memory written per second."
)
@click.option(
    "--tick",
    "tick_ms",
    type=click.IntRange(10, 3600000),
    default=TICK_MS,
    show_default=True,
    help="Milliseconds per count.",
)
@click.option("--name", "laboratory_name", default=None, metavar="NAME", help="Which laboratory.")
def vm(vm_name: str, host: str, guest: str, laboratory_name: str | None, **wishes: int | None) -> None:
    """Make a VM's disk if need be and print its manifest."""
    said = {wish: value for wish, value in wishes.items() if value is not None}
    click.echo(_chosen(laboratory_name).vm(vm_name, guest, host=host, **said), nl=False)


@main.command()
@click.argument("vm_name", metavar="NAME")
@click.argument("deed", type=click.Choice(list(ORDERS)))
@click.option("--name", "laboratory_name", default=None, metavar="NAME", help="Which laboratory.")
def guest(vm_name: str, deed: str, laboratory_name: str | None) -> None:
    """Let a guest itself power off, crash, hang, panic, reboot, or give its watchdog (ib700, tiny guests) no sign."""
    _chosen(laboratory_name).order_guest(vm_name, deed)


@main.command("guest-log")
@click.argument("vm_name", metavar="NAME")
@click.option("-f", "follow", is_flag=True, help="Go on as the guest speaks.")
@click.option("-o", "output", type=click.Choice(["json"]), default=None)
@click.option("--name", "laboratory_name", default=None, metavar="NAME", help="Which laboratory.")
def guest_log(*, vm_name: str, follow: bool, output: str | None, laboratory_name: str | None) -> None:
    """Print what a guest said, with this machine's clock and the host it ran on."""
    laboratory = _chosen(laboratory_name)
    lines = laboratory.follow_guest(vm_name) if follow else iter(laboratory.guest_log(vm_name))
    try:
        for line in lines:
            click.echo(_as_json(line) if output else str(line))
    except KeyboardInterrupt:
        return


def _as_json(line: GuestLine) -> str:
    return msgspec.json.encode({"t": line.at_s, "host": line.host, "text": line.text}).decode()


@main.command()
@click.argument("host")
@click.argument("word", metavar="off|on|cycle", type=click.Choice(["off", "on", "cycle"]))
@click.option("--with-bmc", is_flag=True, help="The BMC loses its stand-by power too.")
@_with_name
def power(*, host: str, word: str, with_bmc: bool, name: str | None) -> None:
    """Cut or give a host's power. No goodbye reaches anybody."""
    _chosen(name).power(host, word, with_bmc=with_bmc)


@main.command()
@click.argument("host")
@click.option("--plane", type=PLANES, default="all", show_default=True)
@click.option("--direction", type=click.Choice([each.value for each in Direction]), default="both", show_default=True)
@_with_name
def cut(host: str, plane: str, direction: str, name: str | None) -> None:
    """Cut a host off a plane, one way or both."""
    _chosen(name).cut(host, plane, direction)


@main.command()
@click.argument("host")
@click.option("--plane", type=PLANES, default="all", show_default=True)
@_with_name
def heal(host: str, plane: str, name: str | None) -> None:
    """Mend a host's cables: no cut, full speed."""
    _chosen(name).heal(host, plane)


@main.command()
@click.argument("host")
@click.option("--plane", type=PLANES, required=True)
@click.option("--rate", type=click.IntRange(1, 100000), required=True, help="Megabits per second.")
@_with_name
def slow(host: str, plane: str, rate: int, name: str | None) -> None:
    """Limit a host's speed on a plane."""
    _chosen(name).slow(host, plane, rate)


@main.command()
@click.argument("target")
@_with_name
def start(target: str, name: str | None) -> None:
    """Start a TARGET again, as systemd would."""
    targets.start(_chosen(name), target)


@main.command()
@click.argument("target")
@_with_name
def pause(target: str, name: str | None) -> None:
    """Freeze a TARGET."""
    targets.send(_chosen(name), target, signal.SIGSTOP)


@main.command()
@click.argument("target")
@_with_name
def resume(target: str, name: str | None) -> None:
    """Let a frozen TARGET go on."""
    targets.send(_chosen(name), target, signal.SIGCONT)


@main.command()
@click.argument("target")
@click.option("--signal", "signal_name", default="KILL", show_default=True)
@_with_name
def kill(target: str, signal_name: str, name: str | None) -> None:
    """Send a signal to a TARGET."""
    targets.send(_chosen(name), target, targets.signal_number(signal_name))


@main.command()
@click.argument("host")
@click.argument("mode", type=click.Choice([mode.value for mode in BmcMode]))
@_with_name
def bmc(host: str, mode: str, name: str | None) -> None:
    """Let a host's BMC work, fail, hang or say off too early."""
    _chosen(name).set_bmc(host, mode)


@main.command("swap-bmc")
@click.argument("host")
@click.argument("other")
@_with_name
def swap_bmc(host: str, other: str, name: str | None) -> None:
    """Exchange what the BMCs of two hosts control."""
    _chosen(name).swap_bmcs(host, other)


@main.command()
@_with_name
def env(name: str | None) -> None:
    """Print what to export in other shells."""
    for key, value in _chosen(name).environment().items():
        click.echo(f"export {key}={value}")


@main.command("status")
@click.option("-o", "output", type=click.Choice(["json"]), default=None)
@_with_name
def show_status(output: str | None, name: str | None) -> None:
    """Print the ground truth."""
    now = status.take(_chosen(name))
    click.echo(msgspec.json.encode(now).decode() if output else _for_people(now))


def _for_people(now: status.Status) -> str:
    lines = [f"laboratory {now.name} in {now.dir}, API and page {now.api}/"]
    for host in now.hosts:
        planes = " ".join(f"{plane}:{word}" for plane, word in host.planes.items())
        lines.append(
            f"{host.name}  {host.power:6}  {planes}  libvirtd {host.libvirtd or '-'}  agent {host.agent or '-'}"
        )
    lines += [f"{each.name}  {each.state}  pid {each.pid or '-'}" for each in now.aggregators]
    for name, qemus in sorted(now.vms.items()):
        lines.append(f"VM {name}: " + ", ".join(f"{qemu.cpus.value} on {qemu.host} (pid {qemu.pid})" for qemu in qemus))
    settings = ", ".join(f"{key} {value}" for key, value in now.settings.items())
    return "\n".join([*lines, f"settings of its own: {settings}"])


if __name__ == "__main__":
    main()
