"""A small HTTP server that says what a test tells it to, for tests of the client alone.

It knows nothing of virtward: paths, answers and streams are the test's. What the real API
answers to the real client is tested where the aggregator runs.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Heard(NamedTuple):
    """One request as it arrived."""

    method: str
    target: str
    body: Any
    authorization: str


class Speaker:
    """Answers (method, path with query) with (status, JSON), or a list of these, one after another."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.answers: dict[tuple[str, str], list[tuple[int, Any]]] = {}
        self.streams: dict[str, list[bytes]] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def says(self, method: str, target: str, *bodies: Any, status: int = 200) -> None:
        """Answer with these bodies in turn; the last one for ever."""
        self.answers[method, target] = [(status, body) for body in bodies or ({},)]

    def refuses(self, method: str, target: str, status: int, detail: str) -> None:
        """Answer with a problem (RFC 9457)."""
        problem = {"type": "about:blank", "title": "No", "status": status, "detail": detail}
        self.answers[method, target] = [(status, problem)]

    def bodies(self, method: str) -> list[Any]:
        """What was sent with this method."""
        return [heard.body for heard in self.heard if heard.method == method]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        speaker = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length)
                body = json.loads(raw) if raw else None
                speaker.heard.append(Heard(self.command, self.path, body, self.headers.get("Authorization", "")))
                if "watch=1" in self.path:
                    self._stream()
                    return
                turns = speaker.answers.get((self.command, self.path))
                if turns is None:
                    turns = [(404, {"title": "Not Found", "detail": f"there is no {self.path}"})]
                status, answer = turns.pop(0) if len(turns) > 1 else turns[0]
                kind = "application/problem+json" if status >= 400 else "application/json"
                self._send(status, kind, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

            def _stream(self) -> None:
                parts = speaker.streams.get(self.path.partition("?")[0], [])
                self._send(200, "text/event-stream", parts.pop(0) if parts else b"")

            def _send(self, status: int, kind: str, raw: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 (http.server's names)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's)
                pass

        return Handler
