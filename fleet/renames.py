"""Keys of configuration files that have another name now: the old one is understood for one release, with a warning.

A table maps an old key to the new one, with dots below tables (`config.lostAfter`). An entry goes in with the release
that renames the key and out with the next one. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Renames = Mapping[str, str]
Table = dict[str, Any]  # what TOML holds


def with_new_names(data: Mapping[str, Any], renames: Renames) -> tuple[Table, list[str]]:
    """Return the values under their new keys, and a sentence for each old one that was found.

    ValueError where both names of a key are given: which one was meant cannot be known.
    """
    values, warnings = _copied(data), []
    for old, new in renames.items():
        above, key = _table_of(values, old)
        if above is None or key not in above:
            continue
        value = above.pop(key)
        target, new_key = _made(values, new)
        if new_key in target:
            raise ValueError(f"{old}: is called {new} now, and both are given; leave {old} out")
        target[new_key] = value
        warnings.append(f"{old} is called {new} now; the old name is understood in this release only")
    return values, warnings


def _copied(data: Mapping[str, Any]) -> Table:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in data.items()}


def _table_of(values: Table, name: str) -> tuple[Table | None, str]:
    *above, key = name.split(".")
    table: Any = values
    for part in above:
        table = table.get(part) if isinstance(table, dict) else None
    return (table if isinstance(table, dict) else None), key


def _made(values: Table, name: str) -> tuple[Table, str]:
    *above, key = name.split(".")
    table = values
    for part in above:
        below = table.setdefault(part, {})
        if not isinstance(below, dict):
            raise ValueError(f"{part}: must be a table, for {name}")
        table = below
    return table, key
