"""A wrong configuration file is one sentence with the place, and nothing is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.settings import read_settings
from fleet.config import ConfigError

RIGHT = """
name = "a1"
token_file = "{dir}/token"
state_dir = "{dir}/state"
fence_agents_dir = "{dir}"
[config]
lostAfter = "10s"
brake = {{window = "1m"}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("s3kr1t\n")
    (tmp_path / "token").chmod(0o600)
    path = tmp_path / "aggregator.toml"
    path.write_text(RIGHT.format(dir=tmp_path))
    return path


def test_a_right_file_is_read_with_its_defaults(file: Path) -> None:
    settings = read_settings(file)
    assert (str(settings.api), str(settings.agents)) == ("127.0.0.1:8420", "0.0.0.0:8421")
    assert settings.config == {"lostAfter": "10s", "brake": {"window": "1m"}}
    assert len(settings.token_sha256) == 64


@pytest.mark.parametrize(
    ("lines", "secure"),
    [
        ("", False),
        ('api_listen = "[::1]:8420"', False),
        ('api_listen = "localhost:8420"', False),
        ('api_listen = "0.0.0.0:8420"', True),
        ('api_listen = "10.0.0.9:8420"', True),
        ('api_listen = "10.0.0.9:8420"\nagents_tls = false', False),  # nothing is encrypted there
        ('api_listen = "10.0.0.9:8420"\napi_tls = false', False),
        ("api_tls = true", True),
        ('api_certificate = "/etc/hosts"\napi_key = "/etc/hosts"', True),
    ],
)
def test_beyond_loopback_the_api_speaks_https_unless_it_is_told_not_to(file: Path, lines: str, *, secure: bool) -> None:
    file.write_text(f"{lines}\n{file.read_text()}")
    assert read_settings(file).api_tls is secure


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "a1"', "", "name: is missing"),
        ('name = "a1"', 'name = "a 1"', "name: 'a 1' is no name"),
        ('name = "a1"', 'nmae = "a1"', "nmae"),
        ('name = "a1"', 'name = "a1"\nlog_level = "loud"', "log_level: 'loud' must be one of"),
        ('name = "a1"', 'name = "a1"\napi_listen = "8420"', "api_listen: '8420' must be ADDRESS:PORT"),
        ('name = "a1"', 'name = "a1"\nagents_listen = "[::1]:70000"', "agents_listen"),
        ('name = "a1"', 'name = "a1', "is no TOML"),
        ("/token", "/no-token", "token_file"),
        ('name = "a1"', 'name = "a1"\napi_tls = true\nagents_tls = false', "api_tls: needs agents_tls"),
        ('name = "a1"', 'name = "a1"\napi_key = "/k"', "api_certificate: goes with api_key"),
        ('name = "a1"', 'name = "a1"\napi_key = "/k"\napi_certificate = "/c"', "api_certificate: /c is not there"),
        ('lostAfter = "10s"', 'lostAfter = "soon"', "[config].lostAfter"),
        ('lostAfter = "10s"', 'lostAftre = "10s"', "[config].lostAftre: there is no such key"),
        ('lostAfter = "10s"', 'lostAfter = "2s"', "[config]: lostAfter 2s must be longer than suspectAfter 3s"),
        ('window = "1m"', 'windows = "1m"', "[config.brake].windows: there is no such key"),
    ],
)
def test_a_wrong_file_names_the_place(file: Path, old: str, new: str, said: str) -> None:
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError) as wrong:
        read_settings(file)
    sentence = str(wrong.value)
    assert said in sentence
    assert sentence.startswith(str(file))
    assert "\n" not in sentence
    assert "s3kr1t" not in sentence


def test_a_token_that_everybody_can_read_is_refused(file: Path) -> None:
    (file.parent / "token").chmod(0o644)
    with pytest.raises(ConfigError, match=r"token_file: .*chmod it to 0600"):
        read_settings(file)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--check", "config"], 0), (["--check", "--config", "/no/such/file"], 1), (["--what"], 2)]
)
def test_the_program_checks_its_file_and_says_so(file: Path, arguments: list[str], code: int) -> None:
    command = [sys.executable, "-m", "aggregator.main", "--config", str(file), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr
    assert not (file.parent / "state").exists()
    if code == 1:
        assert ended.stderr == "virtward-aggregator: /no/such/file: cannot be read: No such file or directory\n"
