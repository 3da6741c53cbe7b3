"""Manifests from files and stdin, and back to text.

Knows files and lists of items. What YAML means is the core's own reader's word, and what an
object may contain is the aggregator's to say.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aggregator.core.yaml_text import TextError, read_yaml, write_yaml
from cli.document import Document, Json
from cli.errors import Failure

MANIFEST_BYTES_MAX = 16 * 1024 * 1024
DOCUMENTS_MAX = 10_000


class Manifest(NamedTuple):
    """One manifest, and where it stands: the file, and in a file of several the document."""

    place: str
    document: Document


def dump_yaml(value: Json) -> str:
    """Return YAML, keys in the order given."""
    return write_yaml(value)


def plain_value(word: str) -> Json:
    """Return a word of the command line as YAML reads it: null, a number, true, or a text."""
    try:
        found = read_yaml(word)
    except TextError:
        return word
    return found[0] if found else ""


def read_manifests(file: str) -> list[Manifest]:
    """Return the documents of a file, `-` for stdin; Failure says where the text is broken.

    A `{items: […]}` document, as `virtward get -o yaml` prints it, counts as its items.
    """
    where = "stdin" if file == "-" else file
    try:
        values = read_yaml(_read(file, where))
    except TextError as error:
        raise Failure(f"{where}, {error}") from None
    found = [
        manifest
        for number, value in enumerate(values, 1)
        if value is not None
        for manifest in _manifests(value, where if len(values) == 1 else f"{where}, document {number}")
    ]
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


def _manifests(value: Json, where: str) -> Iterator[Manifest]:
    if not isinstance(value, dict):
        raise Failure(f"{where}: a manifest is a mapping with apiVersion, kind, metadata and spec")
    items = value.get("items")
    if isinstance(items, list) and str(value.get("kind", "List")).endswith("List"):
        for number, item in enumerate(items):
            yield from _manifests(item, f"{where}, items[{number}]")
        return
    yield Manifest(where, value)
