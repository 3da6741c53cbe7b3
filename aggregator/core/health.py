"""What agents shall ask of guests, and what becomes of a run whose guest has failed its liveness probe. Pure.

A probe is part of the orders that begin a run, and is ordered anew when a person changes it. A failed liveness probe
ends the run as Failed; whether there is another one, its run strategy says, and its budget of restarts. Where most
guests of a node fail at once it is the node, or the network to them, that is sick: nobody is ended for that.
"""

from __future__ import annotations

from aggregator.core.arming import acts, why_vm_held
from aggregator.core.draft import Draft
from aggregator.core.events import GuestPictured, RunOutcome, StopDecided
from aggregator.core.lookups import ALIVE, can_order, current_report, last_report, open_orders
from aggregator.core.objects import Probe
from aggregator.core.state import State, VmRecord
from fleet.guest_health import PAUSED_BY_WATCHDOG, GuestProbe, GuestProbes, ProbeWay
from fleet.messages import GuestPictured as Told
from fleet.messages import SetProbes
from fleet.model import QemuState, VmReport

TOGETHER_MIN = 3  # so many guests of one node, and more than half of those that are asked
TOGETHER_WAIT_S = 5.0  # that others of the node are given to fail as well, for they are not asked at one moment
PROBES_SINCE = 2  # the protocol whose agents take SetProbes
REASON_CHARACTERS_MAX = 200
HUNG = "its guest has failed"
NOT_TOLD = GuestProbes()


def probes_of(vm: VmRecord) -> GuestProbes:
    """Return what the VM's agent shall ask of its guest."""
    spec = vm.spec
    if spec.liveness_probe is None and spec.readiness_probe is None:
        return NOT_TOLD
    return GuestProbes(_probe(spec.liveness_probe), _probe(spec.readiness_probe))


def _probe(written: Probe | None) -> GuestProbe | None:
    if written is None:
        return None
    place = written.tcp_socket or written.http_get or {}
    ways = {ProbeWay.TCP: written.tcp_socket, ProbeWay.HTTP: written.http_get}
    return GuestProbe(
        way=next((way for way, chosen in ways.items() if chosen is not None), ProbeWay.PING),
        host=str(place.get("host", "")),
        port=int(place.get("port", 0)),
        path=str(place.get("path", "/")),
        scheme=str(place.get("scheme", "http")).lower(),
        initial_delay_s=float(written.initial_delay_seconds),
        period_s=float(written.period_seconds),
        timeout_s=float(written.timeout_seconds),
        success_threshold=written.success_threshold,
        failure_threshold=written.failure_threshold,
    )


def decide_health(draft: Draft) -> None:
    """Tell probes that the owner of a run does not have yet; end the runs whose guests have failed."""
    state = draft.state
    for vm in state.derived.active_vms:
        report = current_report(state, vm, vm.owner)
        if not vm.run_open or report is None or report.run != vm.run or vm.stopping is not None or vm.migration:
            continue
        failed = failed_words(state, vm)
        if failed and (report.state is QemuState.RUNNING or is_stopped_by_watchdog(report)):
            if why_spared(state, vm) or _may_fail_together(draft, vm):
                continue
            draft.add(
                StopDecided(
                    at=draft.now, vm=vm.name, outcome=RunOutcome.FAILED, force=True, reason=failed, cause=vm.fact
                )
            )
            continue
        wanted, node = probes_of(vm), state.nodes.get(vm.owner)
        if vm.probes_told == wanted or node is None or not can_order(node) or report.state not in ALIVE:
            continue
        if node.protocol < PROBES_SINCE:  # it would end the connection: such an order is no word it knows
            continue
        if not open_orders(state, vm) and draft.due(vm.retry_at):
            draft.order(node, vm, SetProbes(vm.run, wanted), epoch=vm.epoch, reason="its probes were changed")


def failed_words(state: State, vm: VmRecord) -> str:
    """Return how the guest of a VM's run has failed, by its liveness probe or its watchdog device; empty if neither."""
    report = current_report(state, vm, vm.owner)
    if report is None or not vm.run_open or report.run != vm.run:
        return ""
    if is_stopped_by_watchdog(report):
        return "its watchdog device has stopped it"
    return f"its liveness probe failed: {report.guest.failed}" if report.guest.failed else ""


def is_stopped_by_watchdog(report: VmReport) -> bool:
    """Return whether a guest stands still because it gave its watchdog device no sign: no person's pause."""
    return report.state is QemuState.PAUSED and report.reason == PAUSED_BY_WATCHDOG


def why_spared(state: State, vm: VmRecord) -> str:
    """Return why a run is not ended although its guest has failed; empty if it is."""
    if not acts(state):
        return "virtward only observes"
    if held := why_vm_held(state, vm):
        return held
    asked = _asked_beside(state, vm)
    failed = sum(1 for other in asked if failed_words(state, other))
    if failed >= TOGETHER_MIN and 2 * failed > len(asked):
        return f"{failed} of {len(asked)} guests of {vm.owner} fail at once, so it is hardly the guests"
    return ""


def _may_fail_together(draft: Draft, vm: VmRecord) -> bool:
    seen = last_report(vm, vm.owner)
    several = len(_asked_beside(draft.state, vm)) >= TOGETHER_MIN
    return several and seen is not None and not draft.due(seen.at + TOGETHER_WAIT_S)


def _asked_beside(state: State, vm: VmRecord) -> list[VmRecord]:
    """Return the VMs of the same node, itself too, whose guests are asked whether they live."""
    vms = state.vms.values()
    return [o for o in vms if o.owner == vm.owner and o.run_open and o.spec.liveness_probe is not None]


def wants_picture(vm: VmRecord, protocol: int) -> bool:
    """Return whether the end of a run is to leave a picture of its screen. protocol: its agent's."""
    return vm.stopping is RunOutcome.FAILED and protocol >= PROBES_SINCE


def picture_fact(state: State, now: float, node: str, told: Told, fault: str) -> GuestPictured | None:
    """Return the fact that the screen of a run that is being ended was shown; None where no such thing was wanted.

    fault: what is wrong with the picture. Only the run's node is believed, and only the first one.
    """
    vm = state.vms.get(state.names.get(told.uuid, ""))
    if vm is None or (vm.owner, vm.run) != (node, told.run) or vm.stopping is not RunOutcome.FAILED:
        return None
    incident = state.incidents.get(vm.incident)
    if incident is None or incident.closed or incident.screenshot:
        return None
    lacking = (told.message or fault)[:REASON_CHARACTERS_MAX] if fault else ""
    return GuestPictured(at=now, node=node, vm=vm.name, run=vm.run, incident=incident.name, lacking=lacking)
