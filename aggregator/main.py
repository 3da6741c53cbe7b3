"""`virtward-aggregator`: reads its configuration, then runs. Exit codes: 0, 1 failure, 2 wrong command line."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import uvloop

from aggregator.authority import Authority
from aggregator.check import look_around
from aggregator.core.moments import rfc3339
from aggregator.fault_point import VARIABLE, FaultPoint
from aggregator.log_bridge import bridge_libraries
from aggregator.service import run_aggregator
from aggregator.settings import Settings, read_settings
from aggregator.store.backup import back_up, put_back
from aggregator.store.migrate import migrate_store
from aggregator.store.protocol import StoreError
from aggregator.store.rebuild import MEMBERS_MAX, rebuild
from fleet.config import ConfigError
from fleet.environment import report
from fleet.service import EXIT_FAILURE, EXIT_OK, Service, ServiceError, complain, configure_log, run_service

PROGRAM = "virtward-aggregator"
ARGUMENTS_OF = {
    None: (0, 0),
    "backup": (1, 1),
    "restore": (1, 1),
    "rebuild": (1, MEMBERS_MAX),
    "migrate-store": (0, 0),
    "rotate-authority": (0, 1),
}


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
    parser.add_argument(
        "action",
        nargs="?",
        choices=("backup", "restore", "rebuild", "migrate-store", "rotate-authority"),
        help="backup FILE copies the journal, also while the aggregator runs; restore FILE puts a copy back; "
        "rebuild NODE… begins anew from what the agents of these members know, where store and backups are lost; "
        "migrate-store brings the journal of an older version up, as the first start would; "
        "rotate-authority replaces the fleet's authorities, step by step while it runs",
    )
    parser.add_argument(
        "rest",
        nargs="*",
        metavar="FILE|NODE",
        help="the FILE of backup and restore; for rebuild the name of every member; for rotate-authority: "
        "key and certificate, in PEM, of an authority of your own PKI",
    )
    arguments = parser.parse_args()
    given = len(arguments.rest)
    if not ARGUMENTS_OF[arguments.action][0] <= given <= ARGUMENTS_OF[arguments.action][1]:
        parser.error("backup and restore take one FILE, rebuild the name of every member, and others nothing")
    if arguments.action and arguments.check:
        parser.error(f"--check and {arguments.action} do not go together")
    try:
        settings = read_settings(arguments.config)
        fault_point = FaultPoint(os.environ.get(VARIABLE, ""))
    except (ConfigError, ValueError) as error:
        complain(PROGRAM, error)
        return EXIT_FAILURE
    if arguments.check:
        print(f"ok: {arguments.config}: aggregator {settings.name} is configured well")
        return EXIT_OK if arguments.check == "config" else report(look_around(settings))
    if arguments.action == "rotate-authority":
        return _rotate(settings, Path(arguments.rest[0]) if given else None)
    if arguments.action == "rebuild":
        return _rebuild(settings.state_dir, arguments.rest)
    if arguments.action == "migrate-store":
        return _migrate(settings.state_dir)
    if arguments.action:
        return _copy(arguments.action, settings.state_dir, Path(arguments.rest[0]))
    return _leave(_run(settings, fault_point))


def _rotate(settings: Settings, file: Path | None) -> int:
    """Make the next authorities; the aggregator finds them, and goes on when every member trusts them."""
    try:
        if not settings.agents_tls:
            raise ServiceError("agents_tls = false: there is no authority")
        given = file.read_bytes() if file is not None else None
        Authority(settings.state_dir / "identity", settings.name).begin_rotation(given)
    except (OSError, ServiceError) as error:
        complain(PROGRAM, error)
        return EXIT_FAILURE
    print(
        "The next authorities are there. They sign when every member trusts them; the past ones go when all have "
        "certificates by them. The aggregator's log names who is waited for. Join tokens made before then are void."
    )
    return EXIT_OK


def _copy(action: str, state_dir: Path, file: Path) -> int:
    """Back the journal up or put one back, and say what it holds."""
    try:
        if action == "backup":
            found = back_up(state_dir, file)
            print(f"{file}: the journal up to position {found.position}, {rfc3339(found.at)}")
            return EXIT_OK
        found, kept = put_back(state_dir, file)
    except StoreError as error:
        complain(PROGRAM, error)
        return EXIT_FAILURE
    print(f"{state_dir}: the journal up to position {found.position}, {rfc3339(found.at)}, is in place")
    if kept is not None:
        print(f"{kept}: the journal that was there before")
    print(
        "The next start only listens until every member has spoken or is proven off; virtward status names the missing."
    )
    return EXIT_OK


def _rebuild(state_dir: Path, members: list[str]) -> int:
    """Begin anew from what agents know, and say what follows."""
    try:
        rebuild(state_dir, members)
    except StoreError as error:
        complain(PROGRAM, error)
        return EXIT_FAILURE
    print(
        f"{state_dir}: a new journal that knows {len(members)} members and nothing else. Start the aggregator: it only "
        "listens until each of them has spoken or is proven off (virtward status names the missing), and then knows "
        "again every VM that an agent keeps.\n"
        "Agents do not know, and somebody must bring back:\n"
        "- labels, zones and fencing of nodes: the playbook site, which holds them as the inventory has them\n"
        "- taints, cordons and disarmings: virtward taint, cordon, disarm; until then the fleet is armed\n"
        "- VMs that never ran, VMs whose manifest is larger than 12 KiB packed, migration policies: virtward apply\n"
        "- settings that are not in the configuration file: virtward config set\n"
        "- tokens of the API but the administrator's: virtward token create\n"
        "- where the authority is lost too (identity/ of this folder), certificates of nodes: virtward node token NODE"
    )
    return EXIT_OK


def _migrate(state_dir: Path) -> int:
    """Bring an older journal up, and say what it was."""
    try:
        done = migrate_store(state_dir)
    except StoreError as error:
        complain(PROGRAM, error)
        return EXIT_FAILURE
    was = f"was of layout {done.before} and is" if done.before != done.layout else "is"
    print(f"{state_dir}: the journal {was} of layout {done.layout}; all of it, up to {done.position}, can be read")
    return EXIT_OK


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
