"""Holds the package fleet to its two rules: an empty __init__.py, and only modules that both daemons need.

A module counts as needed by a daemon if that daemon reaches it by imports, directly or through other modules of ours.
Says nothing about a daemon that has no main module yet. Usage: check_fleet.py
"""

import sys
from pathlib import Path

import grimp

PACKAGES = ("fleet", "agent", "aggregator")
# Programs of the package that run by themselves; nobody imports them.
PROGRAMS = frozenset({"fleet.protocol_document"})


def main() -> int:
    problems = []
    if Path("fleet/__init__.py").read_text(encoding="utf-8"):
        problems.append("fleet/__init__.py: must stay empty, or importing one module of fleet drags in others")
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    modules = {name for name in graph.modules if name.startswith("fleet.")} - PROGRAMS
    for daemon in ("agent", "aggregator"):
        if f"{daemon}.main" not in graph.modules:
            continue
        reached = graph.find_upstream_modules(daemon, as_package=True)
        problems += [
            f"{name.replace('.', '/')}.py: {daemon} does not need it, so it belongs to the other daemon"
            for name in sorted(modules - reached)
        ]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
