"""The machines as a fleet: what stands beside them, how they are asked, and how a playbook is played on them.

Knows ssh, ansible-playbook and the command virtward; expects nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lab.guest_build import tiny
from lab.qmp import Monitor
from tests.rollout.keys import give_certificates, make_authority
from tests.rollout.machines import CONTROLLER, OWN_SUITE, SUITE, MachineError, NoMachinesError, Site, run, wait_until
from tests.rollout.outlet import PROGRAM

ROOT = Path(__file__).parents[2]
PLACE = Path("/var/tmp")
VMS = {"web-1": "6f0e3f6a-0000-4000-8000-000000000001", "web-2": "6f0e3f6a-0000-4000-8000-000000000002"}
GUEST = "/var/lib/libvirt/tiny.elf"
NBD_PORT = 10809
PLAYBOOK_S_MAX = 1200.0
DISK_BYTES = 1 << 20


class Story:
    """The site and what is asked of it."""

    def __init__(self, ansible: Path, hosts: Sequence[str], name: str, prefix: str, *, pki: bool) -> None:
        """name: of the folder below /var/tmp; prefix: of networks and cgroups.

        pki: the agents lay out libvirt's certificates; without it they lie there beforehand.
        """
        self.pki = pki
        self.work = PLACE / name
        self.hosts = tuple(hosts)
        self.vms = tuple(VMS)[: len(hosts)]
        self.site = Site(self.work, ("a1", *hosts), prefix)
        self.ansible = ansible
        self.begun = time.monotonic()
        self.key = self.work / "key"
        self.storage: subprocess.Popen[bytes] | None = None

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.begun:6.1f} s  {text}", flush=True)

    # --- building

    def build(self) -> None:
        """Machines that know nothing of virtward, and what stands beside them. NoMachinesError where it cannot be."""
        try:
            self._boot_all()
        except (MachineError, OSError) as error:
            raise NoMachinesError(str(error)) from None
        self._start_storage()
        collections = self.work / "collections/ansible_collections/virtward"
        collections.mkdir(parents=True)
        shutil.copytree(ROOT / "ansible", collections / "fleet")  # as it is now: somebody may go on working on it

    def _boot_all(self) -> None:
        self.site.make_base()
        self.work.mkdir(parents=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)])
        make_authority(self.work / "pki")
        self.site.make_network()
        for name in self.site.machines:
            self.site.boot(name, partial(self._prepare, name))
        for name in self.site.machines:
            wait_until(partial(self.answers, name), 60, f"sshd of {name}")

    def _prepare(self, name: str, root: Path) -> None:
        keys = root / "root/.ssh"
        keys.mkdir(mode=0o700, exist_ok=True)
        (keys / "authorized_keys").write_text(self.key.with_suffix(".pub").read_text())
        if name == "a1":
            program = root / "usr/sbin/fence_outlet"
            program.write_text(PROGRAM)
            program.chmod(0o755)
            return
        _give_own_boot_id(root)
        if not self.pki:
            give_certificates(self.work / "pki", self.site.machines[name], root)
        (root / GUEST[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny(), root / GUEST[1:])
        (root / GUEST[1:]).chmod(0o644)

    def _start_storage(self) -> None:
        socket = self.work / "storage.sock"
        self.storage = subprocess.Popen(
            self.site.at_controller(
                [
                    "qemu-storage-daemon",
                    "--chardev",
                    f"socket,id=m,path={socket},server=on,wait=off",
                    "--monitor",
                    "chardev=m",
                    "--nbd-server",
                    f"addr.type=inet,addr.host={CONTROLLER},addr.port={NBD_PORT},max-connections=0",
                ]
            )
        )
        wait_until(socket.exists, 10, "the start of the storage daemon")
        for name in self.vms:
            disk = self.work / f"{name}.raw"
            with disk.open("xb") as file:
                os.ftruncate(file.fileno(), DISK_BYTES)
            with Monitor(socket, 5.0) as monitor:
                node: dict[str, object] = {
                    "driver": "raw",
                    "node-name": name,
                    "file": {"driver": "file", "filename": str(disk)},
                }
                monitor.ask("blockdev-add", node)
                export: dict[str, object] = {
                    "type": "nbd",
                    "id": name,
                    "node-name": name,
                    "name": name,
                    "writable": True,
                }
                monitor.ask("block-export-add", export)

    # --- asking

    def ssh(self, name: str, command: str, *, check: bool = True) -> str:
        """Run a command on a machine and return its output; with check=False the reason why not."""
        options = [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "ConnectTimeout=5",
        ]
        words = ["ssh", "-i", str(self.key), *options, f"root@{self.site.machines[name].address}", command]
        done = subprocess.run(self.site.at_controller(words), capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0 and check:
            raise MachineError(
                f"{name}: {command}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}"
            )
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def answers(self, name: str) -> bool:
        return self.ssh(name, "true", check=False) == ""

    def objects(self, kind: str) -> dict[str, dict[str, object]]:
        """Return the fleet's objects of a kind by name."""
        items = json.loads(self.ssh("a1", f"virtward get {kind} -o json"))["items"]
        return {item["metadata"]["name"]: item for item in items}

    def status(self, kind: str, name: str, key: str) -> object:
        found = self.objects(kind).get(name, {}).get("status", {})
        return found.get(key) if isinstance(found, dict) else None

    def open_incidents(self) -> list[str]:
        found = self.objects("incidents").items()
        return [name for name, each in found if each["status"]["phase"] != "Closed"]  # type: ignore[index]

    def runs(self, vm: str) -> bool:
        return self.status("vms", vm, "phase") == "Running"

    def count(self, vm: str) -> tuple[int, int]:
        """Return what the guest wrote last on its disk: the nonce of its boot and its count."""
        with (self.work / f"{vm}.raw").open("rb") as disk:
            _, low, high, count = struct.unpack("<IIII", disk.read(16))
        return high << 32 | low, count

    def counts_on(self, vm: str) -> bool:
        before = self.count(vm)[1]
        try:
            wait_until(lambda: self.count(vm)[1] > before + 5, 20, "")
        except MachineError:
            return False
        return True

    def inventory(self, wheelhouse: Path) -> Path:
        """Write the inventory and return its path."""
        common = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
            "ansible_python_interpreter": "/usr/bin/python3",
            "virtward_common_wheelhouse": str(wheelhouse),
            "virtward_common_package_cache_valid_time": 30 * 86400,
            "virtward_agent_aggregators": [f"wss://{self.site.machines['a1'].address}:8421"],
        }
        hosts = {}
        for name in self.hosts:
            fencing = {"agent": "fence_outlet", "params": {"plug": name}, "identity": "Operator", "timeout": "10s"}
            hosts[name] = {
                "ansible_host": self.site.machines[name].address,
                "virtward_agent_control_address": self.site.machines[name].address,
                "virtward_agent_zone": f"z{name[1:]}",
                "virtward_agent_pki": self.pki,
                "virtward_agent_libvirt_settings": {"host_uuid_source": "machine-id"},
                # A machine inside a machine: no cgroups to give away, no AppArmor, no namespaces in namespaces.
                "virtward_agent_qemu_settings": {"cgroup_controllers": [], "security_driver": "none", "namespaces": []},
                "virtward_agent_fencing": [fencing],
            }
        aggregator = {
            "ansible_host": self.site.machines["a1"].address,
            "virtward_aggregator_api_listen": "0.0.0.0:8420",
            "virtward_aggregator_api_names": [self.site.machines["a1"].address],
            "virtward_aggregator_config": {"unseenAtLeast": "5s", "readinessEvery": "5s"},
        }
        groups = {"virtward_aggregators": {"hosts": {"a1": aggregator}}, "virtward_hosts": {"hosts": hosts}}
        path = self.work / "inventory.json"
        path.write_text(json.dumps({"all": {"vars": common, "children": groups}}, indent=1))
        return path

    def environment(self) -> dict[str, str]:
        """Return what Ansible is told besides."""
        return {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self.work / "collections"),
            "ANSIBLE_HOST_KEY_CHECKING": "0",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.work / "cp"),
            "ANSIBLE_LOCAL_TEMP": str(self.work / "ansible"),
        }

    def live_inventory(self) -> dict[str, object]:
        """Return what the inventory plugin makes of the live fleet."""
        token = self.work / "token"
        token.write_text(self.ssh("a1", "cat /etc/virtward/aggregator.token"))
        source = self.work / "fleet.virtward.yml"
        authority = self.work / "authority.crt"
        authority.write_text(self.ssh("a1", "cat /var/lib/virtward-aggregator/authority.crt"))
        api = f"https://{self.site.machines['a1'].address}:8420"
        source.write_text(f"plugin: virtward.fleet.fleet\napi: {api}\ntoken_file: {token}\nca_path: {authority}\n")
        words = self.site.at_controller([str(self.ansible / "ansible-inventory"), "-i", str(source), "--list"])
        done = subprocess.run(words, env=self.environment(), capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            raise MachineError(f"the inventory plugin failed: {done.stderr[-500:]}")
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def _run_ansible(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run it to its end; a machine that reboots meanwhile is booted again, as a real one would be."""
        with (self.work / "play.out").open("w+") as out, (self.work / "play.err").open("w+") as err:
            running = subprocess.Popen(words, env=self.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=err)

            def has_ended() -> bool:
                self.site.start_the_rebooted()
                return running.poll() is not None

            try:
                wait_until(has_ended, PLAYBOOK_S_MAX, words[-1])
            finally:
                if running.poll() is None:
                    running.kill()
            code = running.wait()
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(words, code, out.read(), err.read())

    def play(self, name: str, wheelhouse: Path, *more: str, playbook: Path | None = None) -> dict[str, int]:
        """Run a playbook, of the collection or another one; return how many tasks changed something, by machine."""
        words = [
            str(self.ansible / "ansible-playbook"),
            "-i",
            str(self.inventory(wheelhouse)),
            f"virtward.fleet.{name}" if playbook is None else str(playbook),
            *more,
        ]
        done = self._run_ansible(self.site.at_controller(words))
        (self.work.parent / f"{self.work.name}-{name}.log").write_text(done.stdout + done.stderr)
        if done.returncode != 0:
            failed = re.findall(
                r"^(?:fatal|\[ERROR\]).*(?:\n(?!TASK|PLAY).*){0,6}", done.stdout + done.stderr, re.MULTILINE
            )
            raise MachineError(f"playbook {name} failed: {' '.join(failed)[:1500] or done.stderr[-500:]}")
        return {
            host: int(changed)
            for host, changed in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", done.stdout, re.MULTILINE)
        }


def _give_own_boot_id(root: Path) -> None:
    """Let the agent's sandbox see this machine's boot id and not the kernel's below.

    systemd-nspawn lays another one over it for each boot. The sandbox of an older systemd begins with a fresh /proc,
    which is without it; that of a newer one has it, and nothing can be laid over it once more (it is a deleted file).
    """
    if SUITE != OWN_SUITE:
        return
    kept = "/run/machine-boot-id"
    (root / "etc/tmpfiles.d/boot-id.conf").write_text(f"C {kept} 0444 - - - /proc/sys/kernel/random/boot_id\n")
    folder = root / "etc/systemd/system/virtward-agent.service.d"
    folder.mkdir(parents=True)
    (folder / "boot-id.conf").write_text(f"[Service]\nBindReadOnlyPaths={kept}:/proc/sys/kernel/random/boot_id\n")


def manifest(vm: str, host: str) -> dict[str, object]:
    """A VM that counts on its disk, which lies on the controller."""
    xml = f"""<domain type='qemu'><name>{vm}</name><uuid>{VMS[vm]}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>{GUEST}</kernel><cmdline>tick=100 dirty=0</cmdline></os>
<features><acpi/></features><on_poweroff>destroy</on_poweroff><on_crash>destroy</on_crash><devices>
<disk type='network' device='disk'><driver name='qemu' type='raw'/>
<source protocol='nbd' name='{vm}'><host name='{CONTROLLER}' port='{NBD_PORT}'/></source>
<target dev='hda' bus='ide'/></disk>
<controller type='usb' model='none'/><serial type='pty'/><memballoon model='none'/></devices></domain>"""
    term = {"matchExpressions": [{"key": "virtward/hostname", "operator": "In", "values": [host]}]}
    prefer = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}
    return {
        "apiVersion": "virtward/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": vm},
        "spec": {"runStrategy": "Always", "affinity": {"nodeAffinity": prefer}, "domainXML": xml},
    }
