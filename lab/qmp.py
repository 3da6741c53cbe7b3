"""A small client of QEMU's monitor protocol: one JSON answer per command, events skipped.

Knows the protocol; must not know what is asked. Every read is bounded in time and size.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.errors import LaboratoryError

ANSWER_BYTES_MAX = 1 << 20


class MonitorClosedError(LaboratoryError):
    """The monitor does not answer: nobody listens, the other end went away, or the time is over."""


class Monitor:
    """One open connection to a monitor socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(str(path))
            self._read_message(time.monotonic() + timeout_s)
            self.ask("qmp_capabilities", timeout_s=timeout_s)
        except (OSError, MonitorClosedError) as error:
            self._socket.close()
            raise MonitorClosedError(f"monitor {path} does not answer: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(self, command: str, arguments: dict[str, object] | None = None, timeout_s: float = 5.0) -> object:
        """Run a command and return its answer; LaboratoryError if it was refused, MonitorClosedError if none came."""
        request: dict[str, object] = {"execute": command}
        if arguments is not None:
            request["arguments"] = arguments
        end = time.monotonic() + timeout_s
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            while True:
                message = self._read_message(end)
                if "return" in message:
                    return message["return"]
                if "error" in message:
                    raise LaboratoryError(f"{command} was refused: {message['error']}")
        except OSError as error:
            raise MonitorClosedError(f"monitor {self._path} does not answer: {error}") from None

    def waiting_events(self) -> list[str]:
        """Names of the events that have arrived and were not read yet; waits for nothing."""
        with contextlib.suppress(OSError):
            self._socket.settimeout(0)
            self._buffer += self._socket.recv(ANSWER_BYTES_MAX)
        *lines, self._buffer = self._buffer.split(b"\n")
        return [str(message["event"]) for message in map(json.loads, lines) if "event" in message]

    def _read_message(self, end: float) -> dict[str, object]:
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise MonitorClosedError(f"monitor {self._path} gave no answer in time")
            self._socket.settimeout(left)
            piece = self._socket.recv(65536)
            if not piece or len(self._buffer) > ANSWER_BYTES_MAX:
                raise MonitorClosedError(f"monitor {self._path} was closed")
            self._buffer += piece
        line, self._buffer = self._buffer.split(b"\n", 1)
        message = json.loads(line)
        if not isinstance(message, dict):
            raise MonitorClosedError(f"monitor {self._path} speaks no QMP")
        return message
