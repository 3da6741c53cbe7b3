"""One laboratory host: its namespaces, its files, its power, and the daemons that run in it.

A host is a network namespace with a cable per plane, and a process 1 with mount, UTS, IPC and pid namespaces of its
own: every process of the host is in that pid namespace, whoever started it and whatever became of its parent, so
power off is the death of process 1. The network namespace goes too: sockets of the dead must not speak when the power
returns. Knows files, namespaces and processes of one host; must not know BMCs, guests or the aggregator.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import socket
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab import libvirtd, namespaces, pki, processes
from lab.errors import LaboratoryError
from lab.layout import HOST_PLANES, Layout, Plane
from lab.planes import Planes
from lab.processes import Registry

INIT = Path(__file__).with_name("host-init.sh")
BOOT_TIMEOUT_S = 30.0
_DIRECTORIES = (
    "etc-libvirt/qemu",  # as the package lays it; who watches it may come before the first define
    "etc-libvirt",
    "etc-pki",
    "var-lib-libvirt",
    "cache-libvirt",
    "log-libvirt",
    "libvirt-run",
    "virtward-run",
    "private",
    "agent",
)
_LOST_WITH_POWER = ("libvirt-run", "virtward-run", "private")
_SPAWN = 'log=$1; shift; setsid "$@" >>"$log" 2>&1 </dev/null & echo $!'


class Host:
    """The host `name` of a laboratory, running or not."""

    def __init__(self, layout: Layout, planes: Planes, registry: Registry, name: str) -> None:
        self.name = name
        self.dir = layout.host_dir(name)
        self._layout = layout
        self._planes = planes
        self._registry = registry
        self._links = [layout.link(name, plane) for plane in HOST_PLANES]

    # --- files ---

    def prepare(self, identity: str, hosts: Sequence[str]) -> None:
        """Make the host's directories and configuration; what is there already stays. `identity`: its host uuid."""
        for directory in _DIRECTORIES:
            (self.dir / directory).mkdir(parents=True, exist_ok=True)
        libvirtd.write_configuration(self._layout, self.name, self.dir / "etc-libvirt", identity, hosts)
        addresses = [self._layout.address(self.name, plane) for plane in (Plane.CONTROL, Plane.MIGRATION)]
        pki.lay_out(self._layout.dir / "pki", self.dir / "etc-pki", self.name, addresses)
        libvirtd.install_hook(self.dir / "etc-libvirt", self.dir / "agent")
        libvirtd.install_before_start(self.dir / "etc-libvirt")
        lines = ["127.0.0.1 localhost", *(f"{self._layout.address(host, Plane.CONTROL)} {host}" for host in hosts)]
        self._write("etc-hosts", "\n".join(lines))
        self._write("machine_id", identity.replace("-", ""))
        if not (self.dir / "power").exists():
            self._write("power", "off")

    @property
    def identity(self) -> str:
        """The host uuid its libvirtd tells; its machine-id is the same without dashes."""
        return str(uuid.UUID(self._read("machine_id")))

    def replace_identity(self, identity: str) -> None:
        """Become another machine at the next power on; LaboratoryError while this one runs."""
        if self.init is not None:
            raise LaboratoryError(f"{self.name} runs; `virtward-lab power {self.name} off` before it is replaced")
        libvirtd.replace_host_uuid(self.dir / "etc-libvirt", identity)
        self._write("machine_id", identity.replace("-", ""))

    def _write(self, file: str, text: str) -> None:
        """Write in one step: readers never see half a file. An existing inode that is bind-mounted stays in place."""
        target = self.dir / file
        if file == "etc-hosts" and target.exists():
            target.write_text(text + "\n", encoding="ascii")
            return
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        fresh.write_text(text + "\n", encoding="ascii")
        fresh.rename(target)

    def _read(self, file: str) -> str:
        try:
            return (self.dir / file).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""

    @property
    def boot_id(self) -> str:
        """The host's own boot id: another one after each power on."""
        return self._read("boot_id")

    @property
    def power_switch(self) -> str:
        """What the BMC reads: on or off."""
        return self._read("power") or "off"

    def set_power_switch(self, word: str) -> None:
        """Set what the BMC reads, and nothing else."""
        self._write("power", word)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One power operation at a time, whether it comes from a shell or from the BMC."""
        self.dir.mkdir(parents=True, exist_ok=True)
        with (self.dir / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # --- what runs ---

    @property
    def init(self) -> int | None:
        """Pid of the host's process 1, or None."""
        starter = self._registry.find(f"host@{self.name}")
        if starter is None:
            return None
        try:
            children = Path(f"/proc/{starter}/task/{starter}/children").read_text(encoding="ascii").split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def pid_namespace(self) -> int | None:
        """Inode number of the pid namespace in which all of the host's processes are, or None when it is off."""
        starter = self._registry.find(f"host@{self.name}")
        return processes.namespace_of(starter, "pid_for_children") if starter else None

    def members(self) -> list[int]:
        """Every living process of the host."""
        inode = self.pid_namespace()
        return [] if inode is None else processes.members_of("pid", inode)

    @property
    def is_frozen(self) -> bool:
        """Whether process 1 stands still."""
        init = self.init
        return init is not None and processes.state_of(init) == "T"

    # --- power ---

    def power_on(self) -> None:
        """Lay the cables, boot, start libvirtd; no error when it runs already."""
        if self.init is not None:
            return
        self._end()
        for directory in _LOST_WITH_POWER:
            for entry in (self.dir / directory).iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._write("boot_id", _random_uuid())
        namespaces.create(self._layout.namespace(self.name))
        for link in self._links:
            self._planes.plug(link)
        self._boot()
        self.set_power_switch("on")
        self.start_libvirtd()

    def _boot(self) -> None:
        booted = self.dir / "booted"
        booted.unlink(missing_ok=True)
        own = [
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
            "--mount-proc",
        ]
        command = namespaces.inside(
            self._layout.namespace(self.name), [*own, "sh", str(INIT), str(self.dir), self.name]
        )
        log = self._layout.logs_dir / f"init-{self.name}.log"
        self._registry.start(f"host@{self.name}", command, log)

        def is_up() -> bool:
            if self.init is None and self._registry.find(f"host@{self.name}") is None:
                raise LaboratoryError(f"{self.name} did not boot; its process 1 wrote to {log}")
            return booted.exists()

        processes.wait_until(is_up, BOOT_TIMEOUT_S, f"the boot of {self.name}")

    def power_off(self) -> None:
        """Links down, SIGKILL to everything, and only then the switch says off. No goodbye reaches anybody."""
        if namespaces.exists(self._layout.switch):
            self._planes.unplug(self._links)
        self._end()
        self.set_power_switch("off")

    def _end(self) -> None:
        """Kill what is left of the host and take its network away."""
        inode = self.pid_namespace()
        if inode is not None:
            processes.end_all(lambda: processes.members_of("pid", inode))
        if namespaces.exists(self._layout.switch):
            self._planes.remove(self._links)
        namespaces.delete(self._layout.namespace(self.name))

    def freeze(self) -> None:
        """SIGSTOP every process: the kernel still answers, nobody else does."""
        self._need_power()
        processes.stop_all(self.members)

    def signal_all(self, number: int) -> None:
        """Send a signal to every process of the host, its process 1 first."""
        self._need_power()
        for pid in sorted(self.members()):
            processes.send(pid, number)

    # --- daemons ---

    def spawn(self, role: str, command: Sequence[str], log: Path) -> int:
        """Start a detached process in the host and remember it as ROLE@HOST; returns its pid outside."""
        self._need_power()
        if self._registry.find(f"{role}@{self.name}") is not None:
            raise LaboratoryError(f"{role}@{self.name} runs already")
        log.parent.mkdir(parents=True, exist_ok=True)
        key, value = self._layout.mark.split("=", 1)
        printed = self.run(["env", f"{key}={value}", "sh", "-c", _SPAWN, "sh", str(log), *command])
        inner = int(printed)
        pid = next((pid for pid in self.members() if processes.pid_inside(pid) == inner), None)
        if pid is None:
            raise LaboratoryError(f"{role}@{self.name} ended at once; its log is {log}")
        self._registry.note(f"{role}@{self.name}", pid)
        return pid

    def run(self, command: Sequence[str]) -> str:
        """Run a program inside the host, all of its namespaces, and return what it printed."""
        enter = ["nsenter", f"--target={self._need_power()}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
        return namespaces.run([*enter, *command])

    def pid_of(self, role: str) -> int | None:
        """Pid of the host's agent or libvirtd, or None."""
        return self._registry.find(f"{role}@{self.name}")

    def start_libvirtd(self) -> None:
        """Start libvirtd and wait until its socket takes connections; takes or makes the warmed cache."""
        warmed = libvirtd.take_warm_cache(self.dir / "cache-libvirt")
        self.run(["sh", f"/etc/libvirt/{libvirtd.BEFORE_START.name}"])
        self.spawn("libvirtd", [libvirtd.LIBVIRTD, "--listen"], self._layout.logs_dir / f"libvirtd-{self.name}.log")
        path = self._layout.libvirt_socket(self.name)
        processes.wait_until(lambda: _accepts(path), BOOT_TIMEOUT_S, f"the start of libvirtd on {self.name}")
        if not warmed:
            namespaces.run(["virsh", "-c", self.uri(), "domcapabilities", "--virttype", "qemu"])
            libvirtd.keep_warm_cache(self.dir / "cache-libvirt")

    def start_agent(self) -> None:
        """Start the agent with the host's agent.toml."""
        program = str(Path(sys.executable).with_name("virtward-agent"))
        command = ["env", "MALLOC_ARENA_MAX=1", program, "--config", str(self.dir / "agent.toml")]  # as its unit has it
        self.spawn("agent", command, self._layout.logs_dir / f"agent-{self.name}.log")

    def uri(self) -> str:
        """The libvirt URI that works from this shell."""
        self._need_power()
        return f"qemu+unix:///system?socket={self._layout.libvirt_socket(self.name)}"

    def _need_power(self) -> int:
        init = self.init
        if init is None:
            raise LaboratoryError(f"{self.name} is off; `virtward-lab power {self.name} on` boots it")
        return init


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _random_uuid() -> str:
    digits = secrets.token_hex(16)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


SIGNALS = {name.removeprefix("SIG"): number.value for name, number in signal.Signals.__members__.items()}
