"""What a host's libvirtd is told, and the warmed cache that spares each new host the probing of QEMU.

Knows libvirt's configuration files. Must not start anything: hosts.py does.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.layout import CACHE_DIR, LIBVIRT_PORT, Layout, Plane
from lab.pki import subject

LIBVIRTD = "/usr/sbin/libvirtd"
QEMU = "/usr/bin/qemu-system-x86_64"
HOOK = Path(__file__).parents[1] / "agent" / "hooks" / "qemu.d" / "virtward"
BEFORE_START = Path(__file__).parents[1] / "agent" / "hooks" / "libvirt-before-start"

# Without the sanity check a host comes up that was off for longer than its certificate holds, and is given another one.
LIBVIRTD_CONF = """\
host_uuid = "{host_uuid}"
listen_tls = 1
listen_tcp = 0
tls_port = "{port}"
auth_tls = "none"
tls_no_sanity_certificate = 1
tls_allowed_dn_list = [{allowed}]
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_rw_perms = "0700"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
keepalive_interval = 5
keepalive_count = 5
"""

# Plain emulated guests of root in namespaces of our own: no confinement, no controllers, no log daemon in between.
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
swtpm_user = "root"
swtpm_group = "root"
migration_address = "{migration}"
migration_host = "{migration}"
migrate_tls_x509_verify = 1
migrate_tls_force = 1
"""


def write_configuration(layout: Layout, host: str, directory: Path, host_uuid: str, hosts: Sequence[str]) -> None:
    """Write libvirtd.conf and qemu.conf of a host. hosts: all, who may come in at the TLS port."""
    migration = layout.address(host, Plane.MIGRATION)
    allowed = ", ".join(f'"{subject("libvirt", each)}"' for each in hosts)
    (directory / "libvirtd.conf").write_text(
        LIBVIRTD_CONF.format(host_uuid=host_uuid, port=LIBVIRT_PORT, allowed=allowed), encoding="ascii"
    )
    (directory / "qemu.conf").write_text(QEMU_CONF.format(migration=migration), encoding="ascii")


def replace_host_uuid(directory: Path, host_uuid: str) -> None:
    """Let a host's libvirtd tell another host uuid when it starts next."""
    file = directory / "libvirtd.conf"
    text = re.sub("(?m)^host_uuid = .*$", f'host_uuid = "{host_uuid}"', file.read_text(encoding="ascii"))
    file.write_text(text, encoding="ascii")


def install_hook(directory: Path, state_dir: Path) -> None:
    """Put virtward's hook where libvirtd looks when it starts. state_dir: of the host's agent."""
    hooks = directory / "hooks" / HOOK.parent.name
    hooks.mkdir(parents=True, exist_ok=True)
    text = HOOK.read_text(encoding="ascii")
    hook = hooks / HOOK.name
    hook.write_text(text.replace("state=/var/lib/virtward-agent", f"state={state_dir}"), encoding="ascii")
    hook.chmod(0o755)


def install_before_start(directory: Path) -> None:
    """Put beside libvirt's configuration what is run before each start of it, as the drop-in of its unit does."""
    shutil.copy(BEFORE_START, directory / BEFORE_START.name)


def _warm_dir() -> Path:
    """One cache per combination of programs and kernel: libvirt throws a stale one away and probes again."""
    facts = [os.uname().release, *(f"{Path(path).stat().st_ctime_ns}" for path in (LIBVIRTD, QEMU))]
    return CACHE_DIR / ("libvirt-" + hashlib.sha256(" ".join(facts).encode()).hexdigest()[:12])


def take_warm_cache(target: Path) -> bool:
    """Copy the warmed cache into a host's /var/cache/libvirt; False when there is none yet."""
    warm = _warm_dir()
    if not warm.is_dir():
        return False
    shutil.copytree(warm, target, dirs_exist_ok=True)
    return True


def keep_warm_cache(source: Path) -> None:
    """Keep a host's /var/cache/libvirt, probed by now, for all later hosts."""
    warm = _warm_dir()
    fresh = warm.with_name(f"{warm.name}.{os.getpid()}")
    shutil.copytree(source, fresh, dirs_exist_ok=True)
    try:
        fresh.rename(warm)
    except OSError:  # another laboratory was faster
        shutil.rmtree(fresh)
