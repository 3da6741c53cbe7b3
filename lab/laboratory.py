"""The laboratory: three hosts or so on one machine, to be looked at, cut, frozen and powered off.

The one class that tests, benchmarks, the demo and the command use. Every intent is written down before the deed and all
is found again by name or mark, so `down` also clears a laboratory whose `up` died half-way.
Knows how the parts belong together; each part's own doings are in its module.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from lab import forwarder, guest_build, guest_log, linux_image, manifest, namespaces, observer, processes
from lab.belongings import Belongings
from lab.bmc import Bmc, BmcMode, write_identity_command
from lab.daemons import Aggregator, Api, node_manifest, write_agent_configuration
from lab.errors import LaboratoryError
from lab.guest_log import GuestLine
from lab.hosts import Host
from lab.layout import API_PORT, HOST_PLANES, HOSTS_MAX, Layout, Link, Plane, base_dir, check_vm_name, host_index
from lab.manifest import BootFiles, GuestKind, GuestSpec
from lab.planes import Direction, Planes
from lab.processes import Registry, write_secret
from lab.storage import Storage
from lab.truth import Cpus, Sample

COLLECTOR, FORWARDER = "collector", "forwarder"
ORDERS = {"poweroff": "o", "crash": "c", "hang": "h", "panic": "p", "reboot": "r", "watchdog": "w"}


class Plan(Struct):
    """What `up` was asked for; written before anything is made."""

    name: str
    id: str  # a uuid, new with each fresh laboratory; uuids of hosts and VMs follow from it
    hosts: int = 3
    agents: bool = True
    fencing: str = "ipmi"
    api_port: int = 0


class Laboratory:
    """The laboratory called `name`, up or not."""

    def __init__(self, name: str = "lab", base: Path | None = None) -> None:
        self.layout = Layout(name, base)
        self.registry = Registry(self.layout.run_dir, self.layout.mark)
        self.planes = Planes(self.layout)
        self.storage = Storage(self.layout, self.planes, self.registry)
        self.aggregator = Aggregator(self.layout, self.planes, self.registry)
        self.belongings = Belongings(self.layout)
        self._observer: observer.Observer | None = None

    # --- what it is made of ---

    @property
    def dir(self) -> Path:
        """Where its state lies."""
        return self.layout.dir

    @property
    def plan(self) -> Plan:
        """What it was built as; raises LaboratoryError when it is not up."""
        try:
            return msgspec.json.decode((self.dir / "lab.json").read_bytes(), type=Plan)
        except FileNotFoundError:
            raise LaboratoryError(f"there is no laboratory {self.layout.name}; `virtward-lab up` builds it") from None

    @property
    def hosts(self) -> list[Host]:
        """All hosts, running or not."""
        return [self.host(f"h{index}") for index in range(1, self.plan.hosts + 1)]

    def host(self, name: str) -> Host:
        """One host; raises LaboratoryError when there is no such one."""
        if host_index(name) > self.plan.hosts:
            raise LaboratoryError(
                f"laboratory {self.layout.name} has no {name}: its hosts are h1 to h{self.plan.hosts}"
            )
        return Host(self.layout, self.planes, self.registry, name)

    def bmc(self, host: str) -> Bmc:
        """The BMC that was built for a host; raises LaboratoryError in a laboratory without BMCs."""
        self.host(host)
        if self.plan.fencing != "ipmi":
            raise LaboratoryError(
                f"laboratory {self.layout.name} was built without BMCs (--fencing {self.plan.fencing})"
            )
        return Bmc(self.layout, self.planes, self.registry, host)

    # --- up and down ---

    def up(self, *, hosts: int = 3, agents: bool = True, fencing: str = "ipmi") -> None:
        """Build what is missing and start what does not run."""
        if not 1 <= hosts <= HOSTS_MAX:
            raise LaboratoryError(f"--hosts {hosts} is out of range: 1 to {HOSTS_MAX}")
        if os.geteuid() != 0:
            raise LaboratoryError("only root can make namespaces and links; run virtward-lab as root")
        with self._alone():
            self.belongings.claim_name()
            plan = self._write_plan(hosts, fencing, agents=agents)
            self.planes.create_switch()
            self.storage.start()
            self._prepare_hosts(plan)
            with ThreadPoolExecutor(max_workers=4) as pool:
                list(pool.map(self._complete_host, self.hosts))
            self._start_witnesses()
            if plan.agents:
                self._start_daemons(plan)
            self._point_current_here(plan)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One `up` or `down` of this laboratory at a time."""
        self.layout.base.mkdir(parents=True, exist_ok=True)
        with (self.layout.base / f".{self.layout.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write_plan(self, hosts: int, fencing: str, *, agents: bool) -> Plan:
        try:
            plan = self.plan
        except LaboratoryError:
            plan = Plan(self.layout.name, str(uuid.uuid4()))
            plan.hosts, plan.fencing, plan.agents = hosts, fencing, agents
        if plan.hosts != hosts or plan.fencing != fencing:
            text = (
                f"laboratory {plan.name} is there with {plan.hosts} hosts and --fencing {plan.fencing};"
                " `virtward-lab down` first to build another"
            )
            raise LaboratoryError(text)
        plan.agents = agents
        plan.api_port = plan.api_port or forwarder.free_port()
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / "lab.json").write_bytes(msgspec.json.encode(plan))
        return plan

    def _prepare_hosts(self, plan: Plan) -> None:
        names = [f"h{index}" for index in range(1, plan.hosts + 1)]
        for name in names:
            self.host(name).prepare(self.layout.stable_uuid(f"host {name}", plan.id), names)
            if plan.fencing == "ipmi":
                bmc = self.bmc(name)
                bmc.prepare(self.layout.stable_uuid(f"bmc {name}", plan.id))
                bmc.start()
                write_identity_command(self.layout, name)

    def _complete_host(self, host: Host) -> None:
        self.switch_power(host.name, on=True)
        if host.pid_of("libvirtd") is None:
            host.start_libvirtd()

    def _start_witnesses(self) -> None:
        """The collector of guests' words and the observer of QEMUs."""
        if self.registry.find(COLLECTOR) is None:
            command = [sys.executable, "-m", "lab.serial_log", str(self.dir)]
            self.registry.start(COLLECTOR, command, self.layout.logs_dir / "collector.log")
        if self.registry.find(observer.ROLE) is None:
            environment = {"VIRTWARD_LAB_DIR": str(self.layout.base)}
            command = [sys.executable, "-m", "lab.observer", self.layout.name]
            path = observer.socket_path(self.layout)
            path.unlink(missing_ok=True)
            self.registry.start(observer.ROLE, command, self.layout.logs_dir / "observer.log", environment)
            processes.wait_until(path.exists, 10.0, "the start of the observer")

    def _start_daemons(self, plan: Plan) -> None:
        aggregator = self.aggregator
        aggregator.prepare()
        if aggregator.pid is None:
            aggregator.start()
        if self.registry.find(FORWARDER) is None:
            where = [str(plan.api_port), aggregator.namespace, aggregator.address, str(API_PORT)]
            where.append(str(aggregator.authority_file))
            command = [sys.executable, "-m", "lab.forwarder", *where]
            self.registry.start(FORWARDER, command, self.layout.logs_dir / "forwarder.log")
        api = Api(plan.api_port, aggregator.token_file)
        api.wait_ready(aggregator)
        for host in self.hosts:
            self._enrol(api, host, has_bmc=plan.fencing == "ipmi")
        api.wait_joined([host.name for host in self.hosts])

    def _enrol(self, api: Api, host: Host, *, has_bmc: bool) -> None:
        token_file = host.dir / "agent.token"
        if not token_file.exists():
            api.put_node(host.name, node_manifest(self.layout, host.name, self.bmc(host.name) if has_bmc else None))
            write_secret(token_file, api.node_token(host.name))
        write_agent_configuration(self.layout, host, [self.aggregator], has_bmc=has_bmc)
        if host.pid_of("agent") is None:
            host.start_agent()

    def _point_current_here(self, plan: Plan) -> None:
        """Let a plain `virtward` in this shell find the laboratory that came up last."""
        client = f'api = "{self.api_url(plan)}"\ntoken_file = "{self.aggregator.token_file}"\n'
        (self.dir / "client.toml").write_text(client, encoding="ascii")
        fresh = self.layout.base / f".current.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self.layout.name)
        fresh.rename(self.layout.base / "current")

    def down(self) -> None:
        """Remove every process, namespace, link and file of this laboratory, however much of it there is."""
        if self._observer is not None:
            self._observer.close()
            self._observer = None
        with self._alone():
            processes.end_all(self.belongings.processes)
            for name in self.belongings.namespaces():
                namespaces.delete(name)
            if self.dir.exists():
                shutil.rmtree(self.dir)
            current = self.layout.base / "current"
            if current.is_symlink() and current.readlink() == Path(self.layout.name):
                current.unlink()
            self.belongings.release_name()

    # --- faults ---

    def switch_power(self, name: str, *, on: bool, delay_s: float = 0.0) -> None:
        """Power a host on (with libvirtd, and its agent if it has one) or off; one operation at a time per host."""
        host = self.host(name)
        with host.lock():
            time.sleep(delay_s)
            if not on:
                host.power_off()
            elif host.init is None:
                host.power_on()
                if (host.dir / "agent.token").exists() and self.plan.agents:
                    host.start_agent()

    def power(self, name: str, word: str, *, with_bmc: bool = False) -> None:
        """`word`: off, on or cycle; with_bmc: the BMC loses and regains its stand-by power too."""
        if word in ("off", "cycle"):
            self.switch_power(name, on=False)
            if with_bmc:
                self.bmc(name).power_off()
        if word in ("on", "cycle"):
            if self.plan.fencing == "ipmi":
                self.bmc(name).start()
            self.switch_power(name, on=True)

    def _links(self, member: str, plane: str) -> list[Link]:
        if member.startswith("a") and member != self.aggregator.name:
            raise LaboratoryError(
                f"laboratory {self.layout.name} has no {member}: its aggregator is {self.aggregator.name}"
            )
        if not member.startswith("a"):
            self.host(member)
        own = (Plane.CONTROL, Plane.BMC) if member.startswith("a") else (*HOST_PLANES, Plane.BMC)
        planes = own if plane == "all" else (Plane(plane),)
        return [self.layout.link(member, each) for each in planes]

    def cut(self, member: str, plane: str = "all", direction: Direction | str = Direction.BOTH) -> None:
        """Cut a host (or the aggregator a1) off a plane; direction as the member sees it."""
        for link in self._links(member, plane):
            self.planes.cut(link, Direction(direction))

    def heal(self, member: str, plane: str = "all") -> None:
        """Mend cuts, mutes and slowness."""
        for link in self._links(member, plane):
            self.planes.heal(link)

    def slow(self, member: str, plane: str, rate_mbit: int) -> None:
        """Limit a cable to so many megabits a second."""
        for link in self._links(member, plane):
            self.planes.slow(link, rate_mbit)

    def mute(self, member: str, plane: str, port: int) -> None:
        """Lose the answers of one TCP service of a member, such as its libvirtd; `heal` mends it."""
        for link in self._links(member, plane):
            self.planes.mute(link, port)

    def set_bmc(self, host: str, mode: BmcMode | str) -> None:
        """Let a BMC work, fail, hang or say off too early."""
        self.bmc(host).set_mode(BmcMode(mode))

    def fence_deeds(self) -> dict[str, list[str]]:
        """Every order about power that each host's BMC ever got, where there was one."""
        deeds = {host.name: self.bmc(host.name).deeds for host in self.hosts}
        return {name: orders for name, orders in deeds.items() if orders}

    def swap_bmcs(self, one: str, other: str) -> None:
        """Exchange what two BMCs control."""
        first, second = self.bmc(one), self.bmc(other)
        controls = first.controls
        first.set_controls(second.controls)
        second.set_controls(controls)

    # --- guests ---

    def vm(self, name: str, kind: GuestKind | str = GuestKind.TINY, *, host: str = "", **wishes: int) -> str:
        """Make the disk if need be and return the manifest (YAML). Wishes: memory_mib, dirty_mib_per_s, tick_ms."""
        spec, files = self._guest(name, GuestKind(kind), host, wishes)
        return manifest.guest_manifest(spec, files)

    def domain_xml(self, name: str, kind: GuestKind | str = GuestKind.TINY, **wishes: int) -> str:
        """Make the disk if need be and return the libvirt definition alone."""
        return manifest.domain_xml(*self._guest(name, GuestKind(kind), "", wishes))

    def _guest(self, name: str, kind: GuestKind, host: str, wishes: dict[str, int]) -> tuple[GuestSpec, BootFiles]:
        check_vm_name(name)
        if host:
            self.host(host)
        wishes = {"memory_mib": manifest.MEMORY_MIB[kind], **wishes}
        spec = GuestSpec(name, self.layout.stable_uuid(f"vm {name}", self.plan.id), kind, host, **wishes)
        files = BootFiles(guest_build.tiny()) if kind is GuestKind.TINY else linux_image.boot_files()
        self.storage.ensure_disk(name)
        return spec, files

    def order_guest(self, name: str, word: str) -> None:
        """Let the guest itself do one of ORDERS."""
        qemus = [qemu for qemu in self.sample().vms.get(name, []) if qemu.cpus is Cpus.RUNNING]
        if not qemus:
            raise LaboratoryError(f"VM {name} runs nowhere in laboratory {self.layout.name}, so it can do nothing")
        path = self.layout.host_private(qemus[0].host) / manifest.control_socket(name)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
                control.connect(str(path))
                control.sendall(ORDERS[word].encode())
        except OSError as error:
            raise LaboratoryError(f"guest {name} takes no orders on {path}: {error}") from None

    def guest_log_path(self, name: str) -> Path:
        """Where the collector writes a guest's words."""
        return self.layout.guests_dir / f"{check_vm_name(name)}.log"

    def guest_log(self, name: str) -> list[GuestLine]:
        """What a guest has said so far, by the host's clock."""
        return guest_log.read(self._known_guest(name))

    def follow_guest(self, name: str) -> Iterator[GuestLine]:
        """What a guest has said and will say, for ever."""
        return guest_log.follow(self._known_guest(name))

    def _known_guest(self, name: str) -> Path:
        """The log of a guest that has a disk; a mistyped name must not look like a silent guest."""
        path = self.guest_log_path(name)
        if not path.exists() and not self.storage.has_disk(name):
            raise LaboratoryError(
                f"there is no VM {name} in laboratory {self.layout.name}; `virtward-lab vm` makes one"
            )
        return path

    def splits(self) -> list[str]:
        """Every line that says a guest met another writer on its disk, with the guest's name. Must stay empty."""
        logs = sorted(self.layout.guests_dir.glob("*.log"))
        return [f"{log.stem}: {line}" for log in logs for line in guest_log.read(log) if line.text.startswith("split")]

    # --- ground truth and the way in ---

    def twice_seen(self) -> list[str]:
        """Every sample, of those taken four times a second since `up`, that showed a VM twice. Must stay empty."""
        path = observer.twice_path(self.layout)
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def sample(self) -> Sample:
        """Ground truth now, over a connection that stays open. Not for several threads at once."""
        if self._observer is None:
            self._observer = observer.Observer(self.layout)
        return self._observer.sample()

    def api_url(self, plan: Plan | None = None) -> str:
        """The API and page as this shell reaches them."""
        return f"http://127.0.0.1:{(plan or self.plan).api_port}"

    def environment(self) -> dict[str, str]:
        """What `virtward` needs in another shell."""
        return {"VIRTWARD_API": self.api_url(), "VIRTWARD_TOKEN_FILE": str(self.aggregator.token_file)}

    def virsh(self, host: str, *words: str) -> str:
        """Run virsh against a host's libvirtd and return what it prints; LaboratoryError with its last word."""
        return namespaces.run(["virsh", "-q", "-c", self.host(host).uri(), *words])


def names(base: Path | None = None) -> Sequence[str]:
    """Laboratories that have a directory."""
    place = base or base_dir()
    return (
        sorted(path.parent.name for path in place.glob("*/lab.json") if not path.parent.is_symlink())
        if place.is_dir()
        else []
    )
