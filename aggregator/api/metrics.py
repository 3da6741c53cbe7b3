"""What Prometheus reads: the state at the moment of the scrape, and nothing kept beside it.

Names no VM and no label of people, so that the number of series follows from the number of nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from aggregator.core.events import MigrationPhase, NodeState, VmPhase
from aggregator.core.state import State
from aggregator.core.views_vm import is_fenceable, unprotected
from aggregator.core.whatif import Readiness
from aggregator.fleet_access import FleetAccess
from fleet.model import WAITED_FOR


def exposition(fleet: FleetAccess) -> tuple[bytes, str]:
    """Return (text, content type) of a scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FleetCollector(fleet))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class FleetCollector(Collector):
    """Reads the fleet whenever it is asked."""

    def __init__(self, fleet: FleetAccess) -> None:
        self._fleet = fleet

    def describe(self) -> Iterable[Metric]:
        """Return nothing: a registration must not read the state."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        state, now = self._fleet.state, self._fleet.now()
        yield GaugeMetricFamily("virtward_ready", "1 while this aggregator acts", value=float(self._fleet.leader_ready))
        yield GaugeMetricFamily("virtward_term", "Term of the leadership", value=state.leader.term)
        yield CounterMetricFamily("virtward_journal_position", "Events in the journal", value=state.position)
        yield _by("virtward_nodes", "Nodes by state", "state", NodeState, (n.state for n in state.nodes.values()))
        yield _by("virtward_vms", "VMs by phase", "phase", VmPhase, (vm.phase for vm in state.vms.values()))
        yield _by(
            "virtward_migrations",
            "Migrations kept in memory by phase",
            "phase",
            MigrationPhase,
            (record.phase for record in state.migrations.values()),
        )
        broken = "Decisions that an invariant forbade and that were not carried out"
        yield CounterMetricFamily("virtward_invariants_broken", broken, value=state.breaches)
        yield from _of_losses(self._fleet.readiness)
        ways = "Ways between two nodes that no guest could take when it was asked about last"
        yield GaugeMetricFamily("virtward_migration_ways_closed", ways, value=len(self._fleet.closed_ways))
        yield from _of_nodes(state, now)
        yield from _of_trouble(state)


def _by(name: str, text: str, label: str, words: Iterable[str], found: Iterable[str]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    counts = Counter(found)
    for word in words:
        family.add_metric([str(word)], counts[word])
    return family


def _of_nodes(state: State, now: float) -> Iterator[Metric]:
    up = GaugeMetricFamily("virtward_node_up", "1 while the node is Up", labels=["node"])
    silence = GaugeMetricFamily("virtward_node_silence_seconds", "Time since the last sign of life", labels=["node"])
    fenceable = GaugeMetricFamily("virtward_node_fenceable", "1 while a fence device is proven right", labels=["node"])
    busy = GaugeMetricFamily("virtward_node_cpu_ratio", "Share of its processors' time in use", labels=["node"])
    spare = GaugeMetricFamily("virtward_node_memory_available_bytes", "Memory a new process can have", labels=["node"])
    waiting = "Share of the last ten seconds in which a process waited for it"
    waits = GaugeMetricFamily("virtward_node_pressure_ratio", waiting, labels=["node", "resource"])
    for name in sorted(state.nodes):
        record = state.nodes[name]
        up.add_metric([name], record.state is NodeState.UP)
        fenceable.add_metric([name], is_fenceable(record))
        if record.last_sign:
            silence.add_metric([name], max(0.0, now - record.last_sign))
        if record.load is not None and record.connected:
            busy.add_metric([name], record.load.cpu_percent / 100)
            spare.add_metric([name], record.load.memory_available_bytes)
            for resource, percent in zip(WAITED_FOR, record.load.waits_percent, strict=False):
                waits.add_metric([name, resource], percent / 100)
    yield from (up, silence, fenceable, busy, spare, waits)


def _of_losses(report: Readiness | None) -> Iterator[Metric]:
    """Yield nothing before the first report: an absent series is no promise."""
    if report is None:
        return
    text = "Nodes, racks and zones whose loss not every VM of theirs would come back from"
    family = GaugeMetricFamily("virtward_losses_uncovered", text, labels=["part"])
    counts = Counter(part.kind for part in report.uncovered)
    for kind in ("node", "rack", "zone"):
        family.add_metric([kind], counts[kind])
    yield family
    yield GaugeMetricFamily("virtward_losses_report_seconds", "CPU time of the newest report", value=report.took_s)


def _of_trouble(state: State) -> Iterator[Metric]:
    is_open = sum(not record.closed for record in state.incidents.values())
    restarts = sum(record.restart_count for record in state.vms.values())
    bare = sum(bool(unprotected(state, record)[0]) for record in state.vms.values())
    draining = sum(record.state == "Running" for record in state.drains.values())
    yield GaugeMetricFamily("virtward_incidents_open", "Incidents that are not closed", value=is_open)
    yield GaugeMetricFamily("virtward_brake_closed", "1 while the brake holds fencing back", value=state.brake_closed)
    yield GaugeMetricFamily("virtward_vms_unprotected", "VMs that would not come back by themselves", value=bare)
    yield GaugeMetricFamily("virtward_vm_restarts", "Restarts after failures, of the VMs there are", value=restarts)
    yield GaugeMetricFamily("virtward_drains_running", "Nodes that are being emptied", value=draining)
    yield GaugeMetricFamily("virtward_orders_open", "Orders without a final answer", value=len(state.orders))
