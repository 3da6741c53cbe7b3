"""A laboratory of its own for every test module that asks for one, torn down whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cli.document import Document
from lab.scene import Scene
from tests.laboratory.lab_steps import fresh_name

SceneMaker = Callable[..., Scene]


@pytest.fixture
def scene() -> Iterator[SceneMaker]:
    """Return a maker of scenes, up and with agents, each removed after the test."""
    made: list[Scene] = []

    def make(*vms: str, hosts: int = 3, config: Document | None = None, **aggregator: float) -> Scene:
        """aggregator: keys of its own file."""
        one = Scene(fresh_name(), vms)
        made.append(one)
        one.laboratory.aggregator.settings.update(aggregator)
        one.up(hosts=hosts, config=config)
        return one

    yield make
    for one in made:
        one.__exit__(None, None, None)
