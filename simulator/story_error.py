"""What is wrong with a story, in one sentence."""

from __future__ import annotations


class StoryError(ValueError):
    """where: the path inside the file, like events[2].at."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
