"""The life of a daemon: log, signals, sd_notify, exit codes, and the rim that catches what nobody expected.

Knows systemd's notification socket and structlog; knows nothing of what a daemon does.
Exit codes: 0 success, 1 failure, 2 the command line itself was wrong.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from fleet.config import ConfigError

EXIT_OK, EXIT_FAILURE, EXIT_USAGE = 0, 1, 2
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LEVELS = ("debug", "info", "warning", "error")


class ServiceError(Exception):
    """A failure a person can do something about; the text is one sentence."""


def configure_log(level: str = "info") -> None:
    """Log JSON lines to stderr (journald), or coloured lines when stderr is a terminal."""
    human = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if human:
        shared += [_one_line_exception, structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ)]
    else:
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=30)
        shared += [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    number = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}.get(level, logging.ERROR)
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _one_line_exception(
    logger: object,  # noqa: ARG001 - structlog hands every processor its logger and the method's name
    method: str,  # noqa: ARG001
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """Show people the exception's own sentence, never its traceback."""
    info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info
    if isinstance(error, BaseException):
        event["error"] = f"{type(error).__name__}: {error}"
    return event


class Service:
    """One running daemon as its parts see it: when to stop, and how to tell systemd."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping = asyncio.Event()
        self.reason = ""
        self._notify_address = os.environ.get("NOTIFY_SOCKET", "")

    def stop(self, reason: str) -> None:
        """Ask the daemon to end; the first reason is kept."""
        if not self.stopping.is_set():
            self.reason = reason
            self.stopping.set()

    def notify(self, *lines: str) -> None:
        """Tell systemd (`READY=1`, `STATUS=…`); nothing happens where systemd did not start us."""
        if not self._notify_address:
            return
        address = self._notify_address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            try:
                channel.sendto("\n".join(lines).encode(), address)
            except OSError as error:  # systemd being slow or gone must not stop a guest's guard
                structlog.get_logger().warning("systemd not told", error=str(error))

    def ready(self, status: str) -> None:
        """Tell systemd that the daemon is up."""
        self.notify("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def feed_watchdog(self) -> None:
        """Tell systemd that the loop which matters is alive; called from that very loop."""
        self.notify("WATCHDOG=1")

    @property
    def watchdog_every_s(self) -> float | None:
        """Half of systemd's WatchdogSec, or None where there is none for this process."""
        usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
        if not usec.isdigit() or (pid and pid != str(os.getpid())):
            return None
        return int(usec) / 2_000_000


def run_service(name: str, body: Callable[[Service], Awaitable[None]]) -> int:
    """Run a daemon to its end and return the exit code. The log is configured by the caller."""
    log = structlog.get_logger(service=name)
    try:
        asyncio.run(_run(name, body))
    except (ConfigError, ServiceError) as error:
        log.error("stopped", error=str(error))  # noqa: TRY400 - a person can mend it; a traceback would not help
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_OK
    except Exception as error:  # the rim: everything unexpected is logged, structured, and ends the process
        log.exception("stopped by an internal error", error=f"{type(error).__name__}: {error}")
        return EXIT_FAILURE
    log.info("stopped")
    return EXIT_OK


async def _run(name: str, body: Callable[[Service], Awaitable[None]]) -> None:
    service = Service(name)
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, service.stop, signal.Signals(number).name)
    try:
        await body(service)
    finally:
        service.notify("STOPPING=1", f"STATUS={service.reason or 'stopping'}")


def complain(program: str, error: Exception | str) -> None:
    """Say one sentence to a person."""
    sys.stderr.write(f"{program}: {error}\n")
