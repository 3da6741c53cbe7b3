"""Sees to it that the contract of purity names every module it is meant for, as soon as that module exists.

import-linter refuses contracts about modules that do not exist yet, so the list in pyproject.toml grows with the code.
Usage: check_contracts.py
"""

import sys
import tomllib
from pathlib import Path

CONTRACT_NAME = "what decides has no clock and no I/O"
PURE_MODULES = ("aggregator.core", "aggregator.placement", "fleet.lease", "agent.guard", "agent.inventory")


def exists(module: str) -> bool:
    path = Path(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def main() -> int:
    settings = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    named = {module for one in contracts if one["name"] == CONTRACT_NAME for module in one["source_modules"]}
    forgotten = [module for module in PURE_MODULES if exists(module) and module not in named]
    for module in forgotten:
        print(f'pyproject.toml: add "{module}" to the source_modules of the contract "{CONTRACT_NAME}"')
    return 1 if forgotten else 0


if __name__ == "__main__":
    sys.exit(main())
