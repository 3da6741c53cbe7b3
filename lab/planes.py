"""The four planes: one bridge each in the switch namespace, one veth cable per member; cuts and slow links.

A cut both ways takes the switch's end of the cable down, as a pulled plug does: the member loses its carrier and
nothing else. A one-way cut is an nftables drop at the bridge, which takes ARP along. Cuts and rates are kept in a file,
so that a host that is powered on again finds its cables as they were.
Knows links and rules; must not know what runs behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec import Struct

from lab import namespaces
from lab.layout import Layout, Link, Plane

TABLE = "bridge cuts"


class Direction(StrEnum):
    """Which way a cut works, seen from the member."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


class Wire(Struct):
    """What is wrong with one cable; all defaults: nothing."""

    cut_in: bool = False
    cut_out: bool = False
    rate_mbit: int = 0  # 0: as fast as the machine
    mute_port: int = 0  # the member's answers from this TCP port are lost; 0: none

    @property
    def word(self) -> str:
        """The word `status` prints."""
        if self.cut_in and self.cut_out:
            return "cut"
        return "cut-in" if self.cut_in else "cut-out" if self.cut_out else "up"


class Planes:
    """All cables of one laboratory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._switch = layout.switch

    def create_switch(self) -> None:
        """Make the switch namespace, its bridges and its table of cuts; no error when they are there."""
        namespaces.create(self._switch)
        lines = []
        for plane in Plane:
            bridge = self._layout.bridge(plane)
            lines += [f"link add {bridge} type bridge forward_delay 0 stp_state 0", f"link set {bridge} up"]
        namespaces.ip_batch(self._switch, lines, force=True)
        self._nft(
            f"add table {TABLE}\nadd chain {TABLE} forward {{ type filter hook forward priority 0; policy accept; }}\n"
        )

    def plug(self, link: Link) -> None:
        """Lay the cable, as broken as it was; no error when it lies already. The member's namespace must exist."""
        peer = f"peer name {link.near} address {link.hardware_address} netns {link.namespace}"
        lines = [f"link add {link.far} type veth {peer}"]
        lines += [f"link set {link.far} master {self._layout.bridge(link.plane)}"]
        namespaces.ip_batch(self._switch, lines, force=True)
        near = [f"addr replace {link.address}/24 dev {link.near}", f"link set {link.near} up"]
        namespaces.ip_batch(link.namespace, near)
        self._apply(link, self.wire(link))

    def unplug(self, links: Sequence[Link]) -> None:
        """Take the switch's ends down at once: no packet leaves or reaches the members any more."""
        namespaces.ip_batch(self._switch, [f"link set {link.far} down" for link in links], force=True)

    def remove(self, links: Sequence[Link]) -> None:
        """Take the cables away, both ends; no error when they are gone."""
        namespaces.ip_batch(self._switch, [f"link del {link.far}" for link in links], force=True)

    def cut(self, link: Link, direction: Direction) -> None:
        """Break the cable one way or both; adds to what is broken already."""
        wire = self.wire(link)
        wire.cut_in |= direction in (Direction.IN, Direction.BOTH)
        wire.cut_out |= direction in (Direction.OUT, Direction.BOTH)
        self._remember(link, wire)

    def heal(self, link: Link) -> None:
        """Mend the cable: no cut, nothing muted, full speed."""
        self._remember(link, Wire())

    def slow(self, link: Link, rate_mbit: int) -> None:
        """Limit the cable to `rate_mbit` megabits a second each way."""
        wire = self.wire(link)
        wire.rate_mbit = rate_mbit
        self._remember(link, wire)

    def mute(self, link: Link, port: int) -> None:
        """Lose what the member sends from one TCP port; everything else of the cable works."""
        wire = self.wire(link)
        wire.mute_port = port
        self._remember(link, wire)

    def wire(self, link: Link) -> Wire:
        """What is wrong with the cable now."""
        try:
            return msgspec.json.decode(self._file(link).read_bytes(), type=Wire)
        except FileNotFoundError:
            return Wire()

    def _file(self, link: Link) -> Path:
        return self._layout.dir / "wires" / f"{link.member}-{link.plane}.json"

    def _remember(self, link: Link, wire: Wire) -> None:
        file = self._file(link)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(msgspec.json.encode(wire))
        if self._is_plugged(link):
            self._apply(link, wire)

    def _is_plugged(self, link: Link) -> bool:
        return bool(namespaces.run(["ip", "-n", self._switch, "-br", "link", "show", "dev", link.far], tolerate=True))

    def _apply(self, link: Link, wire: Wire) -> None:
        """Make the kernel agree with `wire`: rules first, the carrier last."""
        chain = f"{TABLE} {link.far}"
        rules = [f"add chain {chain}", f"flush chain {chain}"]
        if wire.cut_out:
            rules.append(f'add rule {chain} iifname "{link.far}" drop')
        if wire.cut_in:
            rules.append(f'add rule {chain} oifname "{link.far}" drop')
        if wire.mute_port:
            rules.append(f'add rule {chain} iifname "{link.far}" ether type ip tcp sport {wire.mute_port} drop')
        forward = namespaces.run(namespaces.inside(self._switch, ["nft", "list", "chain", *TABLE.split(), "forward"]))
        if f"jump {link.far}\n" not in forward:
            rules.append(f"add rule {TABLE} forward jump {link.far}")
        self._nft("\n".join(rules) + "\n")
        self._limit(self._switch, link.far, wire.rate_mbit)
        self._limit(link.namespace, link.near, wire.rate_mbit)
        carrier = "down" if wire.word == "cut" else "up"
        namespaces.ip_batch(self._switch, [f"link set {link.far} {carrier}"])

    def _limit(self, namespace: str, device: str, rate_mbit: int) -> None:
        tc = ["tc", "-n", namespace, "qdisc"]
        if rate_mbit:
            shape = ["tbf", "rate", f"{rate_mbit}mbit", "burst", "64kb", "latency", "100ms"]
            namespaces.run([*tc, "replace", "dev", device, "root", *shape])
        else:
            namespaces.run([*tc, "del", "dev", device, "root"], tolerate=True)

    def _nft(self, rules: str) -> None:
        namespaces.run(namespaces.inside(self._switch, ["nft", "-f", "-"]), rules)
