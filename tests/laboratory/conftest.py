"""A laboratory without daemons per module, with a name and a directory that nobody else has, always torn down."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.laboratory import Laboratory
from tests.laboratory.lab_steps import fresh_name


@pytest.fixture(scope="module")
def lab_base() -> Iterator[Path]:
    """A folder with a short name: socket paths must stay short."""
    with tempfile.TemporaryDirectory(prefix="vw-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def laboratory(lab_base: Path) -> Iterator[Laboratory]:
    """Three hosts with BMCs and storage, no daemons of virtward."""
    made = Laboratory(fresh_name(), lab_base)
    try:
        made.up(agents=False)
        yield made
    finally:
        made.down()
