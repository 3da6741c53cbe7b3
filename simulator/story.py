"""Reads a story: YAML text in, a Story out, or one sentence that names the place and the problem.

The format is fixed in interfaces.md ("virtward simulate: a story"). What the simulator cannot do
yet is refused, never skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import msgspec
import yaml

from aggregator.core.objects import VmSpec
from aggregator.core.policy import ClusterConfig, read_config
from fleet.units import parse_bytes, parse_cpu_m, parse_duration_s
from simulator.beginning import xml_of
from simulator.events_text import read_happening
from simulator.outlets import WORDS
from simulator.plan import STORAGE, NodePlan, VmPlan, WorldPlan, uuid_of
from simulator.run import Expectation, Happening, Story
from simulator.story_error import StoryError

KEYS = ("name", "seed", "config", "aggregators", "nodes", "vms", "events", "expect", "until")
NODE_KEYS = ("name", "labels", "allocatable", "fencing", "watchdog", "supervised", "aggregator")
VM_KEYS = ("name", "node", "labels", "cpu", "memory", "spec", "storage")
QUIET_AFTER_S = 300.0
NODES_MAX = 1000
VMS_MAX = 20_000
AGGREGATORS_MAX = 3

Table = Mapping[str, object]


def read_story(text: str, name: str) -> Story:
    """Return the story of a file's text. name: where the story gives none; StoryError otherwise."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark is not None else "the text"
        raise StoryError(where, str(getattr(error, "problem", "") or "this is no YAML")) from None
    story = table(raw, "the story", KEYS)
    aggregators = number(story.get("aggregators", 1), "aggregators")
    if not 1 <= aggregators <= AGGREGATORS_MAX:
        raise StoryError("aggregators", f"{aggregators} cannot be simulated; 1 to {AGGREGATORS_MAX} can")
    nodes = _nodes(story.get("nodes", 3))
    plan = WorldPlan(
        seed=number(story.get("seed", 0), "seed"),
        config=_config(story.get("config", {})),
        nodes=nodes,
        vms=_vms(story.get("vms", 0), nodes),
        aggregators=aggregators,
    )
    happenings = tuple(read_happening(item, f"events[{i}]", plan) for i, item in enumerate(items(story, "events")))
    last = max((happening.at for happening in happenings), default=0.0)
    return Story(
        name=str(story.get("name", name)),
        plan=plan,
        happenings=happenings,
        expectations=tuple(_expectation(item, f"expect[{i}]") for i, item in enumerate(items(story, "expect"))),
        until=_until(story, happenings, last),
    )


def _until(story: Table, happenings: tuple[Happening, ...], last: float) -> float:
    if "until" not in story:
        return last + QUIET_AFTER_S
    until = duration(story["until"], "until")
    if happenings and until < last:
        raise StoryError("until", f"the story would end before its last event at {last:g} s")
    return until


def table(raw: object, where: str, known: tuple[str, ...]) -> Table:
    """Return a mapping with text keys, all of them known."""
    if not isinstance(raw, dict):
        raise StoryError(where, "this must be a mapping of keys to values")
    for key in raw:
        if key not in known:
            raise StoryError(f"{where}.{key}", f"this key is not known; known are {', '.join(known)}")
    return cast("Table", raw)


def items(story: Table, key: str) -> list[object]:
    found = story.get(key) or []
    if not isinstance(found, list):
        raise StoryError(key, "this must be a list")
    return found


def number(raw: object, where: str) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < 0:
        raise StoryError(where, f"{raw!r} is not a whole number from 0")
    return raw


def duration(raw: object, where: str) -> float:
    return _measured(raw, where, parse_duration_s)


def _measured(raw: object, where: str, parse: Callable[[str | int | float], float]) -> float:
    try:
        return parse(raw if isinstance(raw, str | int | float) else str(raw))
    except ValueError as error:
        raise StoryError(where, str(error)) from None


def _config(raw: object) -> ClusterConfig:
    if not isinstance(raw, dict):
        raise StoryError("config", "this must be a mapping of keys to values")
    try:
        return read_config(raw)
    except ValueError as error:
        raise StoryError("config", str(error)) from None


def _labels(raw: object, where: str) -> dict[str, str]:
    if not isinstance(raw, dict):
        raise StoryError(where, "this must be a mapping of labels to texts")
    return {str(key): str(value) for key, value in raw.items()}


def _nodes(raw: object) -> tuple[NodePlan, ...]:
    if isinstance(raw, int) and not isinstance(raw, bool):
        if not 1 <= raw <= NODES_MAX:
            raise StoryError("nodes", f"{raw} nodes cannot be simulated; 1 to {NODES_MAX} can")
        return tuple(NodePlan(name=f"n{i}") for i in range(1, raw + 1))
    if not isinstance(raw, list) or not raw:
        raise StoryError("nodes", "this must be a number of nodes or a list of them")
    plans = tuple(_node(item, f"nodes[{i}]") for i, item in enumerate(raw))
    _unique([plan.name for plan in plans], "nodes")
    return plans


def _node(raw: object, where: str) -> NodePlan:
    node = table(raw, where, NODE_KEYS)
    if node.get("watchdog", False):
        raise StoryError(f"{where}.watchdog", "this simulator knows no watchdog yet")
    fencing = _ladder(node.get("fencing", "power"), f"{where}.fencing")
    room = table(node.get("allocatable", {}), f"{where}.allocatable", ("cpu", "memory"))
    return NodePlan(
        name=_name(node, where),
        labels=_labels(node.get("labels", {}), f"{where}.labels"),
        cpu_m=int(_measured(room.get("cpu", "16"), f"{where}.allocatable.cpu", parse_cpu_m)),
        memory_bytes=int(_measured(room.get("memory", "64Gi"), f"{where}.allocatable.memory", parse_bytes)),
        fencing=fencing,
        supervised=bool(node.get("supervised", True)),
        aggregator=bool(node.get("aggregator", False)),
    )


def _ladder(raw: object, where: str) -> tuple[tuple[str, ...], ...]:
    """power, none, or a list of rungs; a rung is a word, or a list of words for several devices."""
    if isinstance(raw, str):
        if raw not in ("power", "none"):
            raise StoryError(where, f"{raw!r} is neither power nor none, nor a list of rungs")
        return (("power",),) if raw == "power" else ()
    if not isinstance(raw, list):
        raise StoryError(where, f"{raw!r} is neither power nor none, nor a list of rungs")
    rungs = tuple(tuple(map(str, rung)) if isinstance(rung, list) else (str(rung),) for rung in raw)
    for word in (word for rung in rungs for word in rung):
        if word not in WORDS:
            raise StoryError(where, f"{word!r} is no device; known are {', '.join(WORDS)}")
    return rungs


def _name(raw: Table, where: str) -> str:
    name = raw.get("name")
    if not isinstance(name, str) or not name:
        raise StoryError(f"{where}.name", "a name is missing")
    return name


def _unique(names: list[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise StoryError(where, f"the name {name} is used twice")


def _vms(raw: object, nodes: tuple[NodePlan, ...]) -> tuple[VmPlan, ...]:
    if isinstance(raw, int) and not isinstance(raw, bool):
        if not 0 <= raw <= VMS_MAX:
            raise StoryError("vms", f"{raw} VMs cannot be simulated; 0 to {VMS_MAX} can")
        plans = [VmPlan(name=f"v{i}", node=nodes[(i - 1) % len(nodes)].name) for i in range(1, raw + 1)]
    elif isinstance(raw, list):
        plans = [_vm(item, f"vms[{i}]", nodes) for i, item in enumerate(raw)]
        _unique([plan.name for plan in plans], "vms")
    else:
        raise StoryError("vms", "this must be a number of VMs or a list of them")
    return tuple(_with_definition(plan, number_) for number_, plan in enumerate(plans, start=1))


def _with_definition(plan: VmPlan, number_: int) -> VmPlan:
    if plan.spec.domain_xml:
        return plan
    spec = msgspec.structs.replace(plan.spec, domain_xml=xml_of(uuid_of(number_), plan))
    return msgspec.structs.replace(plan, spec=spec)


def _vm(raw: object, where: str, nodes: tuple[NodePlan, ...]) -> VmPlan:
    vm = table(raw, where, VM_KEYS)
    node = str(vm.get("node", "") or "")
    if node and node not in [plan.name for plan in nodes]:
        raise StoryError(f"{where}.node", f"there is no node {node}")
    try:
        spec = msgspec.convert(vm.get("spec", {}), VmSpec)
    except msgspec.ValidationError as error:
        raise StoryError(f"{where}.spec", str(error)) from None
    return VmPlan(
        name=_name(vm, where),
        node=node,
        labels=_labels(vm.get("labels", {}), f"{where}.labels"),
        cpu_m=int(_measured(vm.get("cpu", "1"), f"{where}.cpu", parse_cpu_m)),
        memory_bytes=int(_measured(vm.get("memory", "1Gi"), f"{where}.memory", parse_bytes)),
        spec=spec,
        storage=str(vm.get("storage", STORAGE)),
    )


def _expectation(raw: object, where: str) -> Expectation:
    if not isinstance(raw, dict) or ("event" not in raw and "violation" not in raw):
        raise StoryError(where, "an expectation names an event, or a violation that a person of the story causes")
    earliest, latest = _span(raw.get("t", "0..1000000s"), f"{where}.t")
    fields = {str(key): value for key, value in raw.items() if key != "t"}
    words = " ".join(f"{key} {value}" for key, value in fields.items())
    if "violation" not in raw:
        return Expectation(earliest=earliest, latest=latest, words=words, fields=fields)
    if "vm" not in raw:
        raise StoryError(f"{where}.vm", "an expected violation names its VM")
    broken, vm = str(raw["violation"]), str(raw["vm"])
    return Expectation(earliest=earliest, latest=latest, words=words, fields={}, violation=broken, vm=vm)


def _span(raw: object, where: str) -> tuple[float, float]:
    first, dots, last = str(raw).partition("..")
    if not dots:
        raise StoryError(where, f"{raw!r} is no span of time; write it like 30..45s")
    earliest, latest = duration(first, where), duration(last, where)
    if earliest > latest:
        raise StoryError(where, f"{raw!r} ends before it begins")
    return earliest, latest
