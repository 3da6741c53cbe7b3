"""Booted Debian machines on one machine: mmdebstrap, overlays, systemd-nspawn, a network of their own.

Knows roots, cgroups and namespaces; knows nothing of virtward. Everything it makes carries the prefix, lies below one
folder and is removed by `Site.down`, also after a crash half-way. Needs root.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct

REBOOTED = 133  # what systemd-nspawn exits with, under --keep-unit, when its machine reboots
NETWORK = "10.77.0"
CONTROLLER = f"{NETWORK}.1"
CACHE = Path("/var/cache/virtward/rollout-machines")
SUITE = os.environ.get("ROLLOUT_SUITE", "bookworm")
OWN_SUITE = "bookworm"  # of the machine that tests: another one is had from the same mirrors
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
INCLUDED = (
    "systemd-sysv,dbus,openssh-server,python3,python3-apt,python3-venv,nftables,iproute2,ca-certificates,libpam-systemd"
)
# What the roles install: downloaded once, so that the machines need no mirror. Nothing of it is installed beforehand.
DOWNLOADED = "libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils python3-libvirt fence-agents"
CGROUPS = (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
PROGRAMS = ("mmdebstrap", "systemd-nspawn", "ip", "ssh", "qemu-storage-daemon", "openssl")
BOOT_S_MAX = 90.0
POLL_S = 0.1


class MachineError(Exception):
    """One sentence."""


class NoMachinesError(MachineError):
    """Machines cannot be booted here, whatever virtward does; one sentence says why."""


def why_no_machines() -> str:
    """Return what is missing to boot machines here, empty if nothing is known against it."""
    if os.geteuid() != 0:
        return "it needs root"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} are missing; make setup-rollout installs them"
    writable = [parent for parent in CGROUPS if os.access(parent / "cgroup.procs", os.W_OK)]
    return "" if writable else f"no cgroups can be made below {CGROUPS[-1]}"


def run(command: Sequence[str], **options: object) -> str:
    """Run a command and return its output. Raises MachineError with its last words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise MachineError(f"{' '.join(command)}: exit {done.returncode}: {' / '.join(words)}")
    return str(done.stdout)


def wait_until(question: Callable[[], bool], seconds_max: float, what: str) -> None:
    """Wait for a condition. Raises MachineError when it does not come true in time."""
    end = time.monotonic() + seconds_max
    while not question():
        if time.monotonic() > end:
            raise MachineError(f"{what} took longer than {seconds_max:g} s")
        time.sleep(POLL_S)


class Machine(Struct):
    """One machine. nspawn: the process that holds it; init: the machine's process 1, as this machine counts."""

    name: str
    number: int
    prefix: str
    nspawn: subprocess.Popen[bytes] | None = None
    init: int = 0

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number + 10}"

    @property
    def namespace(self) -> str:
        return f"{self.prefix}-{self.name}"


class Site:
    """The machines, their network, and the controller's place in it."""

    def __init__(self, work: Path, names: Sequence[str], prefix: str) -> None:
        """prefix: of everything this site makes; two sites with their own stand side by side."""
        self.work = work
        self.machines = {name: Machine(name, number, prefix) for number, name in enumerate(names)}
        self.controller = f"{prefix}-ctl"

    # --- the base

    def make_base(self) -> Path:
        """Return the tree all machines start from; made once and kept, by one at a time."""
        base = CACHE / SUITE
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (base / ".complete").exists():
                self._make_base(base)
        return base

    def _make_base(self, base: Path) -> None:
        shutil.rmtree(base, ignore_errors=True)
        sources = [
            str(path)
            for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*")))
            if path.is_file() and SUITE in path.read_text(encoding="utf-8", errors="replace")
        ]
        sources = sources or [str(self._sources_of_another_suite())]
        settings = CACHE / "apt.conf"
        said = run(["apt-config", "dump"]).splitlines()
        settings.write_text("".join(f"{line}\n" for line in said if line.startswith(("Acquire::http", "Acquire::ftp"))))
        options = ["--quiet", "--variant=minbase", f"--include={INCLUDED}", f"--aptopt={settings}"]
        run(["mmdebstrap", *options, SUITE, str(base), *sources])
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", base / "etc/ssl/certs/ca-certificates.crt")
        shutil.copy(settings, base / "etc/apt/apt.conf.d/99-site")
        shutil.copy("/etc/resolv.conf", base / "etc/resolv.conf")
        run(["chroot", str(base), "apt-get", "-qq", "update"])
        run(
            [
                "chroot",
                str(base),
                "apt-get",
                "-qq",
                "-y",
                "--no-install-recommends",
                "--download-only",
                "install",
                *DOWNLOADED.split(),
            ]
        )
        (base / ".complete").touch()

    def _sources_of_another_suite(self) -> Path:
        """Return this machine's own sources with the other suite in them."""
        found = [
            text
            for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.sources")))
            if path.is_file() and OWN_SUITE in (text := path.read_text(encoding="utf-8", errors="replace"))
        ]
        sources = CACHE / f"{SUITE}.sources"
        sources.write_text("\n".join(found).replace(OWN_SUITE, SUITE), encoding="utf-8")
        return sources

    # --- network

    def make_network(self) -> None:
        """One bridge in the controller's namespace; nothing of it in this machine's own."""
        run(["ip", "netns", "add", self.controller])
        inside = ["ip", "-n", self.controller]
        run([*inside, "link", "set", "lo", "up"])
        run([*inside, "link", "add", "br0", "type", "bridge"])
        run([*inside, "addr", "add", f"{CONTROLLER}/24", "dev", "br0"])
        run([*inside, "link", "set", "br0", "up"])
        for machine in self.machines.values():
            self._plug(machine)

    def _plug(self, machine: Machine) -> None:
        run(["ip", "netns", "add", machine.namespace])
        peer = f"to-{machine.name}"
        run(
            [
                "ip",
                "-n",
                self.controller,
                "link",
                "add",
                peer,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                machine.namespace,
            ]
        )
        run(["ip", "-n", self.controller, "link", "set", peer, "master", "br0", "up"])
        inside = ["ip", "-n", machine.namespace]
        run([*inside, "addr", "add", f"{machine.address}/24", "dev", "eth0"])
        for link in ("lo", "eth0"):
            run([*inside, "link", "set", link, "up"])

    def cut(self, name: str) -> None:
        """Take the machine off the network, at once and both ways."""
        run(["ip", "-n", self.controller, "link", "set", f"to-{name}", "down"])

    def at_controller(self, command: Sequence[str]) -> list[str]:
        """Return the command as it runs in the controller's namespace."""
        return ["ip", "netns", "exec", self.controller, *command]

    # --- life

    def boot(self, name: str, prepare: Callable[[Path], None]) -> None:
        """Make a machine from the base and boot it. prepare: writes into its root before it boots."""
        self.machines[name]
        place = self.work / name
        for folder in ("upper", "work", "root"):
            (place / folder).mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir={CACHE / SUITE},upperdir={place / 'upper'},workdir={place / 'work'}"
        run(["mount", "-t", "overlay", "overlay", "-o", layers, str(place / "root")])
        root = place / "root"
        (root / "etc/machine-id").write_text("")
        (root / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")  # nobody keeps these machines
        (root / "etc/hostname").write_text(f"{name}\n")
        known = "".join(f"{each.address} {each.name}\n" for each in self.machines.values())
        (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{known}")
        prepare(root)
        self.start(name)

    def start(self, name: str) -> None:
        """Power a machine on whose root is there."""
        machine = self.machines[name]
        run(["ip", "-n", self.controller, "link", "set", f"to-{name}", "up"])
        groups = self._cgroups(machine)
        for group in groups:
            group.mkdir(exist_ok=True)

        def enter() -> None:
            for group in groups:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        log = (self.work / f"{name}.console").open("ab")
        machine.nspawn = subprocess.Popen(
            [
                "systemd-nspawn",
                "--quiet",
                "--register=no",
                "--keep-unit",
                "--boot",
                "--capability=all",
                f"--machine={machine.namespace}",
                f"--directory={self.work / name / 'root'}",
                f"--network-namespace-path=/run/netns/{machine.namespace}",
                "--console=pipe",
                "--resolv-conf=off",
                "--system-call-filter=@mount @keyring bpf",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=enter,  # noqa: PLW1509 - one thread, and a machine must have a cgroup of its own
        )
        log.close()
        wait_until(lambda: self._find_init(machine), BOOT_S_MAX, f"the boot of {name}")

    def _find_init(self, machine: Machine) -> bool:
        assert machine.nspawn is not None
        pid = machine.nspawn.pid
        if machine.nspawn.poll() is not None:
            last = (self.work / f"{machine.name}.console").read_text(errors="replace").splitlines()[-3:]
            raise MachineError(f"{machine.name} did not boot: {' / '.join(last)}")
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        except OSError:
            return False
        machine.init = int(children[0]) if children else 0
        return machine.init != 0

    def _cgroups(self, machine: Machine) -> list[Path]:
        return [parent / machine.namespace for parent in CGROUPS if (parent / "cgroup.procs").exists()]

    def is_on(self, name: str) -> bool:
        """Say whether the machine's process 1 lives."""
        machine = self.machines[name]
        return machine.nspawn is not None and machine.nspawn.poll() is None

    def start_the_rebooted(self) -> None:
        """Boot again whatever has rebooted itself; nobody else does."""
        for name, machine in self.machines.items():
            if machine.nspawn is not None and machine.nspawn.poll() == REBOOTED:
                self.start(name)

    def kill(self, name: str) -> None:
        """Cut the machine's power: links first, then everything on it dies at once."""
        machine = self.machines[name]
        self.cut(name)
        for pid in self._processes(machine):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if machine.nspawn is not None:
            machine.nspawn.wait(30)

    def _processes(self, machine: Machine) -> list[int]:
        """Return the machine's process 1 first, and with it the whole pid namespace; then whoever holds it."""
        alive = [machine.init] if machine.init and Path(f"/proc/{machine.init}").exists() else []
        return alive + ([machine.nspawn.pid] if machine.nspawn is not None and machine.nspawn.poll() is None else [])

    def _in_cgroups(self, machine: Machine) -> list[int]:
        """Return everything that lives in the machine's cgroups, also after a crash of whoever began it."""
        files = [file for group in self._cgroups(machine) for file in group.rglob("cgroup.procs")]
        return sorted({int(pid) for file in files for pid in file.read_text(encoding="ascii").split() if pid != "0"})

    def _is_empty(self, machine: Machine) -> bool:
        return not self._in_cgroups(machine)

    def down(self) -> None:
        """Remove everything that was made; says nothing of what was not there."""
        for name, machine in self.machines.items():
            for pid in self._processes(machine) + self._in_cgroups(machine):
                subprocess.run(["kill", "-KILL", str(pid)], capture_output=True, check=False)
            wait_until(partial(self._is_empty, machine), 30, f"the end of {name}")
            if machine.nspawn is not None:
                machine.nspawn.wait(30)
            root = str(self.work / name / "root")
            while subprocess.run(["umount", "--recursive", root], capture_output=True, check=False).returncode == 0:
                continue
            for group in self._cgroups(machine):
                subprocess.run(
                    ["find", str(group), "-depth", "-type", "d", "-delete"], capture_output=True, check=False
                )
            subprocess.run(["ip", "netns", "delete", machine.namespace], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", self.controller], capture_output=True, check=False)
        shutil.rmtree(self.work, ignore_errors=True)
