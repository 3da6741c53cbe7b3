"""Domains whose start was cut short by the death of the libvirtd that had begun it."""

from __future__ import annotations

from agent import libvirt_words as words
from agent import proc
from agent.libvirt_driver import RawDomain

ABANDONED = "its start was cut short by libvirtd's death; restart libvirtd without its status file to start it here"


def is_abandoned(raw: RawDomain) -> bool:
    """Say whether libvirt still calls a domain starting that the libvirtd before it began to start."""
    starting = (raw.state, raw.reason) == (words.PAUSED, words.PAUSED_STARTING_UP)
    return starting and proc.starter_is_dead(raw.name)
