"""Writes docs/PROTOCOL.md from the message types: `python -m fleet.protocol_document [--check]`.

Knows how to read Structs; every sentence about a message is that message's own docstring.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from enum import Enum
from pathlib import Path

import msgspec
from msgspec import Struct

from fleet import messages, model

TARGET = Path(__file__).resolve().parent.parent / "docs" / "PROTOCOL.md"

INTRODUCTION = f"""\
# The protocol between agents and aggregator

This file is generated from `fleet/messages.py` (`python -m fleet.protocol_document`); do not edit it.

Frames are MessagePack maps over a WebSocket at `/agent/v1` of the aggregator's agent port, at most
{messages.FRAME_BYTES_MAX // 1024 // 1024} MiB each. Every message carries its tag in `t`. Fields that are marked with a
default may be missing; unknown fields are ignored, so that an older side understands a newer one
of the same protocol version (now {messages.PROTOCOL_MIN} to {messages.PROTOCOL_MAX}).

**Who speaks.** The port takes TLS 1.3 alone. A certificate names its holder in its SAN:
`URI:virtward:agent/NODE/ENROLMENT` and `DNS:agent.virtward` (of an aggregator `aggregator`), and the caller asks
for the role's DNS name in the handshake. Without a certificate three things can be asked: `GET /authority/v1` (the
authority, which the caller compares with the digest in its join token), `POST /join/v1` (`token`, `request`: a PEM
certificate request; answered by `certificate` and `relay_secret`; the token is spent) and `POST /renew/v1`
(`request`, and `certificate` if it has ended: then the request must be by its key, and it ended at most 30 days ago).
With a certificate that counts: `POST /trust/v1` (no body; answered by what `trust` of `Welcome` and `BeatAnswer` names:
`authorities`, `signer`, `denied`, `hypervisors`, `revoked`) and `POST /hypervisor/v1` (`requests` for libvirt and QEMU,
`addresses`, and `held` and `signature` of the libvirt key certified before; answered by `chains`).
Bodies are JSON. The name in `Hello` must be the certificate's. Where `agents_tls` is off,
`Authorization: Bearer TOKEN` says who speaks, in the open.

1. The agent opens the WebSocket and sends `Hello`.
2. The aggregator answers `Welcome`, or `Refusal` and closes.
3. The agent sends `FullState`; from here the session stands.
4. Every heartbeat the agent sends `Beat` and the aggregator answers `BeatAnswer`; changes travel as `Delta`.
5. Orders are answered by `OrderReport`: `Accepted` when begun, then one final outcome; a repeated order
   is answered again and not done again.

Agents talk to each other over HTTPS with the same certificates on their own port: `POST /peer/v1/released` with a
`ReleasedNotice` as body is answered by a `ReleasedReceipt`; `GET /peer/v1/ping?nonce=N` answers N.

**The relay.** An agent whose own way to the aggregator is cut and whom a peer still hears speaks through that peer:
the aggregator sends the peer `OfferRelay`; the peer sends the agent a `RelayOffer` with a ticket
(`POST /peer/v1/relay-offer`); the agent, if its beats have been unanswered for a while, opens
`/peer/v1/relay` at the peer, which carries its frames, unread, to `/agent/v1`. There the talk is the one above,
after a `Challenge` and with every frame sealed. A relayed session is given no start and no end of a migration,
proves no reboot, and its beats count only while they answer to something we said within a lease. When its own way
works again the agent opens a session of its own, and that one replaces the relayed one.
"""


def generate() -> str:
    """Return the whole document."""
    parts = [INTRODUCTION]
    sections = (
        ("From agent to aggregator", messages.FromAgent),
        ("From aggregator to agent", messages.FromAggregator),
        ("What an order asks (`Order.body`)", messages.OrderBody),
        ("Between agents", messages.BetweenAgents),
    )
    tagged: set[type] = set()
    for title, union in sections:
        parts.append(f"## {title}\n")
        for kind in typing.get_args(union):
            tagged.add(kind)
            parts.append(_describe(kind))
    parts.append("## Parts of messages\n")
    parts += [_describe(kind) for kind in _parts(tagged)]
    parts.append("## Words\n")
    parts += [_describe_words(kind) for kind in _words()]
    return "\n".join(parts)


def _parts(tagged: set[type]) -> list[type[Struct]]:
    named = [*vars(model).values(), *vars(messages).values()]
    kinds = [k for k in named if isinstance(k, type) and issubclass(k, Struct) and k is not Struct]
    return [k for k in dict.fromkeys(kinds) if k not in tagged and k is not messages.Message]


def _words() -> list[type[Enum]]:
    here = [
        k
        for k in vars(model).values()
        if isinstance(k, type) and issubclass(k, Enum) and k.__module__ == model.__name__
    ]
    return list(dict.fromkeys(here))


def _describe(kind: type[Struct]) -> str:
    config = kind.__struct_config__
    lines = [f"### {kind.__name__}\n"]
    if config.tag is not None:
        lines.append(f"`{config.tag_field}` = `{config.tag}`\n")
    elif config.array_like:
        lines.append("An array, its fields in this order.\n")
    lines.append(inspect.cleandoc(kind.__doc__ or "").replace("<", "\\<") + "\n")
    fields = msgspec.structs.fields(kind)
    if fields:
        lines += ["| field | type | default |", "| --- | --- | --- |"]
        lines += [f"| `{field.encode_name}` | {_type_name(field.type)} | {_default(field)} |" for field in fields]
        lines.append("")
    return "\n".join(lines)


def _describe_words(kind: type[Enum]) -> str:
    values = ", ".join(f"`{member.value}`" if member.value else "(empty)" for member in kind)
    return f"### {kind.__name__}\n\n{inspect.cleandoc(kind.__doc__ or '')}\n\n{values}\n"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{field.default_factory()!r}`" if callable(field.default_factory) else ""
    if field.default is msgspec.NODEFAULT:
        return ""
    value = field.default
    return f"`{getattr(value, 'value', value)!r}`"


def _type_name(kind: object) -> str:
    if kind is types.NoneType or kind is None:
        return "nil"
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if len(inner) > 4:  # noqa: PLR2004 - longer unions are listed in their own section
            return "one of the kinds above"
        return " or ".join(_type_name(part) for part in inner)
    if origin is tuple:
        return f"array of {_type_name(inner[0])}"
    if origin is dict:
        return f"map of {_type_name(inner[0])} to {_type_name(inner[1])}"
    name = getattr(kind, "__name__", str(kind))
    return {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}.get(name) or _link(name)


def _link(name: str) -> str:
    return f"[{name}](#{re.sub('[^a-z0-9]', '', name.lower())})"


def main(arguments: list[str]) -> int:
    """Write the document, or with --check only say whether it is up to date."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m fleet.protocol_document [--check]\n")
        return 2
    text = generate()
    if not arguments:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write("docs/PROTOCOL.md is not up to date: run python -m fleet.protocol_document\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
