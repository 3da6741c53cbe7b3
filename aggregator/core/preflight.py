"""Everything that is known of a move before it is made, each check with its answer. Pure.

What the aggregator knows by itself is put together here with what both ends answered when they were asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from aggregator.core.forecast import Forecast, forecast
from aggregator.core.lookups import takes_vms
from aggregator.core.migratable import SILENT, obstacles
from aggregator.core.migration_drive import drive_of, migration_address_of, rate_known
from aggregator.core.objects import ApiStruct
from aggregator.core.seats import migration_targets, refusal_words
from aggregator.core.state import NodeRecord, State, VmRecord
from aggregator.core.views_node import not_ready
from fleet.messages import CheckDeparture, MoveChecked
from fleet.model import Finding

MEASURE_S = 1
YES, NO, UNKNOWN = "True", "False", "Unknown"


class CheckResult(ApiStruct, frozen=True, kw_only=True):
    """One check. status: True | False | Unknown."""

    name: str
    status: str
    message: str = ""


class MigrationCheck(ApiStruct, frozen=True, kw_only=True):
    """What every check says of a move that was not made. vm: empty for the way between two nodes alone.

    possible: no check says no. target: empty where no node takes the VM.
    """

    vm: str = ""
    source: str
    target: str = ""
    possible: bool
    checks: tuple[CheckResult, ...] = ()
    forecast: Forecast | None = None


class ClosedWay(ApiStruct, frozen=True, kw_only=True):
    """A way between two nodes that no guest could take when it was asked about last. since: fleet time."""

    source: str
    target: str
    why: str
    since: float


def target_of(state: State, vm: VmRecord) -> str:
    """Return where the VM would go by itself, empty where no node takes it, or it does not run."""
    return (migration_targets(state, vm, vm.owner).node or "") if vm.run_open and vm.owner else ""


def departure_question(vm: VmRecord | None, target: NodeRecord | None) -> CheckDeparture:
    """Return what the source is asked. vm: whose memory is measured; target: None where only that is wanted."""
    uuid, measure_s = (vm.uuid, MEASURE_S) if vm is not None else ("", 0)
    if target is None or target.facts is None:
        return CheckDeparture("", uuid=uuid, measure_s=measure_s)
    return CheckDeparture(
        "",
        uuid=uuid,
        measure_s=measure_s,
        peer_uri=target.facts.peer_uri,
        migration_address=migration_address_of(target),
        agent_port=target.facts.agent_port,
    )


def migration_check(
    state: State, vm: VmRecord, target: str, arrival: MoveChecked | None, departure: MoveChecked | None
) -> MigrationCheck:
    """Put together what is known of a VM's move to a node; None: that end did not answer."""
    checks = tuple(_of_vm(state, vm, target)) + _answers(vm.owner, departure, target, arrival)
    foretold = forecast_of(state, vm, target, departure) if vm.run_open else None
    return MigrationCheck(
        vm=vm.name, source=vm.owner, target=target, possible=_possible(checks), checks=checks, forecast=foretold
    )


def way_check(
    state: State, source: NodeRecord, target: NodeRecord, arrival: MoveChecked | None, departure: MoveChecked | None
) -> MigrationCheck:
    """Put together whether anything could move from one node to another right now."""
    checks = (*_of_target(state, target), _version(source, target))
    checks += _answers(source.name, departure, target.name, arrival)
    return MigrationCheck(source=source.name, target=target.name, possible=_possible(checks), checks=checks)


def forecast_of(state: State, vm: VmRecord, target: str, measured: MoveChecked | None, *, at_once: int = 1) -> Forecast:
    """Return how the VM's move would go. measured: what its node's agent answered; at_once: who share the link."""
    dirty = measured.dirty_bytes_per_s if measured is not None and measured.dirty_bytes_per_s >= 0 else None
    link = measured.link_bytes_per_s if measured is not None and measured.link_bytes_per_s > 0 else 0
    rate = rate_known(state, vm, (vm.owner, target), at_once=at_once, device=link)
    return forecast(vm.memory_bytes, dirty, rate or None, drive_of(state, vm))


def _possible(checks: Iterable[CheckResult]) -> bool:
    return all(check.status != NO for check in checks)


def _of_vm(state: State, vm: VmRecord, target: str) -> Iterator[CheckResult]:
    against = obstacles(state, vm)
    for blocker in against:
        status = UNKNOWN if blocker.reason == SILENT else NO
        yield CheckResult(name="LiveMigratable", status=status, message=f"{blocker.message} ({blocker.reason})")
    if not against:
        yield CheckResult(name="LiveMigratable", status=YES, message="nothing stands against it")
    if vm.migration:
        yield CheckResult(name="NotMoving", status=NO, message=f"it is being moved already ({vm.migration})")
    if vm.stopping is not None:
        yield CheckResult(name="NotMoving", status=NO, message="it is being stopped")
    to, source = state.nodes.get(target), state.nodes.get(vm.owner)
    if to is None:
        refused = refusal_words(state, vm, live=True) if vm.run_open else {}
        for node, rules in sorted(refused.items()):
            yield CheckResult(name="Placement", status=NO, message=f"{node}: {_rules(rules)}")
        if vm.run_open and not refused:
            yield CheckResult(name="Placement", status=NO, message="there is no other node")
        return
    yield from _of_target(state, to)
    if target == vm.owner:
        yield CheckResult(name="Placement", status=NO, message=f"it is on {target} already")
    elif rules := refusal_words(state, vm, live=True).get(target, {}) if vm.run_open else {}:
        yield CheckResult(name="Placement", status=NO, message=_rules(rules))
    else:
        yield CheckResult(name="Placement", status=YES, message="every rule lets it come, with its room and devices")
    if source is not None:
        yield _version(source, to)


def _of_target(state: State, target: NodeRecord) -> Iterator[CheckResult]:
    if takes_vms(target):
        yield CheckResult(name="NodeReady", status=YES, message=f"{target.name} is Up and takes VMs")
    else:
        reason, sentence = not_ready(state, target)
        yield CheckResult(name="NodeReady", status=NO, message=sentence or reason or "it is not ready")


def _rules(rules: dict[str, str]) -> str:
    return "; ".join(f"{rule} ({words})" if words else rule for rule, words in sorted(rules.items()))


def _version(source: NodeRecord, target: NodeRecord) -> CheckResult:
    """QEMU takes a guest from an older QEMU, never for certain from a newer one."""
    here, there = (node.facts.versions.get("qemu", "") if node.facts is not None else "" for node in (source, target))
    if not (one := _numbers(here)) or not (other := _numbers(there)):
        return CheckResult(name="QEMUVersion", status=UNKNOWN, message="one of the two has not told its QEMU's version")
    words = f"{source.name} has QEMU {here}, {target.name} has {there}"
    older = other[:2] < one[:2]
    return CheckResult(name="QEMUVersion", status=NO if older else YES, message=words + (", which is older" * older))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part[:9]) for part in re.findall(r"[0-9]+", version)[:3])


def _answers(
    source: str, departure: MoveChecked | None, target: str, arrival: MoveChecked | None
) -> tuple[CheckResult, ...]:
    found: list[CheckResult] = []
    for node, answer in ((source, departure), (target, arrival)):
        if not node:
            continue
        if answer is None:
            words = f"{node} was not asked, or did not answer: its agent is away, or of an older release"
            found.append(CheckResult(name="Agent", status=UNKNOWN, message=words))
        else:
            found += [_result(node, finding) for finding in answer.findings]
    return tuple(found)


def _result(node: str, finding: Finding) -> CheckResult:
    return CheckResult(name=finding.check, status=YES if finding.ok else NO, message=f"{node}: {finding.message}")
