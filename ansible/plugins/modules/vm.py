#!/usr/bin/python
"""A VM of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vm
short_description: Creates, changes or removes a VM of a virtward fleet
version_added: "0.1.0"
author: The virtward authors (@virtward)
description:
  - Holds a VM's object as it is written in a manifest. What the manifest leaves out gets its default.
  - Removing a VM stops it and removes its definition; its disks are never touched.
extends_documentation_fragment: virtward.fleet.api
options:
  manifest:
    description: The VirtualMachine, as C(virtward apply) takes it. Needed for O(state=present).
    type: dict
  name:
    description: The VM's name, for O(state=absent).
    type: str
  state:
    description: Whether the VM is there.
    type: str
    choices: [present, absent]
    default: present
  wait:
    description: Wait until the VM's phase is one of these, for at most O(timeout) seconds.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: One VM
  virtward.fleet.vm:
    manifest: "{{ lookup('ansible.builtin.file', 'web-1.yaml') | from_yaml }}"
    wait: [Running]
"""

RETURN = r"""
vm:
  description: The object as it is afterwards.
  returned: success, O(state=present)
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.virtward.fleet.plugins.module_utils.api import (
    ARGUMENTS,
    Api,
    ApiError,
    difference,
    path_of,
    wished,
)


def present(module, api):
    """Hold the VM as it is written."""
    manifest = module.params["manifest"]
    name = str((manifest.get("metadata") or {}).get("name") or "")
    if not name:
        raise ApiError("manifest.metadata.name is missing")
    before = api.get("vms", name)
    after = api.call("PUT", path_of("vms", name), manifest, dry_run=True)
    changed = wished(before) != wished(after)
    if changed and not module.check_mode:
        after = api.call("PUT", path_of("vms", name), manifest)
    phases = module.params["wait"]
    if phases and not module.check_mode:

        def arrived():
            found = api.get("vms", name)
            return found if found and (found.get("status") or {}).get("phase") in phases else None

        found = api.wait(arrived, module.params["timeout"])
        if found is None:
            phase = ((api.get("vms", name) or {}).get("status") or {}).get("phase", "gone")
            raise ApiError(f"VM {name} is {phase} and not {' or '.join(phases)} after {module.params['timeout']} s")
        after = found
    return {"changed": changed, "vm": after, "diff": difference(before, after, f"vm/{name}")}


def absent(module, api):
    """Take the VM away."""
    name = module.params["name"] or str((module.params["manifest"] or {}).get("metadata", {}).get("name", ""))
    before = api.get("vms", name)
    if before is not None:
        api.call("DELETE", path_of("vms", name), dry_run=module.check_mode)
    return {"changed": before is not None, "diff": difference(before, None, f"vm/{name}")}


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "manifest": {"type": "dict"},
            "name": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "wait": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 120},
        },
        required_if=[("state", "present", ["manifest"]), ("state", "absent", ["name", "manifest"], True)],
        supports_check_mode=True,
    )
    try:
        api = Api(module.params)
        result = present(module, api) if module.params["state"] == "present" else absent(module, api)
    except ApiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
