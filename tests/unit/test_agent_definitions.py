"""Definitions of a host with hundreds of domains: read in one go, whatever else is read meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.definitions import Definitions
from agent.hypervisor import HypervisorFact
from agent.keeper_types import DefinitionRead
from agent.libvirt_driver import Connection, DomainTexts
from agent.places import Places

DOMAINS = 300


def uuid_of(number: int) -> str:
    return f"63625264-6470-54cf-8fdc-{number:012x}"


def texts_of(number: int, memory: int = 16) -> DomainTexts:
    name, uuid = f"v{number}", uuid_of(number)
    return DomainTexts(
        f"<domain><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>{memory}</memory></domain>", ""
    )


class Host(Connection):
    """A libvirt with many domains that are shut off, and whose answer to the big question can be kept back."""

    def __init__(self) -> None:
        super().__init__("test:///default")
        self.texts = {uuid_of(number): texts_of(number) for number in range(DOMAINS)}
        self.asked_for_one: list[str] = []
        self.has_read, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    def read_all_texts(self) -> dict[str, DomainTexts]:
        """Answer with what was there when the question came."""
        answer = dict(self.texts)
        self.has_read.set()
        self.may_answer.wait()
        return answer

    def read_texts(self, uuid: str) -> DomainTexts | None:
        self.asked_for_one.append(uuid)
        return self.texts.get(uuid)


@asynccontextmanager
async def watched(host: Host, directory: Path) -> AsyncIterator[tuple[Definitions, asyncio.Queue[HypervisorFact]]]:
    facts: asyncio.Queue[HypervisorFact] = asyncio.Queue()
    definitions = Definitions(host, Places("n1"), directory, lambda _uuid: None)
    task = asyncio.create_task(definitions.run(facts.put_nowait))
    try:
        yield definitions, facts
    finally:
        host.may_answer.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def told(facts: asyncio.Queue[HypervisorFact]) -> DefinitionRead:
    fact = await asyncio.wait_for(facts.get(), 60)
    assert isinstance(fact, DefinitionRead)
    return fact


async def test_all_are_told_after_one_question(tmp_path: Path) -> None:
    host = Host()
    async with watched(host, tmp_path) as (definitions, facts):
        definitions.refresh_all()
        names = {(await told(facts)).definition.name for _ in range(DOMAINS)}
    assert len(names) == DOMAINS
    assert host.asked_for_one == []


async def test_an_answer_of_before_undoes_nothing_that_was_read_meanwhile(tmp_path: Path) -> None:
    """A start defines its VM while the big question is under way: the answer knows it as it was, or not at all."""
    host = Host()
    async with watched(host, tmp_path) as (definitions, facts):
        host.may_answer.clear()
        definitions.refresh_all()
        assert await asyncio.to_thread(host.has_read.wait, 60)
        for number in (7, DOMAINS):
            host.texts[uuid_of(number)] = texts_of(number, memory=32)
            await definitions.read(uuid_of(number))
        host.may_answer.set()
        definitions_told = [(await told(facts)).definition for _ in range(DOMAINS + 1)]
        memory = {uuid: known.memory_bytes // 2**20 for uuid, known in definitions.known.items()}
    assert len({definition.uuid for definition in definitions_told}) == DOMAINS + 1
    assert {uuid for uuid, mib in memory.items() if mib == 32} == {uuid_of(7), uuid_of(DOMAINS)}
