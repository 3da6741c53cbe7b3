"""Waiting for something to be done, and showing how far it is.

Lines, one for each change, so that a log reads as well as a terminal; on a terminal an ETA
stands behind them where there is one. Reads the clock and sleeps: the only file here that does.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from cli.document import Document
from cli.errors import Failure, WrongUsage
from fleet.units import parse_duration_s

POLL_S = 0.3


def seconds_of(timeout: str) -> float:
    """Return the seconds of an option like 90s or 10m; WrongUsage if it is none."""
    try:
        return parse_duration_s(timeout)
    except ValueError as error:
        raise WrongUsage(str(error)) from None


def hold(seconds: float) -> None:
    """Do nothing for so long."""
    time.sleep(seconds)


def wait_for(
    ask: Callable[[], Document],
    *,
    done: Callable[[Document], bool],
    line: Callable[[Document], str],
    timeout: str,
    shown: str = "",
) -> Document:
    """Ask until done, printing `line` whenever it reads differently. shown: the line printed before.

    Returns the last answer. Failure when `timeout` is over: then what was ordered goes on.
    """
    seconds_max = seconds_of(timeout)
    begun = time.monotonic()
    while True:
        answer = ask()
        now = line(answer)
        if now != shown:
            click.echo(now)
            shown = now
        if done(answer):
            return answer
        if time.monotonic() - begun > seconds_max:
            raise Failure(f"not done after {timeout}: {shown}; it goes on without this command")
        time.sleep(POLL_S)
