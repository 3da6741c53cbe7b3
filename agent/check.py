"""`virtward-agent --check`: is this host ready for an agent, and where it is not, what to do.

Knows what the agent needs of its host; changes nothing, and only asks libvirt.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from agent.config import AgentConfig
from agent.host import parse_bmc
from agent.libvirt_driver import Connection
from agent.libvirt_pool import LibvirtDownError, start_event_thread
from agent.peer import split_listen
from fleet.environment import (
    Finding,
    check_clock,
    check_directory,
    check_listen,
    check_own_address,
    check_reached,
    ok,
    problem,
    warning,
)

LIBVIRT_S_MAX = 10.0
MANAGER_S_MAX = 5.0
BMC_S_MAX = 10.0
AUTOSTARTS_SHOWN = 5
HOOK = Path("/etc/libvirt/hooks/qemu.d/virtward")
SHIPPED_HOOK = Path(__file__).parent / "hooks/qemu.d/virtward"
LIBVIRT_GUESTS = "libvirt-guests.service"
WATCHDOG = Path("/dev/watchdog")
PORTS = {"ws": 80, "wss": 443}


def look_around(config: AgentConfig) -> Iterator[Finding]:
    """Look at everything the agent will meet, one finding after the other."""
    yield from _libvirt(config.libvirt_uri)
    yield check_hook(HOOK, SHIPPED_HOOK)
    host, port = split_listen(config.listen)
    yield check_listen("listen", host, port, ours=_runs(Path(config.run_dir)))
    for key, address in (("control_address", config.control_address), ("migration_address", config.migration_address)):
        if address:
            yield check_own_address(key, address)
    for url in config.aggregators:
        parts = urlsplit(url)
        yield check_reached("an aggregator", parts.hostname or "", parts.port or PORTS[parts.scheme])
    yield check_directory("state_dir", Path(config.state_dir))
    yield check_clock()
    if ends_guests(_properties(LIBVIRT_GUESTS)):
        yield warning(
            "libvirt-guests suspends or ends the guests when this host stops, behind virtward's back: take its "
            "ExecStop= away (`systemctl edit libvirt-guests`: [Service], ExecStop=), and only then "
            "`systemctl disable --now` it"
        )
    yield from _watchdog_and_bmc(config)


def ends_guests(libvirt_guests: str) -> bool:
    """Return whether the unit with these properties does something when this host stops, in this boot or the next."""
    told = dict(line.split("=", 1) for line in libvirt_guests.splitlines() if "=" in line)
    comes = told.get("UnitFileState", "").startswith("enabled") or told.get("ActiveState") == "active"
    return comes and bool(told.get("ExecStop"))


def _properties(unit: str) -> str:
    """Return the properties of a unit that say when it stops and how, empty where there is no systemd."""
    asked = ["systemctl", "show", "--property=UnitFileState,ActiveState,ExecStop", unit]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=MANAGER_S_MAX, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


class _Look(Struct, frozen=True):
    """What libvirt says. autostarted: names of the VMs it starts by itself."""

    version: str
    host_uuid: str
    autostarted: tuple[str, ...]


def _ask_libvirt(uri: str) -> _Look:
    connection = Connection(uri)
    facts = connection.host_facts("")
    return _Look(facts.libvirt_version, facts.host_uuid, connection.autostarted())


def _answer(asked: Future[_Look], uri: str) -> None:
    try:
        asked.set_result(_ask_libvirt(uri))
    except Exception as error:  # noqa: BLE001 - handed on to whoever waits
        asked.set_exception(error)


def _libvirt(uri: str) -> Iterator[Finding]:
    start_event_thread()
    asked: Future[_Look] = Future()
    threading.Thread(target=_answer, args=(asked, uri), daemon=True).start()  # a stuck call must not hold up the end
    try:
        look = asked.result(LIBVIRT_S_MAX)
    except TimeoutError:
        yield problem(f"libvirt at {uri} has not answered for {LIBVIRT_S_MAX:g} s: restart libvirtd, guests run on")
        return
    except LibvirtDownError as error:
        yield problem(f"{error}: start libvirtd (or virtqemud), or name the right libvirt_uri")
        return
    yield ok(f"libvirt {look.version} at {uri} answers, host uuid {look.host_uuid}")
    if not look.host_uuid.strip("0-"):
        yield problem("the host uuid is all zeros: set host_uuid in libvirtd.conf, or every migration is refused")
    if look.autostarted:
        names = ", ".join(look.autostarted[:AUTOSTARTS_SHOWN])
        more = "" if len(look.autostarted) <= AUTOSTARTS_SHOWN else ", …"
        yield warning(
            f"libvirt starts {len(look.autostarted)} VMs by itself when the host boots ({names}{more}): "
            "`virsh autostart --disable NAME` for each that virtward shall manage"
        )


def check_hook(installed: Path, shipped: Path) -> Finding:
    """Say whether libvirt asks the shipped hook."""
    try:
        same = installed.read_bytes() == shipped.read_bytes()
    except OSError:
        return warning(
            f"libvirt's hook {installed} is not there, so `virsh start` can run a VM twice: see docs/WALL.md"
        )
    if not os.access(installed, os.X_OK):
        return problem(f"libvirt's hook {installed} may not be run: `chmod 755 {installed}` and restart libvirtd")
    if not same:
        return warning(f"libvirt's hook {installed} is another one than this version's: install {shipped} anew")
    return ok(f"libvirt's hook {installed} is this version's")


def _runs(run_dir: Path) -> bool:
    """Say whether an agent may run here: it keeps its lock file as long as this host is up."""
    return (run_dir / "agent.lock").exists()


def _watchdog_and_bmc(config: AgentConfig) -> Iterator[Finding]:
    if WATCHDOG.exists():
        yield ok(f"there is a watchdog, {WATCHDOG}")
    else:
        yield warning("there is no /dev/watchdog: only a fence device, or a person, can prove this host off")
    command = config.bmc_identity_command
    if not command:
        yield warning(
            "bmc_identity_command is not set: a fence device counts only where its entry says `identity: Operator`"
        )
        return
    try:
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=BMC_S_MAX, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        yield problem(f"bmc_identity_command {command[0]} does not work: {error}; mend it or take it out")
        return
    if parse_bmc(ran.stdout.decode(errors="replace")) is None:
        yield problem(f"bmc_identity_command {command[0]} prints neither address= nor guid=: see docs/FENCING.md")
    else:
        yield ok("this host's management controller says who it is")
