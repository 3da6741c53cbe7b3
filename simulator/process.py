"""A process of the simulated world: it lives, is paused, dies, and its memory dies with it.

What a process arranges for later happens only while that same life lasts, and waits while it
is paused. A process can be told to die after so many more of its own steps, which is how kills
land between any two of them. Knows nothing of what a process does.
"""

from __future__ import annotations

from collections.abc import Callable

from simulator.clock import Deed, Queue, Timer


class Process:
    """Base of agents, libvirtds and aggregators."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.alive = False
        self.life = 0
        self._paused_by: dict[str, bool] = {}
        self._waiting: list[Deed] = []
        self._steps_left: int | None = None
        self._die: Callable[[], None] | None = None
        self._pause_in: int | None = None

    @property
    def paused(self) -> bool:
        return bool(self._paused_by)

    @property
    def answers(self) -> bool:
        """Would it answer a question now?"""
        return self.alive and not self._paused_by

    def begin_life(self) -> None:
        self.life += 1
        self.alive = True
        self._paused_by.pop("itself", None)  # who stopped the one before it did not stop this one
        self._waiting.clear()
        self._steps_left = self._pause_in = None

    def end_life(self) -> None:
        self.life += 1
        self.alive = False
        self._waiting.clear()
        self._paused_by.pop("itself", None)
        self._steps_left = self._pause_in = None

    def pause(self, why: str = "itself") -> None:
        """Stop it between two of its steps; several reasons may hold at once."""
        self._paused_by[why] = True

    def resume(self, why: str = "itself") -> None:
        if self._paused_by.pop(why, False) and not self._paused_by:
            waiting, self._waiting = self._waiting, []
            self.resumed()
            for deed in waiting:
                deed()

    def resumed(self) -> None:
        """Called before anything that waited goes on."""

    def later(self, delay_s: float, deed: Deed) -> Timer:
        """Arrange a deed of this life."""
        return self.queue.after(delay_s, self._of_this_life(deed))

    def when_running(self, deed: Deed) -> None:
        """Do it now, or when the process goes on."""
        self._of_this_life(deed)()

    def _of_this_life(self, deed: Deed) -> Deed:
        life = self.life

        def run() -> None:
            if self.life != life:
                return
            if self._paused_by:
                self._waiting.append(run)
            else:
                deed()

        return run

    def die_after(self, steps: int, die: Callable[[], None]) -> None:
        """Have `die` called at the boundary after so many more steps of this life."""
        self._steps_left, self._die = steps, die

    @property
    def about_to_die(self) -> bool:
        """Is a death or a pause arranged, so that every step counts?"""
        return self._steps_left is not None or self._pause_in is not None

    def pause_after(self, steps: int) -> None:
        """Have it stand still at the boundary after so many more steps of this life."""
        self._pause_in = steps

    def spare(self) -> None:
        """Forget an arranged death or pause."""
        self._steps_left = self._pause_in = None

    def step_boundary(self) -> bool:
        """Count one own step; True if the process has just died here. Where it pauses, what follows must wait."""
        if self._pause_in is not None:
            self._pause_in -= 1
            if self._pause_in <= 0:
                self._pause_in = None
                self.pause()
        if self._steps_left is None:
            return False
        self._steps_left -= 1
        if self._steps_left > 0 or self._die is None:
            return False
        self._steps_left = None
        self._die()
        return True
