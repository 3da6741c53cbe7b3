"""A laboratory with agents, an operator's client and a witness: what end-to-end tests and benchmarks stand on.

Gives orders over the HTTP API as any client would, and judges only by the ground truth and by what guests say.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from aggregator.core.yaml_text import read_yaml
from cli.client import Client, Unreachable, path_of
from cli.document import Document, documents, look, text
from cli.errors import Failure
from cli.settings import Settings
from lab import targets
from lab.laboratory import Laboratory
from lab.manifest import GuestKind
from lab.witness import Happening, Witness

WAIT_S_MAX = 90.0
LOOK_EVERY_S = 0.05


class SceneError(Exception):
    """Something that must happen did not; the text says what and what was seen instead."""


class Scene:
    """One laboratory of its own, torn down at the end whatever happens."""

    def __init__(self, name: str, vms: Iterable[str] = ()) -> None:
        self.names = list(vms)
        self.laboratory = Laboratory(name)
        self._witness: Witness | None = None

    def __enter__(self) -> Self:
        """Nothing is built before `up`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove everything."""
        if self._witness is not None:
            self._witness.close()
        self.laboratory.down()

    def up(self, hosts: int = 3, config: Document | None = None) -> None:
        """Build the laboratory and wait until every node is Up and its fence device was checked."""
        if self.laboratory.dir.exists():
            self.laboratory.down()
        self.laboratory.up(hosts=hosts)
        self._witness = Witness(self.laboratory, self.names, lambda _: None)
        self._witness.start()
        if config is not None:
            self.client.patch("/api/v1/config", config)
        wanted = [f"h{number}" for number in range(1, hosts + 1)]
        self.wait(lambda: all(self.node_state(n) == "Up" and self.fenceable(n) for n in wanted), "every node ready")

    # --- who looks ---

    @property
    def witness(self) -> Witness:
        """The witness; SceneError before `up`."""
        if self._witness is None:
            raise SceneError("the laboratory is not up yet")
        return self._witness

    @property
    def client(self) -> Client:
        """A client of its own connection settings; stateless, so any thread may use it."""
        environment = self.laboratory.environment()
        return Client(Settings(environment["VIRTWARD_API"], environment["VIRTWARD_TOKEN_FILE"]))

    def wait(self, met: Callable[[], bool], what: str, limit_s: float = WAIT_S_MAX) -> float:
        """Return after how many seconds the condition held; SceneError with the last events if it never did."""
        begun = time.monotonic()
        while not met():
            if time.monotonic() - begun > limit_s:
                said = "; ".join(f"{h.kind} {h.node or h.vm} {h.message}" for h in self.witness.happenings[-12:])
                raise SceneError(
                    f"waited {limit_s:.0f} s for {what}; last events: {said}; ground truth: {self.where()}"
                )
            time.sleep(LOOK_EVERY_S)
        return time.monotonic() - begun

    # --- nodes and VMs as virtward tells them ---

    def get(self, collection: str, name: str) -> Document:
        """Return one object; empty when the aggregator does not answer or has none of that name."""
        try:
            return self.client.get(path_of(collection, name))
        except (Unreachable, Failure):
            return {}

    def node_state(self, node: str) -> str:
        """Return the state virtward gives a node."""
        return text(self.get("nodes", node), "status.state")

    def fenceable(self, node: str) -> bool:
        """Return whether virtward has shown the node's fence device to be its own."""
        return self.condition(node, "Fenceable").startswith("True ")

    def condition(self, node: str, kind: str) -> str:
        """Return status and message of a condition of a node; empty when it has none."""
        conditions = documents(self.get("nodes", node), "status.conditions")
        found = (f"{text(c, 'status')} {text(c, 'message')}" for c in conditions if text(c, "type") == kind)
        return next(found, "")

    def phase(self, vm: str) -> str:
        """Return the phase virtward gives a VM."""
        return text(self.get("vms", vm), "status.phase")

    def taints(self, node: str) -> list[str]:
        """Return the system's taints on a node, as key:effect."""
        found = documents(self.get("nodes", node), "status.taints")
        return [f"{text(t, 'key')}:{text(t, 'effect')}" for t in found]

    def incident_of(self, node: str) -> Document:
        """Return the newest incident of a node; empty when there is none."""
        found = [i for i in documents(self.client.get("/api/v1/incidents"), "items") if text(i, "spec.node") == node]
        return max(found, key=lambda i: int(text(i, "metadata.name").rpartition("-")[2]), default={})

    # --- orders ---

    def apply(self, *names: str, host: str = "", **wishes: int) -> None:
        """Apply tiny VMs, by preference on one host, and wait until they count there."""
        for name in names:
            manifest = self.laboratory.vm(name, GuestKind.TINY, host=host, **wishes)
            self.apply_text(manifest)
        self.wait(lambda: all(self.counts(name) for name in names), f"{', '.join(names)} to count")

    def apply_text(self, manifest: str) -> Document:
        """Apply a manifest as a person wrote it."""
        return self.client.post("/api/v1/apply", {"documents": read_yaml(manifest), "strict": False})

    def verb(self, collection: str, name: str, verb: str, body: Document | None = None) -> Document:
        """Give an order such as drain or migrate."""
        return self.client.post(path_of(collection, name, verb), body or {})

    def send(self, target: str, signal: str) -> None:
        """Signal a target of the laboratory, such as agent@h1."""
        targets.send(self.laboratory, target, targets.signal_number(signal))

    def start(self, target: str) -> None:
        """Start a target again, as systemd would."""
        targets.start(self.laboratory, target)

    def hide_fence_agents(self) -> None:
        """Restart the aggregator with an empty directory of fence programs, as if nobody had installed them."""
        config = self.laboratory.aggregator.dir / "aggregator.toml"
        empty = self.laboratory.dir / "no-fence-agents"
        empty.mkdir(exist_ok=True)
        lines = config.read_text().splitlines()
        kept = [f'fence_agents_dir = "{empty}"' if line.startswith("fence_agents_dir") else line for line in lines]
        config.write_text("\n".join(kept) + "\n")
        self.send(self.laboratory.aggregator.role, "KILL")
        self.wait(lambda: self.laboratory.aggregator.pid is None, "the aggregator to be gone")
        self.start(self.laboratory.aggregator.role)
        names = [host.name for host in self.laboratory.hosts]
        self.wait(lambda: all(self.node_state(name) == "Up" for name in names), "every node to be Up again")

    # --- the ground truth ---

    def where(self) -> dict[str, str]:
        """Return each VM whose CPUs run, and its host."""
        return self.witness.running_on()

    def counts(self, vm: str, since_s: float | None = None) -> bool:
        """Return whether a guest has counted within the last second, or since a moment."""
        moment = time.time() - 1.0 if since_s is None else since_s
        return vm in self.witness.counting_since(moment)

    def all_count_once(self) -> bool:
        """Return whether every VM counts now and runs exactly once."""
        return set(self.where()) >= set(self.names) and all(self.counts(name) for name in self.names)

    def starts(self, vm: str) -> int:
        """Return how often a guest has booted."""
        return self.witness.guests[vm].says("boot from")

    def unbroken(self, vm: str) -> bool:
        """Return whether a guest has booted once and counted on ever since, no count left out and none twice."""
        counts = [line.tick or 0 for line in self.witness.guests[vm].ticks]
        return self.starts(vm) == 1 and all(after == before + 1 for before, after in itertools.pairwise(counts))

    def faults(self) -> list[str]:
        """Return everything that must never be: VMs seen twice, guests that met another writer."""
        found = [f"{self.witness.twice_seen} looks showed a VM twice"] if self.witness.twice_seen else []
        return found + self.laboratory.splits()

    def first(self, kind: str, node: str, since_s: float) -> Happening | None:
        """Return the first event of a kind about a node since a moment."""
        return self.witness.first(kind, node, since_s)

    def kinds(self, since_s: float = 0.0) -> list[str]:
        """Return the kinds of all events seen since a moment."""
        return [h.kind for h in self.witness.happenings if h.at_s >= since_s]

    def field(self, collection: str, name: str, path: str) -> str:
        """Return one field of an object as text."""
        return str(look(self.get(collection, name), path) or "")
