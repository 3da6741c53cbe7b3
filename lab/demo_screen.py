"""What the demo looks like: lines with the time since its start, and on a terminal a board of the fleet below them.

Knows how to print and nothing of what the words mean. Nothing here waits for anything.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

Board = Mapping[str, tuple[str, Sequence[str]]]  # host -> its state, and a line for each VM on it
BOARD_PER_SECOND = 5
STATE_COLOURS = {"Up": "green", "Suspect": "yellow", "Lost": "red", "Fencing": "red", "Fenced": "red", "off": "red"}


class Screen:
    """Prints lines; several threads may. `board`: what the board shows, asked for at each refresh."""

    def __init__(self, board: Callable[[], Board]) -> None:
        self._begun = time.monotonic()
        self._board = board
        self._lock = threading.Lock()
        self._console = Console(highlight=False, soft_wrap=True)
        self.is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._live: Live | None = None

    def start(self) -> None:
        """Show the board from now on."""
        if self.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, transient=True, refresh_per_second=BOARD_PER_SECOND
            )
            self._live.start()

    def close(self) -> None:
        """Take the board away; lines may still be printed."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def chapter(self, text: str) -> None:
        """A new part of the story."""
        self._print("", "")
        self._print(f"== {text}", f"[bold]━━ {escape(text)}[/bold]")

    def order(self, words: str) -> None:
        """What was typed, so that people can type it themselves."""
        self._line(f"$ {words}", f"[bold cyan]$ {escape(words)}[/bold cyan]")

    def answer(self, text: str) -> None:
        """What a command answered."""
        self._line(f"  {text}", f"  {escape(text)}")

    def happened(self, text: str, why: str = "", colour: str = "") -> None:
        """Something happened, and why."""
        shown = f"[{colour}]{escape(text)}[/{colour}]" if colour else escape(text)
        self._line(text + (f" – {why}" if why else ""), shown + (f" [dim]– {escape(why)}[/dim]" if why else ""))

    def plain(self, text: str) -> None:
        """A line without a time, exactly as it is."""
        with self._lock:
            print(text, flush=True)

    def _line(self, text: str, marked: str) -> None:
        since_s = time.monotonic() - self._begun
        self._print(f"{since_s:6.1f} s  {text}", f"[dim]{since_s:6.1f} s[/dim]  {marked}")

    def _print(self, text: str, marked: str) -> None:
        with self._lock:
            if self.is_terminal:
                self._console.print(marked)
            else:
                print(text, flush=True)

    def _render(self) -> Table:
        board = self._board()
        table = Table(expand=False, padding=(0, 2))
        for host, (state, _) in board.items():
            colour = STATE_COLOURS.get(state.split(",")[0], "yellow")
            table.add_column(f"{host}  [{colour}]{escape(state)}[/{colour}]", min_width=26, no_wrap=True)
        table.add_row(*(escape("\n".join(lines) or "–") for _, lines in board.values()))
        return table
