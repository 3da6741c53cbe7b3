"""Domains whose start was cut short by the death of the libvirtd that had begun it."""

from __future__ import annotations

from agent import libvirt_words as words
from agent import proc
from agent.deeds import Create, Define, Undefine
from agent.libvirt_driver import RawDomain

ABANDONED = (
    "its start was cut short by libvirtd's death; restart libvirtd to start it here (systemd/README.md, libvirt)"
)
HANGING = (Define, Create, Undefine)  # what libvirt fails only after 30 s, waiting for a job that nobody ends


def is_abandoned(raw: RawDomain) -> bool:
    """Say whether libvirt still calls a domain starting that the libvirtd before it began to start."""
    starting = (raw.state, raw.reason) == (words.PAUSED, words.PAUSED_STARTING_UP)
    return starting and proc.starter_is_dead(raw.name)
