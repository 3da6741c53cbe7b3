"""The BMC of each host: a real ipmi_sim on the bmc plane whose chassis control acts on the host.

A BMC lives on stand-by power, in a namespace of its own. What it controls and how it fails lie in small files, so
that a change acts on the next command: `controls` (which host), `mode` (works, fails, hangs, early). Knows ipmi_sim
and its files; the deed itself is chassis.py's.
"""

from __future__ import annotations

import secrets
import sys
from enum import StrEnum
from pathlib import Path

from lab import namespaces
from lab.layout import BMC_USER, Layout, Plane
from lab.planes import Planes
from lab.processes import Registry, write_secret

IPMI_PORT = 623


class BmcMode(StrEnum):
    """How a BMC answers."""

    WORKS = "works"
    FAILS = "fails"  # answers an error to chassis control; its power reading stays true
    HANGS = "hangs"  # answers nothing at all
    EARLY = "early"  # says off up to a second before it is


_LAN_CONF = """\
name "{name}"
set_working_mc 0x20
startlan 1
  addr {address} {port}
  priv_limit admin
  allowed_auths_callback none md2 md5 straight
  allowed_auths_user none md2 md5 straight
  allowed_auths_operator none md2 md5 straight
  allowed_auths_admin none md2 md5 straight
  guid {guid}
endlan
chassis_control "{chassis}"
user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""

_COMMANDS = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
mc_set_guid 0x20 {guid}
mc_enable 0x20
"""

# Readings are answered by the shell at once; only deeds start Python.
_CHASSIS = """\
#!/bin/sh
# Called by ipmi_sim: [controller] get NAME... | set NAME VALUE... | check NAME...
cd "{here}" || exit 1
for word in "$@"; do
    case "$word" in
    get)
        read -r host <controls
        read -r power <"{hosts}/$host/power"
        for name in "$@"; do
            case "$name" in
            power) [ "$power" = on ] && echo "power:1" || echo "power:0" ;;
            boot) echo "boot:none" ;;
            esac
        done
        exit 0 ;;
    check) exit 0 ;;
    set) exec "{python}" -m lab.chassis "{laboratory}" "{own}" "$@" ;;
    esac
done
exit 1
"""


class Bmc:
    """The BMC that was built for `host`."""

    def __init__(self, layout: Layout, planes: Planes, registry: Registry, host: str) -> None:
        self.host = host
        self.dir = layout.bmc_dir(host)
        self.role = f"bmc@{host}"
        self._layout = layout
        self._planes = planes
        self._registry = registry
        self._link = layout.link(host, Plane.BMC)

    @property
    def address(self) -> str:
        """Its address on the bmc plane."""
        return self._link.address

    @property
    def password_file(self) -> Path:
        """Where the password lies."""
        return self.dir / "password"

    def prepare(self, guid: str) -> None:
        """Write its configuration; a password that is there stays."""
        self.dir.mkdir(parents=True, exist_ok=True)
        if not self.password_file.exists():
            write_secret(self.password_file, secrets.token_hex(8))
        for file, word in (
            ("controls", self.host),
            ("mode", BmcMode.WORKS.value),
            ("guid", guid),
            ("address", self.address),
        ):
            if not (self.dir / file).exists():
                (self.dir / file).write_text(word + "\n", encoding="ascii")
        flat = guid.replace("-", "")
        chassis = self.dir / "chassis"
        environment = {"here": self.dir, "hosts": self._layout.dir / "hosts", "python": sys.executable}
        chassis.write_text(
            _CHASSIS.format(laboratory=self._layout.name, own=self.host, **environment), encoding="ascii"
        )
        chassis.chmod(0o755)
        words = {
            "name": f"bmc-{self.host}",
            "address": self.address,
            "port": IPMI_PORT,
            "guid": flat,
            "chassis": chassis,
        }
        lan = _LAN_CONF.format(user=BMC_USER, password=self.password_file.read_text(encoding="ascii").strip(), **words)
        write_secret(self.dir / "lan.conf", lan)
        (self.dir / "commands").write_text(_COMMANDS.format(guid=flat), encoding="ascii")

    def start(self) -> None:
        """Start ipmi_sim; no error when it runs."""
        namespaces.create(self._link.namespace)
        self._planes.plug(self._link)
        if self._registry.find(self.role) is not None:
            return
        state = self.dir / "state"
        state.mkdir(exist_ok=True)
        files = ["-c", str(self.dir / "lan.conf"), "-f", str(self.dir / "commands"), "-s", str(state)]
        command = namespaces.inside(self._link.namespace, ["ipmi_sim", "-n", *files])
        environment = {"VIRTWARD_LAB_DIR": str(self._layout.base)}
        self._registry.start(self.role, command, self._layout.logs_dir / f"bmc-{self.host}.log", environment)
        self._drop_requests(dropped=self.mode is BmcMode.HANGS)

    def power_off(self) -> None:
        """The stand-by power fails too."""
        self._planes.unplug([self._link])
        self._registry.stop(self.role)
        self._planes.remove([self._link])
        namespaces.delete(self._link.namespace)

    @property
    def mode(self) -> BmcMode:
        """How it answers."""
        return BmcMode((self.dir / "mode").read_text(encoding="ascii").strip())

    def set_mode(self, mode: BmcMode) -> None:
        """Change how it answers, from the next request on."""
        (self.dir / "mode").write_text(mode.value + "\n", encoding="ascii")
        if namespaces.exists(self._link.namespace):
            self._drop_requests(dropped=mode is BmcMode.HANGS)

    @property
    def controls(self) -> str:
        """The host whose power it switches."""
        return (self.dir / "controls").read_text(encoding="ascii").strip()

    def set_controls(self, host: str) -> None:
        """Lead its power cable to another host."""
        (self.dir / "controls").write_text(host + "\n", encoding="ascii")

    def note_deed(self, words: str) -> None:
        """Keep what it was ordered to do to a host's power."""
        with (self.dir / "deeds").open("a", encoding="ascii") as file:
            file.write(words + "\n")

    @property
    def deeds(self) -> list[str]:
        """Every order it ever got about power, from the first: "power 0", "reset 1", …; readings are none."""
        try:
            return (self.dir / "deeds").read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return []

    @property
    def guid(self) -> str:
        """Its GUID, as the IPMI command reports it."""
        return (self.dir / "guid").read_text(encoding="ascii").strip()

    def _drop_requests(self, *, dropped: bool) -> None:
        """A hung BMC is one that gets no request: what was dropped is never acted on later."""
        rules = "add table inet hang\ndelete table inet hang\n"
        if dropped:
            rules += (
                "add table inet hang\nadd chain inet hang input { type filter hook input priority 0; policy accept; }\n"
            )
            rules += f"add rule inet hang input udp dport {IPMI_PORT} drop\n"
        namespaces.run(namespaces.inside(self._link.namespace, ["nft", "-f", "-"]), rules)


_IDENTITY = """\
#!/bin/sh
# The in-band way of {host} to its own BMC: prints address and GUID of the one that really switches it.
for bmc in "{bmcs}"/*; do
    read -r host <"$bmc/controls" && [ "$host" = {host} ] || continue
    read -r address <"$bmc/address" && read -r guid <"$bmc/guid" || continue
    printf '{{"address": "%s", "guid": "%s"}}\\n' "$address" "$guid"
    exit 0
done
echo "{host} has no BMC" >&2
exit 1
"""


def write_identity_command(layout: Layout, host: str) -> Path:
    """Write the program by which a host asks its own BMC who it is; it prints JSON."""
    program = layout.host_dir(host) / "bmc-identity"
    program.write_text(_IDENTITY.format(host=host, bmcs=layout.dir / "bmcs"), encoding="ascii")
    program.chmod(0o755)
    return program
