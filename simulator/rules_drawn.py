"""What people have set in a made-up story, drawn beside its faults: who waits for whom, flap limits, isolation.

Drawn by a generator of its own: most stories have none of it, and are what they would be without this.
"""

from __future__ import annotations

from random import Random

from msgspec import structs

from aggregator.core.config import ClusterConfig, Duration
from aggregator.core.objects import Dependency
from aggregator.placement.types import HIGH_NODE_UTILIZATION, LOW_NODE_UTILIZATION
from fleet.model import IsolationPolicy
from simulator.dice import Dice
from simulator.faults import FenceOutcome, Power
from simulator.plan import VmPlan

DEPENDS_SHARE = 0.15  # of the stories
FLAPS_SHARE = 0.1
REBALANCE_SHARE = 0.1
ISOLATION_SHARE = 0.15
VOUCHES_SHARE = 0.1
HALF = 0.5
TIMEOUTS = ("10s", "30s", "90s")


def draw_config(seed: int, config: ClusterConfig) -> ClusterConfig:
    """Return the config, with flap limits that such a story reaches, or with moves for balance, in some stories."""
    config = _rebalancing(Random(f"{seed} rebalance"), config)
    random = Random(f"{seed} flaps")
    if random.random() >= FLAPS_SHARE:
        return config
    flap = structs.replace(
        config.flap,
        vm_per_hour_max=random.randint(1, 3),
        node_per_day_max=random.randint(1, 3),
        power_on_per_day_max=random.randint(1, 3),
    )
    return structs.replace(config, flap=flap)


def _rebalancing(random: Random, config: ClusterConfig) -> ClusterConfig:
    if random.random() >= REBALANCE_SHARE:
        return config
    rebalance = structs.replace(
        config.rebalance,
        mode="Auto",
        hold=Duration(random.choice([0.0, 5.0, 20.0])),
        margin=random.choice(["0%", "5%", "10%"]),
        cooldown=Duration(random.choice([1.0, 10.0, 60.0])),
        moves_per_hour_max=50,
    )
    profile = random.choice([LOW_NODE_UTILIZATION, LOW_NODE_UTILIZATION, HIGH_NODE_UTILIZATION])
    return structs.replace(config, rebalance=rebalance, profile=profile)


def draw_rules(seed: int, vms: tuple[VmPlan, ...]) -> tuple[VmPlan, ...]:
    """Return the VMs, some of which wait for others or are ended by an isolated agent, in some stories."""
    random = Random(f"{seed} rules")
    if random.random() < DEPENDS_SHARE:
        vms = tuple(_waiting(random, vms, number) for number in range(len(vms)))
    if random.random() < ISOLATION_SHARE:
        vms = tuple(_isolated(random, vm) for vm in vms)
    return vms


def _waiting(random: Random, vms: tuple[VmPlan, ...], number: int) -> VmPlan:
    """Wait for VMs with smaller numbers only: a cycle is refused at the door."""
    vm = vms[number]
    if not number or random.random() < HALF:
        return vm
    needs = random.sample(vms[:number], random.randint(1, min(2, number)))
    depends_on = tuple(Dependency(vm=need.name, timeout=random.choice(TIMEOUTS)) for need in needs)
    return structs.replace(vm, spec=structs.replace(vm.spec, depends_on=depends_on))


def _isolated(random: Random, vm: VmPlan) -> VmPlan:
    policy = random.choice(list(IsolationPolicy))
    return structs.replace(vm, spec=structs.replace(vm.spec, isolation_policy=policy))


def draw_vouchers(seed: int, dice: Dice) -> None:
    """In some stories a host dies whose device is no help, and a person goes there, looks, and confirms it."""
    dice.random = Random(f"{seed} vouches")
    if dice.random.random() >= VOUCHES_SHARE:
        return
    at, host = dice.at(), dice.node()
    back = dice.soon(at + 20.0, 200.0)
    outcome = dice.random.choice(["fails", "hangs", "missing", "broken"])
    fails = FenceOutcome(at=max(0.0, at - 1.0), host=host, outcome=outcome)
    dice.add(f"fence {outcome}", fails, FenceOutcome(at=back, host=host, outcome="works"))
    dice.add("power", Power(at=at, host=host, to="off"), Power(at=back, host=host, to="on"))
    for _ in range(2):
        dice.verb("fence", dice.soon(at), node=host, confirmOff=True, looked=True)
