"""Draws docs/STATES.md from the tables that the core steps by: `python scripts/draw_states.py [--check]`.

Knows the tables and Mermaid's words; must not know what a state means.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from aggregator.core import migrate, nodes, phases

Step = TypeVar("Step", bound=StrEnum)

DOCUMENT = Path(__file__).parent.parent / "docs" / "STATES.md"
HEAD = """\
# State machines
Generated from the tables in the code by `scripts/draw_states.py`. A step of a node or a migration that is not drawn
here raises an error; one of a VM's phase, which is only a rendering, fails simulator and tests.
"""


def diagram(title: str, where: str, steps: Mapping[Step, Sequence[Step]], first: str) -> str:
    """Return one section: a table of steps as a Mermaid diagram. Ends are the states nothing leads out of."""
    lines = [f"    [*] --> {first}"]
    lines += [f"    {state} --> {to}" for state, following in steps.items() for to in following if to is not state]
    reached = {to for following in steps.values() for to in following}
    ends = [state for state in type(next(iter(steps))) if state in reached and not steps.get(state)]
    lines += [f"    {state} --> [*]" for state in ends]
    body = "\n".join(lines)
    return f"\n## {title}\n`{where}`\n```mermaid\nstateDiagram-v2\n{body}\n```\n"


def table(title: str, where: str, steps: Mapping[Step, Sequence[Step]], anytime: Sequence[Step]) -> str:
    """Return one section of a machine with too many arrows for a picture: what each state may become."""
    rows = [
        f"| {state} | {' '.join(to for to in following if to is not state)} |" for state, following in steps.items()
    ]
    always = " and ".join(f"`{state}`" for state in anytime)
    head = f"\n## {title}\n`{where}`\n\n| phase | may become |\n| --- | --- |\n"
    return head + "\n".join(rows) + f"\n\n{always} may follow every phase.\n"


def document() -> str:
    """Return the whole document."""
    node_steps = diagram("A node", "aggregator/core/nodes.py", nodes.STEPS, "Joining")
    after_start = (
        "After a start of the aggregator every known node is `Unseen`, but for those that its journal holds as\n"
    )
    after_start += "`Lost`, `Fencing` or `Fenced`: they stay so until they speak.\n"
    vm_steps = table("A VM's phase", "aggregator/core/phases.py", phases.STEPS, phases.ANYTIME)
    moves = diagram("A migration", "aggregator/core/migrate.py", migrate.STEPS, "Queued")
    return HEAD + node_steps + after_start + vm_steps + moves


def main(arguments: Sequence[str]) -> int:
    """Write the document, or compare it; return the exit code."""
    if arguments == ["--check"]:
        if not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != document():
            print(f"{DOCUMENT.name} is not what the tables say; run scripts/draw_states.py", file=sys.stderr)
            return 1
        return 0
    DOCUMENT.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
