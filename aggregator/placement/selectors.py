"""Label selectors, node terms and tolerations, read once and then asked often.

Knows Kubernetes' matching rules (apimachinery labels.Requirement, component-helpers' node
affinity, core/v1 Toleration) in plain Python over one set of labels. Knows no table, no numpy.
A selector in its compiled form is a sorted tuple, so that equal selectors are equal keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aggregator.core.objects import (
    LabelSelector,
    NodeSelectorTerm,
    SelectorRequirement,
    Taint,
    TaintEffect,
    Toleration,
)

LABEL_LENGTH_MAX = 63
NODE_NAME_FIELD = "metadata.name"
UNSCHEDULABLE = Taint(key="virtward/unschedulable", effect=TaintEffect.NO_SCHEDULE)

Requirement = tuple[str, str, tuple[str, ...]]  # key, operator, values
Selector = tuple[Requirement, ...] | None  # None selects nothing, the empty tuple everything
NodeTerm = tuple[tuple[Requirement, ...], tuple[Requirement, ...]]  # label expressions, fields
LabelsKey = tuple[tuple[str, str], ...]


def labels_key(labels: Mapping[str, str]) -> LabelsKey:
    """Return labels as a hashable key."""
    return tuple(sorted(labels.items()))


def compile_requirements(requirements: Iterable[SelectorRequirement]) -> tuple[Requirement, ...]:
    return tuple(sorted((r.key, r.operator, tuple(sorted(set(r.values)))) for r in requirements))


def compile_selector(selector: LabelSelector | None) -> Selector:
    """Return the compiled form; a selector that was not written selects nothing."""
    if selector is None:
        return None
    labels = tuple((key, "In", (value,)) for key, value in selector.match_labels.items())
    return tuple(sorted(set(labels + compile_requirements(selector.match_expressions))))


def compile_term(term: NodeSelectorTerm) -> NodeTerm:
    return compile_requirements(term.match_expressions), compile_requirements(term.match_fields)


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Tell whether a compiled selector selects these labels."""
    return selector is not None and all(holds(r, labels) for r in selector)


def holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    """Tell whether one requirement holds; an unknown operator holds nowhere."""
    key, operator, values = requirement
    present = key in labels
    if operator == "In":
        return present and labels[key] in values
    if operator == "NotIn":
        return not present or labels[key] not in values
    if operator == "Exists":
        return present
    if operator == "DoesNotExist":
        return not present
    return present and compares(operator, labels[key], values)


def compares(operator: str, written: str, values: tuple[str, ...]) -> bool:
    """Tell whether a label's number is above (Gt) or below (Lt) the one value; no number: no."""
    label, bound = whole_number(written), whole_number(values[0]) if len(values) == 1 else None
    if label is None or bound is None:
        return False
    return (operator == "Gt" and label > bound) or (operator == "Lt" and label < bound)


def whole_number(text: str) -> int | None:
    """Return a 64-bit decimal integer as Go's ParseInt reads it, None if it is none."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= LABEL_LENGTH_MAX):
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


def term_holds(term: NodeTerm, labels: Mapping[str, str], name: str) -> bool:
    """Tell whether a node term holds; one that demands nothing holds nowhere."""
    expressions, fields = term
    if not expressions and not fields:
        return False
    return all(holds(r, labels) for r in expressions) and all(holds(r, {NODE_NAME_FIELD: name}) for r in fields)


def tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Tell whether any toleration matches the taint; empty key and effect match all."""
    return any(_matches(t, taint) for t in tolerations)


def _matches(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or toleration.value == taint.value
