"""Reading what a request carries: JSON or YAML, bounded, into plain values.

Knows media types and text, nothing of the objects in it. YAML's reader is the core's own.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import msgspec

from aggregator.api.problems import Problem, bad_request
from aggregator.core.yaml_text import TextError, read_yaml

BODY_BYTES_MAX = 16 * 1024 * 1024
YAML_BYTES_MAX = 2 * 1024 * 1024  # YAML's reader takes seconds a MiB; JSON goes up to BODY_BYTES_MAX
DOCUMENTS_MAX = 10_000
JSON_TYPES = ("application/json", "application/merge-patch+json", "application/octet-stream", "text/plain", "")
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")

PlainObject = dict[str, object]


async def read_documents(raw: bytes, content_type: str) -> list[object]:
    """Return the documents of a body: one of JSON, any number of YAML. Problem 400 or 415 says what is wrong."""
    if content_type in YAML_TYPES:
        if len(raw) > YAML_BYTES_MAX:
            raise bad_request(
                f"a YAML body may have {YAML_BYTES_MAX >> 20} MiB; send fewer documents, or JSON, which goes faster"
            )
        return await asyncio.to_thread(_read_yaml, raw)
    if content_type not in JSON_TYPES:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"a body of type {content_type!r} is not read; send application/json or application/yaml",
        )
    return [read_json(raw)] if raw.strip() else []


def read_json(raw: bytes) -> object:
    """Return the value of a JSON text; Problem 400 says where it is broken."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise bad_request(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise bad_request("the body is nested too deeply") from None


def _read_yaml(raw: bytes) -> list[object]:
    try:
        found: list[object] = [value for value in read_yaml(raw.decode("utf-8-sig")) if value is not None]
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8 text (byte {error.start})") from None
    except TextError as error:
        raise bad_request(f"the YAML is broken: {error}") from None
    if len(found) > DOCUMENTS_MAX:
        raise bad_request(f"the body holds {len(found)} documents; at most {DOCUMENTS_MAX} go at once")
    return found


def as_object(value: object, what: str) -> PlainObject:
    """Return a JSON object; Problem 400 if it is something else."""
    if not isinstance(value, dict):
        raise bad_request(f"{what} must be an object, not {_kind(value)}")
    return value


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}.get(
        type(value), "something else"
    )
