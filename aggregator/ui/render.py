"""The page's sections as HTML: what is wrong first, then nodes, VMs, moves and the last events.

Pure: state and time in, text out. Everything that comes from people or machines is escaped. Times
are absolute; the page's script turns them into "3 min ago", so a section only changes when the
fleet does.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from aggregator.core.events import VmPhase
from aggregator.core.fold_moves import ENDED
from aggregator.core.migration_words import progress_words
from aggregator.core.moments import rfc3339, span
from aggregator.core.objects import Node, Taint
from aggregator.core.state import (
    HistoryLine,
    IncidentRecord,
    IncidentStep,
    MigrationRecord,
    NodeRecord,
    State,
    VmRecord,
)
from aggregator.core.views_fleet import holds
from aggregator.core.views_node import MAINTENANCE, node_view
from aggregator.core.views_vm import BACK_BY_ITSELF, fencing_problem, hold_text, reason_of, unprotected
from fleet.units import round_bytes

NODES_SHOWN_MAX = 300
VMS_SHOWN_MAX = 300
ENDED_SHOWN_MAX = 8
EVENTS_SHOWN_MAX = 40
STEPS_SHOWN_MAX = 60

_TONES = {
    "Up": "good", "Running": "good", "Succeeded": "calm", "Stopped": "calm", "Closed": "calm", "Cancelled": "calm",
    "Joining": "calm", "Queued": "calm", "Pending": "busy", "Starting": "busy", "Stopping": "busy", "Migrating": "busy",
    "Preparing": "busy", "HandingOver": "busy", "Discarding": "busy", "Paused": "warn", "Recovering": "warn",
    "Unseen": "warn", "Suspect": "warn", "AgentLost": "warn", "Unknown": "warn",
    "Lost": "bad", "Fencing": "bad", "Fenced": "bad", "Failed": "bad", "CrashLoopBackOff": "bad", "Open": "bad",
}  # fmt: skip
_QUIET_PHASES = (VmPhase.RUNNING, VmPhase.STOPPED, VmPhase.SUCCEEDED)


def sections(state: State, now: float, *, ready: bool) -> dict[str, str]:
    """Return each section's inner HTML by the id of its element."""
    return {
        "summary": _summary(state, now, ready=ready),
        "incidents": _incidents(state),
        "nodes": _nodes(state),
        "vms": _vms(state),
        "moves": _moves(state),
        "events": _events(state.history),
    }


def _summary(state: State, now: float, *, ready: bool) -> str:
    is_open = [record for record in state.incidents.values() if not record.closed]
    down = [vm for vm in state.vms.values() if not vm.deleting and vm.phase not in _QUIET_PHASES]
    bare = sum(vm.spec.run_strategy in BACK_BY_ITSELF and bool(unprotected(state, vm)[0]) for vm in state.vms.values())
    stopped = holds(state, now)
    if not ready:
        stopped.insert(0, "this aggregator does not act now: it starts, stops or has lost its store")
    if is_open:
        tone, text = "bad", f"{_count(len(is_open), 'incident')} open"
    elif stopped or any(vm.phase in (VmPhase.UNKNOWN, VmPhase.CRASH_LOOP_BACK_OFF) for vm in down):
        tone, text = "warn", "Needs a look"
    elif down:
        tone, text = "busy", f"At work on {_count(len(down), 'VM')}"
    else:
        tone, text = "good", "All is well"
    running = sum(vm.phase is VmPhase.RUNNING for vm in state.vms.values())
    up = sum(node.state == "Up" for node in state.nodes.values())
    figures = [(f"{up}/{len(state.nodes)}", "nodes up"), (f"{running}/{len(state.vms)}", "VMs running")]
    if bare:
        figures.append((str(bare), "unprotected"))
    cells = "".join(f"<div><b>{escape(number)}</b><span>{escape(word)}</span></div>" for number, word in figures)
    notes = "".join(f"<li>{escape(_sentence(text))}</li>" for text in stopped)
    return f'<p class="verdict {tone}">{escape(text)}</p><div class="figures">{cells}</div>' + (
        f'<ul class="holds">{notes}</ul>' if notes else ""
    )


def _incidents(state: State) -> str:
    is_open = [record for record in reversed(state.incidents.values()) if not record.closed]
    closed = [record for record in reversed(state.incidents.values()) if record.closed][:ENDED_SHOWN_MAX]
    if not is_open and not closed:
        return _nothing("No incident so far.")
    return "".join(_incident(record) for record in [*is_open, *closed])


def _incident(record: IncidentRecord) -> str:
    phase = "Closed" if record.closed else "Open"
    way_out = f'<p class="wayout"><b>What you can do</b> {escape(record.way_out)}</p>' if record.way_out else ""
    steps = "".join(
        f"<li>{_time(step.at)}<span><b>{escape(step.what)}</b> {escape(step.detail)}{_again(step)}</span></li>"
        for step in record.steps[-STEPS_SHOWN_MAX:]
    )
    vms = f" · {_count(len(record.vms), 'VM')}" if record.vms else ""
    ended = f" · closed {_time(record.closed)}" if record.closed else ""
    return (
        f'<article class="incident {phase.lower()}"><header>{_pill(phase)}<h3>{escape(record.title)}</h3></header>'
        f'<p class="quiet">{escape(record.name)} · opened {_time(record.opened)}{ended}{vms}</p>{way_out}'
        f'<details id="steps-{escape(record.name)}"><summary>{_count(len(record.steps), "step")}</summary>'
        f"<ol>{steps}</ol></details></article>"
    )


def _again(step: IncidentStep) -> str:
    return f" <i>({step.times} times, last {_time(step.last_at)})</i>" if step.times > 1 else ""


def _nodes(state: State) -> str:
    if not state.nodes:
        return _nothing("No node yet. Make a token with <code>virtward node token NAME</code> and give it to an agent.")
    loads: dict[str, int] = {}
    for vm in state.vms.values():
        if vm.run_open:
            loads[vm.owner] = loads.get(vm.owner, 0) + 1
    order = sorted(state.nodes.values(), key=lambda node: (node.state == "Up", node.name))
    rows = [_node(state, node, loads.get(node.name, 0)) for node in order[:NODES_SHOWN_MAX]]
    return _table(("Node", "State", "Since", "VMs", "Room", "Why"), rows, len(order), "nodes")


def _node(state: State, record: NodeRecord, load: int) -> list[str]:
    node = node_view(state, record)
    allocatable = node.status.allocatable if node.status else {}
    room = f"{allocatable['cpu']} CPU · {round_bytes(allocatable['memory'])}" if allocatable else ""
    marks = _pill(record.state) + "".join(_mark(word) for word in _node_marks(record))
    taints = " ".join(f"<code>{escape(_taint(taint))}</code>" for taint in record.spec.taints)
    problem = fencing_problem(record)
    why = [record.state_reason] if record.state != "Up" else []
    why += [f"cannot be fenced: {problem}"] if problem and record.approved else []
    words = "; ".join(part for part in why if part)
    return [
        f"<b>{escape(record.name)}</b>{_zone(node)}",
        marks,
        _time(record.state_since or record.created),
        str(load),
        escape(room.strip(" ·") or "–"),
        " ".join(part for part in (escape(words), taints) if part),
    ]


def _node_marks(record: NodeRecord) -> Iterable[str]:
    if any(taint.key == MAINTENANCE for taint in record.taints):
        yield "Maintenance"
    if record.spec.unschedulable:
        yield "Cordoned"
    if not record.approved:
        yield "Not approved"


def _zone(node: Node) -> str:
    zone = node.metadata.labels.get("virtward/zone", "")
    return f' <span class="quiet">{escape(zone)}</span>' if zone else ""


def _taint(taint: Taint) -> str:
    return taint.key + (f"={taint.value}" if taint.value else "") + f":{taint.effect}"


def _vms(state: State) -> str:
    if not state.vms:
        return _nothing("No VM yet. Write a manifest and <code>virtward apply -f</code> it.")
    order = sorted(state.vms.values(), key=lambda vm: (vm.phase in _QUIET_PHASES, vm.name))
    rows = [_vm(state, vm) for vm in order[:VMS_SHOWN_MAX]]
    return _table(("VM", "Phase", "Node", "Since", "Restarts", "Why"), rows, len(order), "vms")


def _vm(state: State, record: VmRecord) -> list[str]:
    why = [] if record.phase is VmPhase.RUNNING else [reason_of(state, record), hold_text(state, record)]
    if record.rejected and not record.run_open:
        why.append("; ".join(f"{node}: {', '.join(rules)}" for node, rules in sorted(record.rejected.items())))
    marks = _pill(record.phase) + (_mark("Deleting") if record.deleting else "")
    if record.spec.run_strategy in BACK_BY_ITSELF and record.run_open:
        reason, sentence = unprotected(state, record)
        if reason:
            marks += _mark("Unprotected")
            why.append(sentence)
    return [
        f"<b>{escape(record.name)}</b>",
        marks,
        escape(record.owner or "–") if record.run_open else "–",
        _time(record.phase_since or record.created),
        str(record.restart_count),
        escape("; ".join(dict.fromkeys(part for part in why if part))),
    ]


def _moves(state: State) -> str:
    drains = [record for record in state.drains.values() if record.state == "Running"]
    moving = [record for record in reversed(state.migrations.values()) if record.phase not in ENDED]
    ended = [record for record in reversed(state.migrations.values()) if record.phase in ENDED][:ENDED_SHOWN_MAX]
    blocks = [
        f'<p class="drain"><b>{escape(record.node)}</b> is being emptied since {_time(record.since)}'
        + "".join(f"<br>{escape(vm)} stays: {escape(why)}" for vm, why in sorted(record.blocked.items()))
        + "</p>"
        for record in drains
    ]
    if moving or ended:
        rows = [_move(record) for record in [*moving, *ended]]
        blocks.append(_table(("VM", "Phase", "From → to", "Begun", "Progress", "Why"), rows, len(rows), "migrations"))
    return "".join(blocks) or _nothing("Nothing has moved yet.")


def _move(record: MigrationRecord) -> list[str]:
    progress = f'<progress max="100" value="{record.percent:.0f}">{record.percent:.0f} %</progress>'
    if record.far is not None:
        progress += f'<br><span class="quiet">{escape(progress_words(record.far))}</span>'
    if record.phase in ENDED:
        progress = f"took {span(record.ended - record.created)}"
    return [
        f'<b>{escape(record.vm)}</b> <span class="quiet">{escape(record.name)}</span>',
        _pill(record.phase),
        f"{escape(record.source)} → {escape(record.target or record.wanted_target or '…')}",
        _time(record.created),
        progress,
        escape(record.reason),
    ]


def _events(history: list[HistoryLine]) -> str:
    if not history:
        return _nothing("Nothing has happened yet.")
    lines = []
    for line in reversed(history[-EVENTS_SHOWN_MAX:]):
        about = " ".join(part for part in (line.vm, line.node) if part)
        words = " – ".join(part for part in (line.detail, line.reason) if part)
        lines.append(
            f"<li>{_time(line.at)}<span><b>{escape(line.kind)}</b> {escape(about)} "
            f'<span class="quiet">{escape(words)}</span></span></li>'
        )
    return f'<ol class="events">{"".join(lines)}</ol>'


def _table(heads: tuple[str, ...], rows: list[list[str]], total: int, kind: str) -> str:
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in heads)
    body = "".join(
        "<tr>" + "".join(_cell(word, cell) for word, cell in zip(heads, row, strict=True)) + "</tr>" for row in rows
    )
    more = f'<p class="quiet">and {total - len(rows)} more: <code>virtward get {kind}</code></p>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" + (more if total > len(rows) else "")


def _cell(head: str, content: str) -> str:
    return f'<td data-head="{escape(head)}"{"" if content else " class=empty"}><div>{content}</div></td>'


def _pill(word: str) -> str:
    return f'<span class="pill {_TONES.get(str(word), "calm")}">{escape(str(word))}</span>'


def _mark(word: str) -> str:
    return f' <span class="mark">{escape(word)}</span>'


def _time(at: float) -> str:
    if at <= 0:
        return "–"
    text = rfc3339(at)
    return f'<time datetime="{text}" title="{text}">{text[11:19]}</time>'


def _nothing(html: str) -> str:
    return f'<p class="quiet">{html}</p>'


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
