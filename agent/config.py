"""The agent's configuration file, key by key.

Knows the keys and their defaults; fleet.config reads the file.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from agent.host import Addresses
from agent.link import check_urls
from agent.own_checks import NAMES as OWN_CHECKS
from agent.peer import split_listen
from fleet.config import CREDENTIAL, ConfigError, load_config
from fleet.renames import Renames
from fleet.service import LEVELS, ServiceError

DEFAULT_PATH = Path("/etc/virtward/agent.toml")
BMC_IDENTITY_EVERY_S_MIN, BMC_IDENTITY_EVERY_S_MAX = 1.0, 3600.0
CHECKS_EVERY_S_MIN, CHECKS_EVERY_S_MAX = 5.0, 3600.0
EFFECTS = ("PreferNoSchedule", "NoSchedule", "NoExecute")


RENAMED: Renames = {}  # old key -> new key, for one release (fleet.renames)


class AgentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Every key of agent.toml.

    aggregators: wss:// URLs. token_file: of the join token, read when the node has no certificate that counts;
    it need not be there afterwards. With ws:// nothing is encrypted, and it holds the agent's lasting token.
    migration_tls: guests migrate over TLS or not at all. pki_dir: where the certificates of libvirt and QEMU are laid
    out and renewed, /etc/pki; empty: they are yours. pki_reload_command: has libvirtd read them again.
    checks_dir: of check programs (agent.checks). checks_own: which of the agent's own ones count (agent.own_checks).
    checks_taint: by check, the taint effect when it fails.
    """

    node: str
    aggregators: tuple[str, ...]
    token_file: str = f"{CREDENTIAL}agent.token"
    state_dir: str = "/var/lib/virtward-agent"
    run_dir: str = "/run/virtward"
    libvirt_uri: str = "qemu:///system"
    listen: str = "0.0.0.0:8422"
    control_address: str = ""
    migration_address: str = ""
    libvirt_port: int = 16514
    ssh_port: int = 22
    peer_uri: str = "qemu+tls://{address}/system"
    migration_tls: bool = False
    pki_dir: str = ""
    pki_reload_command: tuple[str, ...] = ()
    boot_id_file: str = "/proc/sys/kernel/random/boot_id"
    machine_id_file: str = "/etc/machine-id"
    bmc_identity_command: tuple[str, ...] = ()
    bmc_identity_every_s: float = 60.0
    checks_dir: str = "/etc/virtward/checks.d"
    checks_every_s: float = 30.0
    checks_own: tuple[str, ...] = OWN_CHECKS
    checks_taint: dict[str, str] = {}
    log_level: str = "info"

    @property
    def secure(self) -> bool:
        """Whether certificates are used."""
        return self.aggregators[0].startswith("wss://")

    @property
    def identity_dir(self) -> Path:
        """Where key and certificate lie."""
        return Path(self.state_dir) / "identity"

    @property
    def addresses(self) -> Addresses:
        """How others reach this node."""
        planes = {"control": self.control_address, "migration": self.migration_address}
        address = self.migration_address or self.control_address
        return Addresses(
            by_plane={plane: value for plane, value in planes.items() if value},
            agent_port=split_listen(self.listen)[1],
            libvirt_port=self.libvirt_port,
            ssh_port=self.ssh_port,
            peer_uri=self.peer_uri.replace("{address}", f"[{address}]" if ":" in address else address),
        )


def load(path: Path) -> AgentConfig:
    """Read and check the file. Raises ConfigError with file and key."""
    config = load_config(path, AgentConfig, renames=RENAMED)
    try:
        check_urls(config.aggregators)
        split_listen(config.listen)
    except ServiceError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not config.node or "/" in config.node or len(config.node) > 253:  # noqa: PLR2004 - the length of a host name
        raise ConfigError(f"{path}: node: {config.node!r} is no name of a node")
    if config.log_level not in LEVELS:
        raise ConfigError(f"{path}: log_level: must be one of {', '.join(LEVELS)}")
    if not BMC_IDENTITY_EVERY_S_MIN <= config.bmc_identity_every_s <= BMC_IDENTITY_EVERY_S_MAX:
        limits = f"{BMC_IDENTITY_EVERY_S_MIN:g} to {BMC_IDENTITY_EVERY_S_MAX:g}"
        raise ConfigError(
            f"{path}: bmc_identity_every_s: must be {limits} seconds, not {config.bmc_identity_every_s:g}"
        )
    if not CHECKS_EVERY_S_MIN <= config.checks_every_s <= CHECKS_EVERY_S_MAX:
        limits = f"{CHECKS_EVERY_S_MIN:g} to {CHECKS_EVERY_S_MAX:g}"
        raise ConfigError(f"{path}: checks_every_s: must be {limits} seconds, not {config.checks_every_s:g}")
    for name in config.checks_own:
        if name not in OWN_CHECKS:
            raise ConfigError(f"{path}: checks_own: {name!r} is none of {', '.join(OWN_CHECKS)}")
    for name, effect in config.checks_taint.items():
        if effect not in EFFECTS:
            raise ConfigError(f"{path}: checks_taint.{name}: must be one of {', '.join(EFFECTS)}, not {effect!r}")
    if not config.migration_address and not config.control_address:
        raise ConfigError(f"{path}: control_address: name this node's address on the control plane")
    return config
