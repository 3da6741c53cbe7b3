"""Where the command finds its aggregator and its token."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.errors import Failure
from cli.settings import Settings, find_settings, read_token


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_options_win_over_environment_over_the_users_file_over_a_laboratory(tmp_path: Path) -> None:
    own = _write(tmp_path / ".config/virtward/client.toml", 'api = "http://own:1"\ntoken_file = "/own"\n')
    lab = _write(tmp_path / "lab/current/client.toml", 'api = "http://lab:1"\ntoken_file = "/lab"\n')
    home = {"HOME": str(tmp_path), "VIRTWARD_LAB_DIR": str(tmp_path / "lab")}
    environment = {**home, "VIRTWARD_API": "http://env:1", "VIRTWARD_TOKEN_FILE": "/env"}
    assert find_settings("http://option:1", "/option", environment) == Settings("http://option:1", "/option")
    assert find_settings(None, None, environment) == Settings("http://env:1", "/env")
    assert find_settings(None, None, home) == Settings("http://own:1", "/own")
    own.unlink()
    assert find_settings(None, None, home) == Settings("http://lab:1", "/lab")
    lab.unlink()
    assert find_settings(None, None, home) == Settings("http://127.0.0.1:8420", "")


def test_the_authority_comes_from_the_same_places_and_belongs_to_its_aggregator(tmp_path: Path) -> None:
    lines = 'api = "https://own:1"\ntoken_file = "/own"\nca_file = "/own.crt"\n'
    _write(tmp_path / ".config/virtward/client.toml", lines)
    home = {"HOME": str(tmp_path), "VIRTWARD_LAB_DIR": str(tmp_path / "lab")}
    assert find_settings(None, None, home) == Settings("https://own:1", "/own", "/own.crt")
    environment = {**home, "VIRTWARD_CA_FILE": "/env.crt"}
    assert find_settings(None, None, environment).ca_file == "/env.crt"
    assert find_settings(None, None, environment, "/option.crt").ca_file == "/option.crt"
    assert find_settings("https://own:1", "/t", home) == Settings("https://own:1", "/t", "/own.crt")
    assert find_settings("https://elsewhere:1", "/t", home).ca_file == ""


def test_a_token_is_never_sent_to_an_aggregator_that_its_file_does_not_name(tmp_path: Path) -> None:
    _write(tmp_path / "lab/current/client.toml", 'api = "http://lab:1"\ntoken_file = "/lab"\n')
    environment = {"HOME": str(tmp_path), "VIRTWARD_LAB_DIR": str(tmp_path / "lab")}
    assert find_settings("http://elsewhere:1", None, environment).token_file == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("api = ", "is not TOML"),
        ('apii = "x"', "there is no setting 'apii'"),
        ("api = 3", "api must be a text"),
        ('api = "a1:8420"', "no address of an aggregator"),
    ],
)
def test_a_broken_file_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    _write(tmp_path / ".config/virtward/client.toml", text)
    with pytest.raises(Failure, match=said):
        find_settings(None, None, {"HOME": str(tmp_path)})


def test_a_token_file_holds_one_token(tmp_path: Path) -> None:
    file = _write(tmp_path / "token", "  secret\n")
    assert read_token(Settings("http://x", str(file))) == "secret"
    for text in ("", "two words\n", "zwölf"):
        file.write_text(text)
        with pytest.raises(Failure, match="token file"):
            read_token(Settings("http://x", str(file)))
    with pytest.raises(Failure, match="cannot read the token file"):
        read_token(Settings("http://x", str(tmp_path / "none")))
