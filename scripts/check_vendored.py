"""Compares third-party files with the sha256 that VENDORED.md beside them names, both ways.

A line of VENDORED.md that holds a file's name in backticks and a sha256 speaks of that file; all other lines are prose.
Every file of a `vendor` folder must be spoken of. Knows files and hashes only. Usage: check_vendored.py [FOLDER]
"""

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

LIST_NAME = "VENDORED.md"
ENTRY = re.compile(r"`([^`]+)`.*?\b([0-9a-f]{64})\b")
SKIPPED_FOLDERS = frozenset({".git", ".venv", ".tools", "node_modules"})


def entries(text: str) -> dict[str, str]:
    """Map the file names of a VENDORED.md to their sha256."""
    return {match[1]: match[2] for line in text.splitlines() if (match := ENTRY.search(line))}


def folder_problems(folder: Path) -> Iterator[str]:
    """Yield a sentence for each file of a vendor folder that is changed, missing or not listed."""
    listing = folder / LIST_NAME
    if not listing.is_file():
        yield f"{listing} is missing: it must name each file's licence, version and sha256"
        return
    listed = entries(listing.read_text(encoding="utf-8"))
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path != listing}
    yield from (f"{folder / name} is not listed in {LIST_NAME}" for name in sorted(present - listed.keys()))
    yield from (f"{folder / name} is listed in {LIST_NAME} but missing" for name in sorted(listed.keys() - present))
    for name in sorted(present & listed.keys()):
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != listed[name]:
            yield f"{folder / name} differs from the sha256 in {LIST_NAME}: vendored files stay as they came"


def vendor_folders(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("vendor")):
        if path.is_dir() and not SKIPPED_FOLDERS & set(path.relative_to(root).parts):
            yield path


def main(root: Path) -> int:
    problems = [problem for folder in vendor_folders(root) for problem in folder_problems(folder)]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
