"""What a host keeps for a VM besides its disks, and that a start elsewhere does not find; in words. Pure."""

from __future__ import annotations

from aggregator.core.state import VmRecord


def stays_words(vm: VmRecord) -> str:
    """Return what becomes of it when the VM starts elsewhere, for a sentence; empty where there is nothing of it."""
    if vm.definition is None:
        return ""
    said = []
    if vm.definition.nvram:
        said.append(
            f"its NVRAM ({vm.definition.nvram}) stays on its host: elsewhere it starts with an older or a new one"
        )
    if record := record_words(vm):
        said.append(f"{record} stays on its host: elsewhere only its disks hold them")
    return "; ".join(said)


def left_behind(vm: VmRecord, node: str) -> list[str]:
    """Return what the VM does not find on its new node, as clauses; a disk never."""
    if vm.definition is None or vm.home in ("", node):
        return []
    parts = (
        "its NVRAM" if vm.definition.nvram else "",
        "the state of its TPM" if "<tpm" in vm.definition.xml else "",
        record_words(vm),
    )
    return [f"{part} stays on {vm.home}" for part in parts if part]


def record_words(vm: VmRecord) -> str:
    """Return what libvirt alone knows of the VM, as a noun; empty if that is nothing."""
    if vm.definition is None:
        return ""
    counts = ((vm.definition.snapshots, "snapshot"), (vm.definition.checkpoints, "checkpoint"))
    said = [f"{count} {word}{'s' * (count > 1)}" for count, word in counts if count]
    return f"libvirt's record of its {' and '.join(said)}" if said else ""
