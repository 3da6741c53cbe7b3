"""The one way in which a verb fails: a sentence for a person, and the exit code 1 (or 2).

Knows nothing of HTTP or of the verbs. main.py turns a Failure into one line on stderr.
"""

from __future__ import annotations


class Failure(Exception):  # noqa: N818 (it is what happened, and reads so at every raise)
    """What went wrong, where, and what to do about it, in one sentence without a full stop.

    more: further sentences, where a file has more than one fault.
    """

    more: tuple[str, ...] = ()


class WrongUsage(Failure):
    """The command line itself was wrong: exit code 2."""


def sentence(text: str) -> str:
    """Return text on a single line, without a closing full stop: the form that errors take."""
    return " ".join(text.split()).rstrip(".")
