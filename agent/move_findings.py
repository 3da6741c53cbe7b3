"""Whether the copy of a VM that runs elsewhere would come to run on this host, from what the host has now. Pure.

Placement has judged this by what the agent told last; this is asked right before a move, of the host itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleet.model import Disk, Finding, HostOffers, Needs

NAMED_MAX = 5
MIB = 1024 * 1024
TIME_WAIT = "06"
PORTS_DEFAULT = (49152, 49215)


def offer_findings(needs: Needs, offers: HostOffers) -> Iterator[Finding]:
    """Yield what the host lacks or has; nothing of what either side does not tell."""
    if needs.machine and needs.arch in ("", offers.arch) and offers.machines is not None:
        lacks = tuple(name for name in (needs.machine,) if name not in offers.machines)
        yield _named("MachineType", lacks, "QEMU here has no machine type", needs.machine)
    is_first_type = (offers.domain_types or ("",))[0] == needs.domain_type
    if is_first_type and needs.guest_cpu and offers.cpu_features is not None:  # the features are of that type
        lacks = tuple(name for name in needs.guest_cpu if name not in offers.cpu_features)
        yield _named("CPU", lacks, "the guest's CPU has what this one lacks:", "all that the guest's CPU has")
    wanted = (*needs.interfaces, *needs.networks)
    if wanted and offers.interfaces is not None and offers.networks is not None:
        lacks = tuple(name for name in wanted if name not in (*offers.interfaces, *offers.networks))
        yield _named("Network", lacks, "not here:", ", ".join(wanted))


def _named(check: str, lacks: tuple[str, ...], bad: str, good: str) -> Finding:
    if not lacks:
        return Finding(check, ok=True, message=good)
    more = f" and {len(lacks) - NAMED_MAX} more" if len(lacks) > NAMED_MAX else ""
    return Finding(check, ok=False, message=f"{bad} {', '.join(lacks[:NAMED_MAX])}{more}")


def storage_finding(there: Iterable[Disk], here: Iterable[Disk], absent: Iterable[str]) -> Finding:
    """Return whether the paths of a VM lead to the same disks on this host.

    there, here: as its node and this one identify them; absent: targets whose file or device is not on this host.
    """
    found, gone = {disk.target: disk for disk in here}, set(absent)
    for disk in there:
        own = found.get(disk.target)
        if disk.target in gone:
            return Finding("Storage", ok=False, message=f"disk {disk.target} is not here: {disk.identity}")
        if own is not None and disk.shared and own.identity != disk.identity:
            words = f"the path of disk {disk.target} leads to {own.identity} here, and to {disk.identity} there"
            return Finding("Storage", ok=False, message=words)
    return Finding("Storage", ok=True, message="every disk is the same here")


def memory_finding(wanted_bytes: int, available_bytes: int) -> Finding:
    """Return whether the host's memory has room for the guest's."""
    has, wants = available_bytes // MIB, wanted_bytes // MIB
    return Finding("Memory", ok=has >= wants, message=f"{has} MiB are left, the guest has {wants} MiB")


def available_memory(meminfo: str) -> int | None:
    """Return the bytes that can be given to a guest, from /proc/meminfo; None if it does not say."""
    told = [line.split()[1] for line in meminfo.splitlines() if line.startswith("MemAvailable:")]
    return int(told[0]) * 1024 if told and told[0].isdigit() else None


def port_range(qemu_conf: str) -> tuple[int, int]:
    """Return the first and last port that libvirt takes for incoming migrations, from its qemu.conf."""
    least, most = PORTS_DEFAULT
    for line in qemu_conf.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if value.isdigit() and key == "migration_port_min":
            least = int(value)
        elif value.isdigit() and key == "migration_port_max":
            most = int(value)
    return least, most


def ports_finding(ports: tuple[int, int], sockets: Iterable[str]) -> Finding:
    """Return whether libvirt finds a port for an incoming migration. sockets: texts of /proc/net/tcp and tcp6."""
    least, most = ports
    used = {port for text in sockets for port in _local_ports(text) if least <= port <= most}
    free = most - least + 1 - len(used)
    return Finding(
        "Ports", ok=free > 0, message=f"{max(0, free)} of {most - least + 1} ports ({least}-{most}) are free"
    )


def _local_ports(text: str) -> Iterator[int]:
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 3 and words[3] != TIME_WAIT:  # noqa: PLR2004 - the fixed fields of the format
            yield int(words[1].rpartition(":")[2], 16)
