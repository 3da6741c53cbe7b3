"""Questions about moves that have not begun, and their answer; fleet.messages is the one name for them.

docs/PROTOCOL.md is generated from these types, so each docstring is written for its reader.
"""

from __future__ import annotations

from fleet.message import Message
from fleet.model import Disk, Finding, Needs


class MoveChecked(Message, frozen=True):
    """Answer to CheckArrival and CheckDeparture: what was found; nothing of what could not be told.

    dirty_bytes_per_s: what the guest writes to its memory; link_bytes_per_s: what the host's network device could
    take on the way to the other host, by its own word. -1: not measured, not known.
    """

    check_id: str
    findings: tuple[Finding, ...] = ()
    dirty_bytes_per_s: int = -1
    link_bytes_per_s: int = -1


class CheckArrival(Message, frozen=True):
    """Would a copy of this VM come to run on this host? Nothing is begun. Without XML only the host itself is asked.

    xml, needs, disks: as the VM's node told them last, so that the paths can be compared with what they are here.
    """

    check_id: str
    uuid: str = ""
    xml: str = ""
    needs: Needs = Needs()
    disks: tuple[Disk, ...] = ()
    memory_bytes: int = 0


class CheckDeparture(Message, frozen=True):
    """Is the way from here to that host open? Its libvirt is called as a migration would call it; nothing is begun.

    measure_s: for so long what the guest writes is measured, never while it moves; 0: not at all.
    """

    check_id: str
    uuid: str = ""
    peer_uri: str = ""
    migration_address: str = ""
    agent_port: int = 0
    measure_s: int = 0
