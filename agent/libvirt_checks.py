"""What is asked of libvirt about a move that has not begun: of this host's, and of the one it would go to. Blocking."""

from __future__ import annotations

import time
from typing import Any

import libvirt

from agent.libvirt_pool import LibvirtDownError, Pool, open_connection

MIB = 1024 * 1024
MEASURED = 2  # VIR_DOMAIN_DIRTYRATE_MEASURED
LOOK_EVERY_S = 0.1
MEASURE_SLACK_S = 2.0


def call_other(uri: str) -> str:
    """Call another host's libvirt as a migration would; return its version. LibvirtDownError says why not."""
    conn = open_connection(uri)
    try:
        number = conn.getLibVersion()
    except libvirt.libvirtError as error:
        raise LibvirtDownError(f"libvirt at {uri} does not answer: {error}") from None
    finally:
        conn.close()
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


class DirtyRates:
    """Measures what guests of one libvirtd write to their memory."""

    def __init__(self, uri: str) -> None:
        self._pool = Pool(uri)

    def measure(self, uuid: str, seconds: int) -> int | None:
        """Return bytes per second that change, sampled for so long; None if that cannot be told, or it is moving.

        The samples are of QEMU's own thread: the guest is not slowed down.
        """
        try:
            with self._pool.borrow() as conn:
                domain = conn.lookupByUUIDString(uuid)
                if domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
                    return None
                domain.startDirtyRateCalc(seconds, 0)
                return _result(conn, domain, seconds)
        except (libvirt.libvirtError, LibvirtDownError):
            return None


def _result(conn: Any, domain: Any, seconds: int) -> int | None:  # noqa: ANN401 - libvirt-python ships no types
    until_s = time.monotonic() + seconds + MEASURE_SLACK_S
    while time.monotonic() < until_s:
        time.sleep(LOOK_EVERY_S)
        ((_, stats),) = conn.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_DIRTYRATE)
        if stats.get("dirtyrate.calc_status") == MEASURED:
            return int(stats.get("dirtyrate.megabytes_per_second", 0)) * MIB
    return None
