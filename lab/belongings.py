"""What on this machine belongs to one laboratory: its name, its namespaces, its processes. Found again by name and
mark. Knows nothing of what they are for, so it also finds what a laboratory left that died half-way through its `up`.
"""

from __future__ import annotations

from lab import namespaces, processes
from lab.errors import LaboratoryError
from lab.layout import Layout


class Belongings:
    """The machine-wide things of one laboratory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def claim_name(self) -> None:
        """Namespaces are the machine's: a name serves one laboratory, wherever its state lies."""
        owner = self._owner()
        if owner not in ("", str(self._layout.dir)):
            text = f"the name {self._layout.name} is taken by the laboratory in {owner}; choose another --name"
            raise LaboratoryError(text)
        self._layout.claim.parent.mkdir(parents=True, exist_ok=True)
        self._layout.claim.write_text(f"{self._layout.dir}\n", encoding="utf-8")

    def release_name(self) -> None:
        """Give the name back, if it was ours."""
        if self._owner() == str(self._layout.dir):
            self._layout.claim.unlink()

    def _owner(self) -> str:
        """The directory of the laboratory to which this name belongs, or nothing."""
        try:
            return self._layout.claim.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    def namespaces(self) -> list[str]:
        """Its network namespaces; none when the name belongs to a laboratory elsewhere."""
        if self._owner() not in ("", str(self._layout.dir)):
            return []
        return [name for name in namespaces.names() if self._layout.owns_namespace(name)]

    def processes(self) -> list[int]:
        """Every living process with its mark, and every one in a namespace of its own."""
        found = set(processes.marked(self._layout.mark))
        own = {(namespaces.NETNS_DIR / name).stat().st_ino for name in self.namespaces()}
        if own:
            everybody = processes.all_pids()
            found.update(pid for pid in everybody if processes.namespace_of(pid, "net") in own)
        return sorted(pid for pid in found if processes.is_alive(pid))
