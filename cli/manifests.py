"""Manifests: YAML or JSON text to plain documents, and back.

Knows the syntax only; what an object may contain is the aggregator's to say. Stricter than
YAML 1.1 where that hurts: a key written twice is an error, and only true and false are
booleans, so that `afterFence: On` and a MAC address stay what they look like.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable, Iterator
from pathlib import Path

import yaml

from cli.document import Document, Json
from cli.errors import Failure, sentence

MANIFEST_BYTES_MAX = 16 * 1024 * 1024
DOCUMENTS_MAX = 10_000


class PlainLoader(yaml.SafeLoader):
    """A SafeLoader for manifests; see the module's first lines."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:  # noqa: FBT001, FBT002 (PyYAML's signature)
        """Build a mapping; refuse a key that stands there twice, and keys that are no text."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = getattr(key_node, "value", None)
            if not isinstance(key, str) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here twice", key_node.start_mark
                )
            seen.add(key)
        return {_key(key): value for key, value in super().construct_mapping(node, deep).items()}


def _key(key: Hashable) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


def _without_surprises() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return SafeLoader's implicit types without dates, base-60 numbers and yes/no/on/off."""
    keep: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    unwanted = {f"tag:yaml.org,2002:{name}" for name in ("timestamp", "bool", "int", "float")}
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items():
        keep[first] = [(tag, pattern) for tag, pattern in resolvers if tag not in unwanted]
    return keep


PlainLoader.yaml_implicit_resolvers = _without_surprises()
PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False|TRUE|FALSE)$"), list("tTfF")
)
PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_FLOAT = re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$")
PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


class BlockDumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that domain XML stays readable."""


def _text_node(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


BlockDumper.add_representer(str, _text_node)
# A text that PlainLoader would take for a number is quoted, as those of YAML 1.1 are anyway.
BlockDumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def dump_yaml(value: Json) -> str:
    """Return YAML, keys in the order given."""
    return yaml.dump(value, Dumper=BlockDumper, sort_keys=False, default_flow_style=False, allow_unicode=True)


def read_manifests(file: str) -> list[Document]:
    """Return the documents of a file, `-` for stdin; Failure says where the text is broken.

    A `{items: […]}` document, as `virtward get -o yaml` prints it, counts as its items.
    """
    where = "stdin" if file == "-" else file
    found = list(_parse(_read(file, where), where))
    if not found:
        raise Failure(f"{where} holds no manifest")
    if len(found) > DOCUMENTS_MAX:
        raise Failure(f"{where} holds {len(found)} manifests; at most {DOCUMENTS_MAX} go at once")
    return found


def _read(file: str, where: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {where}: {error.strerror or error}") from None
    if len(raw) > MANIFEST_BYTES_MAX:
        raise Failure(f"{where} is larger than {MANIFEST_BYTES_MAX >> 20} MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(f"{where} is not UTF-8 text (byte {error.start})") from None


def _parse(source: str, where: str) -> Iterator[Document]:
    try:
        # PlainLoader is a SafeLoader: it builds plain values only.
        for number, value in enumerate(yaml.load_all(source, Loader=PlainLoader), 1):
            if value is None:
                continue
            place = where if number == 1 else f"{where}, document {number}"
            yield from _documents(value, place)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        spot = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = sentence(error.problem or error.context or "broken YAML")
        raise Failure(f"{where}{spot}: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Failure(f"{where}: {sentence(str(error)) or 'broken YAML'}") from None


def _documents(value: object, where: str) -> Iterator[Document]:
    if not isinstance(value, dict):
        raise Failure(f"{where}: a manifest is a mapping with apiVersion, kind, metadata and spec")
    items = value.get("items")
    if isinstance(items, list) and value.get("kind", "List") in ("List", "VirtualMachineList", "NodeList"):
        for number, item in enumerate(items, 1):
            yield from _documents(item, f"{where}, items[{number - 1}]")
        return
    yield value
