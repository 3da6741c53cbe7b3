"""make demo: three hosts on this machine, a live migration, a drain, a power cut, and what virtward does about it.

The program around the story: it ends in order whatever happens, and its last line on stdout is the JSON that
others read. KEEP=1 leaves the laboratory up. Exit 0 only if every VM ended up running exactly once.
Run as: python -m lab.demo [--name NAME]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.errors import Failure
from lab.demo_story import Demo, DemoError
from lab.errors import LaboratoryError
from lab.laboratory import Laboratory

NAME = "demo"
INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """Run the demo as a program and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m lab.demo", description="A fleet on this machine, and its faults.")
    parser.add_argument("--name", default=NAME, help="name of the demo's own laboratory, at most 6 characters")
    name = parser.parse_args(arguments).name
    keep = os.environ.get("KEEP", "") not in ("", "0")
    # Not by way of SIGINT: shells start what runs in the background with that one ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        laboratory = Laboratory(name)
        with alone(laboratory):
            return show(laboratory, keep=keep)
    except LaboratoryError as error:
        complain(str(error))
        return 1


@contextmanager
def alone(laboratory: Laboratory) -> Iterator[None]:
    """One demo of a name at a time on this machine, whose namespaces they share; LaboratoryError for the second."""
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(f"\0virtward-demo-{laboratory.layout.name}")  # a name without a file: it goes when we go
        except OSError:
            raise LaboratoryError("another demo is running on this machine; wait until it has ended") from None
        yield


def show(laboratory: Laboratory, *, keep: bool) -> int:
    """Play the story, clean up whatever happened, and print the last line; return the exit code."""
    demo = Demo(laboratory)
    code, line = 1, ""
    try:
        judgement = demo.play()
        line = judgement.line
        code = 1 if judgement.bad or demo.seen.twice_seen or demo.seen.splits() else 0
        if code:
            complain(f"not every VM runs exactly once: {', '.join(judgement.bad) or 'one ran twice on the way'}")
    except (DemoError, LaboratoryError, Failure) as error:
        demo.close()
        complain(str(error))
    except KeyboardInterrupt:
        demo.close()
        complain("interrupted")
        code = INTERRUPTED
    finally:
        demo.close()
        if code == 1:
            keep_logs(laboratory)
        if not keep:
            take_down(laboratory)
    if keep:
        name = laboratory.layout.name
        print(f"\nThe laboratory stays up; `.venv/bin/virtward-lab down --name {name}` removes it.")
        print(f"Plain `.venv/bin/virtward get vms` talks to it now; its page is {laboratory.api_url()}/")
    if line:
        print(line, flush=True)
    return code


def complain(what: str) -> None:
    """Say one sentence on stderr."""
    print(f"demo: {what}", file=sys.stderr, flush=True)


def take_down(laboratory: Laboratory) -> None:
    """Remove the laboratory; a second Ctrl-C does not leave half of it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        laboratory.down()
    except LaboratoryError as error:
        complain(str(error))


def keep_logs(laboratory: Laboratory) -> None:
    """Save the logs of a demo that failed, for the laboratory takes its own with it."""
    kept = Path(tempfile.mkdtemp(prefix="virtward-demo-"))
    for folder in (laboratory.layout.logs_dir, laboratory.layout.guests_dir):
        if folder.is_dir():
            shutil.copytree(folder, kept / folder.name)
    complain(f"the logs are kept in {kept}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
