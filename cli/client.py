"""The HTTP client: one request at a time over http.client, which imports five times faster than
the alternatives.

Knows the API's manners (bearer token, RFC 9457 problems, server-sent events) and none of its
objects. Every failure becomes a Failure with one sentence; `Refused` keeps the answer's code.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from cli.document import Document, Json, mapping, strings, text
from cli.errors import Failure, sentence
from cli.settings import Settings, read_token

ANSWER_S_MAX = 60.0
QUIET_STREAM_S_MAX = 90.0  # the server sends a comment every few seconds
BODY_BYTES_MAX = 256 * 1024 * 1024
EVENT_BYTES_MAX = 16 * 1024 * 1024


class Refused(Failure):
    """The aggregator answered, and said no. code: HTTP's; problem: the RFC 9457 document."""

    def __init__(self, message: str, code: int, problem: Document) -> None:
        super().__init__(message)
        self.code = code
        self.problem = problem
        self.more = tuple(sentence(each) for each in strings(problem, "errors")[1:])


class Unreachable(Failure):
    """Nobody answered; it may be tried again."""


class StreamEnded(Unreachable):
    """A watch was cut off; it may be asked for again."""


class ServerEvent(NamedTuple):
    """One server-sent event: its name, its id (a resourceVersion) and its data."""

    name: str
    id: str
    data: Json


class Client:
    """Talks to one aggregator. Raises Failure, and nothing else, when that does not work."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._url = urlsplit(settings.api)
        self._token = read_token(settings)

    def get(self, path: str, **query: str) -> Document:
        """Return the JSON object at an API path."""
        return self._exchange("GET", path, query, None)

    def get_bytes(self, path: str) -> bytes:
        """Return what lies at an API path that answers with something else than JSON."""
        return self._exchange_raw("GET", path, {}, None)

    def post(self, path: str, body: Json = None, **query: str) -> Document:
        """Send an order and return the answer."""
        return self._exchange("POST", path, query, {} if body is None else body)

    def put(self, path: str, body: Json, **query: str) -> Document:
        """Create or replace an object."""
        return self._exchange("PUT", path, query, body)

    def patch(self, path: str, body: Json, **query: str) -> Document:
        """Merge into an object; None deletes a key."""
        return self._exchange("PATCH", path, query, body)

    def delete(self, path: str, **query: str) -> Document:
        """Delete an object."""
        return self._exchange("DELETE", path, query, None)

    def watch(self, path: str, **query: str) -> Iterator[ServerEvent]:
        """Yield server-sent events as they come; StreamEnded when the stream breaks off."""
        connection = self._connection(QUIET_STREAM_S_MAX)
        try:
            response = self._send(connection, "GET", path, {**query, "watch": "1"}, None)
            if response.status != http.client.OK:
                raise _refusal(response.status, _body(response))
            yield from read_events(response)
        except (OSError, http.client.HTTPException) as error:
            raise StreamEnded(f"the watch broke off: {str(error) or type(error).__name__}") from None
        finally:
            connection.close()

    def _connection(self, seconds_max: float) -> http.client.HTTPConnection:
        host = self._url.hostname or ""
        try:
            port = self._url.port
        except ValueError:
            raise Failure(f"{self.settings.api!r} has no usable port") from None
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=seconds_max, context=self._context())
        return http.client.HTTPConnection(host, port, timeout=seconds_max)

    def _context(self) -> ssl.SSLContext:
        file = self.settings.ca_file
        try:
            context = ssl.create_default_context(cafile=file or None)
        except (OSError, ssl.SSLError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise Failure(f"cannot read the authority in {file}: {why}") from None
        shown = self.settings.cert_file
        if shown:
            try:
                context.load_cert_chain(shown)
            except (OSError, ssl.SSLError) as error:
                why = getattr(error, "strerror", None) or str(error)
                raise Failure(f"cannot show the certificate in {shown}: {why}") from None
        if file:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it may be one below another PKI's
        return context

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        query: dict[str, str],
        body: Json,
    ) -> http.client.HTTPResponse:
        target = self._url.path + path + ("?" + urlencode(query) if query else "")
        headers = {"Accept": "application/json, application/problem+json, text/event-stream"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if method not in ("GET", "DELETE"):
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if method != "GET":
            headers["Idempotency-Key"] = os.urandom(16).hex()
        try:
            connection.request(method, target, body=data, headers=headers)
            return connection.getresponse()
        except TimeoutError:
            raise Failure(f"the aggregator at {self.settings.api} did not answer within {ANSWER_S_MAX:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(unreachable(self.settings.api, error)) from None

    def _exchange(self, method: str, path: str, query: dict[str, str], body: Json) -> Document:
        raw = self._exchange_raw(method, path, query, body)
        if not raw.strip():
            return {}
        answer = _json(raw)
        if not isinstance(answer, dict):
            raise Failure(f"{self.settings.api} does not answer like an aggregator; is it one")
        return answer

    def _exchange_raw(self, method: str, path: str, query: dict[str, str], body: Json) -> bytes:
        connection = self._connection(ANSWER_S_MAX)
        try:
            response = self._send(connection, method, path, query, body)
            raw = _body(response)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(unreachable(self.settings.api, error)) from None
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST:
            raise _refusal(response.status, raw)
        return raw


def path_of(collection: str, name: str = "", verb: str = "") -> str:
    """Return the API path of a collection, an object in it, or a verb on that object."""
    path = f"/api/v1/{collection}"
    if name:
        path += "/" + quote(name, safe="")
    return path + (f":{verb}" if verb else "")


def unreachable(api: str, error: Exception) -> str:
    """Return the sentence for a connection that did not come about."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the aggregator at {api} shows a certificate that nobody here vouches for ({error.verify_message}): name "
            "its authority with --ca-file (or VIRTWARD_CA_FILE, or ca_file in client.toml); it is authority.crt in "
            "the aggregator's state_dir"
        )
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot reach the aggregator at {api}: {sentence(why)}; is it running, and is --api (or VIRTWARD_API) right"


def read_events(stream: http.client.HTTPResponse) -> Iterator[ServerEvent]:
    """Yield the events of a text/event-stream; StreamEnded at its end."""
    name, identity, data = "", "", bytearray()
    while True:
        line = stream.readline(EVENT_BYTES_MAX)
        if not line:
            raise StreamEnded("the watch broke off: the aggregator closed the connection")
        line = line.rstrip(b"\r\n")
        if not line:
            if data:
                yield ServerEvent(name, identity, _json(bytes(data)))
            name, data = "", bytearray()
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value.decode(errors="replace")
        elif field == b"id":
            identity = value.decode(errors="replace")
        elif field == b"data":
            data += (b"\n" if data else b"") + value


def _body(response: http.client.HTTPResponse) -> bytes:
    raw = response.read(BODY_BYTES_MAX + 1)
    if len(raw) > BODY_BYTES_MAX:
        raise Failure(f"the aggregator's answer is larger than {BODY_BYTES_MAX} bytes")
    return raw


def _json(raw: bytes) -> Json:
    try:
        value: Json = json.loads(raw)
    except (ValueError, RecursionError):
        raise Failure("the answer is not JSON; is --api the address of an aggregator") from None
    return value


def _refusal(code: int, raw: bytes) -> Refused:
    """Return the problem of an answer (RFC 9457) as an exception."""
    try:
        problem = mapping({"problem": json.loads(raw)}, "problem")
    except ValueError:
        problem = {}
    said = text(problem, "detail") or text(problem, "title")
    if not said:
        said = f"the aggregator answered {code} {http.client.responses.get(code, '')}"
    if code == http.client.UNAUTHORIZED:
        said += "; the token comes from --token-file, VIRTWARD_TOKEN_FILE or client.toml"
    return Refused(sentence(said), code, problem)
