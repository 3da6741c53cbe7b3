"""The files in which the libvirt hook looks up what may begin here (agent.wall says what they hold).

STATE_DIR/managed/UUID: the VM is virtward's. It lies on disk: after a reboot libvirtd may start
VMs before the agent is there, and a managed one must be refused even then.
RUN_DIR/permits/UUID: `WAY EPOCH UNTIL`, UNTIL in seconds since boot, the sleep of the machine
included: no wall clock decides. A reboot empties it. A permit that cannot be written refuses a
start, and one that cannot be withdrawn ends by itself, so neither stops the agent.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import structlog

from agent.wall import Forbid, LetGo, Permit, RaiseWall, WallEffect
from fleet.clock import Clock

UPTIME = Path("/proc/uptime")

log = structlog.get_logger(part="permits")


class PermitFiles:
    """Both directories. Blocking; one thread at a time."""

    def __init__(self, state_dir: Path, run_dir: Path, clock: Clock) -> None:
        self._managed = state_dir / "managed"
        self._permits = run_dir / "permits"
        self._clock = clock

    def do(self, effect: WallEffect) -> None:
        """Perform one effect; what fails is logged."""
        try:
            match effect:
                case RaiseWall(uuids=uuids):
                    self._raise(uuids)
                case Permit(uuid=uuid):
                    self._manage([uuid])
                    self._permit(effect)
                case Forbid(uuid=uuid):
                    self._withdraw(uuid)
                    self._manage([uuid])
                case LetGo(uuid=uuid):
                    self._withdraw(uuid)
                    (self._managed / uuid).unlink(missing_ok=True)
        except OSError as error:
            log.warning("what may begin here could not be written", effect=repr(effect), error=error.strerror)

    def _raise(self, uuids: tuple[str, ...]) -> None:
        self._permits.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._managed.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._permits.iterdir():
            path.unlink()
        self._manage(uuids)

    def _manage(self, uuids: tuple[str, ...] | list[str]) -> None:
        """Synced: it must hold when the machine loses its power a moment later."""
        fresh = [path for uuid in uuids if not (path := self._managed / uuid).exists()]
        for path in fresh:
            path.touch(mode=0o600)
        if fresh:
            _sync(self._managed)

    def _permit(self, permit: Permit) -> None:
        up_s = float(UPTIME.read_text(encoding="ascii").split()[0])  # what the hook will read, too
        until_up_s = math.floor(up_s + permit.until_s - self._clock.monotonic_s())
        fresh = self._permits / f"{permit.uuid}.new"
        fresh.write_text(f"{permit.way} {permit.epoch} {until_up_s}\n", encoding="ascii")
        fresh.replace(self._permits / permit.uuid)

    def _withdraw(self, uuid: str) -> None:
        for name in (uuid, f"{uuid}.arriving"):
            (self._permits / name).unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
