"""The roll-out for real: booted Debian machines, from nothing to a fleet, a machine killed, an upgrade, and away again.

`make rollout-test`. Needs root, mmdebstrap, systemd-container, and about 3 GB below /var. Prints what it sees; exits 1
with one sentence at the first thing that is not as promised. KEEP=1 leaves the machines up.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from functools import partial
from pathlib import Path

from tests.rollout.driver import HOSTS, ROOT, VMS, WORK, Story, manifest
from tests.rollout.machines import MachineError, Site, run, wait_until
from tests.rollout.outlet import Outlet

LEFT_BEHIND = [
    "/opt/virtward",
    "/opt/virtward-releases",
    "/etc/virtward",
    "/var/lib/virtward-agent",
    "/var/lib/virtward-aggregator",
    "/run/virtward",
    "/etc/systemd/system/virtward-agent.service",
    "/etc/systemd/system/virtward-aggregator.service",
    "/usr/local/bin/virtward",
    "/etc/systemd/system/virtward-agent.service.d",
    "/etc/libvirt/hooks/qemu.d/virtward",
    "/root/.config/virtward",
]


def expect(truth: object, otherwise: str) -> None:
    if not truth:
        raise MachineError(otherwise)


def roll_out(story: Story, wheelhouse: Path) -> None:
    """From nothing to a fleet; then again, and nothing changes."""
    changed = story.play("site", wheelhouse, "-e", "virtward_serial=3")
    story.say(f"site: rolled out, changed {changed}")
    again = story.play("site", wheelhouse, "-e", "virtward_serial=3")
    story.say(f"site once more: changed {again}")
    expect(again and not any(again.values()), f"a second run changed something: {again}")
    checked = story.play("site", wheelhouse, "--check", "--diff", "-e", "virtward_serial=3")
    expect(not any(checked.values()), f"check mode says that something would change: {checked}")
    story.say(f"site --check --diff: changed {checked}")
    for host in HOSTS:
        expect(story.status("nodes", host, "state") == "Up", f"{host} is not Up")
    expect("disarmed" in story.ssh("a1", "virtward status"), "a fresh fleet is not disarmed")
    story.ssh("a1", "virtward arm")


def fenceable(story: Story, host: str) -> bool:
    conditions = story.status("nodes", host, "conditions")
    return isinstance(conditions, list) and any(c["type"] == "Fenceable" and c["status"] == "True" for c in conditions)


def run_vms(story: Story, wheelhouse: Path) -> None:
    """Two VMs run and count."""
    for host in HOSTS:
        wait_until(partial(fenceable, story, host), 60, f"the first answer of the outlet of {host}")
    wanted = WORK / "vms.json"
    wanted.write_text(json.dumps({"vms": [manifest(vm, host) for vm, host in zip(VMS, HOSTS, strict=False)]}))
    for changes in (1, 0):
        changed = story.play("vms", wheelhouse, "-e", f"@{wanted}", playbook=Path(__file__).with_name("vms.yml"))
        expect(changed == {"a1": changes}, f"the module vm changed {changed}, not {changes}")
    for vm in VMS:
        expect(story.runs(vm) and story.counts_on(vm), f"{vm} does not run or does not count")
        story.say(f"{vm} counts on {story.status('vms', vm, 'node')}")
    live = story.live_inventory()
    expect(live.get("virtward_hosts") == {"hosts": list(HOSTS)}, f"the live inventory has other hosts: {live}")
    expect(live.get("state_Up") == {"hosts": list(HOSTS)}, "the live inventory does not group by state")


def upgrade(story: Story, wheelhouse: Path) -> None:
    """To another wheel, with VMs running: nobody notices."""
    before = {vm: story.count(vm)[0] for vm in VMS}
    changed = story.play("upgrade", wheelhouse)
    story.say(f"upgrade: changed {changed}")
    after = {vm: story.count(vm)[0] for vm in VMS}
    expect(before == after, "a VM was started anew by an upgrade")
    expect(all(story.counts_on(vm) for vm in VMS), "a VM stands still after the upgrade")
    expect(not story.objects("incidents"), "an upgrade opened an incident")
    versions = {host: story.objects("nodes")[host]["status"]["versions"]["agent"] for host in HOSTS}  # type: ignore[index]
    expect(all("upgraded" in version for version in versions.values()), f"not every agent is upgraded: {versions}")
    story.say(f"every agent says {versions['h1']}, the VMs ran on, no incident")


def rotate(story: Story, wheelhouse: Path) -> None:
    """Every agent joins anew, with another key: nobody notices."""
    shown = {host: story.ssh(host, "sha256sum /var/lib/virtward-agent/identity/joined.pem") for host in HOSTS}
    story.play("rotate_certificates", wheelhouse)
    for host in HOSTS:
        now = story.ssh(host, "sha256sum /var/lib/virtward-agent/identity/joined.pem")
        expect(now != shown[host], f"{host} still shows its old certificate")
    expect(all(story.counts_on(vm) for vm in VMS), "a VM stands still after the certificates were rotated")
    expect(not story.objects("incidents"), "the rotation of certificates opened an incident")
    story.say("certificates rotated: every agent shows another one, the VMs ran on, no incident")


def drain(story: Story) -> None:
    """Empty a host live, over libvirt's TLS, and open it again."""
    vm = next(iter(VMS))
    host, nonce = str(story.status("vms", vm, "node")), story.count(vm)[0]
    story.ssh("a1", f"virtward drain {host} --wait")
    expect(story.status("vms", vm, "node") != host, f"{vm} has not left {host}")
    expect(story.counts_on(vm) and story.count(vm)[0] == nonce, f"{vm} was not moved live")
    story.ssh("a1", f"virtward uncordon {host}")
    story.say(f"{host} drained: {vm} moved live to {story.status('vms', vm, 'node')}")


def lose_a_machine(story: Story) -> str:
    """Kill the host of the first VM; return its name once the VM counts elsewhere."""
    vm = next(iter(VMS))
    lost = str(story.status("vms", vm, "node"))
    nonce = story.count(vm)[0]
    cut = time.monotonic()
    story.site.kill(lost)
    story.say(f"{lost} loses its power, with {vm} on it")
    wait_until(lambda: story.count(vm)[0] != nonce, 90, f"the recovery of {vm}")
    expect(story.counts_on(vm), f"{vm} was started and does not count")
    node = story.status("vms", vm, "node")
    expect(node != lost, f"{vm} is said to be on {lost}")
    story.say(f"{vm} counts again, on {node}; about {time.monotonic() - cut:.1f} s after the cut, seen by its disk")
    return lost


def uninstall(story: Story, wheelhouse: Path, lost: str) -> None:
    """Take everything away; the VMs run on."""
    alive = [host for host in HOSTS if host != lost]
    before = {vm: story.count(vm)[0] for vm in VMS}
    story.play("uninstall", wheelhouse, "--limit", f"a1,{','.join(alive)}")
    expect(all(story.counts_on(vm) for vm in VMS), "a VM ended with the uninstallation")
    expect(before == {vm: story.count(vm)[0] for vm in VMS}, "a VM was started anew by the uninstallation")
    for host in ("a1", *alive):
        left = story.ssh(
            host, f"ls -d {' '.join(LEFT_BEHIND)} 2>/dev/null; getent passwd virtward-agent virtward-aggregator; true"
        )
        expect(not left.strip(), f"{host} still has {left.split()}")
    story.say("uninstalled: nothing of virtward is left, and both VMs count on")


def package(version: str) -> Path:
    """Build a wheelhouse for another version than the present one, too; return it."""
    tree = WORK.parent / f"virtward-rollout-tree-{os.getpid()}"
    shutil.rmtree(tree, ignore_errors=True)
    run(["git", "clone", "-q", "--shared", str(ROOT), str(tree)])
    try:
        project = tree / "pyproject.toml"
        project.write_text(re.sub(r'(?m)^version = "[^"]*"', f'version = "{version}"', project.read_text(), count=1))
        for folder in (".venv", ".tools"):
            (tree / folder).symlink_to(ROOT / folder)
        run(["scripts/package.sh"], cwd=tree)
        target = WORK.parent / f"virtward-rollout-wheels-{version}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(tree / "dist/wheelhouse", target)
        return target
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def main() -> int:
    """Play the whole story."""
    story = Story(Path(os.environ.get("ANSIBLE_BIN", ROOT / ".ansible-venv/bin")))
    outlet = None
    Site(WORK, ("a1", *HOSTS)).down()
    try:
        first, second = package("0.1.0.dev0"), package("0.1.0.dev1+upgraded")
        story.say("two wheelhouses are built")
        story.build()
        outlet = Outlet(story.site)
        story.say(f"{len(story.site.machines)} machines are booted, with nothing of virtward or libvirt on them")
        roll_out(story, first)
        run_vms(story, first)
        upgrade(story, second)
        rotate(story, second)
        drain(story)
        lost = lose_a_machine(story)
        uninstall(story, second, lost)
    except MachineError as error:
        print(f"roll-out test: {error}", file=sys.stderr)
        return 1
    finally:
        if not os.environ.get("KEEP"):
            if story.storage is not None:
                story.storage.kill()
                story.storage.wait()
            if outlet is not None:
                outlet.close()
            story.site.down()
    story.say("the whole roll-out is as promised")
    return 0


if __name__ == "__main__":
    sys.exit(main())
