"""Libraries' own log records as one structured line each, without tracebacks."""

from __future__ import annotations

import logging

import structlog


class Bridge(logging.Handler):
    """Hands warnings of asyncio, aiohttp and others to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        said = f"{type(error).__name__}: {error}" if error is not None else ""
        words = record.getMessage().partition("\n")[0]
        structlog.get_logger(record.name).warning(words, **({"error": said} if said else {}))


def bridge_libraries() -> None:
    """From here on nothing writes to stderr by itself."""
    logging.basicConfig(handlers=[Bridge()], level=logging.WARNING, force=True)
