"""What people do: the verbs of the command line as the facts that the API would make of them.

Reads the state as the API does and refuses what the API would refuse; a refusal is a sentence.
Needs an aggregator that answers. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct, convert, structs

from aggregator.core import events as ev
from aggregator.core.arming import scope_key, scope_words
from aggregator.core.commands import judge
from aggregator.core.events import Event, VmVerb
from aggregator.core.fencing import why_no_fence
from aggregator.core.manifest import check_object
from aggregator.core.objects import MigrationPolicy, NodeSpec, Taint, TaintEffect, VirtualMachine, VmSpec
from aggregator.core.policy import decode_config_value, read_config, write_config
from aggregator.core.selector import read_selector
from aggregator.core.state import NodeRecord, State, VmRecord
from fleet.units import parse_bytes, parse_cpu_m, parse_duration_s
from simulator.beginning import xml_of
from simulator.hypervisor import disk_of
from simulator.plan import VmPlan
from simulator.world import World

WHO = "operator"
Arguments = Mapping[str, object]


class RefusedError(ValueError):
    """The API would say no; the text is its sentence."""


def perform(world: World, verb: str, arguments: Arguments) -> str:
    """Do it; return why it was refused, or an empty text."""
    aggregator = world.aggregator
    if not aggregator.takes_agents:
        return "the aggregator does not answer"
    try:
        facts = VERBS[verb](Ask(world, aggregator.state, aggregator.now(), arguments))
    except RefusedError as refusal:
        return str(refusal)
    for fact in facts:
        aggregator.fact(fact)
    return ""


class Ask(Struct, frozen=True):
    """One command, and what it is asked of. at: fleet time."""

    world: World
    state: State
    at: float
    arguments: Arguments

    def get(self, key: str, default: object = None) -> object:
        return self.arguments.get(key, default)

    def text(self, key: str) -> str:
        return str(self.arguments.get(key, ""))

    def node(self) -> NodeRecord:
        name = self.text("node")
        if name not in self.state.nodes:
            raise RefusedError(f"there is no node {name}")
        return self.state.nodes[name]

    def vm(self) -> VmRecord:
        name = self.text("vm")
        if name not in self.state.vms:
            raise RefusedError(f"there is no VM {name}")
        return self.state.vms[name]


def _write_node(node: NodeRecord, at: float, spec: NodeSpec, labels: dict[str, str] | None = None) -> Event:
    return ev.NodeApplied(at=at, name=node.name, labels=labels or node.labels, spec=spec, who=WHO)


def _cordon(ask: Ask) -> list[Event]:
    node = ask.node()
    return [_write_node(node, ask.at, structs.replace(node.spec, unschedulable=True))]


def _uncordon(ask: Ask) -> list[Event]:
    node = ask.node()
    facts: list[Event] = [ev.DrainCancelled(at=ask.at, node=node.name, who=WHO)] if node.drain else []
    if node.flaps:
        facts.append(ev.NodeForgiven(at=ask.at, name=node.name, who=WHO))
    if node.spec.unschedulable or not facts:
        facts.append(_write_node(node, ask.at, structs.replace(node.spec, unschedulable=False)))
    return facts


def _drain(ask: Ask) -> list[Event]:
    node = ask.node()
    if ask.get("cancel"):
        return [ev.DrainCancelled(at=ask.at, node=node.name, who=WHO)]
    if ask.get("pause") or ask.get("resume"):
        if node.name not in ask.state.drains:
            raise RefusedError(f"{node.name} is not being drained")
        return [ev.DrainPaused(at=ask.at, node=node.name, paused=bool(ask.get("pause")), who=WHO)]
    deadline = ask.get("deadline", 0)
    deadline_s = parse_duration_s(deadline if isinstance(deadline, str | int | float) else str(deadline))
    force = bool(ask.get("force", False))
    return [ev.DrainRequested(at=ask.at, node=node.name, deadline_s=deadline_s, force=force, who=WHO)]


def _taint(ask: Ask) -> list[Event]:
    node, text = ask.node(), ask.text("taint")
    if text == "virtward/degraded-" and node.flaps:
        return [ev.NodeForgiven(at=ask.at, name=node.name, who=WHO)]
    if text.endswith("-"):
        kept = tuple(t for t in node.spec.taints if t.key != text[:-1])
        return [_write_node(node, ask.at, structs.replace(node.spec, taints=kept))]
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    if not key or effect not in list(TaintEffect):
        raise RefusedError(f"{text!r} is no taint; write it like key=value:NoExecute or key-")
    taint = Taint(key=key, value=value, effect=TaintEffect(effect), time_added=f"{ask.at:.3f}")
    kept = tuple(t for t in node.spec.taints if (t.key, t.effect) != (key, effect))
    return [_write_node(node, ask.at, structs.replace(node.spec, taints=(*kept, taint)))]


def _label(ask: Ask) -> list[Event]:
    text = ask.text("label")
    key, _, value = text.rstrip("-").partition("=")
    record = ask.node() if "node" in ask.arguments else ask.vm()
    labels = {k: v for k, v in record.labels.items() if k != key}
    if not text.endswith("-"):
        labels[key] = value
    if isinstance(record, NodeRecord):
        return [_write_node(record, ask.at, record.spec, labels)]
    return [_write_vm(record, ask.at, record.spec, labels)]


def _write_vm(vm: VmRecord, at: float, spec: VmSpec, labels: dict[str, str] | None = None) -> Event:
    return ev.VmApplied(
        at=at,
        name=vm.name,
        uuid=vm.uuid,
        spec=spec,
        labels=vm.labels if labels is None else labels,
        annotations=vm.annotations,
        disks=vm.disks,
        cpu_m=vm.cpu_m,
        memory_bytes=vm.memory_bytes,
        who=WHO,
    )


def _fence(ask: Ask) -> list[Event]:
    node = ask.node()
    if ask.get("confirmOff"):
        if ask.get("looked") and ask.world.hosts[node.name].power_on:
            raise RefusedError(f"{node.name} is not off, as somebody saw who went there")
        return [ev.OffConfirmed(at=ask.at, name=node.name, who=WHO)]
    if why := why_no_fence(node):
        raise RefusedError(why)
    return [ev.FenceRequested(at=ask.at, name=node.name, who=WHO)]


def _scope(ask: Ask) -> tuple[str, str, str]:
    node = ask.node().name if "node" in ask.arguments else ""
    try:
        read_selector(ask.text("selector"))
    except ValueError as error:
        raise RefusedError(str(error)) from None
    return node, ask.vm().name if "vm" in ask.arguments else "", ask.text("selector")


def _disarm(ask: Ask) -> list[Event]:
    node, vm, selector = _scope(ask)
    until = ask.at + parse_duration_s(ask.text("for")) if "for" in ask.arguments else 0.0
    return [ev.Disarmed(at=ask.at, node=node, vm=vm, selector=selector, until=until, who=WHO)]


def _arm(ask: Ask) -> list[Event]:
    node, vm, selector = _scope(ask)
    if scope_key(node, vm, selector) not in ask.state.disarmed:
        raise RefusedError(f"{scope_words(node, vm, selector)} is not disarmed")
    return [ev.Armed(at=ask.at, node=node, vm=vm, selector=selector, who=WHO)]


def _confirm_gone(ask: Ask) -> list[Event]:
    return [ev.VmGoneConfirmed(at=ask.at, name=ask.vm().name, who=WHO)]


def _command(verb: VmVerb) -> Callable[[Ask], list[Event]]:
    def make(ask: Ask) -> list[Event]:
        vm, force = ask.vm(), bool(ask.get("force", False))
        verdict = judge(verb, vm, force=force)
        if verdict.refused:
            raise RefusedError(verdict.refused)
        facts: list[Event] = []
        if verdict.becomes:
            facts.append(_write_vm(vm, ask.at, structs.replace(vm.spec, run_strategy=verdict.becomes)))
        return [*facts, ev.VmCommanded(at=ask.at, name=vm.name, verb=verb, force=force, who=WHO)]

    return make


def _migrate(ask: Ask) -> list[Event]:
    vm, target = ask.vm(), ask.text("to")
    if target and target not in ask.state.nodes:
        raise RefusedError(f"there is no node {target}")
    if not vm.run_open or vm.migration:
        raise RefusedError(f"{vm.name} has no run" if not vm.run_open else f"{vm.name} is being migrated")
    return [ev.MigrationRequested(at=ask.at, vm=vm.name, target=target, who=WHO)]


def _cancel(ask: Ask) -> list[Event]:
    name = ask.text("migration") or ask.vm().migration
    if name not in ask.state.migrations:
        raise RefusedError(f"there is no migration {name or 'of this VM'}")
    return [ev.MigrationCancelRequested(at=ask.at, migration=name, who=WHO)]


def _delete(ask: Ask) -> list[Event]:
    vm = ask.vm()
    if vm.run_open and not ask.get("force"):
        raise RefusedError(f"{vm.name} runs; use force")
    return [ev.VmDeleteRequested(at=ask.at, name=vm.name, who=WHO)]


def _apply(ask: Ask) -> list[Event]:
    raw = ask.get("manifest")
    written = check_object(raw, complete=False)  # type: ignore[arg-type]
    if isinstance(written, MigrationPolicy):
        labels = written.metadata.labels
        applied = ev.MigrationPolicyApplied(at=ask.at, policy=written.metadata.name, spec=written.spec, labels=labels)
        return [structs.replace(applied, who=WHO)]
    if not isinstance(written, VirtualMachine):
        raise RefusedError("a story applies no nodes; use taint, label and cordon for them")
    name, spec = written.metadata.name, written.spec
    requests = spec.resources.requests if spec.resources else {}
    cpu_m, memory = parse_cpu_m(requests.get("cpu", "1")), parse_bytes(requests.get("memory", "1Gi"))
    known = ask.state.vms.get(name)
    if known is not None and known.deleting:
        raise RefusedError(f"VM {name} is being deleted; its name is free once every node it is bound to let it go")
    uuid = known.uuid if known else ask.world.new_vm(name, cpu_m, memory)
    if not spec.domain_xml:
        plan = VmPlan(name=name, cpu_m=cpu_m, memory_bytes=memory)
        spec = structs.replace(spec, domain_xml=xml_of(uuid, plan))
    return [
        ev.VmApplied(
            at=ask.at,
            name=name,
            uuid=uuid,
            spec=spec,
            labels=written.metadata.labels,
            disks=(disk_of(name),),
            cpu_m=cpu_m,
            memory_bytes=memory,
            who=WHO,
        )
    ]


def _config(ask: Ask) -> list[Event]:
    raw = convert(ask.get("set", {}), dict[str, object], dec_hook=decode_config_value)
    config = read_config({**write_config(ask.state.config), **raw})
    return [ev.ConfigChanged(at=ask.at, config=write_config(config), who=WHO)]


VERBS: dict[str, Callable[[Ask], list[Event]]] = {
    "apply": _apply,
    "arm": _arm,
    "cancel": _cancel,
    "config": _config,
    "confirmGone": _confirm_gone,
    "cordon": _cordon,
    "delete": _delete,
    "disarm": _disarm,
    "drain": _drain,
    "fence": _fence,
    "label": _label,
    "migrate": _migrate,
    "pause": _command(VmVerb.PAUSE),
    "restart": _command(VmVerb.RESTART),
    "start": _command(VmVerb.START),
    "stop": _command(VmVerb.STOP),
    "taint": _taint,
    "uncordon": _uncordon,
    "unpause": _command(VmVerb.UNPAUSE),
}
"""The verbs a story may use, under the command line's names (long ones in camelCase)."""
