"""Label selectors as people write them on one line: `app=web,tier!=front,zone in (a,b),!old`.

Pure text work; the grammar and its meaning are Kubernetes'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

_KEY = r"(?:[A-Za-z0-9][A-Za-z0-9.-]*/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)?"
_SET = re.compile(rf"^({_KEY})\s+(in|notin)\s*\(\s*({_VALUE}(?:\s*,\s*{_VALUE})*)\s*\)$")
_EQUAL = re.compile(rf"^({_KEY})\s*(==|=|!=)\s*({_VALUE})$")
_EXISTS = re.compile(rf"^(!?)\s*({_KEY})$")
_COMMA = re.compile(r",(?![^(]*\))")  # outside parentheses
TEXT_MAX = 2000


class Term(NamedTuple):
    """One term. operator: in | notin | exists | absent."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels satisfy the term; a missing label satisfies `notin`, as in Kubernetes."""
        value = labels.get(self.key)
        if self.operator == "exists":
            return value is not None
        if self.operator == "absent":
            return value is None
        return (value in self.values) == (self.operator == "in")


Selector = tuple[Term, ...]


@lru_cache(maxsize=256)
def read_selector(text: str) -> Selector:
    """Return the terms of a selector, all of which must hold; ValueError names the term that is none."""
    if len(text) > TEXT_MAX:
        raise ValueError(f"it is longer than {TEXT_MAX} characters")
    if not text.strip():
        return ()
    return tuple(_read_term(term.strip()) for term in _COMMA.split(text))


def _read_term(text: str) -> Term:
    if found := _SET.match(text):
        values = frozenset(value.strip() for value in found.group(3).split(","))
        return Term(found.group(1), found.group(2), values)
    if found := _EQUAL.match(text):
        operator = "notin" if found.group(2) == "!=" else "in"
        return Term(found.group(1), operator, frozenset({found.group(3)}))
    if found := _EXISTS.match(text):
        return Term(found.group(2), "absent" if found.group(1) else "exists")
    raise ValueError(f"{text!r} is no term; write app=web, app!=web, app in (a,b), app or !app")


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Tell whether labels satisfy every term."""
    return all(term.matches(labels) for term in selector)
