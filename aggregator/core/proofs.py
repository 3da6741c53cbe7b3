"""When a node, or one VM on it, is known to be inert (safety.md, the table of proofs).

Each proof has every condition of the table as code. Unreachable is never a proof, a time-out
is never a proof, and nothing here looks at how long something has lasted. Pure.
"""

from __future__ import annotations

from aggregator.core.draft import Draft
from aggregator.core.events import NodeState, PowerAnswer, ProofKind
from aggregator.core.fencing_device import (
    CRASH_KERNEL,
    POWER_OFF,
    device_of,
    devices_of,
    identity_problem,
    listener_problem,
    place_of,
    unusable,
)
from aggregator.core.lookups import SILENT, speaks_directly
from aggregator.core.objects import FencingDevice
from aggregator.core.reference import runs_here
from aggregator.core.state import Binding, NodeRecord, PowerRead, State, Suspicion, VmRecord
from fleet.model import EndReason, LedgerState, QemuState

OFF_SPAN_S = 1.0
"""The second reading is asked this long after the first was answered: a device may say off up to
1 s before it is (safety.md asks for at least 0.5 s between them)."""
PROOF_AGE_S_MAX = 2.0
SWAP_ANSWER_S_MAX = 10.0  # a device that gives no answer for so long says nothing about a swap
_IN_THE_DARK = (NodeState.UNSEEN, NodeState.SUSPECT, NodeState.LOST, NodeState.FENCING)


def off_proof(draft: Draft, node: NodeRecord) -> tuple[ProofKind, str] | None:
    """Return (kind, words) if the whole node is proven off now, else None."""
    confirmed = node.off_confirmed_at
    if confirmed and confirmed > node.last_sign and confirmed >= node.last_order_at:
        return ProofKind.OPERATOR, f"{node.off_confirmed_by or 'an operator'} confirmed it is off"
    if node.state in {NodeState.UP, NodeState.JOINING} or runs_here(draft.state, node):
        return None
    return _crash_kernel(node) or _power_off(draft, node)


def _crash_kernel(node: NodeRecord) -> tuple[ProofKind, str] | None:
    """A crash kernel that speaks has taken the place of the one that ran the VMs."""
    suspicion = node.suspicion
    heard = suspicion.crashed if suspicion is not None else None
    if suspicion is None or heard is None or not is_listener(node, heard.rung):
        return None
    since = max(suspicion.since, node.last_sign, node.last_order_at)
    spoken = max(suspicion.answered.values(), default=0.0)
    if heard.asked_at < since or spoken >= heard.heard_at:
        return None
    return ProofKind.CRASH_KERNEL, f"its crash kernel was heard: {heard.words}"


def _power_off(draft: Draft, node: NodeRecord) -> tuple[ProofKind, str] | None:
    suspicion = node.suspicion
    if suspicion is None or not suspicion.reads:
        return None
    rung = suspicion.reads[-1].rung
    if not rung_is_trusted(node, rung):
        return None
    last = [newest_read(suspicion.reads, rung, device) for device in range(len(devices_of(node.spec.fencing[rung])))]
    if any(read is None or draft.now - read.answered_at > PROOF_AGE_S_MAX for read in last):
        return None
    first = first_of_off_series(node, suspicion, rung)
    if first is None or min(read.asked_at for read in last if read is not None) - first.answered_at < OFF_SPAN_S:
        return None
    attempt = node.attempt
    ours = attempt is not None and attempt.off_sent_at > 0
    if _peers_must_answer_first(draft, node, suspicion, first):
        return None
    if not ours and _device_may_be_anothers(draft, node, first):
        return None
    if ours and attempt is not None:
        others_heard_from = max(attempt.off_sent_at, first.answered_at)
        if _another_may_have_died(draft, node, others_heard_from, first):
            return None
    agents = " and ".join(device.agent for device in devices_of(node.spec.fencing[rung]))
    word = "said off twice after our off order" if ours else "said off twice without our order"
    return ProofKind.POWER_OFF, f"{agents} {word}"


def _peers_must_answer_first(draft: Draft, node: NodeRecord, suspicion: Suspicion, first: PowerRead) -> bool:
    """Return whether a peer that can be asked has not yet found the node silent.

    One that was heard in this suspicion must have fallen silent after its device first said off.
    """
    peers = any(speaks_directly(other) and other.name != node.name for other in draft.state.nodes.values())
    if not peers or not suspicion.rounds:
        return False
    since = first.asked_at if suspicion.answered else suspicion.since
    return max(suspicion.silent.values(), default=0.0) < since


def _device_may_be_anothers(draft: Draft, node: NodeRecord, first: PowerRead) -> bool:
    """Return whether an "off" without our order may speak of another node: devices may have been swapped.

    Every other node that is Up must have beaten since the first reading, one that is silent must
    not have a device that says on, and one that was found off must still be said to be off. A node
    that hangs meanwhile makes this one wait for its own off order, which is slower and sure.
    """
    for other in draft.state.nodes.values():
        if other.name == node.name:
            continue
        if other.state is NodeState.UP and other.last_sign <= first.answered_at:
            return True
        if _no_longer_off(draft, other, first) or _silent_and_on(draft, other) or _hangs_on_another_entry(other):
            return True
    return False


def _hangs_on_another_entry(other: NodeRecord) -> bool:
    """Return whether a node that is silent, or off by whatever proof, is known not to be switched by its own entry.

    It said so, or another node did.
    """
    if other.state not in (*_IN_THE_DARK, NodeState.FENCED):
        return False
    switches = [device for rung in other.spec.fencing if rung.proof == POWER_OFF for device in devices_of(rung)]
    tells = other.facts is not None and other.facts.bmc is not None
    said = tells and any(identity_problem(device, other.facts) for device in switches)
    return said or any(ready.found_in for ready in other.readiness)


def _silent_and_on(draft: Draft, other: NodeRecord) -> bool:
    """Return whether a silent node's device says on, is not its own, or has not had the time to answer.

    One whose agent alone is gone is known to live, so its device speaks true.
    """
    if other.state not in _IN_THE_DARK or other.suspicion is None or not other.readiness:
        return False
    if not other.suspicion.reads:
        switches = [rung for rung in other.spec.fencing if rung.proof == POWER_OFF]
        mixed_up = any(identity_problem(device, other.facts) for rung in switches for device in devices_of(rung))
        return mixed_up or not draft.due(other.suspicion.since + SWAP_ANSWER_S_MAX)
    return says_on(other.suspicion.reads)


def _no_longer_off(draft: Draft, other: NodeRecord, first: PowerRead) -> bool:
    """Return whether the device of a node that was found off says on now, or has not been asked again yet."""
    if other.state is not NodeState.FENCED or other.suspicion is None or other.inert is None:
        return False
    if other.inert.proof is not ProofKind.POWER_OFF:
        return False
    fresh = [read for read in other.suspicion.reads if read.asked_at >= first.asked_at]
    if not fresh:
        return not draft.due(first.asked_at + SWAP_ANSWER_S_MAX)
    return says_on(fresh)


def _vouched_for_and_on(draft: Draft, other: NodeRecord, first: PowerRead) -> bool:
    """Return whether the device of a node that a person called off says on, or has not had the time to answer."""
    if other.state is not NodeState.FENCED or other.suspicion is None or other.inert is None:
        return False
    if other.inert.proof is not ProofKind.OPERATOR or other.power_on_asked_at >= other.inert.at:
        return False
    if not any(rung_is_trusted(other, rung) for rung in range(len(other.spec.fencing))):
        return False
    fresh = [read for read in other.suspicion.reads if read.asked_at >= first.asked_at]
    return says_on(fresh) if fresh else not draft.due(first.asked_at + SWAP_ANSWER_S_MAX)


def _reads_off_too(other: NodeRecord) -> bool:
    """Return whether a silent node's own device says off for long enough after our order to it."""
    if other.attempt is None or not other.attempt.off_sent_at or other.suspicion is None or not other.suspicion.reads:
        return False
    last = other.suspicion.reads[-1]
    first = first_of_off_series(other, other.suspicion, last.rung)
    return first is not None and last.asked_at - first.answered_at >= OFF_SPAN_S


def newest_read(reads: list[PowerRead], rung: int, device: int) -> PowerRead | None:
    """Return a device's last answer to a status question."""
    return next((read for read in reversed(reads) if (read.rung, read.device) == (rung, device)), None)


def says_on(reads: list[PowerRead]) -> bool:
    """Return whether any device last said on: a machine with two power supplies is on while one of them is."""
    newest = {(read.rung, read.device): read.answer for read in reads}
    return PowerAnswer.ON in newest.values()


def first_of_off_series(node: NodeRecord, suspicion: Suspicion, rung: int) -> PowerRead | None:
    """Return the reading from which on every device of the rung said nothing but off, to its newest answer.

    A question counts that was sent after the last sign of life and the last order, within this
    suspicion, and later than the last question that a peer got an answer to from the node.
    """
    earliest = max(suspicion.since, node.last_sign, node.last_order_at)
    heard = max(suspicion.answered.values(), default=0.0)
    firsts: dict[int, PowerRead] = {}
    broken: dict[int, bool] = {}
    for read in reversed(suspicion.reads):
        if read.rung != rung or broken.get(read.device):
            continue
        if read.answer is not PowerAnswer.OFF or read.asked_at < earliest or read.asked_at <= heard:
            broken[read.device] = True
        else:
            firsts[read.device] = read
    if rung >= len(node.spec.fencing) or len(firsts) < len(devices_of(node.spec.fencing[rung])):
        return None
    return max(firsts.values(), key=lambda read: read.answered_at)


def rung_is_trusted(node: NodeRecord, rung: int) -> bool:
    """Return whether every device of this rung was shown, while the node beat, to be on and its own."""
    if rung >= len(node.spec.fencing) or node.spec.fencing[rung].proof != POWER_OFF:
        return False
    devices = devices_of(node.spec.fencing[rung])
    return all(_device_is_trusted(node, rung, number, device) for number, device in enumerate(devices))


def _device_is_trusted(node: NodeRecord, rung: int, number: int, device: FencingDevice) -> bool:
    place = place_of(node.spec, rung, number)
    if place is None or place >= len(node.readiness) or unusable(device.agent, device.params):
        return False
    if identity_problem(device, node.facts):
        return False  # the node's facts may show a swap long before the next check
    ready = node.readiness[place]
    return bool(ready.on_at and ready.identity and ready.device == device_of(device))


def is_listener(node: NodeRecord, rung: int) -> bool:
    """Return whether this rung listens for the node's crash kernel, and would know it for the node's own."""
    if rung >= len(node.spec.fencing) or node.spec.fencing[rung].proof != CRASH_KERNEL:
        return False
    return not any(listener_problem(device, node.facts) for device in devices_of(node.spec.fencing[rung]))


def _another_may_have_died(draft: Draft, node: NodeRecord, since: float, first: PowerRead) -> bool:
    """Return whether one of our offs may have hit another node: the device may be *its* (swapped).

    Every other node that was Up must have beaten after the first reading of off; one that fell
    silent after our first off has to be explained first, and only its own device's "off" does that: of two that are
    shot in one look, both devices must say off. One that a person vouched for must not be said to be on: then entries
    are mixed up (made-up story 104215).
    A node that is silent, and whose device another node finds in itself, may hang on any entry (made-up story 3851).
    """
    for other in draft.state.nodes.values():
        if other.name == node.name:
            continue
        if other.state is NodeState.UNSEEN:
            return True  # it was well when the last life of the aggregator ended, and has not spoken since
        explained = (other.inert is not None and other.inert.proof is ProofKind.POWER_OFF) or _reads_off_too(other)
        if _vouched_for_and_on(draft, other, first):
            return True
        if (
            other.state in SILENT
            and not explained
            and (other.silent_at >= node.first_off_at or _was_heard(other, since))
        ):
            return True
        if _hangs_on_another_entry(other):
            return True
        if other.state is NodeState.UP and other.last_sign <= since:
            return True
    return False


def _was_heard(other: NodeRecord, since: float) -> bool:
    """Return whether peers had answers from a silent node, and none to a question asked after our off.

    Only its beats were lost, so our off may be what ended it (made-up story 90017).
    """
    answered = max(other.suspicion.answered.values(), default=0.0) if other.suspicion is not None else 0.0
    return 0.0 < answered <= since


def binding_proof(state: State, vm: VmRecord, binding: Binding) -> tuple[ProofKind, EndReason] | None:
    """Return (kind, how the run ended there) if this binding is known to be inert, else None."""
    node = state.nodes.get(binding.node)
    if node is None:
        return None
    if vm.gone_confirmed_at and binding.since < vm.gone_confirmed_at:
        return ProofKind.OPERATOR, EndReason.NOT_ENDED
    inert = node.inert
    if inert is not None and inert.boot_id == binding.boot_id and binding.since <= inert.at:
        return inert.proof, EndReason.NOT_ENDED
    if _is_read_as_migrated(state, vm, binding, node):
        return ProofKind.RELEASED, EndReason.MIGRATED
    if not node.connected or node.session is None:
        return None
    if node.boot_id != binding.boot_id:
        same_machine = node.facts is not None and bool(node.host_uuid) and node.facts.host_uuid == node.host_uuid
        return (ProofKind.REBOOTED, EndReason.NOT_ENDED) if same_machine and not node.via else None
    if node.ledger is LedgerState.LOST:
        return None  # it no longer knows what it promised in this boot
    return _said_by_node(vm, binding, node)


def _is_read_as_migrated(state: State, vm: VmRecord, binding: Binding, node: NodeRecord) -> bool:
    """Return whether the target of its rescue has read in that host's libvirtd that the VM is "shut off (migrated)".

    Its agent, gone as it may be, begins nothing: it acts alone only under a fresh lease, and a lease is long over.
    """
    migration = state.migrations.get(vm.migration)
    if migration is None or not migration.source_read or migration.source != binding.node:
        return False
    return binding.epoch == migration.source_epoch and binding.boot_id == node.boot_id


def _said_by_node(vm: VmRecord, binding: Binding, node: NodeRecord) -> tuple[ProofKind, EndReason] | None:
    seen = vm.reports.get(node.name)
    newer_session = node.session_since > binding.since
    if any(hand.uuid == vm.uuid for hand in node.in_hand) and newer_session:
        return None
    if seen is None:
        absent = node.complete and newer_session
        return (ProofKind.NOT_HERE, EndReason.NOT_ENDED) if absent else None
    report = seen.report
    if seen.session != node.session or report.state is not QemuState.GONE:
        return None
    if report.released and report.epoch >= binding.epoch:
        return ProofKind.RELEASED, report.end
    if report.epoch < binding.epoch and node.complete and newer_session:
        return ProofKind.NOT_HERE, report.end  # its ledger knows nothing of this epoch, and what is older never begins
    if binding.why == "foreign" and not report.epoch and node.complete:
        return ProofKind.NOT_HERE, report.end  # it promised nothing, and what ran is gone
    return None  # gone but not yet released: the agent may still be about to do something
