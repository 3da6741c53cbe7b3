"""Quantities and durations as people write them: `2`, `500m`, `4Gi`, `90s`.

Pure text in, numbers out; errors are ValueErrors whose text is one sentence for a person.
Suffixes follow Kubernetes' resource.Quantity; durations follow Go's, as Kubernetes writes them.
"""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"^([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
_SCALE = {
    "": 1.0,
    "m": 0.001,
    **{s: 1000.0 ** (i + 1) for i, s in enumerate(("k", "M", "G", "T", "P", "E"))},
    **{s: 1024.0 ** (i + 1) for i, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION_SCALE = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LIBVIRT_SCALE = {
    "b": 1, "bytes": 1, "kb": 10**3, "k": 2**10, "kib": 2**10, "mb": 10**6, "m": 2**20, "mib": 2**20,
    "gb": 10**9, "g": 2**30, "gib": 2**30, "tb": 10**12, "t": 2**40, "tib": 2**40,
}  # fmt: skip
DIGITS_MAX = 18  # of a number in XML: more than any machine has bytes
QUANTITY_MAX = 2.0**62
_STEP = 1024


def parse_quantity(text: str | int | float) -> float:
    """Return the plain number of a quantity; ValueError if it is none, negative or absurd."""
    match = _QUANTITY.match(str(text).strip())
    if not match:
        raise ValueError(f"{text!r} is not a quantity; write it like 2, 500m or 4Gi")
    value = float(match.group(1)) * _SCALE[match.group(2) or ""]
    if value > QUANTITY_MAX:
        raise ValueError(f"{text!r} is larger than any machine")
    return value


def parse_cpu_m(text: str | int | float) -> int:
    """Return millicores, rounded up as Kubernetes does."""
    value = parse_quantity(text) * 1000
    return int(value) if value == int(value) else int(value) + 1


def parse_bytes(text: str | int | float) -> int:
    """Return bytes, rounded up."""
    value = parse_quantity(text)
    return int(value) if value == int(value) else int(value) + 1


def libvirt_bytes(number: str, unit: str) -> int | None:
    """Return bytes of a size in libvirt's XML (formatdomain, memory allocation); None if it is none."""
    scale = _LIBVIRT_SCALE.get(unit.lower())
    digits = number.strip()
    if scale is None or not digits.isascii() or not digits.isdigit() or len(digits) > DIGITS_MAX:
        return None
    return int(digits) * scale


def parse_duration_s(text: str | int | float) -> float:
    """Return seconds of `90s`, `1h30m`, `500ms`; a bare number is seconds."""
    if isinstance(text, bool):
        raise ValueError(f"{text!r} is not a duration; write it like 90s, 5m or 1h30m")
    if isinstance(text, (int, float)):
        if not text >= 0:  # NaN too
            raise ValueError(f"{text!r} is not a duration; it must not be negative")
        return float(text)
    stripped = text.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", stripped):
        return float(stripped)
    if not stripped or _DURATION_PART.sub("", stripped):
        raise ValueError(f"{text!r} is not a duration; write it like 90s, 5m or 1h30m")
    return sum(float(n) * _DURATION_SCALE[u] for n, u in _DURATION_PART.findall(stripped))


def format_duration(seconds: float) -> str:
    """Return the shortest writing of a duration that parse_duration_s reads back."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    whole = int(seconds)
    for unit, size in (("h", 3600), ("m", 60)):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def format_bytes(count: int) -> str:
    """Return a quantity of bytes with the largest binary suffix that keeps it exact."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        size = int(_SCALE[suffix])
        if count and count % size == 0:
            return f"{count // size}{suffix}"
    return str(count)


def format_cpu(millicores: int) -> str:
    """Return `2` for 2000 and `500m` for 500."""
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


def round_bytes(quantity: str) -> str:
    """Return a quantity of bytes rounded for the eye: `24684084Ki` becomes `23.5Gi`; others unchanged."""
    try:
        size = float(parse_bytes(quantity))
    except ValueError:
        return quantity
    for suffix in ("", "Ki", "Mi", "Gi"):
        if size < _STEP:
            return f"{size:.1f}".removesuffix(".0") + suffix
        size /= _STEP
    return f"{size:.1f}".removesuffix(".0") + "Ti"
