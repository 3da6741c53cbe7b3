"""Who an agent is, and the keeper's own limits. agent.keeper_types is the one name for it."""

from __future__ import annotations

from msgspec import Struct

from fleet.model import LedgerState, NodeFacts


class KeeperSettings(Struct, frozen=True):
    """Who this agent is, and the keeper's own limits. agent_start differs at every start."""

    node: str
    boot_id: str
    agent_start: str
    facts: NodeFacts
    ledger: LedgerState
    first_list_wait_s_max: float = 3.0  # then FullState says complete=False
    welcome_wait_s_max: float = 5.0
    answer_silence_s_max: float = 10.0  # then the link is taken for dead and opened anew
    relayed_silence_beats_max: float = 4.0  # the same for a link through a peer, in heartbeats
    relay_after_beats: float = 2.5  # no answer for so many heartbeats: an offered relay is taken
    relay_unlinked_after_s: float = 5.0  # so long without a link: what a reconnect may take anyway
    relay_wait_s_max: float = 3.0  # how long a relay that was begun may take to open
    end_wait_s_max: float = 1.0  # how long libvirt may take to say why a QEMU ended
    look_wait_s_max: float = 2.0  # then a look that did not come is asked for again
    call_timeout_s: float = 60.0
    destroy_tries_max: int = 3
    destroy_again_after_s: float = 5.0
    ask_again_after_s: float = 4.0  # a guest that is still booting misses the power button
    tell_peer_every_s: float = 0.5
    tell_peer_s_max: float = 60.0
    resume_tries_max: int = 3
    resume_again_after_s: float = 1.0
    probes_in_flight_max: int = 16
    frame_xml_bytes_max: int = 1024 * 1024
    migration_tls: bool = False  # guests migrate over TLS or not at all
    migration_tls_by_name: bool = False  # the target's certificate must bear its node's name
