"""What people do: the verbs of the command line as the facts that the API would make of them.

Reads the state as the API does and refuses what the API would refuse; a refusal is a sentence.
Needs an aggregator that answers. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import convert, structs

from aggregator.core import events as ev
from aggregator.core.events import Event, VmVerb
from aggregator.core.manifest import check_object
from aggregator.core.objects import NodeSpec, Taint, TaintEffect, VirtualMachine, VmSpec
from aggregator.core.policy import decode_config_value, read_config, write_config
from aggregator.core.state import NodeRecord, State, VmRecord
from fleet.model import RunStrategy
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
    if not aggregator.answers:
        return "the aggregator does not answer"
    try:
        facts = VERBS[verb](world, aggregator.state, aggregator.now(), arguments)
    except RefusedError as refusal:
        return str(refusal)
    for fact in facts:
        aggregator.fact(fact)
    return ""


def _node(state: State, arguments: Arguments) -> NodeRecord:
    name = str(arguments.get("node", ""))
    if name not in state.nodes:
        raise RefusedError(f"there is no node {name}")
    return state.nodes[name]


def _vm(state: State, arguments: Arguments) -> VmRecord:
    name = str(arguments.get("vm", ""))
    if name not in state.vms:
        raise RefusedError(f"there is no VM {name}")
    return state.vms[name]


def _write_node(node: NodeRecord, at: float, spec: NodeSpec, labels: dict[str, str] | None = None) -> Event:
    return ev.NodeApplied(at=at, name=node.name, labels=labels or node.labels, spec=spec, who=WHO)


def _cordon(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    node = _node(state, arguments)
    return [_write_node(node, at, structs.replace(node.spec, unschedulable=True))]


def _uncordon(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    node = _node(state, arguments)
    facts: list[Event] = [ev.DrainCancelled(at=at, node=node.name, who=WHO)] if node.drain else []
    if node.spec.unschedulable or not facts:
        facts.append(_write_node(node, at, structs.replace(node.spec, unschedulable=False)))
    return facts


def _drain(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    node = _node(state, arguments)
    if arguments.get("cancel"):
        return [ev.DrainCancelled(at=at, node=node.name, who=WHO)]
    deadline = arguments.get("deadline", 0)
    deadline_s = parse_duration_s(deadline if isinstance(deadline, str | int | float) else str(deadline))
    force = bool(arguments.get("force", False))
    return [ev.DrainRequested(at=at, node=node.name, deadline_s=deadline_s, force=force, who=WHO)]


def _taint(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    node, text = _node(state, arguments), str(arguments.get("taint", ""))
    if text.endswith("-"):
        kept = tuple(t for t in node.spec.taints if t.key != text[:-1])
        return [_write_node(node, at, structs.replace(node.spec, taints=kept))]
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    if not key or effect not in list(TaintEffect):
        raise RefusedError(f"{text!r} is no taint; write it like key=value:NoExecute or key-")
    taint = Taint(key=key, value=value, effect=TaintEffect(effect))
    kept = tuple(t for t in node.spec.taints if (t.key, t.effect) != (key, effect))
    return [_write_node(node, at, structs.replace(node.spec, taints=(*kept, taint)))]


def _label(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    text = str(arguments.get("label", ""))
    key, _, value = text.rstrip("-").partition("=")
    record = _node(state, arguments) if "node" in arguments else _vm(state, arguments)
    labels = {k: v for k, v in record.labels.items() if k != key}
    if not text.endswith("-"):
        labels[key] = value
    if isinstance(record, NodeRecord):
        return [_write_node(record, at, record.spec, labels)]
    return [_write_vm(record, at, record.spec, labels)]


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


def _fence(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    node = _node(state, arguments)
    if arguments.get("confirmOff"):
        return [ev.OffConfirmed(at=at, name=node.name, who=WHO)]
    return [ev.FenceRequested(at=at, name=node.name, who=WHO)]


def _confirm_gone(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    return [ev.VmGoneConfirmed(at=at, name=_vm(state, arguments).name, who=WHO)]


def _start(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    vm = _vm(state, arguments)
    if vm.run_open:
        raise RefusedError(f"{vm.name} already has a run")
    facts: list[Event] = []
    if vm.spec.run_strategy is RunStrategy.HALTED:
        facts.append(_write_vm(vm, at, structs.replace(vm.spec, run_strategy=RunStrategy.ALWAYS)))
    return [*facts, ev.VmCommanded(at=at, name=vm.name, verb=VmVerb.START, who=WHO)]


def _stop(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    vm = _vm(state, arguments)
    if not vm.run_open:
        raise RefusedError(f"{vm.name} has no run")
    facts: list[Event] = []
    if vm.spec.run_strategy in (RunStrategy.ALWAYS, RunStrategy.ONCE):
        facts.append(_write_vm(vm, at, structs.replace(vm.spec, run_strategy=RunStrategy.HALTED)))
    force = bool(arguments.get("force", False))
    return [*facts, ev.VmCommanded(at=at, name=vm.name, verb=VmVerb.STOP, force=force, who=WHO)]


def _command(verb: VmVerb) -> Callable[[World, State, float, Arguments], list[Event]]:
    def make(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
        vm = _vm(state, arguments)
        if not vm.run_open:
            raise RefusedError(f"{vm.name} has no run")
        return [ev.VmCommanded(at=at, name=vm.name, verb=verb, force=bool(arguments.get("force")), who=WHO)]

    return make


def _migrate(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    vm, target = _vm(state, arguments), str(arguments.get("to", ""))
    if target and target not in state.nodes:
        raise RefusedError(f"there is no node {target}")
    if not vm.run_open or vm.migration:
        raise RefusedError(f"{vm.name} has no run" if not vm.run_open else f"{vm.name} is being migrated")
    return [ev.MigrationRequested(at=at, vm=vm.name, target=target, who=WHO)]


def _cancel(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    name = str(arguments.get("migration", "")) or _vm(state, arguments).migration
    if name not in state.migrations:
        raise RefusedError(f"there is no migration {name or 'of this VM'}")
    return [ev.MigrationCancelRequested(at=at, migration=name, who=WHO)]


def _delete(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    vm = _vm(state, arguments)
    if vm.run_open and not arguments.get("force"):
        raise RefusedError(f"{vm.name} runs; use force")
    return [ev.VmDeleteRequested(at=at, name=vm.name, who=WHO)]


def _apply(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    raw = arguments.get("manifest")
    written = check_object(raw, complete=False)  # type: ignore[arg-type]
    if not isinstance(written, VirtualMachine):
        raise RefusedError("a story applies VirtualMachines only; use taint, label and cordon for nodes")
    name, spec = written.metadata.name, written.spec
    requests = spec.resources.requests if spec.resources else {}
    cpu_m, memory = parse_cpu_m(requests.get("cpu", "1")), parse_bytes(requests.get("memory", "1Gi"))
    known = state.vms.get(name)
    uuid = known.uuid if known else world.new_vm(name, cpu_m, memory)
    if not spec.domain_xml:
        plan = VmPlan(name=name, cpu_m=cpu_m, memory_bytes=memory)
        spec = structs.replace(spec, domain_xml=xml_of(uuid, plan))
    return [
        ev.VmApplied(
            at=at,
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


def _config(world: World, state: State, at: float, arguments: Arguments) -> list[Event]:
    raw = convert(arguments.get("set", {}), dict[str, object], dec_hook=decode_config_value)
    config = read_config({**write_config(state.config), **raw})
    return [ev.ConfigChanged(at=at, config=write_config(config), who=WHO)]


VERBS: dict[str, Callable[[World, State, float, Arguments], list[Event]]] = {
    "apply": _apply,
    "cancel": _cancel,
    "config": _config,
    "confirmGone": _confirm_gone,
    "cordon": _cordon,
    "delete": _delete,
    "drain": _drain,
    "fence": _fence,
    "label": _label,
    "migrate": _migrate,
    "pause": _command(VmVerb.PAUSE),
    "restart": _command(VmVerb.RESTART),
    "start": _start,
    "stop": _stop,
    "taint": _taint,
    "uncordon": _uncordon,
    "unpause": _command(VmVerb.UNPAUSE),
}
"""The verbs a story may use, under the command line's names (long ones in camelCase)."""
