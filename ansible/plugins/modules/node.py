#!/usr/bin/python
"""A node of the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node
short_description: Holds a host of a virtward fleet as the inventory has it
version_added: "0.1.0"
author: The virtward authors (@virtward)
description:
  - Sets labels and spec of a node (fencing above all), joins it, opens or closes it for VMs, and holds virtward's own
    action off it while somebody works on it.
  - Only what is given is changed; a label or a part of the spec that is not named stays as it is.
  - A password written into O(spec) is hidden by the aggregator, so a changed one is not seen; use C(password_file).
extends_documentation_fragment: virtward.fleet.api
options:
  name:
    description: The node's name.
    type: str
    required: true
  state:
    description: V(absent) takes the node out of the fleet; it is refused while a VM is bound to it.
    type: str
    choices: [present, absent]
    default: present
  labels:
    description: Labels; null removes one.
    type: dict
  spec:
    description: Parts of the node's spec, as a manifest has them; null takes one back to its default.
    type: dict
  approved:
    description: Let the node take VMs. A node that joined by a token is approved.
    type: bool
  schedulable:
    description: Whether new VMs may come (uncordon) or not (cordon).
    type: bool
  bring_back:
    description: With O(schedulable=true), ask the VMs back that a drain moved away.
    type: bool
    default: false
  armed:
    description:
      - Whether virtward acts by itself on this node; V(false) keeps it from fencing it and moving its VMs.
      - A disarming that lasts longer than O(disarm_for) is left as it is. What holds the whole fleet is not touched.
    type: bool
  arming_before:
    description:
      - With O(armed=true), the RV(arming_before) of the task that disarmed the node. What that task found is put
        back, so that a node somebody had disarmed stays so.
    type: dict
  disarm_for:
    description: With O(armed=false), after so many seconds it acts again by itself.
    type: int
    default: 1800
  wait_state:
    description: Wait until the node is in one of these states, for at most O(timeout) seconds.
    type: list
    elements: str
    default: []
  wait_agent_start_not:
    description:
      - With O(wait_state), wait until another start of the node's agent than this one (C(status.agentStart)) speaks.
      - An aggregator may not have seen yet that an agent was restarted, and then says what was true before.
    type: str
  wait_version:
    description: With O(wait_state), wait until its agent says it has this version, too.
    type: str
  wait_boot_not:
    description: With O(wait_state), wait until the node has another boot id than this one, too.
    type: str
  timeout:
    description: Seconds.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Labels and fence device from the inventory
  virtward.fleet.node:
    name: "{{ inventory_hostname }}"
    labels:
      virtward/zone: z1
    spec:
      fencing:
        - agent: fence_ipmilan
          params: {ip: 10.9.0.2, username: ops, password_file: /etc/virtward/fencing/kvm2, lanplus: "1"}
"""

RETURN = r"""
arming_before:
  description: What O(armed=false) found and whether it changed that; for O(arming_before) of a later task.
  returned: success, O(armed=false)
  type: dict
node:
  description: The object as it is afterwards.
  returned: success, O(state=present)
  type: dict
"""

import calendar
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.virtward.fleet.plugins.module_utils.api import (
    ARGUMENTS,
    Api,
    ApiError,
    difference,
    path_of,
    wished,
)


class Work:
    """What is done to one node, in order; in check mode what would be."""

    def __init__(self, module, api):
        self.params = module.params
        self.check_mode = module.check_mode
        self.api = api
        self.name = module.params["name"]
        self.changed = False

    def wish(self, before):
        """Set labels and spec; return the object afterwards."""
        patch = {}
        if self.params["labels"] is not None:
            patch["metadata"] = {"labels": self.params["labels"]}
        if self.params["spec"] is not None:
            patch["spec"] = self.params["spec"]
        if before is not None and not patch:
            return before
        if before is None:
            body = {
                "apiVersion": "virtward/v1",
                "kind": "Node",
                "metadata": {"name": self.name, "labels": self.params["labels"] or {}},
                "spec": self.params["spec"] or {},
            }
            method = "PUT"
        else:
            body, method = patch, "PATCH"
        after = self.api.call(method, path_of("nodes", self.name), body, dry_run=True)
        if before is None or wished(before) != wished(after):
            self.changed = True
            if not self.check_mode:
                after = self.api.call(method, path_of("nodes", self.name), body)
        return after

    def say(self, verb, body=None):
        """Say a verb that changes something."""
        self.changed = True
        if not self.check_mode:
            self.api.call("POST", path_of("nodes", self.name, verb), body or {})

    def verbs(self, before):
        """Approve, cordon, uncordon."""
        spec, status = (before or {}).get("spec") or {}, (before or {}).get("status") or {}
        if self.params["approved"] and not status.get("approved"):
            self.say("approve")
        closed = bool(spec.get("unschedulable"))
        drained = any(taint.get("key") == "virtward/maintenance" for taint in status.get("taints") or [])
        if self.params["schedulable"] is True and (closed or drained):
            self.say("uncordon", {"bringBack": True} if self.params["bring_back"] else {})
        if self.params["schedulable"] is False and not closed:
            self.say("cordon")

    def arming(self, before):
        """Arm or disarm; return what was found, for the task that puts it back."""
        armed, held = self.params["armed"], ((before or {}).get("status") or {}).get("disarmed")
        if armed is None:
            return {}
        if not armed:
            lasts = held is not None and (not held.get("until") or rest_s(held["until"]) >= self.params["disarm_for"])
            if not lasts:
                self._hold(self.params["disarm_for"])
            return {"arming_before": {"touched": not lasts, "until": (held or {}).get("until") or ""}}
        found = self.params["arming_before"] or {"touched": True, "until": ""}
        left_s = rest_s(found["until"]) if found["until"] else 0
        if found["touched"] and left_s > 0:
            self._hold(left_s)
        elif found["touched"] and held is not None:
            self.changed = True
            if not self.check_mode:
                self.api.call("POST", "arm", {"node": self.name})
        return {}

    def _hold(self, seconds):
        self.changed = True
        if not self.check_mode:
            self.api.call("POST", "disarm", {"node": self.name, "forSeconds": seconds})

    def wait(self):
        """Wait for state, version and boot; return the object."""
        states = self.params["wait_state"]
        if not states or self.check_mode:
            return None
        found = self.api.wait(self._arrived, self.params["timeout"])
        if found is None:
            status = (self.api.get("nodes", self.name) or {}).get("status") or {}
            raise ApiError(
                f"node {self.name} is {status.get('state', 'not there')} ({status.get('reason', '')}) with agent "
                f"{(status.get('versions') or {}).get('agent', '?')}, start {status.get('agentStart') or '?'} of it, "
                f"and not {' or '.join(states)} as was waited for, after {self.params['timeout']} s"
            )
        return found

    def _arrived(self):
        found = self.api.get("nodes", self.name)
        status = (found or {}).get("status") or {}
        version, boot, start = (self.params[f"wait_{what}"] for what in ("version", "boot_not", "agent_start_not"))
        fits = status.get("state") in self.params["wait_state"]
        fits = fits and (not version or (status.get("versions") or {}).get("agent") == version)
        fits = fits and (not start or status.get("agentStart") not in ("", None, start))
        return found if fits and (not boot or status.get("bootID") not in ("", boot)) else None


def rest_s(until):
    """Return how many seconds there are until a time as the aggregator writes it; it runs on the same clock."""
    return calendar.timegm(time.strptime(until.split(".")[0], "%Y-%m-%dT%H:%M:%S")) - time.time()


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "labels": {"type": "dict"},
            "spec": {"type": "dict"},
            "approved": {"type": "bool"},
            "schedulable": {"type": "bool"},
            "bring_back": {"type": "bool", "default": False},
            "armed": {"type": "bool"},
            "arming_before": {"type": "dict"},
            "disarm_for": {"type": "int", "default": 1800},
            "wait_state": {"type": "list", "elements": "str", "default": []},
            "wait_agent_start_not": {"type": "str"},
            "wait_version": {"type": "str"},
            "wait_boot_not": {"type": "str"},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]
    try:
        api = Api(module.params)
        before = api.get("nodes", name)
        if module.params["state"] == "absent":
            if before is not None:
                api.call("DELETE", path_of("nodes", name), dry_run=module.check_mode)
            module.exit_json(changed=before is not None, diff=difference(before, None, f"node/{name}"))
        work = Work(module, api)
        after = work.wish(before)
        work.verbs(before)
        told = work.arming(before)
        after = work.wait() or after
    except ApiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=work.changed, node=after, diff=difference(before, after, f"node/{name}"), **told)


if __name__ == "__main__":
    main()
