"""Which parts of what people write are secrets, how they are hidden, and how a hidden form comes back.

Pure text work. Passwords of fence devices and of graphics consoles are kept as they were written;
whatever leaves through the API carries HIDDEN in their place, and writing HIDDEN back means
"as it was". A parameter that names a file or a program is no secret.
"""

from __future__ import annotations

import re

import msgspec

from aggregator.core.fencing_device import devices_of
from aggregator.core.objects import FencingDevice, FencingRung

HIDDEN = "(hidden)"
_SECRET = re.compile(r"passw|secret|token|community", re.IGNORECASE)
_PATH = re.compile(r"_(file|script)$", re.IGNORECASE)
_XML_PASSWORD = re.compile(r"""(\bpasswd\s*=\s*)(?:'([^']*)'|"([^"]*)")""")


def is_secret(parameter: str) -> bool:
    """Tell whether a fence parameter's value must not be shown."""
    return bool(_SECRET.search(parameter)) and not _PATH.search(parameter)


def hide_rung(rung: FencingRung) -> FencingRung:
    """Return the rung as people may see it."""
    devices = tuple(msgspec.structs.replace(device, params=_hide(device.params)) for device in rung.devices)
    return msgspec.structs.replace(rung, params=_hide(rung.params), devices=devices)


def _hide(params: dict[str, str]) -> dict[str, str]:
    return {name: HIDDEN if value and is_secret(name) else value for name, value in params.items()}


def restore_ladder(written: tuple[FencingRung, ...], kept: tuple[FencingRung, ...]) -> tuple[FencingRung, ...]:
    """Return the ladder with every HIDDEN value filled in from the rung that was there.

    The same agent with the same open parameters is the same device; where the device itself was
    changed the one at the same place counts. ValueError names a value there is nothing to fill in for.
    """
    return tuple(_restore_rung(rung, place, kept) for place, rung in enumerate(written))


def _restore_rung(rung: FencingRung, place: int, kept: tuple[FencingRung, ...]) -> FencingRung:
    known = [device for old in kept for device in devices_of(old)]
    here = devices_of(kept[place]) if place < len(kept) else ()
    path = f"spec.fencing[{place}]"
    if not rung.devices:
        return msgspec.structs.replace(rung, params=_restore(devices_of(rung)[0], path, known, here[:1]))
    devices = tuple(
        msgspec.structs.replace(
            device, params=_restore(device, f"{path}.devices[{number}]", known, here[number : number + 1])
        )
        for number, device in enumerate(rung.devices)
    )
    return msgspec.structs.replace(rung, devices=devices)


def _restore(
    device: FencingDevice, path: str, known: list[FencingDevice], here: tuple[FencingDevice, ...]
) -> dict[str, str]:
    hidden = [name for name, value in device.params.items() if value == HIDDEN and is_secret(name)]
    same = [old for old in known if old.agent == device.agent and _open(old) == _open(device)]
    source = next(iter([*same, *(old for old in here if old.agent == device.agent)]), None)
    missing = [name for name in hidden if source is None or name not in source.params]
    if source is None or missing:
        if not hidden:
            return device.params
        raise ValueError(
            f"{path}.params.{hidden[0]} is {HIDDEN!r}, and there is no earlier value to keep; "
            "write the value, or better a password_file"
        )
    return {name: source.params[name] if name in hidden else value for name, value in device.params.items()}


def _open(device: FencingDevice) -> dict[str, str]:
    return {name: value for name, value in device.params.items() if not is_secret(name)}


def hide_xml(xml: str) -> str:
    """Return domain XML without the passwords of its graphics consoles."""
    return _XML_PASSWORD.sub(rf"\1'{HIDDEN}'", xml) if "passwd" in xml else xml


def restore_xml(written: str, kept: str) -> str:
    """Return domain XML with hidden passwords filled in, in their order, from the XML that was there.

    ValueError where there is a hidden password and nothing to fill it in from.
    """
    if HIDDEN not in written:
        return written
    old = [match.group(0) for match in _XML_PASSWORD.finditer(kept)]
    new = list(_XML_PASSWORD.finditer(written))
    if not any(HIDDEN in (match.group(2), match.group(3)) for match in new):
        return written
    if len(old) != len(new):
        raise ValueError(f"spec.domainXML holds passwd='{HIDDEN}', and there is no earlier password to keep; write it")
    fill = iter(old)

    def put(match: re.Match[str]) -> str:
        before = next(fill)
        return before if HIDDEN in (match.group(2), match.group(3)) else match.group(0)

    return _XML_PASSWORD.sub(put, written)
