"""ClusterConfig read and written, and the limits that follow from it.

Pure. The records are config.py's, and this module is the one name for them. Settings that contradict each
other are refused with the arithmetic spelled out (contradictions.py). The brake's formula lives here
(product.md, defaults).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor

import msgspec

from aggregator.core.config import *  # noqa: F403 (one name for all settings)
from aggregator.core.config import ClusterConfig, decode_config_value, encode_config_value, share_of
from aggregator.core.contradictions import contradictions


def decode_config(raw: Mapping[str, object]) -> ClusterConfig:
    """Return the config of a plain form that was checked once: an old journal is read whatever is refused today."""
    return msgspec.convert(raw, ClusterConfig, dec_hook=decode_config_value)


def read_config(raw: Mapping[str, object]) -> ClusterConfig:
    """Return the config that `raw` overrides the defaults with; ValueError names the path."""
    try:
        config = decode_config(raw)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    problems = contradictions(config)
    if problems:
        raise ValueError("; ".join(problems))
    return config


def write_config(config: ClusterConfig) -> dict[str, object]:
    """Return the plain form that read_config reads back."""
    plain = msgspec.to_builtins(config, enc_hook=encode_config_value)
    return msgspec.convert(plain, dict[str, object])


def lost_nodes_max(config: ClusterConfig, nodes: int, largest_domain: int) -> int:
    """Return how many nodes may be lost at once before the brake closes (product.md, defaults).

    largest_domain: nodes in the largest rack or zone, 0 where none is labelled.
    """
    if config.lost_nodes_max is not None:
        return share_of(config.lost_nodes_max, nodes)
    share = floor(nodes * 0.20)
    return max(1, min(floor(nodes * 0.49), max(4, share, largest_domain)))


def off_orders_per_hour_max(config: ClusterConfig, nodes: int) -> int:
    """Return how many `off` orders an hour need no person."""
    if config.brake.off_orders_per_hour_max is not None:
        return config.brake.off_orders_per_hour_max
    return max(2, floor(nodes * 0.05))
