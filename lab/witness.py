"""The demo's witness: looks at the laboratory ten times a second and at the aggregator's events, and keeps the times.

Two threads, because ground truth must not wait for virtward. What it says of VMs comes from QEMUs and guests alone;
what it says of decisions comes from the event stream, by the time of arrival here. Starts, stops and judges nothing.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from cli.client import Client, Unreachable, path_of
from cli.document import Document, mapping, name_of, text
from cli.errors import Failure
from cli.settings import Settings
from cli.tables import node_state
from lab import guest_log
from lab.errors import LaboratoryError
from lab.guest_log import GuestLine
from lab.laboratory import Laboratory
from lab.observer import Observer
from lab.truth import Cpus, Sample, twice

SAMPLE_EVERY_S = 0.1
SILENCE_S = 0.3  # three ticks: a longer silence of a guest counts as down
RECONNECT_S = 0.2


class Happening(Struct, frozen=True):
    """One event of the aggregator. `at_s`: UNIX time of its arrival here."""

    at_s: float
    kind: str
    node: str
    vm: str
    reason: str
    message: str


class GuestTail:
    """Follows what one guest says, without reading anything twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.lines: list[GuestLine] = []

    def read(self) -> None:
        """Take in what was said since the last time."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                fresh = file.read()
        except FileNotFoundError:
            return
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(whole)
        self.lines += [guest_log.parse(line) for line in whole.decode("ascii", "replace").splitlines()]

    @property
    def ticks(self) -> list[GuestLine]:
        """The count so far."""
        return [line for line in self.lines if line.tick is not None]

    @property
    def last(self) -> GuestLine | None:
        """The last count."""
        return next((line for line in reversed(self.lines) if line.tick is not None), None)

    def says(self, word: str) -> int:
        """How many lines begin with a word."""
        return sum(line.text.startswith(word) for line in self.lines)


def silences_s(ticks: Sequence[GuestLine], until_s: float) -> float:
    """Return how long a guest was down: the sum of its silences of more than SILENCE_S, up to `until_s`."""
    times = [*(tick.at_s for tick in ticks), until_s]
    gaps = (later - earlier for earlier, later in itertools.pairwise(times))
    return sum(gap for gap in gaps if gap > SILENCE_S)


def gap_between_s(ticks: Sequence[GuestLine], start_s: float, end_s: float) -> float:
    """Return the longest time between two counts of which at least a part lies between start and end."""
    pairs = itertools.pairwise(ticks)
    inside = [after.at_s - before.at_s for before, after in pairs if after.at_s >= start_s and before.at_s <= end_s]
    return max(inside, default=0.0)


class Witness:
    """Watches until closed. `tell` is called, from the witness's own thread, for each event as it comes."""

    def __init__(self, laboratory: Laboratory, names: Sequence[str], tell: Callable[[Happening], None]) -> None:
        environment = laboratory.environment()
        self.client = Client(Settings(environment["VIRTWARD_API"], environment["VIRTWARD_TOKEN_FILE"]))
        self.guests = {name: GuestTail(laboratory.guest_log_path(name)) for name in names}
        self.sample = Sample(0.0, {})
        self.twice_seen = 0
        self.samples = 0
        self.blind_s_max = 0.0
        self.happenings: list[Happening] = []
        self.node_states: dict[str, str] = {}
        self._tell = tell
        self._observer = Observer(laboratory.layout)
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._look_until_ended, name="witness-truth", daemon=True),
            threading.Thread(
                target=self._listen, args=("events", self._heard_event), name="witness-events", daemon=True
            ),
            threading.Thread(target=self._listen, args=("nodes", self._heard_node), name="witness-nodes", daemon=True),
        ]

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop looking; everything seen stays."""
        self._ended.set()
        self._threads[0].join(timeout=5)
        self._observer.close()

    # --- ground truth ---

    def _look_until_ended(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(SAMPLE_EVERY_S):
            self._look()
            now = time.monotonic()
            self.blind_s_max = max(self.blind_s_max, now - last)
            last = now

    def _look(self) -> None:
        try:
            self.sample = self._observer.sample()
        except LaboratoryError:
            return  # the time without a look is counted
        self.samples += 1
        self.twice_seen += bool(twice(self.sample))
        for guest in self.guests.values():
            guest.read()

    def running_on(self) -> dict[str, str]:
        """Each VM whose CPUs run, and the host."""
        vms = self.sample.vms.items()
        return {name: qemu.host for name, qemus in vms for qemu in qemus if qemu.cpus is Cpus.RUNNING}

    def splits(self) -> int:
        """How many times a guest met another writer on its disk."""
        return sum(guest.says("split") for guest in self.guests.values())

    def counting_since(self, moment_s: float, not_on: str = "") -> dict[str, GuestLine]:
        """For each VM its first count after a moment, and not on one host."""
        found = {}
        for name, guest in self.guests.items():
            later = (line for line in guest.ticks if line.at_s > moment_s and line.host != not_on)
            first = next(later, None)
            if first is not None:
                found[name] = first
        return found

    # --- the aggregator's word ---

    def _listen(self, collection: str, hear: Callable[[Document], None]) -> None:
        version = ""
        while not self._ended.is_set():
            since = {"resourceVersion": version} if version else {}
            try:
                for event in self.client.watch(path_of(collection), **since):
                    version = event.id or version
                    hear(mapping(event.data, "object") or mapping({"data": event.data}, "data"))
            except Unreachable:
                self._ended.wait(RECONNECT_S)
            except Failure:
                version = ""  # too old, or the list must be read again
                self._ended.wait(RECONNECT_S)

    def _heard_event(self, document: Document) -> None:
        happening = Happening(
            at_s=time.time(),
            kind=text(document, "kind"),
            node=text(document, "node"),
            vm=text(document, "vm"),
            reason=text(document, "reason"),
            message=text(document, "message"),
        )
        self.happenings.append(happening)
        self._tell(happening)

    def _heard_node(self, document: Document) -> None:
        if name_of(document):
            self.node_states[name_of(document)] = node_state(document)

    def first(self, kind: str, node: str, since_s: float) -> Happening | None:
        """The first event of a kind about a node since a moment."""
        found = (each for each in self.happenings if each.kind == kind and each.node == node and each.at_s >= since_s)
        return next(found, None)
