"""Reading the API's JSON without trusting its shape.

The client shows what the aggregator says, also one newer than itself: a field it misses is
empty, a field it does not know goes through untouched. So objects stay JSON here and are read
through these few functions. Pure: no clock but the `now` that is handed in, no I/O.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Document: TypeAlias = dict[str, Json]

TENTHS_S_MAX = 10
MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86400


def look(document: Json, path: str) -> Json:
    """Return what lies at a dotted path, None where any part of it is missing."""
    here = document
    for part in path.split("."):
        if not isinstance(here, dict):
            return None
        here = here.get(part)
    return here


def text(document: Json, path: str, missing: str = "") -> str:
    """Return the value at path as a person reads it; `missing` where there is none."""
    return show(look(document, path)) or missing


def show(value: Json) -> str:
    """Return a plain value as text; whole numbers without a fraction, True as `True`."""
    if value is None:
        return ""
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    if isinstance(value, dict):
        return ",".join(f"{key}={show(item)}" for key, item in sorted(value.items()))
    if isinstance(value, list):
        return ",".join(show(item) for item in value)
    return str(value)


def number(document: Json, path: str) -> float:
    """Return the number at path, 0 where there is none."""
    value = look(document, path)
    return float(value) if isinstance(value, (int, float)) else 0.0


def documents(document: Json, path: str) -> list[Document]:
    """Return the objects of the list at path; what is no object is left out."""
    value = look(document, path)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def mapping(document: Json, path: str) -> Document:
    """Return the object at path, an empty one where there is none."""
    value = look(document, path)
    return value if isinstance(value, dict) else {}


def strings(document: Json, path: str) -> list[str]:
    """Return the list at path as texts."""
    value = look(document, path)
    return [show(item) for item in value] if isinstance(value, list) else []


def name_of(document: Json) -> str:
    """Return metadata.name."""
    return text(document, "metadata.name")


def seconds_since(timestamp: str, now: datetime) -> float | None:
    """Return how long ago an RFC 3339 time was; None if it is none."""
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    if then.tzinfo is None:
        return None
    return max(0.0, (now - then).total_seconds())


def age(timestamp: str, now: datetime) -> str:
    """Return the time since a moment as `kubectl` writes it: 42s, 3m20s, 5h, 12d."""
    seconds = seconds_since(timestamp, now)
    return "-" if seconds is None else duration(seconds)


def duration(seconds: float) -> str:
    """Return a length of time in at most two units; short ones keep a tenth of a second."""
    if seconds < TENTHS_S_MAX:
        return f"{seconds:.1f}s".replace(".0s", "s")
    whole = int(seconds)
    if whole < 2 * MINUTE_S:
        return f"{whole}s"
    if whole < 10 * MINUTE_S:
        return f"{whole // MINUTE_S}m{whole % MINUTE_S}s".replace("m0s", "m")
    if whole < 3 * HOUR_S:
        return f"{whole // MINUTE_S}m"
    if whole < 2 * DAY_S:
        return f"{whole // HOUR_S}h"
    return f"{whole // DAY_S}d"


def details_text(values: Document) -> str:
    """Return an object's fields in a line: key value, key value."""
    return ", ".join(f"{key} {show(value) or '-'}" for key, value in values.items())
