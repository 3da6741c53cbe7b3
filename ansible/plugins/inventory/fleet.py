"""The hosts of a fleet as an inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
short_description: The hosts of a virtward fleet
version_added: "0.1.0"
author: The virtward authors (@virtward)
description:
  - Lists the nodes that an aggregator knows, in the group C(virtward_hosts), and in groups by state (C(state_Up)), zone
    and rack (C(zone_z1), C(rack_r1)).
  - The file's name must end in C(virtward.yml) or C(virtward.yaml).
extends_documentation_fragment:
  - constructed
options:
  plugin:
    description: Must be C(virtward.fleet.fleet).
    required: true
    choices: [virtward.fleet.fleet]
  api:
    description: The aggregator's URL; left out, as C(~/.config/virtward/client.toml) has it.
    type: str
    env:
      - name: VIRTWARD_API
  token_file:
    description: The file with the admin token.
    type: path
    env:
      - name: VIRTWARD_TOKEN_FILE
  ca_path:
    description: Certificates that the URL's certificate is checked with.
    type: path
  plane:
    description: The network whose address becomes C(ansible_host).
    type: str
    default: control
"""

EXAMPLES = r"""
# fleet.virtward.yml
plugin: virtward.fleet.fleet
api: https://a1.example.org:8420
ca_path: ~/.config/virtward/authority.crt
token_file: ~/.config/virtward/token
"""

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

from ansible_collections.virtward.fleet.plugins.module_utils.api import Api, ApiError

GROUPED_LABELS = {"virtward/zone": "zone", "virtward/rack": "rack"}


class InventoryModule(BaseInventoryPlugin, Constructable):
    """Reads the nodes once."""

    NAME = "virtward.fleet.fleet"

    def verify_file(self, path):
        """Take only files that say they are meant."""
        return super().verify_file(path) and path.endswith(("virtward.yml", "virtward.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        """Put the nodes into the inventory."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        parameters = {name: self.get_option(name) for name in ("api", "token_file", "ca_path")}
        try:
            nodes = Api(parameters).call("GET", "nodes")["items"]
        except ApiError as error:
            raise AnsibleParserError(str(error)) from None
        self.inventory.add_group("virtward_hosts")
        for node in nodes:
            self._add(node)

    def _add(self, node):
        name, status = node["metadata"]["name"], node.get("status") or {}
        labels = node["metadata"].get("labels") or {}
        self.inventory.add_host(name, group="virtward_hosts")
        address = (status.get("addresses") or {}).get(self.get_option("plane"))
        if address:
            self.inventory.set_variable(name, "ansible_host", address)
        facts = {
            "virtward_state": status.get("state"),
            "virtward_labels": labels,
            "virtward_versions": status.get("versions"),
        }
        for key, value in facts.items():
            self.inventory.set_variable(name, key, value)
        grouped = [("state", status.get("state"))] + [
            (word, labels.get(label)) for label, word in GROUPED_LABELS.items()
        ]
        for word, value in grouped:
            if value:
                group = self.inventory.add_group(self._sanitize_group_name(f"{word}_{value}"))
                self.inventory.add_host(name, group=group)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), facts, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), facts, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), facts, name, strict=strict)
