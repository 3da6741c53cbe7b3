#!/usr/bin/python
"""A drain."""

from __future__ import annotations

DOCUMENTATION = r"""
module: drain
short_description: Moves all VMs off a host of a virtward fleet
version_added: "0.1.0"
author: The virtward authors (@virtward)
description:
  - Starts a drain, or finds one that runs, and waits for its end. An empty host that is closed already is no change.
extends_documentation_fragment: virtward.fleet.api
options:
  name:
    description: The node's name.
    type: str
    required: true
  force:
    description: Shut down VMs that can neither move nor be shut down by their own strategy.
    type: bool
    default: false
  wait:
    description: Wait for the end, and fail unless every VM has left.
    type: bool
    default: true
  timeout:
    description: Seconds to wait. A drain that is not over then goes on.
    type: int
    default: 3600
"""

EXAMPLES = r"""
- name: Empty a host
  virtward.fleet.drain:
    name: kvm2
"""

RETURN = r"""
drain:
  description: The drain as it is afterwards, or its plan in check mode.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.virtward.fleet.plugins.module_utils.api import ARGUMENTS, Api, ApiError, path_of


def moved_away(node):
    """Say whether a drain has emptied the node already."""
    status = (node or {}).get("status") or {}
    closed = any(taint.get("key") == "virtward/maintenance" for taint in status.get("taints") or [])
    return closed and not status.get("vms")


def work(module, api):
    """Drain, or say what would be done."""
    name, force = module.params["name"], module.params["force"]
    node = api.get("nodes", name)
    if node is None:
        raise ApiError(f"there is no node {name}")
    if moved_away(node):
        return {"changed": False, "drain": api.get("drains", name) or {}}
    body = {"force": True} if force else {}
    drain = api.call("POST", path_of("nodes", name, "drain"), body, dry_run=module.check_mode)
    if module.check_mode or not module.params["wait"]:
        return {"changed": True, "drain": drain}

    def over():
        found = api.get("drains", name) or {}
        return found if (found.get("status") or {}).get("phase", "") not in ("", "Running", "Planned") else None

    ended = api.wait(over, module.params["timeout"])
    if ended is None or ended["status"]["phase"] != "Done":
        found = ended or api.get("drains", name) or {}
        state = (found.get("status") or {}).get("phase", "unknown")
        raise ApiError(
            f"the drain of {name} is {state} and not Done: `virtward describe node {name}` says what is left and why"
        )
    return {"changed": True, "drain": ended}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "name": {"type": "str", "required": True},
            "force": {"type": "bool", "default": False},
            "wait": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    try:
        result = work(module, Api(module.params))
    except ApiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
