"""Configuration files: TOML into a frozen Struct, with errors that name file and key.

Knows TOML and msgspec; knows no key of either daemon. A Struct for a configuration is frozen,
`forbid_unknown_fields`, and has a default wherever a default is right.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fleet.renames import Renames, with_new_names

CONFIG_BYTES_MAX = 1024 * 1024
CREDENTIAL = "credential:"  # the file that systemd hands over under this name (LoadCredential=)
CREDENTIAL_SOURCE = Path("/etc/virtward")  # where the units take it from; read when systemd has not started us
T = TypeVar("T", bound=msgspec.Struct)
Hook = Callable[[type, Any], Any]  # msgspec hands the hook whatever TOML held

_PLACE = re.compile(r" - at `(\$[^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")


class ConfigError(Exception):
    """The text is one sentence: file, key, what is wrong."""


def load_config(path: Path, kind: type[T], hook: Hook | None = None, renames: Renames | None = None) -> T:
    """Read a file into a Struct; ConfigError if it cannot be read, parsed or checked.

    hook converts types msgspec does not know (a duration), as in `msgspec.convert(dec_hook=…)`. renames: keys that
    have another name now; one that is found is said on stderr, which the journal keeps.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(raw) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{path}: is longer than {CONFIG_BYTES_MAX} bytes")
    try:
        data = tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None
    try:
        data, warnings = with_new_names(data, renames or {})
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    for warning in warnings:
        sys.stderr.write(f"warning: {path}: {warning}\n")
    return convert_config(data, kind, str(path), hook)


def convert_config(data: dict[str, Any], kind: type[T], source: str, hook: Hook | None = None) -> T:
    """Check plain values against a Struct; ConfigError names `source` and the key."""
    try:
        return msgspec.convert(data, kind, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_sentence(str(error))}") from None


def secret_file(text: str) -> Path:
    """Return the file that a key names: a path, or `credential:NAME`."""
    if not text.startswith(CREDENTIAL):
        return Path(text)
    return Path(os.environ.get("CREDENTIALS_DIRECTORY") or CREDENTIAL_SOURCE) / text.removeprefix(CREDENTIAL)


def read_secret(path: Path, what: str) -> str:
    """Return the one line of a secret file; ConfigError if it is missing, empty or open to everybody."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise ConfigError(f"{path}: the {what} cannot be read: {reason}") from None
    if mode & 0o007:
        raise ConfigError(f"{path}: the {what} can be read by everybody; chmod it to 0600")
    if not text or "\n" in text:
        raise ConfigError(f"{path}: the {what} must be one line")
    return text


def _sentence(text: str) -> str:
    """Turn msgspec's words into `[table].key: …`."""
    place = _PLACE.search(text)
    table = place.group(1) if place else "$"
    said = _PLACE.sub("", text)
    unknown, missing = _UNKNOWN.search(said), _MISSING.search(said)
    if unknown:
        return f"{_key(f'{table}.{unknown.group(1)}')}: there is no such key"
    if missing:
        return f"{_key(f'{table}.{missing.group(1)}')}: is missing"
    return f"{_key(table)}: {said[:1].lower()}{said[1:]}".replace("`", "")


def _key(place: str) -> str:
    """Turn `$.config.lostAfter` into `[config].lostAfter`, `$.node` into `node`."""
    parts = place.removeprefix("$").removeprefix(".").split(".")
    if parts == [""]:
        return "the file"
    return parts[0] if len(parts) == 1 else f"[{'.'.join(parts[:-1])}].{parts[-1]}"
