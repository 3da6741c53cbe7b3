"""A key that has another name now is understood under its old one for a release, and said so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from agent.config import RENAMED as OF_THE_AGENT
from agent.config import AgentConfig
from aggregator.settings import RENAMED as OF_THE_AGGREGATOR
from aggregator.settings import File
from fleet.config import ConfigError, load_config
from fleet.renames import with_new_names

RENAMES = {"listen": "agents.listen", "config.lost": "config.lostAfter", "old": "new"}


class Agents(Struct, frozen=True, forbid_unknown_fields=True):
    listen: str = "here"


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """A configuration whose keys have moved."""

    new: int = 0
    agents: Agents = Agents()
    config: dict[str, str] = {}


@pytest.mark.parametrize(
    ("written", "read", "warnings"),
    [
        ("new = 1", {"new": 1}, 0),
        ("old = 1", {"new": 1}, 1),
        ("listen = 'x'", {"agents": {"listen": "x"}}, 1),
        ("[config]\nlost = '9s'", {"config": {"lostAfter": "9s"}}, 1),
        ("old = 1\nlisten = 'x'\n[config]\nlost = '9s'", {"new": 1, "agents": {"listen": "x"}}, 3),
    ],
)
def test_an_old_key_means_the_new_one_and_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, read: dict[str, Any], warnings: int
) -> None:
    file = tmp_path / "a.toml"
    file.write_text(written)
    found = msgspec.to_builtins(load_config(file, Settings, renames=RENAMES))
    assert {key: found[key] for key in read} == read
    said = capsys.readouterr().err.splitlines()
    assert len(said) == warnings
    assert all(line.startswith(f"warning: {file}: ") and " is called " in line for line in said)


def test_both_names_of_a_key_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("old = 1\nnew = 2")
    with pytest.raises(ConfigError, match="old: is called new now, and both are given; leave old out"):
        load_config(file, Settings, renames=RENAMES)


def test_a_key_in_the_place_of_a_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("listen = 'x'\nagents = 3")
    with pytest.raises(ConfigError, match=r"agents: must be a table, for agents\.listen"):
        load_config(file, Settings, renames=RENAMES)


def test_without_its_entry_an_old_key_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("old = 1")
    with pytest.raises(ConfigError, match="old: there is no such key"):
        load_config(file, Settings)


def test_what_was_given_is_not_changed() -> None:
    given = {"config": {"lost": "9s"}}
    assert with_new_names(given, RENAMES)[0] == {"config": {"lostAfter": "9s"}}
    assert given == {"config": {"lost": "9s"}}


@pytest.mark.parametrize(("renames", "kind"), [(OF_THE_AGENT, AgentConfig), (OF_THE_AGGREGATOR, File)])
def test_the_tables_name_keys_that_are_there_and_none_that_are(renames: dict[str, str], kind: type[Struct]) -> None:
    """An entry for a key that still exists would take it away; one to a key that does not leads nowhere."""
    keys = set(kind.__struct_fields__)
    for old, new in renames.items():
        assert old not in keys
        assert new.split(".")[0] in keys
