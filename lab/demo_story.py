"""The demo's story, chapter by chapter: what is ordered, what must follow, and what is measured on the way.

Every order goes through the real `virtward` command and is shown as it would be typed. Times are taken from outside, by
the witness. Knows the laboratory and the words; must not decide anything that virtward decides.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cli.client import path_of
from cli.document import documents, look, text
from lab.demo_report import Judgement, Moved, Recovery, colour_of, judge, sentence_of, unix_s
from lab.demo_screen import Board, Screen
from lab.laboratory import Laboratory
from lab.witness import Happening, Witness, gap_between_s, silences_s

VMS = {"db-1": "h1", "web-1": "h1", "web-2": "h2", "batch-1": "h3"}
WAIT_S_MAX = 60.0
ORDER_S_MAX = 90.0
POLL_S = 0.05
SETTLE_S = 1.5  # the last look must see every guest count after so long


class DemoError(Exception):
    """The demo did not show what it must; the text is for a person."""


class Demo:
    """The story, and what was measured on the way."""

    def __init__(self, laboratory: Laboratory) -> None:
        self.laboratory = laboratory
        self.screen = Screen(self.board)
        self.witness: Witness | None = None
        self.recovery: Recovery | None = None

    def play(self) -> Judgement:
        """Tell the whole story. Raises DemoError where it cannot go on."""
        self.build()
        self.define_vms()
        self.migrate_one()
        self.drain_and_return()
        self.cut_power()
        return self.judge()

    def close(self) -> None:
        """Stop watching and printing."""
        if self.witness is not None:
            self.witness.close()
        self.screen.close()

    @property
    def seen(self) -> Witness:
        """The witness, once there is one."""
        if self.witness is None:
            raise DemoError("the laboratory is not up yet")
        return self.witness

    # --- the chapters ---

    def build(self) -> None:
        """Three hosts with a libvirtd, a BMC and an agent each, shared storage, an aggregator."""
        self.screen.chapter("Three hosts on this machine: real libvirtd, QEMU, shared storage and IPMI BMCs")
        if self.laboratory.dir.exists():
            self.screen.happened("removing what an earlier demo left")
            self.laboratory.down()
        self.screen.happened("building hosts, networks, storage and BMCs; starting aggregator and agents")
        self.laboratory.up()
        self.witness = Witness(self.laboratory, list(VMS), self.tell)
        self.witness.start()
        self.screen.start()
        self.wait(lambda: self.all_have("Ready"), "all three nodes to be Up and Ready")
        self.virtward("get", "nodes")

    def define_vms(self) -> None:
        """A manifest each; they are started where they would like to be."""
        self.screen.chapter(f"{len(VMS)} virtual machines; each counts aloud ten times a second, also on its disk")
        manifests = [self.laboratory.vm(name, host=host) for name, host in VMS.items()]
        begun = time.time()
        self.virtward("apply", "-f", "-", stdin="---\n".join(manifests))
        self.wait(lambda: len(self.seen.counting_since(begun)) == len(VMS), "every guest to count")
        first = self.seen.counting_since(begun)
        self.screen.happened(
            f"all {len(VMS)} count",
            f"the last one {max(line.at_s for line in first.values()) - begun:.1f} s after apply",
        )
        self.wait(
            lambda: self.all_have("Fenceable"),
            "every BMC to be checked: only a device that was seen to work may prove anything",
        )
        self.virtward("get", "vms")

    def migrate_one(self) -> None:
        """One VM to another host, counting on."""
        self.screen.chapter("A live migration: web-1 moves, and goes on counting")
        source = self.seen.running_on().get("web-1", "")
        target = next(host for host in ("h2", "h3", "h1") if host != source)
        self.virtward("migrate", "web-1", "--to", target, "--wait")
        self.wait(lambda: self.seen.running_on().get("web-1") == target, f"web-1 to run on {target}")
        self.show_moves(1)

    def drain_and_return(self) -> None:
        """Empty a host for maintenance, and give it back."""
        host = self.fullest()
        left = [vm for vm, where in self.seen.running_on().items() if where == host]
        self.screen.chapter(f"Maintenance: {host} is drained, and comes back")
        before = len(self.moves())
        self.virtward("drain", host, "--dry-run")
        self.virtward("drain", host, "--wait")
        self.wait(lambda: host not in self.seen.running_on().values(), f"no VM to run on {host}")
        self.show_moves(len(self.moves()) - before)
        self.virtward("get", "nodes")
        before = len(self.moves())
        self.virtward("uncordon", host, "--bring-back")
        self.wait(lambda: self.seen.node_states.get(host) == "Up", f"{host} to take VMs again")
        self.wait(lambda: all(self.seen.running_on().get(vm) == host for vm in left), f"its VMs to be back on {host}")
        self.wait(lambda: len(self.moves()) - before >= len(left), "their migrations to end")
        self.wait(self.libvirts_agree, "each libvirt to have forgotten the VMs that left it")
        self.show_moves(len(self.moves()) - before)

    def cut_power(self) -> None:
        """The same host's power goes, with no goodbye; its VMs must count elsewhere, and once."""
        host = self.fullest()
        lost = sorted(name for name, where in self.seen.running_on().items() if where == host)
        self.wait(lambda: self.all_have("Fenceable"), "every BMC to be checked again")
        self.screen.chapter(f"The power of {host} is cut, with {', '.join(lost)} on it")
        cut_s = time.time()
        self.screen.happened(
            f"{host} loses its power",
            "links first, then everything on it dies at once; no goodbye reaches anybody",
            "red",
        )
        self.laboratory.power(host, "off")
        self.wait(
            lambda: set(lost) <= set(self.seen.running_on()) and host not in self.seen.running_on().values(),
            "the lost VMs to run elsewhere",
        )
        running_s = self.seen.sample.at_s - cut_s
        self.wait(
            lambda: set(lost) <= set(self.seen.counting_since(cut_s, not_on=host)), "the lost VMs to count elsewhere"
        )
        counting = self.seen.counting_since(cut_s, not_on=host)
        for name in lost:
            self.screen.happened(
                f"{name} counts again on {counting[name].host}",
                f"{counting[name].at_s - cut_s:.1f} s after the cut",
                "green",
            )
        self.recovery = Recovery(
            suspect_s=self.since(cut_s, "NodeSuspect", host),
            proof_s=self.since(cut_s, "NodeProven", host),
            running_s=running_s,
            counting_s=max(counting[name].at_s for name in lost) - cut_s,
        )
        self.virtward("explain", "vm", lost[0])
        self.return_host(host)

    def return_host(self, host: str) -> None:
        """Somebody mends the power; the host comes back empty and takes VMs again."""
        self.screen.happened(f"somebody switches {host} on again")
        self.laboratory.power(host, "on")
        self.wait(lambda: self.seen.node_states.get(host) == "Up", f"{host} to be Up again")
        self.virtward("get", "nodes")
        self.virtward("get", "vms", "-o", "wide")
        self.virtward("get", "incidents")

    def judge(self) -> Judgement:
        """Look once more at everything."""
        self.screen.chapter("Ground truth: QEMUs and guests, asked without virtward")
        now = time.time()
        self.wait(lambda: len(self.seen.counting_since(now + SETTLE_S)) == len(VMS), "every guest to go on counting")
        if self.recovery is None:
            raise DemoError("no recovery was measured")
        seen, page = self.seen, f"{self.laboratory.api_url()}/"
        self.summarise()
        twice = seen.twice_seen + seen.splits()
        return judge(seen.sample, seen.guests, self.recovery, self.moves(), page=page, twice=twice)

    def summarise(self) -> None:
        """Say what was measured."""
        recovery, seen, say = self.recovery, self.seen, self.screen.happened
        if recovery is not None:
            steps = {name.removesuffix("_s"): getattr(recovery, name) for name in Recovery.__struct_fields__}
            say("after the cut: " + ", ".join(f"{step} {seconds:.1f} s" for step, seconds in steps.items()))
        for name, guest in seen.guests.items():
            down_s = silences_s(guest.ticks, time.time())
            say(
                f"{name}: {guest.says('boot from')} starts, {len(guest.ticks)} counts, silent for {down_s:.1f} s in all"
            )
        looks = f"{seen.samples} looks at every QEMU, at most {seen.blind_s_max:.1f} s apart"
        say(f"{looks}: in {seen.twice_seen} of them a VM ran twice")

    # --- asking and waiting ---

    def virtward(self, *words: str, stdin: str | None = None) -> None:
        """Give an order as a person would; raises DemoError when it is refused."""
        self.screen.order(" ".join(["virtward", *words]))
        program = str(Path(sys.executable).with_name("virtward"))
        environment = {**os.environ, **self.laboratory.environment(), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            [program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        ) as process:
            watchdog = signal_later(process, ORDER_S_MAX)
            last = ""
            if process.stdin is not None:
                process.stdin.write(stdin or "")
                process.stdin.close()
            for line in process.stdout or ():
                last = line.rstrip() or last
                if line.strip():
                    self.screen.answer(line.rstrip())
            code = process.wait()
            watchdog.cancel()
        if code:
            raise DemoError(f"`virtward {' '.join(words)}` ended with {code}: {last}")

    def wait(self, met: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds; raises DemoError after WAIT_S_MAX."""
        end = time.monotonic() + WAIT_S_MAX
        while not met():
            if time.monotonic() > end:
                raise DemoError(f"waited {WAIT_S_MAX:.0f} s in vain for {what}")
            if self.seen.twice_seen or self.seen.splits():
                raise DemoError("a VM ran twice: two QEMUs, or two writers on one disk")
            time.sleep(POLL_S)

    def all_have(self, condition: str) -> bool:
        """Say whether a condition of every node is True: Ready takes VMs, Fenceable has a fence device that works."""
        nodes = documents(self.seen.client.get(path_of("nodes")), "items")
        conditions = [each for node in nodes for each in documents(node, "status.conditions")]
        held = [each for each in conditions if look(each, "type") == condition and look(each, "status") == "True"]
        return len(held) == len(self.laboratory.hosts)

    def libvirts_agree(self) -> bool:
        """Say whether every VM is known to exactly one libvirt: its own end of a migration comes late."""
        names = [
            name
            for host in self.laboratory.hosts
            for name in self.laboratory.virsh(host.name, "list", "--all", "--name").split()
        ]
        return sorted(names) == sorted(VMS)

    def fullest(self) -> str:
        """The host with most VMs."""
        hosts = list(self.seen.running_on().values())
        return max(sorted(set(hosts)), key=hosts.count)

    def since(self, moment_s: float, kind: str, node: str) -> float:
        """Seconds from a moment to an event; raises DemoError when it never came."""
        found = self.seen.first(kind, node, moment_s)
        if found is None:
            raise DemoError(f"there was no {kind} event about {node}")
        return found.at_s - moment_s

    def moves(self) -> list[Moved]:
        """Every migration that succeeded so far, with the guest's own silence in it."""
        found = []
        for each in documents(self.seen.client.get(path_of("migrations")), "items"):
            vm, began, ended = (
                text(each, "spec.vm"),
                unix_s(text(each, "status.started")),
                unix_s(text(each, "status.ended")),
            )
            if text(each, "status.phase") == "Succeeded" and vm in VMS:
                found.append(Moved(vm, ended - began, gap_between_s(self.seen.guests[vm].ticks, began, ended)))
        return found

    def show_moves(self, count: int) -> None:
        """Say how the last migrations went, once each guest has counted after its own."""
        now = time.time()
        self.wait(lambda: len(self.seen.counting_since(now)) == len(VMS), "every guest to count on")
        for move in self.moves()[-count:] if count else []:
            self.screen.happened(
                f"{move.vm} moved in {move.wall_s:.1f} s",
                f"its count went on, with at most {move.gap_s * 1000:.0f} ms between two",
                "green",
            )

    # --- what the screen shows ---

    def tell(self, happening: Happening) -> None:
        """Show the events that a person would want to see."""
        shown = sentence_of(happening)
        if shown:
            self.screen.happened(shown, happening.reason, colour_of(happening.kind))

    def board(self) -> Board:
        """The fleet now: each host, its state by virtward's word, its VMs by their own."""
        if self.witness is None:
            return {}
        running = self.witness.running_on()
        board = {}
        for host in sorted(self.witness.node_states):
            lines = []
            for name in sorted(name for name, where in running.items() if where == host):
                last = self.witness.guests[name].last
                lines.append(f"{name:<8} {last.text if last else 'boots'}")
            board[host] = (self.witness.node_states[host], lines)
        return board


def signal_later(process: subprocess.Popen[str], seconds: float) -> threading.Timer:
    """End a command that takes too long, so that no wait is for ever."""
    watchdog = threading.Timer(seconds, process.terminate)
    watchdog.daemon = True
    watchdog.start()
    return watchdog
