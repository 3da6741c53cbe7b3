"""Plain values against our Structs: unknown and missing fields, wrong kinds, other names for things.

Knows shapes: it walks a value along the types of objects.py and returns the plain form that msgspec
converts without a complaint. What a value may say is manifest_rules.py's to judge.
Every error is one sentence with the path.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import msgspec
from msgspec import inspect

from aggregator.core import objects
from aggregator.core.labels import ALIASES
from aggregator.core.yaml_text import Plain

KNOWN_SHOWN_MAX = 12
SHOWN_CHARACTERS_MAX = 80

# What Kubernetes calls it, and what we read it as.
FIELD_ALIASES: Mapping[type, Mapping[str, str]] = {
    objects.Affinity: {"podAffinity": "vmAffinity", "podAntiAffinity": "vmAntiAffinity"},
    objects.WeightedVmAffinityTerm: {"podAffinityTerm": "vmAffinityTerm"},
}
NAMESPACE_FIELDS = ("namespace", "namespaces", "namespaceSelector")
NO_NAMESPACES = "there are no namespaces here, names are unique in the whole fleet; leave it out"

# Mappings and texts in which Kubernetes' label keys are read as ours.
_LABEL_MAPS = ((objects.Metadata, "labels"), (objects.VmSpec, "nodeSelector"), (objects.LabelSelector, "matchLabels"))
_LABEL_KEYS = (
    (objects.SelectorRequirement, "key"),
    (objects.VmAffinityTerm, "topologyKey"),
    (objects.TopologySpreadConstraint, "topologyKey"),
)
# Texts that people write as numbers: quantities, durations, a fence program's parameters.
_NUMBERS_WELCOME = ("requests", "allocatable", "capacity", "params", "timeout", "memory", "bandwidthPerMigration")


class ManifestError(ValueError):
    """Something in an object is not as it must be. path: dotted, as people write it; problem: one sentence.

    document counts from 1; 0: the object came alone.
    """

    def __init__(self, path: str, problem: str, document: int = 0) -> None:
        self.path, self.problem, self.document = path, problem, document
        place = f"document {document}: " if document else ""
        super().__init__(f"{place}{path}: {problem}" if path else f"{place}{problem}")

    def at(self, document: int, prefix: str = "") -> ManifestError:
        """Return the same error with the place of the object in a larger text."""
        path = f"{prefix}.{self.path}" if prefix and self.path else prefix or self.path
        return ManifestError(path, self.problem, document)


def step(path: str, key: str | int) -> str:
    """Return the path of a field or an item below path."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


_WRITTEN_AS = {ours: theirs for names in (*FIELD_ALIASES.values(), ALIASES) for theirs, ours in names.items()}


def as_written(path: str, raw: Plain) -> str:
    """Return the path with the names that stand in `raw`, where they are Kubernetes' and not ours."""
    here, result = raw, ""
    for key in re.findall(r"[^.\[\]]+|\[[^\]]*\]", path):
        name: str | int = key.strip("[]")
        if isinstance(here, list) and key[1:-1].isdigit():
            name = int(key[1:-1])
            here = here[name] if name < len(here) else None
        elif isinstance(here, dict):
            if name not in here and _WRITTEN_AS.get(str(name)) in here:
                name = _WRITTEN_AS[str(name)]
            here = here.get(str(name))
        result = step(result, name)
    return result


def shape(value: Plain, cls: type, path: str = "") -> dict[str, Plain]:
    """Return the value in the plain form of a Struct; ManifestError where it is none."""
    return cast("dict[str, Plain]", _walk(value, _type_of(cls), path))


@cache
def _type_of(cls: type) -> inspect.StructType:
    return cast("inspect.StructType", inspect.type_info(cls))


def _walk(value: Plain, kind: inspect.Type, path: str, *, number_welcome: bool = False) -> Plain:
    if isinstance(kind, inspect.UnionType):
        return _walk(value, _member(value, kind), path, number_welcome=number_welcome)
    if isinstance(kind, inspect.StructType):
        return _struct(value, kind, path)
    if isinstance(kind, inspect.DictType):
        return _mapping(value, kind, path, number_welcome=number_welcome)
    if isinstance(kind, inspect.VarTupleType):
        if not isinstance(value, list):
            raise ManifestError(path, f"{show(value)} is not a list; begin each item with a dash")
        return [_walk(item, kind.item_type, step(path, place)) for place, item in enumerate(value)]
    if isinstance(kind, inspect.EnumType):
        words = [str(member) for member in kind.cls]
        if value not in words:
            raise ManifestError(path, not_one_of(value, words))
        return value
    if isinstance(kind, inspect.StrType):
        return _text(value, path, number_welcome=number_welcome)
    if isinstance(kind, inspect.BoolType):
        if not isinstance(value, bool):
            raise ManifestError(path, f"{show(value)} is neither true nor false")
        return value
    return _number(value, path, whole=isinstance(kind, inspect.IntType))


def _member(value: Plain, union: inspect.UnionType) -> inspect.Type:
    """Return the member of a union that the value is meant for."""
    if isinstance(value, str):
        for kind in union.types:
            if isinstance(kind, inspect.StrType):
                return kind
    return next(kind for kind in union.types if not isinstance(kind, inspect.NoneType))


def _struct(value: Plain, kind: inspect.StructType, path: str) -> dict[str, Plain]:
    fields = {field.encode_name: field for field in kind.fields}
    if not isinstance(value, dict):
        raise ManifestError(path, f"{show(value)} is not a mapping; it holds fields like {', '.join(list(fields)[:3])}")
    result: dict[str, Plain] = {}
    for key, item in value.items():
        name = FIELD_ALIASES.get(kind.cls, {}).get(key, key)
        if name not in fields:
            raise ManifestError(step(path, key), _unknown(key, list(fields)))
        if name != key and name in value:
            raise ManifestError(
                step(path, key), f"it is another name for {name}, which stands here too; keep one of them"
            )
        if item is None:
            continue  # as in Kubernetes: null is not written
        welcome = key in _NUMBERS_WELCOME
        result[name] = _renamed(
            kind.cls, name, _walk(item, fields[name].type, step(path, key), number_welcome=welcome), path
        )
    for name, field in fields.items():
        if field.required and name not in result:
            raise ManifestError(step(path, name), "it is required and missing")
    return result


def _mapping(value: Plain, kind: inspect.DictType, path: str, *, number_welcome: bool) -> dict[str, Plain]:
    if not isinstance(value, dict):
        raise ManifestError(path, f"{show(value)} is not a mapping of names to values")
    return {
        key: _walk(item, kind.value_type, step(path, key), number_welcome=number_welcome) for key, item in value.items()
    }


def _renamed(cls: type, field: str, value: Plain, path: str) -> Plain:
    """Return the value with Kubernetes' label keys replaced by ours, where it holds label keys."""
    if isinstance(value, str) and (cls, field) in _LABEL_KEYS:
        return ALIASES.get(value, value)
    if isinstance(value, dict) and (cls, field) in _LABEL_MAPS:
        for key in value:
            ours = ALIASES.get(key)
            if ours in value and value[ours] != value[key]:
                raise ManifestError(step(step(path, field), key), f"it is read as {ours}, which has another value here")
        return {ALIASES.get(key, key): item for key, item in value.items()}
    return value


def _text(value: Plain, path: str, *, number_welcome: bool) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        word = "true" if value else "false"
        if number_welcome:
            return word
        raise ManifestError(path, f'{word} is not text here; write it in quotes: "{word}"')
    if isinstance(value, (int, float)):
        written = show(value)
        if number_welcome:
            return written
        raise ManifestError(path, f'{written} is a number and must be text; write it in quotes: "{written}"')
    raise ManifestError(path, f"{show(value)} is not text")


def _number(value: Plain, path: str, *, whole: bool) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ManifestError(path, f"{show(value)} is not a number")
    if whole and value != int(value):
        raise ManifestError(path, f"{show(value)} is not a whole number")
    if abs(value) >= 2**63:
        raise ManifestError(path, f"{show(value)} is too large")
    return int(value) if whole else value


def _unknown(key: str, known: list[str]) -> str:
    if key in NAMESPACE_FIELDS:
        return NO_NAMESPACES
    near = difflib.get_close_matches(key.lower(), [name.lower() for name in known], 1, 0.6)
    meant = next((name for name in known if near and name.lower() == near[0]), None)
    if meant:
        return f"there is no such field; did you mean {meant}?"
    if len(known) > KNOWN_SHOWN_MAX:
        return "there is no such field"
    return f"there is no such field; known here: {', '.join(known)}"


def show(value: Any) -> str:  # noqa: ANN401 (it is there to show whatever somebody wrote)
    """Return a value for a sentence: short, whatever it is."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    text = repr(value) if isinstance(value, str) else str(value)
    return (
        text
        if len(text) <= SHOWN_CHARACTERS_MAX
        else f"{text[: SHOWN_CHARACTERS_MAX - 2]}…{text[-1] if isinstance(value, str) else ''}"
    )


def not_one_of(value: object, words: list[str] | tuple[str, ...]) -> str:
    """Return the sentence for a word that is not among the known ones."""
    return f"{show(value)} is not known; it must be one of {', '.join(words)}"


def convert(plain: dict[str, Plain], cls: type[msgspec.Struct], path: str = "") -> msgspec.Struct:
    """Return the Struct of a shaped plain value."""
    try:
        return msgspec.convert(plain, cls)
    except msgspec.ValidationError as error:  # the walk should have seen it; still one sentence
        raise ManifestError(path, str(error)) from None
