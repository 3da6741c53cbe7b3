"""What people do with running VMs in a made-up story, drawn beside its faults: rescues that come soon, NoExecute taints
that come and go, drains that are paused, guests that outrun their links.

Drawn by a generator of its own, and only from seed MOVES_FROM on: the seeds below keep the stories they were kept for.
"""

from __future__ import annotations

from random import Random

from msgspec import structs

from aggregator.core.config import ClusterConfig, Duration
from simulator.dice import FAULTS_UNTIL_S, Dice
from simulator.faults import GuestDoes, Signal
from simulator.plan import NodePlan

MOVES_FROM = 300_000
RESCUE_SHARE = 0.5
UNSUPERVISED_SHARE = 0.5
TAINT_SHARE = 0.4
PAUSE_SHARE = 0.3
WRITES_SHARE = 0.3
RESCUE_AFTER_S = (3.0, 10.0, 40.0)
PROGRESS_S = (5, 20)


def draw_moves_config(seed: int, config: ClusterConfig) -> ClusterConfig:
    """Return the config, with times that such a story comes to."""
    random = Random(f"{seed} moves config")
    if seed < MOVES_FROM or random.random() >= RESCUE_SHARE:
        return config
    migration = structs.replace(
        config.migration, progress_timeout=random.choice(PROGRESS_S), allow_auto_converge=random.random() < WRITES_SHARE
    )
    return structs.replace(config, rescue_after=Duration(random.choice(RESCUE_AFTER_S)), migration=migration)


def draw_supervision(seed: int, nodes: tuple[NodePlan, ...]) -> tuple[NodePlan, ...]:
    """Return the nodes, on some of which nobody starts an agent again that was killed."""
    random = Random(f"{seed} supervision")
    if seed < MOVES_FROM:
        return nodes
    return tuple(structs.replace(node, supervised=random.random() >= UNSUPERVISED_SHARE) for node in nodes)


def draw_moves(seed: int, dice: Dice) -> None:
    """Add what people do, and agents that are gone for long, to a story's faults."""
    if seed < MOVES_FROM:
        return
    random = dice.random = Random(f"{seed} moves")
    if random.random() < RESCUE_SHARE:
        at, host = dice.at(), dice.node()
        gone, back = random.choice((("kill", "start"), ("pause", "resume")))
        agent = f"agent@{host}"
        dice.add(
            "agent gone for long",
            Signal(at=at, verb=gone, target=agent),
            Signal(at=dice.soon(at + 15.0, 200.0), verb=back, target=agent),
        )
    if random.random() < TAINT_SHARE:
        at, node = dice.at(), dice.node()
        dice.verb("taint", at, node=node, taint="sick=yes:NoExecute")
        dice.verb("taint", min(FAULTS_UNTIL_S, dice.soon(at + 5.0, 150.0)), node=node, taint="sick-")
    if random.random() < PAUSE_SHARE:
        at, node = dice.at(), dice.node()
        paused = dice.soon(at, 5.0)
        dice.verb("drain", at, node=node)
        dice.verb("drain", paused, node=node, pause=True)
        dice.verb("drain", dice.soon(paused, 60.0), node=node, resume=True)
    if random.random() < WRITES_SHARE:
        at, vm = dice.at(), random.choice(dice.vms)
        dice.add(
            "guest writes",
            GuestDoes(at=at, vm=vm, does="write"),
            GuestDoes(at=dice.soon(at + 10.0, 120.0), vm=vm, does="rest"),
        )
