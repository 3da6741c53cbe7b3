"""Which aggregator to talk to, and with which token.

First answer wins, for each of the two separately: the option, the environment, the user's
client.toml, the client.toml of a laboratory on this machine. The token is only ever named by
its file: it never stands in a command line or in the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cli.errors import Failure

PORT = 8420
SETTINGS = ("api", "token_file", "ca_file", "cert_file")
LABORATORY_DIR = "/var/lib/virtward-lab"


class Settings(NamedTuple):  # not a Struct: importing msgspec would be a third of the start
    """The aggregator's base URL, and the file its token lies in (empty: none).

    ca_file: of the authority that an https:// aggregator is known by; empty: those that this machine trusts.
    cert_file: key and certificate that are shown to it in place of a token.
    """

    api: str
    token_file: str = ""
    ca_file: str = ""
    cert_file: str = ""


def settings_files(environment: Mapping[str, str]) -> list[Path]:
    """Return the files that may hold client settings, the first one counts most."""
    home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME", "/root")) / ".config")
    laboratory = environment.get("VIRTWARD_LAB_DIR") or LABORATORY_DIR
    return [
        Path(home) / "virtward" / "client.toml",
        Path(laboratory) / "current" / "client.toml",
    ]


def read_settings_file(path: Path) -> dict[str, str]:
    """Return the settings in one file, none where there is no file; Failure where it is broken."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise Failure(f"{path} is not TOML: {error}") from None
    for key, value in raw.items():
        if key not in SETTINGS:
            raise Failure(f"{path}: there is no setting {key!r}; it takes {', '.join(SETTINGS)}")
        if not isinstance(value, str):
            raise Failure(f"{path}: {key} must be a text in quotes")
    return raw


def find_settings(
    api: str | None,
    token_file: str | None,
    environment: Mapping[str, str] | None = None,
    ca_file: str | None = None,
) -> Settings:
    """Return the settings in force; `api`, `token_file` and `ca_file` are the command line's options."""
    environment = os.environ if environment is None else environment
    api = api or environment.get("VIRTWARD_API")
    token_file = token_file or environment.get("VIRTWARD_TOKEN_FILE")
    ca_file = ca_file or environment.get("VIRTWARD_CA_FILE")
    cert_file = environment.get("VIRTWARD_CERT_FILE")
    for path in settings_files(environment):
        if api and (token_file or cert_file) and (ca_file or not api.startswith("https://")):
            break
        found = read_settings_file(path)
        # A token belongs to its aggregator: from a file that names another one it is not taken.
        if api and found.get("api") not in (None, api):
            continue
        api = api or found.get("api")
        token_file = token_file or (None if cert_file else found.get("token_file"))
        cert_file = cert_file or (None if token_file else found.get("cert_file"))
        ca_file = ca_file or found.get("ca_file")
    if not api:
        api = f"http://127.0.0.1:{PORT}"
    if not api.startswith(("http://", "https://")):
        raise Failure(f"{api!r} is no address of an aggregator; write it like http://a1:{PORT}")
    return Settings(api=api.rstrip("/"), token_file=token_file or "", ca_file=ca_file or "", cert_file=cert_file or "")


def read_token(settings: Settings) -> str:
    """Return the token, empty where no file is set; Failure if the file cannot be used."""
    if not settings.token_file:
        return ""
    try:
        token = Path(settings.token_file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read the token file {settings.token_file}: {error}") from None
    if not token or any(character.isspace() for character in token):
        raise Failure(f"the token file {settings.token_file} must hold one token and nothing else")
    return token
