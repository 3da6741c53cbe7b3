"""The real hypervisor as the agent sees it: libvirt's word, checked against /proc, as facts.

Knows how to keep an eye on QEMUs: a pidfd for each, libvirt's events as hints, a state-only
comparison every second, everything anew every ten. All libvirt calls go through threads that may
be abandoned (agent.workers), each purpose with its own connection: libvirtd serves five calls of a
client at once, and one frozen QEMU must not silence the rest. Decides nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog
from msgspec import structs

from agent import libvirt_words as words
from agent import proc
from agent.abandoned import ABANDONED, HANGING, is_abandoned
from agent.deeds import CODE_STARTER_DEAD, CODE_UNKNOWN, AnyDeed, Define, Elsewhere, Migrate, VmObservation
from agent.definitions import Definitions
from agent.elsewhere import OtherHosts
from agent.hypervisor import Facts, HypervisorFacts, Result
from agent.keeper_types import DomainChanged, DomainsListed, MigrationMoved, PidGone
from agent.leftovers import Leftovers
from agent.libvirt_driver import Connection, LibvirtEvent, RawDomain
from agent.libvirt_pool import LibvirtDownError, start_event_thread
from agent.places import Places
from agent.readiness import Readiness
from agent.workers import CrowdedError, StuckError, Workers, happens_within
from fleet.clock import Clock
from fleet.model import EndReason, QemuState

LOOK_TIMEOUT_S = 1.5
COMPARE_EVERY_S = 1.0
LOOK_EVERY_S = 10.0
RECONNECT_EVERY_S = 1.0
CONNECT_TIMEOUT_S = 5.0
OFFERS_EVERY_S = 30.0
PROGRESS_EVERY_S = 1.0
LEFT = "its QEMU has ended, and this host still holds what it wrote"
FAILURES = (StuckError, CrowdedError, LibvirtDownError)

log = structlog.get_logger(part="watcher")


class LibvirtHypervisor:
    """agent.hypervisor.Hypervisor on libvirt and /proc."""

    def __init__(self, uri: str, clock: Clock, places: Places, mount_is_lost: Callable[[str], bool]) -> None:
        self.uri = uri
        self.clock = clock
        self._watch = Connection(uri)
        self._host_facts = partial(self._watch.host_facts, places.node)
        self._deeds = Connection(uri)
        self._moves = Connection(uri)
        self._others = OtherHosts()
        self._looking = Workers("look", 4)
        self._doing = Workers("deed", 4)
        self._moving = Workers("migrate", 8)
        self._host: HypervisorFacts | None = None
        self._readiness = Readiness()
        self._facts: Facts = lambda _fact: None
        self._watched: dict[str, tuple[int, str]] = {}  # process token → pidfd, uuid
        self._ran: set[str] = set()  # tokens of processes that were seen running here
        self._ends: dict[str, EndReason] = {}
        self._leftovers = Leftovers(self._nothing_left, mount_is_lost)
        self._last: dict[str, tuple[int, int]] = {}
        self._moving_vms: set[str] = set()
        self._looks: dict[str, bool] = {}  # uuid → look once more when the present look is over
        self._look_wanted = asyncio.Event()
        self._lost = asyncio.Event()
        self._died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self.definitions = Definitions(Connection(uri), places, Path("/etc/libvirt/qemu"), self._look_at)

    # --- life

    async def start(self, facts: Facts) -> None:
        """Connect and watch until `stop`."""
        self._facts = facts
        start_event_thread()
        for life in (self._keep_connected, self._keep_looking, self._keep_comparing):
            self._spawn(life())
        self._spawn(self.definitions.run(facts))

    async def stop(self) -> None:
        """Stop watching; guests and their definitions stay as they are."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._leftovers.stop()
        for token in list(self._watched):
            self._unwatch(token)

    def _spawn(self, life: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(life)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._died.done():
            self._died.set_exception(error)

    def died(self) -> asyncio.Future[None]:
        """Fails with whatever a watching task died of; the agent must not go on half blind."""
        return self._died

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._lost = lost = asyncio.Event()

            def connection_lost(event: asyncio.Event = lost) -> None:
                loop.call_soon_threadsafe(event.set)

            def changed(event: LibvirtEvent) -> None:
                loop.call_soon_threadsafe(self._hinted, event)

            try:
                listen = partial(self._watch.listen, connection_lost, changed)
                self._watch.listening = await self._looking.run(listen, CONNECT_TIMEOUT_S)
                self._host = await self._looking.run(self._host_facts, CONNECT_TIMEOUT_S)
            except FAILURES as error:
                self._readiness.silent(str(error))
                await asyncio.sleep(RECONNECT_EVERY_S)
                continue
            self._readiness.answers()
            log.info("libvirt connected", uri=self.uri, version=self._host.libvirt_version)
            self.definitions.refresh_all()
            self.look()
            while not await happens_within(lost, OFFERS_EVERY_S):
                with suppress(*FAILURES):  # networks and pools come and go
                    self._host = await self._looking.run(self._host_facts, CONNECT_TIMEOUT_S)
            self._readiness.silent("the connection to libvirtd was lost")
            self.look()

    async def wait_ready(self, wait_s_max: float) -> bool:
        """Wait for libvirt to answer."""
        return await self._readiness.wait(wait_s_max)

    async def wait_turned(self, wait_s_max: float) -> bool:
        """Wait for libvirt to fall silent or to answer again."""
        return await self._readiness.wait_turned(wait_s_max)

    def node_facts(self) -> HypervisorFacts:
        """Return what is known of libvirt; never blocks."""
        return structs.replace(
            self._host or HypervisorFacts(), ready=not self._readiness.reason, reason=self._readiness.reason
        )

    # --- looking at everything

    def look(self) -> None:
        """Have everything read anew soon."""
        self._look_wanted.set()

    async def _keep_looking(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._look_wanted.wait()
            self._look_wanted.clear()
            self._facts(await self._look_at_all())

    async def _look_at_all(self) -> DomainsListed:
        asked_s = self.clock.monotonic_s()
        raws: list[RawDomain] | None
        try:
            raws = await self._looking.run(self._list, LOOK_TIMEOUT_S)
        except FAILURES as error:
            self._readiness.silent(str(error))
            self._lost.set()
            raws = None
        try:
            processes = {process.uuid: process for process in await self._looking.run(proc.scan, LOOK_TIMEOUT_S)}
        except FAILURES:
            return DomainsListed((), complete=False, asked_s=asked_s)
        vms = [self._observe(raw, processes.pop(raw.uuid, None)) for raw in raws or []]
        vms += [self._orphan(process) for process in processes.values()]
        listed = {vm.uuid for vm in vms}
        names = {uuid: self.definitions.name(uuid) for uuid in self._leftovers.held if uuid not in listed}
        vms += [VmObservation(uuid, name, QemuState.UNKNOWN, reason=LEFT) for uuid, name in names.items()]
        if raws is not None:
            self._last = {raw.uuid: (raw.state, raw.reason) for raw in raws}
        return DomainsListed(tuple(vms), complete=raws is not None, asked_s=asked_s)

    def _list(self) -> list[RawDomain]:
        """List domains only over the connection that gets the events: a fresh one means that some were missed."""
        if not self._watch.is_listening():
            raise LibvirtDownError("there is no connection to libvirtd")
        return self._watch.list_domains()

    def _states(self) -> dict[str, tuple[int, int]]:
        """Read the states alone; what is defined has events of its own, and the whole list now and then."""
        if not self._watch.is_listening():
            raise LibvirtDownError("there is no connection to libvirtd")
        return self._watch.list_states()

    async def _keep_comparing(self) -> None:
        """Once a second the states alone, in case an event was lost or the daemon hangs."""
        while True:
            await asyncio.sleep(COMPARE_EVERY_S)
            if self._readiness.reason or self._look_wanted.is_set():
                continue
            try:
                now = await self._looking.run(self._states, LOOK_TIMEOUT_S)
            except FAILURES as error:
                self._readiness.silent(str(error))
                self._lost.set()
                continue
            if now != self._last:
                for uuid in now.keys() | self._last.keys():
                    if now.get(uuid) != self._last.get(uuid):
                        self._look_at(uuid)
                self._last = now

    # --- looking at one

    def _hinted(self, event: LibvirtEvent) -> None:
        if event.hung or event.stopped_detail is not None:
            self._ends[event.uuid] = words.end_told(event.stopped_detail, self._ends.get(event.uuid))
        elif event.started:
            self._ends.pop(event.uuid, None)
        if event.changed or event.started:  # what CPU it was given is known when it runs
            self.definitions.refresh(event.uuid)
        self._look_at(event.uuid)

    def _look_at(self, uuid: str) -> None:
        if uuid in self._looks:
            self._looks[uuid] = True
        else:
            self._looks[uuid] = False
            self._spawn(self._look_at_one(uuid))

    async def _look_at_one(self, uuid: str) -> None:
        again = True
        while again:
            self._looks[uuid] = False
            asked_s = self.clock.monotonic_s()
            try:
                raw, process = await self._looking.run(lambda: self._read_one(uuid), LOOK_TIMEOUT_S)
            except FAILURES:
                self.look()
            else:
                self._facts(DomainChanged(self._observe(raw, process), asked_s))
            again = self._looks[uuid]
        del self._looks[uuid]

    def _read_one(self, uuid: str) -> tuple[RawDomain, proc.QemuProcess | None]:
        raw = self._watch.look_at(uuid)
        if raw is None:
            raw = RawDomain(uuid, self.definitions.name(uuid), words.SHUTOFF, 0, defined=False)
        process = proc.process_by_pid_file(raw.name, uuid)
        starting = (raw.state, raw.reason) == (words.PAUSED, words.PAUSED_STARTING_UP)
        if process is None and (starting or self._is_watched(uuid)):
            process = next((found for found in proc.scan() if found.uuid == uuid), None)
        return raw, process

    # --- what is seen

    def _observe(self, raw: RawDomain, process: proc.QemuProcess | None) -> VmObservation:
        """Put libvirt's word and the process together. A living process is never GONE."""
        token = process.token if process else ""
        if process is not None:
            self._watch_process(process)
        ended = EndReason.NOT_ENDED
        if raw.active and process is None and is_abandoned(raw):
            state, reason = QemuState.GONE, ABANDONED
            ended = EndReason.CRASHED
        elif raw.active:
            state = words.qemu_state(raw.state, raw.reason, ran=token in self._ran)
            reason = words.reason_words(raw.state, raw.reason)
            if state is QemuState.RUNNING and token:
                self._ran.add(token)
        elif process is not None:
            state, reason = QemuState.UNKNOWN, "libvirt calls it shut off and its QEMU is alive"
        elif self._is_watched(raw.uuid) or raw.uuid in self._leftovers.held:
            state, reason = QemuState.UNKNOWN, LEFT
        else:
            state, reason = QemuState.GONE, ""
            ended = words.shutoff_end(raw.reason) if raw.defined else EndReason.NOT_ENDED
            ended = self._ends.get(raw.uuid) or ended
        known = self.definitions.known.get(raw.uuid)
        return VmObservation(
            uuid=raw.uuid,
            name=raw.name,
            state=state,
            qemu=token,
            reason=reason,
            end=ended,
            defined=raw.defined,
            paused_on_io_error=raw.state == words.PAUSED and raw.reason == words.PAUSED_IOERROR,
            definition_hash=known.hash if known else "",
            cpu_m=known.cpu_m if known else 0,
            memory_bytes=known.memory_bytes if known else 0,
            busy="migration" if raw.uuid in self._moving_vms else "",
            blockers=known.blockers if known else (),
            guest_agent=known.guest_agent if known and state is QemuState.RUNNING else "",
        )

    def _orphan(self, process: proc.QemuProcess) -> VmObservation:
        self._watch_process(process)
        text = "a QEMU that libvirt does not know, or libvirt is silent"
        known = self.definitions.known.get(process.uuid)
        return VmObservation(
            process.uuid,
            process.name,
            QemuState.UNKNOWN,
            process.token,
            text,
            definition_hash=known.hash if known else "",
        )

    def _watch_process(self, process: proc.QemuProcess) -> None:
        if process.token in self._watched:
            return
        handle = proc.open_pidfd(process)
        if handle is None:
            return
        self._watched[process.token] = (handle, process.uuid)
        asyncio.get_running_loop().add_reader(handle, self._pid_gone, process.token)

    def _pid_gone(self, token: str) -> None:
        uuid = self._unwatch(token)
        self._ran.discard(token)
        self._leftovers.ended(uuid, token, self.definitions.ports(uuid))

    def _nothing_left(self, uuid: str, token: str) -> None:
        self._facts(PidGone(uuid, token, self._ends.get(uuid, EndReason.NOT_ENDED)))
        self._look_at(uuid)

    def _is_watched(self, uuid: str) -> bool:
        return any(watched == uuid for _fd, watched in self._watched.values())

    def _unwatch(self, token: str) -> str:
        handle, uuid = self._watched.pop(token)
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
        return uuid

    # --- deeds

    async def do(self, uuid: str, deed: AnyDeed, timeout_s: float) -> Result:
        """Do one deed in a thread of its own."""
        if isinstance(deed, Elsewhere):
            return await self._others.do(uuid, deed, timeout_s)
        if isinstance(deed, HANGING) and await self._is_abandoned(uuid):
            return Result(ok=False, code=CODE_STARTER_DEAD, message=ABANDONED)
        is_move = isinstance(deed, Migrate)
        workers, connection = (self._moving, self._moves) if is_move else (self._doing, self._deeds)
        if is_move:
            self._moving_vms.add(uuid)
            self._spawn(self._follow_migration(uuid))
        try:
            result = await workers.run(lambda: connection.do(uuid, deed), timeout_s)
        except StuckError as error:
            result = Result(ok=False, code=CODE_UNKNOWN, message=str(error))
        except CrowdedError as error:
            result = Result(ok=False, code="TOO_MANY_STUCK", message=str(error))
        finally:
            if is_move:  # another deed says nothing about the migration beside it
                self._moving_vms.discard(uuid)
        if isinstance(deed, Define) and result.ok:
            definition = await self.definitions.read(uuid)
            result = Result(ok=True, definition=definition)
        self._look_at(uuid)
        return result

    async def _is_abandoned(self, uuid: str) -> bool:
        try:
            raw, process = await self._looking.run(lambda: self._read_one(uuid), LOOK_TIMEOUT_S)
        except FAILURES:
            return False
        return process is None and is_abandoned(raw)

    async def check_xml(self, xml: str) -> Result:
        """Ask libvirt whether it would take the XML."""
        try:
            return await self._doing.run(lambda: self._deeds.check_xml(xml), CONNECT_TIMEOUT_S)
        except FAILURES as error:
            return Result(ok=False, code=CODE_UNKNOWN, message=str(error))

    async def _follow_migration(self, uuid: str) -> None:
        """Tell the job's progress while it runs; a question that hangs is waited for by nobody, and asked again."""
        workers = Workers("progress", 1, stuck_max=2)
        while uuid in self._moving_vms:
            await asyncio.sleep(PROGRESS_EVERY_S)
            try:
                job = await workers.run(lambda: self._deeds.migration_progress(uuid), LOOK_TIMEOUT_S)
            except FAILURES:
                continue
            if job is not None:
                self._facts(MigrationMoved(uuid, **structs.asdict(job)))
