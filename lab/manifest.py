"""The manifest of a laboratory VM: what `virtward apply` takes, with the domain XML in it.

Pure text. A guest speaks on its first serial port (a pty, so that consoles work; logged to a file on the host) and
takes orders on its second; a second monitor socket lets the laboratory look at its CPUs without asking libvirt. Their
paths are the same on every host and lie in a directory that each host has for itself, so they survive a migration.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from msgspec import Struct

from lab.layout import NBD_PORT, PRIVATE_DIR, STORAGE_ADDRESS


class GuestKind(StrEnum):
    """What runs in the VM."""

    TINY = "tiny"
    LINUX = "linux"


MEMORY_MIB = {GuestKind.TINY: 16, GuestKind.LINUX: 128}
TICK_MS = 100


class GuestSpec(Struct, frozen=True):
    """What a person asks for with `virtward-lab vm`."""

    name: str
    uuid: str
    kind: GuestKind = GuestKind.TINY
    preferred_host: str = ""
    memory_mib: int = 16
    dirty_mib_per_s: int = 0
    tick_ms: int = TICK_MS


class BootFiles(Struct, frozen=True):
    """The kernel and, for linux, the initramfs; same paths on every host."""

    kernel: Path
    initramfs: Path | None = None


def serial_log(name: str) -> str:
    """File name of a guest's raw serial output in a host's private directory."""
    return f"{name}.serial"


def control_socket(name: str) -> str:
    """File name of the socket that takes orders for the guest."""
    return f"{name}.control"


def monitor_socket(name: str) -> str:
    """File name of the monitor that only the laboratory uses."""
    return f"{name}.monitor"


def guest_manifest(spec: GuestSpec, files: BootFiles) -> str:
    """The VirtualMachine manifest, YAML."""
    affinity = _preferred(spec.preferred_host) if spec.preferred_host else ""
    xml = "".join(f"    {line}\n" for line in domain_xml(spec, files).splitlines())
    return (
        "apiVersion: virtward/v1\n"
        "kind: VirtualMachine\n"
        f'metadata: {{name: "{spec.name}"}}\n'
        "spec:\n"
        "  runStrategy: Always\n"
        f"{affinity}"
        f'  resources: {{requests: {{cpu: "100m", memory: {spec.memory_mib}Mi}}}}\n'
        "  domainXML: |\n"
        f"{xml}"
    )


def _preferred(host: str) -> str:
    """Weight 100 and never required: the VM must be able to leave."""
    term = f"{{key: virtward/hostname, operator: In, values: [{host}]}}"
    return (
        "  affinity:\n"
        "    nodeAffinity:\n"
        "      preferredDuringSchedulingIgnoredDuringExecution:\n"
        f"      - {{weight: 100, preference: {{matchExpressions: [{term}]}}}}\n"
    )


def domain_xml(spec: GuestSpec, files: BootFiles) -> str:
    """The libvirt definition; emulated, because /dev/kvm is not to be trusted everywhere."""
    is_linux = spec.kind is GuestKind.LINUX
    command_line = f"tick={spec.tick_ms} dirty={spec.dirty_mib_per_s}"
    if is_linux:
        command_line += " console=ttyS0 quiet panic=-1 no_timer_check"
    initramfs = f"<initrd>{files.initramfs}</initrd>" if files.initramfs else ""
    return f"""\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{escape(spec.name)}</name>
  <uuid>{spec.uuid}</uuid>
  <memory unit='MiB'>{spec.memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{files.kernel}</kernel>{initramfs}
    <cmdline>{command_line}</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <source protocol='nbd' name={quoteattr(spec.name)}><host name='{STORAGE_ADDRESS}' port='{NBD_PORT}'/></source>
      {_target(spec.kind)}
    </disk>
    <controller type='usb' model='none'/>
{_agent_channel(spec.kind)}\
    <serial type='pty'>
      <log file='{PRIVATE_DIR}/{serial_log(spec.name)}' append='on'/>
      <target port='0'/>
    </serial>
    <serial type='unix'>
      <source mode='bind' path='{PRIVATE_DIR}/{control_socket(spec.name)}'/>
      <target port='1'/>
    </serial>
    <memballoon model='none'/>
    <panic model='isa'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-chardev'/>
    <qemu:arg value='socket,id=truth,path={PRIVATE_DIR}/{monitor_socket(spec.name)},server=on,wait=off'/>
    <qemu:arg value='-mon'/>
    <qemu:arg value='chardev=truth,mode=control'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='isa-debug-exit,iobase=0xf4,iosize=0x04'/>
  </qemu:commandline>
</domain>"""


def _target(kind: GuestKind) -> str:
    return "<target dev='vda' bus='virtio'/>" if kind is GuestKind.LINUX else "<target dev='hda' bus='ide'/>"


def _agent_channel(kind: GuestKind) -> str:
    if kind is not GuestKind.LINUX:
        return ""
    return "    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\n"
