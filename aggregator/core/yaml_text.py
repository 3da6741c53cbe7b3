"""YAML and JSON text to plain values, and back; the syntax only.

Safe on hostile text: builds plain values from the parser's events, so no tag makes an object, and
size, depth and what aliases expand to are bounded. Stricter than YAML 1.1 where that hurts people:
a key written twice is an error, only true and false are booleans, and there are no dates and no
numbers to the base of 60, so that `afterFence: On` and a MAC address stay what they look like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

import msgspec
import yaml

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

TEXT_CHARACTERS_MAX = 16 * 1024 * 1024
ALIAS_CHARACTERS_MAX = 1024 * 1024  # what aliases may add to that
DEPTH_MAX = 64
DIGITS_MAX = 30

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, Plain] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class TextError(ValueError):
    """The text is no YAML we take. line and column count from 1; 0: the text as a whole."""

    def __init__(self, problem: str, document: int = 1, line: int = 0, column: int = 0) -> None:
        self.problem, self.document, self.line, self.column = problem, document, line, column
        place = f"line {line}, column {column}: " if line else ""
        super().__init__(f"document {document}: {place}{problem}")


def read_yaml(text: str) -> list[Plain]:
    """Return the documents of a text, None for empty ones; TextError says where it is broken."""
    if len(text) > TEXT_CHARACTERS_MAX:
        raise TextError(f"the text is longer than {TEXT_CHARACTERS_MAX >> 20} Mi characters; split it")
    if text.lstrip()[:1] in ("{", "["):
        try:
            value: Plain = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            pass  # flow YAML looks like JSON too, and YAML's reader names the line
        else:
            return [value]
    return list(_Reader(text).documents())


class _Reader:
    """Builds plain values from the events of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._document = 0
        self._anchors: dict[str, tuple[Plain, int]] = {}
        self._from_aliases = 0
        self._events: Iterator[yaml.Event] = iter(())

    def documents(self) -> Iterator[Plain]:
        try:
            self._events = yaml.parse(self._text, Loader=_LOADER)
            for event in self._events:
                if isinstance(event, yaml.DocumentStartEvent):
                    self._document += 1
                    self._anchors.clear()
                    yield self._build(next(self._events), 0)[0]
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            problem = _sentence(error.problem or error.context or "broken YAML")
            raise TextError(problem, self._number, *where) from None
        except (yaml.YAMLError, UnicodeError) as error:
            problem = _sentence(getattr(error, "reason", None) or "broken YAML")
            raise TextError(f"it is no text that YAML allows: {problem}", self._number) from None

    @property
    def _number(self) -> int:
        return max(1, self._document)

    def _build(self, event: yaml.Event, depth: int) -> tuple[Plain, int]:
        """Return the value that begins with this event, and its size in characters."""
        if depth > DEPTH_MAX:
            raise self._error(event, f"it is nested deeper than {DEPTH_MAX} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if isinstance(event, yaml.ScalarEvent):
            built: tuple[Plain, int] = self._scalar(event), 1 + len(event.value)
        elif isinstance(event, yaml.SequenceStartEvent):
            built = self._sequence(depth)
        elif isinstance(event, yaml.MappingStartEvent):
            built = self._mapping(depth)
        else:
            raise self._error(event, "broken YAML")
        if event.anchor is not None:
            self._anchors[event.anchor] = built
        return built

    def _alias(self, event: yaml.AliasEvent) -> tuple[Plain, int]:
        if event.anchor not in self._anchors:
            raise self._error(event, f"there is no anchor &{event.anchor} before this alias")
        value, size = self._anchors[event.anchor]
        self._from_aliases += size
        if self._from_aliases > ALIAS_CHARACTERS_MAX:
            raise self._error(event, f"aliases expand to more than {ALIAS_CHARACTERS_MAX >> 20} Mi characters")
        return value, size

    def _sequence(self, depth: int) -> tuple[Plain, int]:
        items: list[Plain] = []
        size = 1
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            value, more = self._build(event, depth + 1)
            items.append(value)
            size += more
        return items, size

    def _mapping(self, depth: int) -> tuple[Plain, int]:
        fields: dict[str, Plain] = {}
        merged: dict[str, Plain] = {}
        size = 1
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "a key must be plain text")
            key: str = event.value
            if key in fields:
                raise self._error(event, f"the key {key!r} stands here twice")
            value, more = self._build(next(self._events), depth + 1)
            size += 1 + len(key) + more
            if key == "<<" and event.implicit[0]:
                merged = {**self._merge(event, value), **merged}
            else:
                fields[key] = value
        return {**merged, **fields}, size

    def _merge(self, event: yaml.Event, value: Plain) -> dict[str, Plain]:
        merged: dict[str, Plain] = {}
        for part in reversed(value if isinstance(value, list) else [value]):
            if not isinstance(part, dict):
                raise self._error(event, "<< takes a mapping or a list of mappings")
            merged.update(part)
        return merged

    def _scalar(self, event: yaml.ScalarEvent) -> Plain:
        text: str = event.value
        tag = event.tag
        if tag is None or tag == "!":
            return _resolve(text) if event.implicit[0] else text
        if tag == f"{_TAG}str":
            return text
        value = _resolve(text)
        kinds: dict[str, type | tuple[type, ...]] = {
            f"{_TAG}int": int,
            f"{_TAG}float": (int, float),
            f"{_TAG}bool": bool,
            f"{_TAG}null": type(None),
        }
        kind = kinds.get(tag)
        if kind is None or not isinstance(value, kind):
            raise self._error(event, f"the tag {tag.replace(_TAG, '!!')} is not understood here")
        return value

    def _error(self, event: yaml.Event, problem: str) -> TextError:
        mark = event.start_mark
        where = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        return TextError(problem, self._number, *where)


def _resolve(text: str) -> Plain:
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= DIGITS_MAX and _INT.fullmatch(text):
        return int(text)
    if len(text) <= DIGITS_MAX and _FLOAT.fullmatch(text):
        return float(text)
    return text


def _sentence(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that domain XML stays readable, and no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text_node(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(f"{_TAG}str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text_node)
# What this reader takes for a number is quoted, besides what YAML 1.1 takes for one.
_Dumper.add_implicit_resolver(f"{_TAG}float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789"))
_Dumper.add_implicit_resolver(f"{_TAG}int", re.compile(f"^(?:{_INT.pattern})$"), list("-+0123456789"))


def write_yaml(value: Plain) -> str:
    """Return YAML that read_yaml and any YAML 1.1 reader read back the same, keys in the order given."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=2**20)
