"""Putting objects on the screen: tables, JSON, YAML, names.

The only place that knows whether colours are wanted (a terminal, and no NO_COLOR).
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime

import click

from cli.document import Document, Json, name_of
from cli.resources import SINGULAR
from cli.tables import Column, colour_of, columns_of, row_of

FORMATS = ("wide", "json", "yaml", "name")
GAP = 3


def colours_wanted() -> bool:
    """Tell whether stdout shows colours: it is a terminal and nobody set NO_COLOR."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paint(word: str, colour: str | None, *, bold: bool = False) -> str:
    """Return the word in a colour, where colours are wanted."""
    return click.style(word, fg=colour, bold=bold) if colours_wanted() else word


def as_json(value: Json) -> str:
    """Return JSON for people and programs: two spaces, keys in the API's order."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def as_yaml(value: Json) -> str:
    """Return YAML that `virtward apply -f -` reads back; long texts stand as blocks."""
    from cli.manifests import dump_yaml

    return dump_yaml(value).rstrip("\n")


class Table:
    """A table that may grow by rows later (a watch): columns only ever get wider."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self.columns = columns
        self.widths = [len(column.heading) for column in columns]

    def head(self) -> str:
        """Return the line of headings."""
        return self._line([column.heading for column in self.columns], painted=False)

    def lines(self, found: list[Document]) -> list[str]:
        """Return a line for each object."""
        now = datetime.now(UTC)
        rows = [row_of(self.columns, document, now) for document in found]
        self.widen(rows)
        return [self._line(row, painted=True) for row in rows]

    def gone(self, document: Document) -> str:
        """Return the line that says an object was deleted."""
        row = row_of(self.columns, document, datetime.now(UTC))
        return self._line([row[0], "Deleted"], painted=True)

    def widen(self, rows: list[list[str]]) -> None:
        """Make room for these rows."""
        for row in rows:
            self.widths = [max(a, len(b)) for a, b in zip(self.widths, row, strict=True)]

    def _line(self, row: list[str], *, painted: bool) -> str:
        cells = []
        for index, word in enumerate(row):
            last = index == len(row) - 1
            padding = "" if last else " " * (self.widths[index] - len(word) + GAP)
            cells.append((paint(word, colour_of(word)) if painted else word) + padding)
        return "".join(cells).rstrip()


def print_table(collection: str, found: list[Document], *, wide: bool) -> Table:
    """Print objects as a table and return it, so that a watch can go on with it."""
    table = Table(columns_of(collection, wide=wide))
    lines = table.lines(found)
    click.echo("\n".join([table.head(), *lines]))
    return table


def print_objects(collection: str, found: list[Document], style: str, *, single: bool) -> None:
    """Print objects in one of FORMATS but the tables; single: one object was asked for by name."""
    if style == "name":
        for document in found:
            click.echo(f"{SINGULAR[collection]}/{name_of(document)}")
        return
    value: Json = found[0] if single and len(found) == 1 else {"items": list(found)}
    click.echo(as_json(value) if style == "json" else as_yaml(value))
