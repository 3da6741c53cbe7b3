"""The aggregator's configuration file, checked whole before anything is touched.

Knows the keys and their meaning; opens no socket and no store.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from aggregator.core.policy import ClusterConfig, decode_config_value, read_config, write_config
from fleet.config import CREDENTIAL, ConfigError, convert_config, load_config, read_secret, secret_file
from fleet.renames import Renames
from fleet.service import LEVELS, ServiceError

_ENDPOINT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]\s]+)):([0-9]{1,5})")
_CONTROL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
PORT_MAX = 65535
CERTIFICATE_LIFE_S, CERTIFICATE_LIFE_S_MIN, CERTIFICATE_LIFE_S_MAX = 24 * 3600.0, 4.0, 7 * 24 * 3600.0
MACHINE_ID_FILE = "/etc/machine-id"


RENAMED: Renames = {}  # old key -> new key, `config.lostAfter` too, for one release (fleet.renames)


class File(Struct, frozen=True, forbid_unknown_fields=True):
    """aggregator.toml.

    agents_tls: false has agents speak openly, each with a lasting token: for tests and benchmarks.
    certificate_life_s: of agents' certificates, which are renewed at half of it.
    api_tls: whether the API speaks HTTPS; where it is not named: if api_listen is not on loopback. Its certificate
    is by the fleet's authority, whose own is authority.crt in state_dir, for where it listens, this machine's name
    and api_names; or it is yours, in the PEM files api_certificate and api_key, read again when they change.
    [config] holds keys of ClusterConfig. A key named there is set at every start; one that is not keeps
    what it has: its default, or what it was last set to.
    """

    name: str
    token_file: str = f"{CREDENTIAL}aggregator.token"
    api_listen: str = "127.0.0.1:8420"
    api_tls: bool | None = None
    api_certificate: str = ""
    api_key: str = ""
    api_names: tuple[str, ...] = ()
    agents_listen: str = "0.0.0.0:8421"
    agents_tls: bool = True
    certificate_life_s: float = CERTIFICATE_LIFE_S
    state_dir: str = "/var/lib/virtward-aggregator"
    fence_agents_dir: str = "/usr/sbin"
    machine_id_file: str = MACHINE_ID_FILE
    log_level: str = "info"
    config: dict[str, object] = {}


class Endpoint(Struct, frozen=True):
    """An address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def taken(self, error: OSError) -> ServiceError:
        """Return what is said where it cannot be listened on."""
        return ServiceError(f"cannot listen on {self}: {error.strerror or error}; is another one running?")


class Settings(Struct, frozen=True, kw_only=True):
    """What the file comes to. token_sha256: of the admin token; the token itself is not kept.

    machine_id: of the machine this runs on, so that it never convicts its own host.
    """

    name: str
    api: Endpoint
    agents: Endpoint
    state_dir: Path
    fence_agents_dir: Path
    machine_id: str
    log_level: str
    token_sha256: str
    token_path: Path = Path()
    config: dict[str, object]
    agents_tls: bool = True
    certificate_life_s: float = CERTIFICATE_LIFE_S
    api_tls: bool = False
    api_certificate: Path | None = None
    api_key: Path | None = None
    api_names: tuple[str, ...] = ()


def read_settings(path: Path) -> Settings:
    """Return the settings; ConfigError is one sentence with file and key."""
    file = load_config(path, File, renames=RENAMED)
    if not _CONTROL_NAME.fullmatch(file.name):
        raise ConfigError(f"{path}: name: {file.name!r} is no name; use letters, digits, '.', '_' and '-'")
    if file.log_level not in LEVELS:
        raise ConfigError(f"{path}: log_level: {file.log_level!r} must be one of {', '.join(LEVELS)}")
    if not CERTIFICATE_LIFE_S_MIN <= file.certificate_life_s <= CERTIFICATE_LIFE_S_MAX:
        limits = f"{CERTIFICATE_LIFE_S_MIN:g} to {CERTIFICATE_LIFE_S_MAX:g}"
        raise ConfigError(f"{path}: certificate_life_s: must be {limits} seconds, not {file.certificate_life_s:g}")
    fence_agents_dir = _directory(path, "fence_agents_dir", file.fence_agents_dir)
    if not fence_agents_dir.is_dir():
        raise ConfigError(f"{path}: fence_agents_dir: {fence_agents_dir} is no directory; install fence-agents")
    api, api_tls = _endpoint(path, "api_listen", file.api_listen), _api_tls(path, file)
    try:
        token = read_secret(_secret(path, "token_file", file.token_file), "admin token")
    except ConfigError as error:
        raise ConfigError(f"{path}: token_file: {error}") from None
    return Settings(
        name=file.name,
        api=api,
        agents=_endpoint(path, "agents_listen", file.agents_listen),
        state_dir=_directory(path, "state_dir", file.state_dir),
        fence_agents_dir=fence_agents_dir,
        machine_id=_machine_id(path, file.machine_id_file),
        log_level=file.log_level,
        token_sha256=hashlib.sha256(token.encode()).hexdigest(),
        token_path=_secret(path, "token_file", file.token_file),
        config=_checked_config(path, file.config),
        agents_tls=file.agents_tls,
        certificate_life_s=file.certificate_life_s,
        api_tls=api_tls,
        api_certificate=_file_of(path, "api_certificate", file.api_certificate),
        api_key=_file_of(path, "api_key", file.api_key),
        api_names=file.api_names,
    )


def _api_tls(path: Path, file: File) -> bool:
    """Return whether the API speaks HTTPS."""
    if bool(file.api_certificate) != bool(file.api_key):
        raise ConfigError(f"{path}: api_certificate: goes with api_key; name both, or none of them")
    if file.api_tls is not None:
        if file.api_tls and not file.agents_tls and not file.api_certificate:
            raise ConfigError(f"{path}: api_tls: needs agents_tls, or api_certificate and api_key of your own")
        return file.api_tls
    host = _endpoint(path, "api_listen", file.api_listen).host
    return bool(file.api_certificate) or (file.agents_tls and not _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _file_of(path: Path, key: str, text: str) -> Path | None:
    if not text:
        return None
    file = secret_file(text) if text.startswith(CREDENTIAL) else Path(text)
    if not file.is_file():
        raise ConfigError(f"{path}: {key}: {file} is not there")
    return file


def _checked_config(path: Path, overrides: dict[str, object]) -> dict[str, object]:
    convert_config({"config": overrides}, _ConfigTable, str(path), decode_config_value)  # names the key that is wrong
    try:
        read_config(overrides)
    except ValueError as error:
        raise ConfigError(f"{path}: [config]: {error}") from None
    return overrides


def configure(before: ClusterConfig, overrides: Mapping[str, object]) -> ClusterConfig:
    """Return the config with the file's keys set; ConfigError if they cannot stand beside the others."""
    try:
        return read_config(_merged(write_config(before), overrides))
    except ValueError as error:
        raise ConfigError(f"the fleet's settings with [config] of the configuration file: {error}") from None


def _merged(before: Mapping[str, object], overrides: Mapping[str, object]) -> dict[str, object]:
    merged = dict(before)
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


class _ConfigTable(Struct, frozen=True):
    config: ClusterConfig


def _directory(path: Path, key: str, text: str) -> Path:
    if not text.startswith("/"):
        raise ConfigError(f"{path}: {key}: {text!r} must be an absolute path")
    return Path(text)


def _secret(path: Path, key: str, text: str) -> Path:
    return secret_file(text) if text.startswith(CREDENTIAL) else _directory(path, key, text)


def _machine_id(path: Path, text: str) -> str:
    file = _directory(path, "machine_id_file", text)
    if text == MACHINE_ID_FILE and not file.exists():
        return ""  # no agent starts without one, so this machine is no host of the fleet
    try:
        found = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: machine_id_file: {file} cannot be read: {error}") from None
    if not found or "\n" in found:
        raise ConfigError(f"{path}: machine_id_file: {file} must hold one line")
    return found


def _endpoint(path: Path, key: str, text: str) -> Endpoint:
    match = _ENDPOINT.fullmatch(text)
    if not match or int(match.group(3)) > PORT_MAX:
        raise ConfigError(f"{path}: {key}: {text!r} must be ADDRESS:PORT, like 127.0.0.1:8420 or [::1]:8420")
    return Endpoint(match.group(1) or match.group(2), int(match.group(3)))
