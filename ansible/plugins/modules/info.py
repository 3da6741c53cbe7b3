#!/usr/bin/python
"""What the fleet says of itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: info
short_description: Reads the state of a virtward fleet
version_added: "0.1.0"
author: The virtward authors (@virtward)
description: Returns objects of the fleet and its state in a few lines. Changes nothing.
extends_documentation_fragment: virtward.fleet.api
options:
  kinds:
    description: What to read.
    type: list
    elements: str
    choices: [nodes, vms, migrations, drains, incidents, readiness]
    default: [nodes, vms, incidents]
"""

EXAMPLES = r"""
- name: Look at the fleet
  virtward.fleet.info:
  register: fleet

- name: Go on only if nothing is wrong
  ansible.builtin.assert:
    that: fleet.open_incidents == []
"""

RETURN = r"""
status:
  description: The fleet in a few lines.
  returned: success
  type: dict
objects:
  description: By kind, the list of objects.
  returned: success
  type: dict
open_incidents:
  description: The names of incidents that are not over, where incidents were read.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.virtward.fleet.plugins.module_utils.api import ARGUMENTS, Api, ApiError

KINDS = ["nodes", "vms", "migrations", "drains", "incidents", "readiness"]


def open_ones(incidents):
    """Return the names of the incidents that are not over."""
    return [each["metadata"]["name"] for each in incidents if (each.get("status") or {}).get("phase") != "Closed"]


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "kinds": {"type": "list", "elements": "str", "choices": KINDS, "default": ["nodes", "vms", "incidents"]},
        },
        supports_check_mode=True,
    )
    try:
        api = Api(module.params)
        status = api.call("GET", "status")
        objects = {}
        for kind in module.params["kinds"]:
            found = api.call("GET", kind)
            objects[kind] = found if kind == "readiness" else found.get("items", [])
    except ApiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False, status=status, objects=objects, open_incidents=open_ones(objects.get("incidents", []))
    )


if __name__ == "__main__":
    main()
