"""virtward-agent: the command line and the wiring.

Knows all parts of the agent and nothing of what they do.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from pathlib import Path

from agent.access import CertifiedAccess, OpenAccess
from agent.check import look_around
from agent.config import DEFAULT_PATH, AgentConfig, load
from agent.daemon import Daemon, Hands
from agent.host import read_identity
from agent.host_stop import WITHIN_S, WITHIN_S_MAX, WITHIN_S_MIN, empty_host, forget_past, host_is_stopping
from agent.ledger import Ledger, LedgerError
from agent.libvirt_driver import Connection
from agent.libvirt_guest import LibvirtGuests
from agent.libvirt_pool import start_event_thread
from agent.move_checks import MoveChecks, Ways
from agent.places import Places
from agent.storage import StorageWatch
from agent.watcher import LibvirtHypervisor
from fleet.clock import SystemClock
from fleet.config import ConfigError, read_secret, secret_file
from fleet.environment import report
from fleet.service import EXIT_FAILURE, EXIT_OK, Service, ServiceError, complain, configure_log, run_service

PROGRAM = "virtward-agent"


def main() -> int:
    """Run the agent, or with --check only say whether it could run."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Watches this host's VMs and does what the aggregator orders."
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--check",
        nargs="?",
        const="all",
        choices=("all", "config"),
        help="check the configuration and what it needs of this host, or the configuration alone; start nothing",
    )
    parser.add_argument(
        "--host-stop",
        choices=("if-stopping", "now"),
        help="empty the host, as at its shutdown: only if systemd is shutting it down (what the unit does), or now",
    )
    parser.add_argument("--within", type=float, default=WITHIN_S, metavar="SECONDS", help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config)
        if arguments.host_stop:
            return _stop_host(config, arguments.within, now=arguments.host_stop == "now")
        token = _token(config)
        identity = read_identity(Path(config.boot_id_file), Path(config.machine_id_file))
    except (ConfigError, ServiceError) as error:
        complain(PROGRAM, error)
        return EXIT_FAILURE
    if arguments.check:
        print(f"ok: {arguments.config}: node {config.node} is configured well")
        return EXIT_OK if arguments.check == "config" else report(look_around(config))
    configure_log(config.log_level)

    async def body(service: Service) -> None:
        clock = SystemClock()
        lock = hold_lock(Path(config.run_dir))
        forget_past(Path(config.run_dir))
        try:
            storage = StorageWatch()
            hypervisor = LibvirtHypervisor(config.libvirt_uri, clock, Places(config.node), storage.mount_is_lost)
            ledger = Ledger(Path(config.state_dir), Path(config.run_dir), identity.boot_id)
            access = CertifiedAccess(config.identity_dir) if config.secure else OpenAccess(token)
            moves = MoveChecks(Ways(config.libvirt_uri, Places(config.node), config.migration_tls))
            hands = Hands(hypervisor, clock, access, storage, LibvirtGuests(config.libvirt_uri), moves)
            await Daemon(config, identity, ledger, hands).run(service)
        except LedgerError as error:
            raise ServiceError(str(error)) from None
        finally:
            os.close(lock)

    return run_service(PROGRAM, body)


def _stop_host(config: AgentConfig, within_s: float, *, now: bool) -> int:
    if not WITHIN_S_MIN <= within_s <= WITHIN_S_MAX:
        raise ServiceError(f"--within: must be {WITHIN_S_MIN:g} to {WITHIN_S_MAX:g} seconds, not {within_s:g}")
    if not now and not host_is_stopping():
        return EXIT_OK
    start_event_thread()
    ask = Connection(config.libvirt_uri).do
    try:
        run_dir = Path(config.run_dir)
        empty = empty_host(run_dir, within_s, ask, lambda line: print(line, flush=True), by_unit=not now)
    except OSError as error:
        raise ServiceError(f"{config.run_dir}: the shutdown cannot be announced: {error.strerror or error}") from None
    return EXIT_OK if empty else EXIT_FAILURE


def _token(config: AgentConfig) -> str:
    """Return the lasting token where agents speak openly. Elsewhere a node that has not joined needs its join token."""
    if not config.secure:
        return read_secret(secret_file(config.token_file), "token")
    if not CertifiedAccess.is_joined(config.identity_dir):
        read_secret(secret_file(config.token_file), "join token")
    return ""


def hold_lock(run_dir: Path) -> int:
    """Take the lock of this host's one agent. Raises ServiceError if another one holds it."""
    path = run_dir / "agent.lock"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServiceError(f"{path}: the lock cannot be used: {error.strerror or error}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ServiceError(f"{path}: another agent runs on this host; end it first") from None
    return handle


if __name__ == "__main__":
    sys.exit(main())
