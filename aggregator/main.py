"""`virtward-aggregator`: reads its configuration, then runs. Exit codes: 0, 1 failure, 2 wrong command line."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import uvloop

from aggregator.check import look_around
from aggregator.fault_point import VARIABLE, FaultPoint
from aggregator.log_bridge import bridge_libraries
from aggregator.service import run_aggregator
from aggregator.settings import Settings, read_settings
from fleet.config import ConfigError
from fleet.environment import report
from fleet.service import EXIT_FAILURE, EXIT_OK, Service, complain, configure_log, run_service

PROGRAM = "virtward-aggregator"


def main() -> int:
    """Run the program; never returns once the aggregator ran (see _leave)."""
    parser = argparse.ArgumentParser(PROGRAM, description="Detects failures, fences, recovers and drains.")
    parser.add_argument("--config", type=Path, default=Path("/etc/virtward/aggregator.toml"), metavar="FILE")
    parser.add_argument(
        "--check",
        nargs="?",
        const="all",
        choices=("all", "config"),
        help="check the configuration and what it needs of this machine, or the configuration alone; start nothing",
    )
    arguments = parser.parse_args()
    try:
        settings = read_settings(arguments.config)
        fault_point = FaultPoint(os.environ.get(VARIABLE, ""))
    except (ConfigError, ValueError) as error:
        complain(PROGRAM, error)
        return EXIT_FAILURE
    if arguments.check:
        print(f"ok: {arguments.config}: aggregator {settings.name} is configured well")
        return EXIT_OK if arguments.check == "config" else report(look_around(settings))
    return _leave(_run(settings, fault_point))


def _run(settings: Settings, fault_point: FaultPoint) -> int:
    configure_log(settings.log_level)
    bridge_libraries()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

    async def body(service: Service) -> None:
        await run_aggregator(settings, service, fault_point)

    return run_service(PROGRAM, body)


def _leave(code: int) -> int:
    """End at once: a thread that hangs in a dead disk or a fence program must not hold the process up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
