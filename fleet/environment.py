"""What `--check` says of the machine: findings as sentences, and the questions both daemons ask.

Knows sockets, directories and the kernel's clock; knows neither daemon. Every question is bounded in time and changes
nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from fleet.service import EXIT_FAILURE, EXIT_OK

CONNECT_S_MAX = 3.0
_TIMEX_BYTES = 256  # struct timex is 208 bytes on 64-bit Linux; with modes 0 the kernel only fills it
_TIME_ERROR = 5


class Grade(StrEnum):
    """How bad a finding is. Only a PROBLEM makes the check fail."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(Struct, frozen=True):
    """One sentence: what was looked at, and where it is not well, what to do."""

    grade: Grade
    text: str


def ok(text: str) -> Finding:
    return Finding(Grade.OK, text)


def warning(text: str) -> Finding:
    return Finding(Grade.WARNING, text)


def problem(text: str) -> Finding:
    return Finding(Grade.PROBLEM, text)


def report(findings: Iterable[Finding]) -> int:
    """Print the findings, a line each, and return the exit code."""
    code = EXIT_OK
    for finding in findings:
        sys.stdout.write(f"{finding.grade}: {finding.text}\n")
        if finding.grade is Grade.PROBLEM:
            code = EXIT_FAILURE
    return code


def check_listen(key: str, host: str, port: int, *, ours: bool) -> Finding:
    """Say whether the address can be listened on. ours: the daemon itself runs and may hold it already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with socket.socket(family, socket.SOCK_STREAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE and ours:
            return ok(f"{key} {where} is held by the daemon that runs")
        if error.errno == errno.EADDRINUSE:
            return problem(f"{key} {where} is taken by another program: `ss -ltnp sport = :{port}` names it")
        return problem(f"{key} {where} cannot be listened on ({error.strerror}): name an address of this machine")
    return ok(f"{key} {where} is free")


def check_own_address(key: str, address: str) -> Finding:
    """Say whether an address is one of this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as any_port:
            any_port.bind((address, 0))
    except OSError:
        return problem(f"{key} {address} is no address of this machine: `ip -br address` lists those it has")
    return ok(f"{key} {address} is this machine's")


def check_reached(what: str, host: str, port: int) -> Finding:
    """Say whether somebody listens there. A warning only: it may come up later."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_S_MAX).close()
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        return warning(
            f"{what} at {host}:{port} is not reached ({reason}): start it, or open {port}/tcp in its firewall"
        )
    return ok(f"{what} at {host}:{port} is reached")


def check_clock() -> Finding:
    """Say whether the kernel's clock is kept by somebody: no decision needs it, logs and certificates do."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        state = -1
    if state < 0:
        return warning("whether the clock is set cannot be asked here")
    if state == _TIME_ERROR:
        return warning(
            "the clock is not synchronised: start chrony or systemd-timesyncd, or logs of two hosts tell lies"
        )
    return ok("the clock is synchronised")


def check_directory(key: str, path: Path) -> Finding:
    """Say whether a directory can be written to, or could be made."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return problem(f"{key} {path} cannot be made: {place} is no directory")
    if not os.access(place, os.W_OK | os.X_OK):
        return problem(f"{key} {path} cannot be written by this user: run the check as root, or mend its owner")
    return ok(f"{key} {path} can be written")
