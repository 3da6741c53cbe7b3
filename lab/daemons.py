"""virtward's own daemons in the laboratory: their configuration files, the enrolment of each node, their tokens.

Knows the daemons' configuration keys and the few HTTP calls that enrol a node. Must not import them.
"""

from __future__ import annotations

import http.client
import json
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import namespaces
from lab.bmc import Bmc, write_identity_command
from lab.errors import LaboratoryError
from lab.hosts import Host
from lab.layout import AGENTS_PORT, API_PORT, BMC_USER, LIBVIRT_PORT, PEER_PORT, Layout, Plane
from lab.planes import Planes
from lab.processes import Registry, write_secret

AGGREGATOR_PLANES = (Plane.CONTROL, Plane.BMC)
READY_TIMEOUT_S = 30.0
JOIN_TIMEOUT_S = 15.0  # a host that is cut off never joins; the laboratory is up all the same
REQUEST_TIMEOUT_S = 10.0
# Where the laboratory differs from the defaults of ClusterConfig, and nowhere else.
CHECKS, CHECKS_EVERY_S, DISK_CHECK = "checks.d", 5.0, "disk"  # a check program of that name may empty its host
SETTINGS = {"mode": "Act", "unseenAtLeast": "5s", "readinessEvery": "5s", "rescueAfter": "30s"}
BMC_IDENTITY_EVERY_S = 2.5  # half of readinessEvery, so that each check sees what the host says now


def _toml(values: Mapping[str, str | float | bool | list[str]]) -> str:
    """Lines KEY = VALUE; a JSON string, number, truth or list of strings is a TOML one too."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


class Aggregator:
    """The aggregator a1: its namespace, files and process."""

    def __init__(self, layout: Layout, planes: Planes, registry: Registry, name: str = "a1") -> None:
        self.name = name
        self.dir = layout.aggregator_dir(name)
        self.role = f"aggregator@{name[1:]}"
        self.address = layout.address(name, Plane.CONTROL)
        self.namespace = layout.namespace(name)
        self._layout = layout
        self._planes = planes
        self._registry = registry
        self.settings: dict[
            str, str | float | bool | list[str]
        ] = {}  # of its file, beside or instead of the usual ones

    @property
    def token_file(self) -> Path:
        """The token of the API's administrator."""
        return self.dir / "admin.token"

    @property
    def authority_file(self) -> Path:
        """By which its API is known; there once it has started."""
        return self.dir / "state" / "authority.crt"

    @property
    def pid(self) -> int | None:
        """Its pid, or None."""
        return self._registry.find(self.role)

    def prepare(self) -> None:
        """Make its namespace, cables, token and configuration."""
        namespaces.create(self.namespace)
        for plane in AGGREGATOR_PLANES:
            self._planes.plug(self._layout.link(self.name, plane))
        (self.dir / "state").mkdir(parents=True, exist_ok=True)
        if not self.token_file.exists():
            write_secret(self.token_file, secrets.token_urlsafe(32))
        values: dict[str, str | float | bool | list[str]] = {
            "name": self.name,
            "api_listen": f"{self.address}:{API_PORT}",
            "agents_listen": f"{self.address}:{AGENTS_PORT}",
            "state_dir": str(self.dir / "state"),
            "token_file": str(self.token_file),
            "fence_agents_dir": "/usr/sbin",
            "log_level": "info",
        } | self.settings
        text = _toml(values) + "\n[config]\n" + _toml(dict(SETTINGS))
        (self.dir / "aggregator.toml").write_text(text, encoding="utf-8")

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it, with more in its environment if need be; raises LaboratoryError when it runs."""
        if self.pid is not None:
            raise LaboratoryError(f"{self.role} runs already")
        program = str(Path(sys.executable).with_name("virtward-aggregator"))
        command = namespaces.inside(self.namespace, [program, "--config", str(self.dir / "aggregator.toml")])
        self._registry.start(self.role, command, self._layout.logs_dir / f"aggregator-{self.name}.log", environment)


class Api:
    """The few calls the laboratory makes to enrol its hosts."""

    def __init__(self, port: int, token_file: Path) -> None:
        self._port = port
        self._token_file = token_file

    def wait_ready(self, aggregator: Aggregator) -> None:
        """Wait until /readyz says 200; raises LaboratoryError when the aggregator ends before."""
        end = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < end:
            if aggregator.pid is None:
                raise LaboratoryError(
                    f"{aggregator.role} ended while it started; its log is in the laboratory's logs directory"
                )
            try:
                if self._request("GET", "/readyz", None)[0] == http.HTTPStatus.OK:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise LaboratoryError(
            f"{aggregator.role} was not ready within {READY_TIMEOUT_S:g} s; see its log in the logs directory"
        )

    def wait_joined(self, nodes: Sequence[str]) -> None:
        """Wait until every node is Up, so that what is applied next finds its host; gives up without a word."""
        end = time.monotonic() + JOIN_TIMEOUT_S
        while not all(self._is_up(node) for node in nodes) and time.monotonic() < end:
            time.sleep(0.1)

    def _is_up(self, node: str) -> bool:
        status = json.loads(self._must("GET", f"/api/v1/nodes/{node}", None)).get("status", {})
        return bool(status.get("state") == "Up")

    def put_node(self, name: str, manifest: dict[str, object]) -> None:
        """Create or replace a node."""
        self._must("PUT", f"/api/v1/nodes/{name}", manifest)

    def node_token(self, node: str) -> str:
        """A new join token for a node's agent."""
        answer = json.loads(self._must("POST", f"/api/v1/nodes/{node}:token", {}))
        return str(answer["token"])

    def _must(self, method: str, path: str, body: dict[str, object] | None) -> bytes:
        try:
            status, text = self._request(method, path, body)
        except OSError as error:
            raise LaboratoryError(f"the aggregator did not answer {method} {path}: {error}") from None
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise LaboratoryError(f"the aggregator refused {method} {path}: {status}, {_beginning(text)}")
        return text

    def _request(self, method: str, path: str, body: dict[str, object] | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_TIMEOUT_S)
        headers = {"Authorization": f"Bearer {self._token_file.read_text(encoding='ascii').strip()}"}
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, headers | ({"Content-Type": "application/json"} if text else {}))
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(str(error) or type(error).__name__) from None
        finally:
            connection.close()


def _beginning(text: bytes) -> str:
    return text.decode(errors="replace").strip()[:300]


def node_manifest(layout: Layout, host: str, bmc: Bmc | None) -> dict[str, object]:
    """The Node of a host: zones by turns, its migration address, its BMC."""
    spec: dict[str, object] = {"migrationAddress": layout.address(host, Plane.MIGRATION)}
    if bmc is not None:
        params = {
            "ip": bmc.address,
            "username": BMC_USER,
            "password_file": str(bmc.password_file),
            "lanplus": "1",
            "cipher": "3",
        }
        spec["fencing"] = [{"agent": "fence_ipmilan", "params": params, "timeout": "30s", "guid": bmc.guid}]
    labels = {"virtward/zone": f"z{(int(host[1:]) - 1) % 3 + 1}"}
    return {"apiVersion": "virtward/v1", "kind": "Node", "metadata": {"name": host, "labels": labels}, "spec": spec}


def write_agent_configuration(layout: Layout, host: Host, aggregators: list[Aggregator], *, has_bmc: bool) -> None:
    """Write the host's agent.toml."""
    values: dict[str, str | float | bool | list[str]] = {
        "node": host.name,
        "aggregators": [f"wss://{each.address}:{AGENTS_PORT}" for each in aggregators],
        "token_file": str(host.dir / "agent.token"),
        "state_dir": str(host.dir / "agent"),
        "run_dir": "/run/virtward",
        "libvirt_uri": "qemu:///system",
        "listen": f"0.0.0.0:{PEER_PORT}",
        "control_address": layout.address(host.name, Plane.CONTROL),
        "migration_address": layout.address(host.name, Plane.MIGRATION),
        "libvirt_port": LIBVIRT_PORT,
        "peer_uri": "qemu+tls://{address}/system",
        "migration_tls": True,
        "pki_dir": "/etc/pki",
        "pki_reload_command": ["virt-admin", "server-update-tls", "libvirtd"],
        "boot_id_file": str(host.dir / "boot_id"),
        "machine_id_file": str(host.dir / "machine_id"),
        "checks_dir": str(host.dir / CHECKS),
        "checks_every_s": CHECKS_EVERY_S,
        "checks_own": [],  # all hosts share one kernel: what presses one presses all
        "log_level": "info",
    }
    if has_bmc:
        values["bmc_identity_command"] = [str(write_identity_command(layout, host.name))]
        values["bmc_identity_every_s"] = BMC_IDENTITY_EVERY_S
    text = _toml(values) + "\n[checks_taint]\n" + _toml({DISK_CHECK: "NoExecute"})
    (host.dir / "agent.toml").write_text(text, encoding="utf-8")
