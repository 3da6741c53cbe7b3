"""What the ledger keeps for an aggregator that may lose its store, and how it is told. Pure.

The agent never reads what is kept of a VM: the VM as people wrote it, as the aggregator packed it into the order to
start it.
"""

from __future__ import annotations

from agent.memory import Memory
from fleet.messages import KeptVm, VmsKept
from fleet.model import SessionKey

PORTION_BYTES_MAX = 1024 * 1024


def tell_kept(memory: Memory, session: SessionKey) -> list[VmsKept]:
    """Return everything that is kept, in portions that fit a frame; one empty portion where there is nothing."""
    portions: list[list[KeptVm]] = [[]]
    room = PORTION_BYTES_MAX
    for promise in memory.promises.values():
        if not promise.kept:
            continue
        if len(promise.kept) > room and portions[-1]:
            portions.append([])
            room = PORTION_BYTES_MAX
        room -= len(promise.kept)
        portions[-1].append(KeptVm(promise.uuid, promise.name, promise.epoch, promise.run, promise.kept))
    last = len(portions) - 1
    return [
        VmsKept(session, tuple(portion), more=number < last, members=() if number else memory.members)
        for number, portion in enumerate(portions)
    ]
