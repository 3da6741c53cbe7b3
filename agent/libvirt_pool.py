"""libvirt's connections and its event thread: no two threads ever make a call over one connection.

libvirt lets threads share a connection, but up to 10.3 one of them may then read another's stack when the connection
ends (CVE-2024-4418), and the whole agent is gone: seen whenever a frozen libvirtd went on. So each call borrows a
connection of its own; one that is stuck keeps it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libvirt

KEEPALIVE_S, KEEPALIVE_COUNT = 1, 3  # a frozen libvirtd is an error after 4 s
IDLE_MAX = 4  # connections that are kept open for the next call

_event_thread_lock = threading.Lock()
_event_thread: threading.Thread | None = None


class LibvirtDownError(Exception):
    """No connection to libvirtd could be opened; nothing was begun."""


def _ignore_error(_context: object, _error: object) -> None:
    """libvirt prints errors to stderr unless told otherwise; ours come as exceptions."""


def start_event_thread() -> None:
    """Run libvirt's event loop in a thread, once per process, before the first connection."""
    global _event_thread  # noqa: PLW0603 - libvirt's event loop is one per process
    with _event_thread_lock:
        if _event_thread is not None:
            return
        libvirt.registerErrorHandler(_ignore_error, None)
        libvirt.virEventRegisterDefaultImpl()
        _event_thread = threading.Thread(target=_run_events, name="libvirt-events", daemon=True)
        _event_thread.start()


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def is_alive(conn: Any) -> bool:  # noqa: ANN401 - libvirt-python ships no types
    """Say whether a connection stands, without asking libvirtd."""
    try:
        return bool(conn.isAlive())
    except libvirt.libvirtError:
        return False


def open_connection(uri: str) -> Any:  # noqa: ANN401
    """Open a connection whose calls fail when libvirtd is silent. Raises LibvirtDownError."""
    try:
        conn = libvirt.open(uri)
        conn.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:
        raise LibvirtDownError(f"libvirt at {uri} does not answer: {error}") from None
    return conn


class Pool:
    """Connections to one libvirtd for one purpose; opened when needed, each in one hand at a time."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self) -> Iterator[Any]:
        """Lend a connection for one call. Raises LibvirtDownError."""
        conn = self._take() or open_connection(self.uri)
        try:
            yield conn
        finally:
            with self._lock:
                if len(self._idle) < IDLE_MAX and is_alive(conn):
                    self._idle.append(conn)

    def _take(self) -> Any:  # noqa: ANN401
        with self._lock:
            while self._idle:
                conn = self._idle.pop()
                if is_alive(conn):
                    return conn
        return None
