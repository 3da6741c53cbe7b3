"""`explain` about places: why a VM is where it is, where else it could be, and what keeps it from everywhere.

Pure texts. What could be is asked of the rules as they are now; why it is where it is was kept with the decision.
"""

from __future__ import annotations

from aggregator.core.choice import choice_table
from aggregator.core.moments import rfc3339
from aggregator.core.seats import refusal_words
from aggregator.core.state import State, VmRecord

NODES_IN_WORDS_MAX = 20
RULES_IN_WORDS_MAX = 3


def chosen_text(record: VmRecord) -> list[str]:
    """Return why a VM that runs is on its node: the score table of the decision, as lines."""
    if not record.run_open or not record.owner:
        return []
    choice = record.choice
    if choice is None or not choice.contenders:
        why = "it was found there, sent there by name, or placed together with others"
        return [f"Why {record.owner}: not by its own scores; {why}."]
    at = rfc3339(record.chosen_at)
    if choice.feasible == 1:
        return [f"Why {record.owner}: at {at} it was the only one of {choice.nodes} nodes that would do."]
    rows = choice_table(choice)
    best = choice.contenders[0].total >= max(each.total for each in choice.contenders)
    words = ": the highest sum, of equals the one with fewer VMs" if best else ": placed together with others"
    by = f"profile {choice.profile}" + (words if rows else "")
    return [f"Why {record.owner}: at {at} {choice.feasible} of {choice.nodes} nodes would do; {by}.", *rows]


def elsewhere_text(state: State, record: VmRecord) -> list[str]:
    """Return where a VM that runs could run as well, now and with what runs there now, and what keeps it off others."""
    if not record.run_open or not record.owner or record.migration:
        return []
    words = refusal_words(state, record, live=True)
    others = [name for name in state.nodes if name != record.owner]
    free = [name for name in others if name not in words]
    lines = [f"It could move to: {_some(free) or 'no node'}."] if others else []
    closed = {name: words[name] for name in others if name in words}
    shown = list(closed.items())[:NODES_IN_WORDS_MAX]
    lines += [f"  not to {name}: {_rules(rules)}" for name, rules in shown]
    if len(closed) > len(shown):
        lines.append(f"  and not to {len(closed) - len(shown)} others")
    return lines


def smallest_change(state: State, record: VmRecord) -> list[str]:
    """Return what stands alone in the way of a VM that no node takes, by node; else where the least does."""
    words = refusal_words(state, record, live=False)
    if not words or len(words) < len(state.nodes):
        return []
    alone: dict[str, list[str]] = {}
    for name, rules in words.items():
        if len(rules) == 1:
            rule, why = next(iter(rules.items()))
            alone.setdefault(f"{rule} ({why})" if why else rule, []).append(name)
    if alone:
        lines = [f"  {what} alone keeps it off {_some(nodes)}" for what, nodes in alone.items()]
        return ["The smallest change that would place it:", *lines[:NODES_IN_WORDS_MAX]]
    name, rules = min(words.items(), key=lambda item: (len(item[1]), item[0]))
    return [f"No single change would place it; the least is in the way on {name}: {_rules(rules)}."]


def _rules(rules: dict[str, str]) -> str:
    shown = [f"{rule} ({why})" if why else rule for rule, why in rules.items()]
    more = len(shown) - RULES_IN_WORDS_MAX
    return "; ".join(shown[:RULES_IN_WORDS_MAX]) + (f"; and {more} more" if more > 0 else "")


def _some(names: list[str]) -> str:
    more = len(names) - NODES_IN_WORDS_MAX
    return ", ".join(names[:NODES_IN_WORDS_MAX]) + (f" and {more} more" if more > 0 else "")
