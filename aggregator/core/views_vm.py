"""A VM as people see it: the VirtualMachine object with its full status.

Pure. Passwords in the domain XML leave here hidden. A condition carries lastTransitionTime only
where the state knows it.
"""

from __future__ import annotations

import msgspec

from aggregator.core.events import NodeState, VmPhase
from aggregator.core.fencing_device import POWER_OFF, places
from aggregator.core.health import failed_words, why_spared
from aggregator.core.host_state import stays_words
from aggregator.core.lookups import current_report
from aggregator.core.migratable import SILENT, obstacles, why_not_migratable
from aggregator.core.moments import rfc3339, span
from aggregator.core.objects import (
    API_VERSION,
    ApiCondition,
    BindingView,
    Metadata,
    Resources,
    TaintEffect,
    VirtualMachine,
    VmSpec,
    VmStatus,
)
from aggregator.core.phases import phase_of
from aggregator.core.seats import stays_in_maintenance
from aggregator.core.secrets import hide_xml
from aggregator.core.state import NodeRecord, RungReadiness, State, VmRecord
from aggregator.core.tolerating import tolerating_words
from aggregator.core.views import Plain, every_field
from fleet.model import Disk, RunStrategy, has_devices
from fleet.units import format_bytes, format_cpu

BACK_BY_ITSELF = (RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE)


def vm_view(state: State, record: VmRecord) -> VirtualMachine:
    """Return the VirtualMachine object of a record."""
    to_leave = _to_leave(state, record)
    return VirtualMachine(
        metadata=Metadata(
            name=record.name,
            uid=record.uuid,
            labels=record.labels,
            annotations=record.annotations,
            resource_version=str(record.version),
            creation_timestamp=rfc3339(record.created),
        ),
        spec=msgspec.structs.replace(record.spec, domain_xml=hide_xml(record.spec.domain_xml)),
        status=VmStatus(
            phase=record.phase,
            node=record.owner or None if record.run_open else None,
            epoch=record.epoch,
            run=record.run,
            restarts=record.restart_count,
            reason=reason_of(state, record),
            message=hold_text(state, record),
            since=rfc3339(record.phase_since or record.created),
            bound=tuple(
                BindingView(node=binding.node, boot_id=binding.boot_id, why=binding.why) for binding in record.bindings
            ),
            migration=record.migration or None,
            evacuation_node_name=record.owner if to_leave is not None else "",
            evacuation_reason=to_leave or "",
            rejected=record.rejected,
            conditions=conditions_of(state, record),
        ),
    )


def _to_leave(state: State, record: VmRecord) -> str | None:
    """Return why a VM has not left the node that it has to leave, empty while it is leaving; None: it may stay."""
    if not record.run_open:
        return None
    if record.eviction is not None and record.eviction.node == record.owner:
        return record.eviction.blocked
    drain = state.drains.get(record.owner)
    if drain is None or drain.state not in ("Running", "Paused") or stays_in_maintenance(record):
        return None
    return drain.blocked.get(record.name, "") or ("its drain is paused" if drain.state == "Paused" else "")


def plain_vm(vm: VirtualMachine) -> Plain:
    """Return the plain form: what a person wrote without defaults, the status with every field."""
    spec = msgspec.to_builtins(vm.spec)
    shown: Plain = {"apiVersion": API_VERSION, "kind": "VirtualMachine", "metadata": msgspec.to_builtins(vm.metadata)}
    shown["spec"] = {"runStrategy": str(vm.spec.run_strategy), **spec}
    if vm.status is not None:
        shown["status"] = every_field(vm.status)
    return shown


def reason_of(state: State, record: VmRecord) -> str:
    """Return why the VM is in its phase, as of now: the reason may move on while the phase stays."""
    phase, reason = phase_of(state, state.now, record)
    return reason if phase is record.phase else record.phase_reason


def hold_text(state: State, record: VmRecord) -> str:
    """Return why the VM is held back and for how long, empty if it is not."""
    if record.run_open:
        return ""
    if record.held_until <= state.now:
        if not record.start_wanted and (tolerating := tolerating_words(state, state.now, record)):
            return tolerating
        waits = record.postponed
        return waits.words if waits is not None and waits.until > state.now else ""
    why = record.held_why or "held back"
    return f"{why}; not started before {rfc3339(record.held_until)} (in {span(record.held_until - state.now)})"


def requests_of(spec: VmSpec, cpu_m: int, memory_bytes: int) -> Resources:
    """Return what the VM asks of its node, as quantities."""
    written = spec.resources.requests if spec.resources else {}
    return Resources(requests={"cpu": format_cpu(cpu_m), "memory": format_bytes(memory_bytes), **written})


def conditions_of(state: State, record: VmRecord) -> tuple[ApiCondition, ...]:
    """Return the VM's five conditions (interfaces.md, words in status)."""
    return (
        _ready(state, record),
        _live_migratable(state, record),
        _protected(state, record),
        _agent_connected(state, record),
        _restart_required(record),
    )


def _ready(state: State, record: VmRecord) -> ApiCondition:
    since = rfc3339(record.phase_since)
    if record.phase is not VmPhase.RUNNING:
        why = reason_of(state, record)
        return ApiCondition(
            type="Ready", status="False", reason=str(record.phase), message=why, last_transition_time=since
        )
    if words := failed_words(state, record):
        if spared := why_spared(state, record):
            words += f"; it is left running: {spared}"
        return ApiCondition(type="Ready", status="False", reason="LivenessProbeFailed", message=words)
    if record.spec.readiness_probe is None:
        return ApiCondition(type="Ready", status="True", reason="Running", last_transition_time=since)
    report = current_report(state, record, record.owner)
    if report is None or not report.guest.ready:
        return ApiCondition(type="Ready", status="Unknown", reason="NotAsked", message="its agent has not asked it yet")
    ready = report.guest.ready == "True"
    reason = "ReadinessProbeSucceeded" if ready else "ReadinessProbeFailed"
    return ApiCondition(type="Ready", status=report.guest.ready, reason=reason, message=report.guest.why)


def _agent_connected(state: State, record: VmRecord) -> ApiCondition:
    """Whether the guest agent has opened its channel, as libvirt sees it; not whether it answers."""
    report = current_report(state, record, record.owner) if record.run_open else None
    if report is None:
        return ApiCondition(type="AgentConnected", status="Unknown", reason="NotReported")
    if report.guest.agent:
        status = "True" if report.guest.agent == "Connected" else "False"
        return ApiCondition(type="AgentConnected", status=status, reason=report.guest.agent)
    text = "the VM has no channel org.qemu.guest_agent.0, or does not run"
    return ApiCondition(type="AgentConnected", status="False", reason="NoChannel", message=text)


def _live_migratable(state: State, record: VmRecord) -> ApiCondition:
    """Whether a drain would move it live, by the very answer that a drain goes by."""
    against = obstacles(state, record)
    if not against:
        return ApiCondition(type="LiveMigratable", status="True", reason="NothingAgainstIt")
    first = against[0].reason
    words = why_not_migratable(state, record) if first != "NotRunning" else ""
    status = "Unknown" if first == SILENT else "False"
    return ApiCondition(type="LiveMigratable", status=status, reason=first, message=words)


def _restart_required(record: VmRecord) -> ApiCondition:
    if not record.run_open:
        return ApiCondition(type="RestartRequired", status="False", reason="NotRunning")
    if record.run_xml_version != record.xml_version:
        return ApiCondition(
            type="RestartRequired",
            status="True",
            reason="DefinitionChanged",
            message="the definition was changed; it takes effect with the next run",
        )
    return ApiCondition(type="RestartRequired", status="False", reason="UpToDate")


def _protected(state: State, record: VmRecord) -> ApiCondition:
    reason, message = unprotected(state, record)
    if reason:
        return ApiCondition(type="Protected", status="False", reason=reason, message=message)
    return ApiCondition(type="Protected", status="True", reason="Recoverable", message=stays_words(record))


def unprotected(state: State, record: VmRecord) -> tuple[str, str]:
    """Return (reason, sentence) why the VM would not come back after the loss of its node; empty if it would."""
    if state.config.mode == "Observe":
        return "ObserveMode", "virtward only observes; let it act with: virtward config set mode=Act"
    strategy = record.spec.run_strategy
    if strategy not in BACK_BY_ITSELF:
        return "RunStrategy", f"with runStrategy {strategy} a run that failed stays down"
    for disk in disks_of(record):
        if not disk.shared:
            return "LocalDisk", f"disk {disk.target} ({disk.identity}) can be reached from one node only"
    xml = record.definition.xml if record.definition else record.spec.domain_xml
    if "<hostdev" in xml and (pinned := pinned_by_device(state, record)):
        return "HostDevice", pinned
    if "<tpm" in xml and record.spec.host_state != "Recreate":
        return "TpmState", "its TPM state stays on its host; hostState: Recreate would start it without"
    if record.definition and record.definition.nvram and record.spec.host_state == "Require":
        return "NvramState", f"its NVRAM ({record.definition.nvram}) is only on its host, and hostState is Require"
    return _unprotected_by_nodes(state, record)


def pinned_by_device(state: State, record: VmRecord) -> str:
    """Return in words why a device keeps the VM on its node, empty where another node has the same one."""
    devices = record.definition.needs.devices if record.definition is not None else ()
    others = [
        node.facts.offers for name, node in state.nodes.items() if name != record.owner and node.facts is not None
    ]
    if devices and any(offers is not None and has_devices(devices, offers.devices) for offers in others):
        return ""
    named = ", ".join(dict.fromkeys(devices)) or "a device of its host"
    return f"it is pinned to its node by {named}, which no other node has"


def _unprotected_by_nodes(state: State, record: VmRecord) -> tuple[str, str]:
    if record.rejected and not record.run_open:
        return "NoRoom", "no node takes it now"
    owner = state.nodes.get(record.owner)
    if owner is not None and record.run_open and not is_fenceable(owner):
        why = fencing_problem(owner)
        return "NodeNotFenceable", f"{owner.name} cannot be fenced ({why}), so its loss would need a person"
    others = [node for node in state.nodes.values() if node.name != record.owner or not record.run_open]
    if not any(_could_take(node) for node in others):
        return "NoOtherNode", "no other node is Up and takes VMs"
    return "", ""


def disks_of(record: VmRecord) -> tuple[Disk, ...]:
    """Return the VM's disks: as its owner's libvirt last reported them, else as they were applied."""
    return record.definition.disks if record.definition and record.definition.disks else record.disks


def rung_ready(rung: RungReadiness) -> bool:
    """Tell whether a device is known to be the right one and to work."""
    return rung.on_at > 0 and bool(rung.identity) and not rung.problem


def is_fenceable(node: NodeRecord) -> bool:
    """Tell whether a rung of the ladder could prove the node off: all of its devices are known to be right."""
    return any(all(map(rung_ready, devices)) for devices in _devices_by_rung(node) if devices)


def _devices_by_rung(node: NodeRecord) -> list[list[RungReadiness]]:
    """Return what is known of the devices of each rung that switches power."""
    found: list[list[RungReadiness]] = [[] for _ in node.spec.fencing]
    for (rung, _), ready in zip(places(node.spec), node.readiness, strict=False):
        if node.spec.fencing[rung].proof == POWER_OFF:
            found[rung].append(ready)
    return found


def fencing_problem(node: NodeRecord) -> str:
    """Return in a few words why a node could not be fenced, empty if it can."""
    if not node.spec.fencing:
        return "it has no fence device in spec.fencing"
    if is_fenceable(node):
        return ""
    unready = [ready for devices in _devices_by_rung(node) for ready in devices if not rung_ready(ready)]
    problems = [ready.problem or "its device is not shown to be its own" for ready in unready]
    return "; ".join(dict.fromkeys(problems)) or "its fence devices have not been checked yet"


def _could_take(node: NodeRecord) -> bool:
    closed = node.spec.unschedulable or any(taint.effect is TaintEffect.NO_SCHEDULE for taint in node.taints)
    return node.state is NodeState.UP and node.approved and not closed
