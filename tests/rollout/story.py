"""The roll-out for real: booted Debian machines, from nothing to a fleet, a machine killed, an upgrade, and away again.

`make rollout-test`; with the word `short` one host from nothing to a fleet, a VM, and away again. Needs root,
mmdebstrap, systemd-container, and about 3 GB below /var. Prints what it sees; exits 1 with one sentence at the first
thing that is not as promised. KEEP=1 leaves the machines up.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.rollout.driver import PLACE, ROOT, Story, manifest
from tests.rollout.machines import PYTHONS, SUITE, MachineError, NoMachinesError, run, wait_until, why_no_machines
from tests.rollout.outlet import Outlet

CANNOT_RUN = 77  # no machines can be booted here; nothing was tried
LEFT_BEHIND = [
    "/opt/virtward",
    "/opt/virtward-releases",
    "/etc/virtward",
    "/var/lib/virtward-agent",
    "/var/lib/virtward-aggregator",
    "/run/virtward",
    "/etc/systemd/system/virtward-agent.service",
    "/etc/systemd/system/virtward-aggregator.service",
    "/etc/systemd/system/virtward-libvirt-tls.path",
    "/etc/systemd/system/virtward-libvirt-tls.service",
    "/usr/local/bin/virtward",
    "/etc/systemd/system/virtward-agent.service.d",
    "/etc/systemd/system/libvirt-guests.service.d",
    "/etc/libvirt/hooks/qemu.d/virtward",
    "/etc/systemd/system/libvirtd.service.d/virtward.conf",
    "/usr/local/sbin/virtward-libvirt-before-start",
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
    if len(story.hosts) > 1:  # the short one has no time for it
        check(story, wheelhouse)
    for host in story.hosts:
        expect(story.status("nodes", host, "state") == "Up", f"{host} is not Up")
    expect("disarmed" in story.ssh("a1", "virtward status"), "a fresh fleet is not disarmed")
    story.ssh("a1", "virtward arm")


def check(story: Story, wheelhouse: Path) -> None:
    """Nothing would change, and check mode says so."""
    checked = story.play("site", wheelhouse, "--check", "--diff", "-e", "virtward_serial=3")
    expect(not any(checked.values()), f"check mode says that something would change: {checked}")
    story.say(f"site --check --diff: changed {checked}")


def fenceable(story: Story, host: str) -> bool:
    conditions = story.status("nodes", host, "conditions")
    return isinstance(conditions, list) and any(c["type"] == "Fenceable" and c["status"] == "True" for c in conditions)


def run_vms(story: Story, wheelhouse: Path) -> None:
    """VMs run and count."""
    for host in story.hosts:
        wait_until(partial(fenceable, story, host), 60, f"the first answer of the outlet of {host}")
    wanted = story.work / "vms.json"
    wanted.write_text(
        json.dumps({"vms": [manifest(vm, host) for vm, host in zip(story.vms, story.hosts, strict=False)]})
    )
    for changes in (1, 0):
        changed = story.play("vms", wheelhouse, "-e", f"@{wanted}", playbook=Path(__file__).with_name("vms.yml"))
        expect(changed == {"a1": changes}, f"the module vm changed {changed}, not {changes}")
    for vm in story.vms:
        expect(story.runs(vm) and story.counts_on(vm), f"{vm} does not run or does not count")
        story.say(f"{vm} counts on {story.status('vms', vm, 'node')}")
    live = story.live_inventory()
    expect(live.get("virtward_hosts") == {"hosts": list(story.hosts)}, f"the live inventory has other hosts: {live}")
    expect(live.get("state_Up") == {"hosts": list(story.hosts)}, "the live inventory does not group by state")


def upgrade(story: Story, wheelhouse: Path) -> None:
    """To another wheel, with VMs running: nobody notices."""
    before = {vm: story.count(vm)[0] for vm in story.vms}
    apart = story.hosts[-1]
    story.ssh("a1", f"virtward disarm --node {apart}")
    changed = story.play("upgrade", wheelhouse)
    story.say(f"upgrade: changed {changed}")
    after = {vm: story.count(vm)[0] for vm in story.vms}
    expect(before == after, "a VM was started anew by an upgrade")
    expect(all(story.counts_on(vm) for vm in story.vms), "a VM stands still after the upgrade")
    expect(not story.objects("incidents"), "an upgrade opened an incident")
    versions = {host: story.objects("nodes")[host]["status"]["versions"]["agent"] for host in story.hosts}  # type: ignore[index]
    expect(all("upgraded" in version for version in versions.values()), f"not every agent is upgraded: {versions}")
    story.say(f"every agent says {versions['h1']}, the VMs ran on, no incident")
    expect_armed(story, apart)


def expect_armed(story: Story, apart: str) -> None:
    """Every host is armed as it was before the playbook: all but one, which somebody had disarmed without an end."""
    held = {host: story.status("nodes", host, "disarmed") for host in story.hosts}
    mine = held.pop(apart)
    expect(isinstance(mine, dict) and not mine.get("until"), f"{apart} was disarmed and is now: {mine}")
    expect(not any(held.values()), f"a hold was left behind: {held}")
    story.say(f"{apart} is disarmed as it was before, the others are armed")


def rotate(story: Story, wheelhouse: Path) -> None:
    """Every agent joins anew, with another key: nobody notices."""
    shown = {host: story.ssh(host, "sha256sum /var/lib/virtward-agent/identity/joined.pem") for host in story.hosts}
    story.play("rotate_certificates", wheelhouse)
    for host in story.hosts:
        now = story.ssh(host, "sha256sum /var/lib/virtward-agent/identity/joined.pem")
        expect(now != shown[host], f"{host} still shows its old certificate")
    expect(all(story.counts_on(vm) for vm in story.vms), "a VM stands still after the certificates were rotated")
    expect(not story.objects("incidents"), "the rotation of certificates opened an incident")
    story.say("certificates rotated: every agent shows another one, the VMs ran on, no incident")
    apart = story.hosts[-1]
    expect_armed(story, apart)
    story.ssh("a1", f"virtward arm --node {apart}")


def drain(story: Story) -> None:
    """Empty a host live, over libvirt's TLS, and open it again."""
    vm = next(iter(story.vms))
    host, nonce = str(story.status("vms", vm, "node")), story.count(vm)[0]
    story.ssh("a1", f"virtward drain {host} --wait")
    expect(story.status("vms", vm, "node") != host, f"{vm} has not left {host}")
    expect(story.counts_on(vm) and story.count(vm)[0] == nonce, f"{vm} was not moved live")
    story.ssh("a1", f"virtward uncordon {host}")
    story.say(f"{host} drained: {vm} moved live to {story.status('vms', vm, 'node')}")


def patch(story: Story, wheelhouse: Path) -> None:
    """Drain a host, update and reboot it, have its VMs back: they notice nothing."""
    vm = next(iter(story.vms))
    host, nonce = str(story.status("vms", vm, "node")), story.count(vm)[0]
    boot = story.status("nodes", host, "bootID")
    changed = story.play("patch", wheelhouse, "--limit", host)
    story.say(f"patch of {host}: changed {changed}")
    expect(story.status("nodes", host, "bootID") not in ("", boot), f"{host} was not rebooted")
    expect(story.counts_on(vm) and story.count(vm)[0] == nonce, f"{vm} was not moved live off {host} and back")
    wait_until(lambda: story.status("vms", vm, "node") == host, 120, f"the way back of {vm} to {host}")
    expect(not story.open_incidents(), f"the reboot of {host} opened {story.open_incidents()}")
    expect(all(story.counts_on(each) for each in story.vms), "a VM stands still after the reboot")
    story.say(f"{host} was emptied live, rebooted, and has {vm} back")


def shut_down(story: Story) -> None:
    """Power a host off, and reboot one, as systemd does it and without a word to virtward: its VMs leave live."""
    vm = next(iter(story.vms))
    for word in ("poweroff", "reboot"):
        host, nonce = str(story.status("vms", vm, "node")), story.count(vm)[0]
        boot, begun = story.status("nodes", host, "bootID"), time.monotonic()
        story.ssh(host, f"systemctl {word}", check=False)  # the connection may end before the answer
        wait_until(lambda host=host: not story.site.is_on(host), 360, f"the {word} of {host}")  # type: ignore[misc]
        off_s = time.monotonic() - begun
        expect(story.status("vms", vm, "node") != host, f"{host} went down with {vm} on it")
        expect(story.counts_on(vm) and story.count(vm)[0] == nonce, f"{vm} was not moved live before the {word}")
        story.site.start(host)
        wait_until(partial(is_open_in_another_boot, story, host, boot), 180, f"the return of {host}")
        expect(all(story.counts_on(each) and story.runs(each) for each in story.vms), f"a VM ended with the {word}")
        expect(story.count(vm)[0] == nonce, f"{vm} was started anew after the {word}")
        expect(not story.open_incidents(), f"the {word} of {host} left open {story.open_incidents()}")
        story.say(f"systemctl {word} on {host}: {vm} left live, the host was off after {off_s:.0f} s and is open again")


def is_open_in_another_boot(story: Story, host: str, boot: object) -> bool:
    node = story.objects("nodes")[host]["status"]
    return isinstance(node, dict) and node["state"] == "Up" and node["bootID"] != boot and not node.get("taints")


def lose_the_store(story: Story, wheelhouse: Path) -> None:
    """Lose the journal for ever: agents bring the VMs back, and the inventory zones and fencing."""
    before = {vm: story.count(vm)[0] for vm in story.vms}
    hosts = " ".join(story.hosts)
    story.ssh("a1", "systemctl stop virtward-aggregator; find /var/lib/virtward-aggregator -maxdepth 1 -type f -delete")
    story.ssh("a1", f"/opt/virtward/bin/virtward-aggregator rebuild {hosts} && systemctl start virtward-aggregator")
    wait_until(partial(knows_all_again, story), 180, "the return of the VMs from what agents keep")
    expect(not any(zones(story).values()), "a label survived the loss of the store: this proves nothing")
    changed = story.play("site", wheelhouse, "-e", "virtward_serial=3")
    expect(changed == {"a1": 0} | dict.fromkeys(story.hosts, 1), f"site changed {changed}, not the nodes alone")
    expect(zones(story) == {host: f"z{host[1:]}" for host in story.hosts}, f"the zones are {zones(story)}")
    for host in story.hosts:
        wait_until(partial(fenceable, story, host), 60, f"the first answer of the outlet of {host}")
    expect(before == {vm: story.count(vm)[0] for vm in story.vms}, "a VM was started anew after the loss of the store")
    expect(all(story.counts_on(vm) for vm in story.vms), "a VM stands still after the loss of the store")
    expect(not story.open_incidents(), f"the loss of the store left open {story.open_incidents()}")
    story.say("the store was lost: the VMs are known again and ran on, site has brought zones and fencing back")


def zones(story: Story) -> dict[str, object]:
    labels = {host: story.objects("nodes")[host]["metadata"].get("labels") or {} for host in story.hosts}  # type: ignore[attr-defined]
    return {host: label.get("virtward/zone", "") for host, label in labels.items()}


def knows_all_again(story: Story) -> bool:
    told = story.ssh("a1", "virtward get vms", check=False)  # the API may not be there yet
    return all(vm in told for vm in story.vms) and all(map(story.runs, story.vms))


def lose_a_machine(story: Story) -> str:
    """Kill the host of the first VM; return its name once the VM counts elsewhere."""
    vm = next(iter(story.vms))
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


def come_back(story: Story, lost: str) -> None:
    """Power the lost machine on: it comes back by itself, and runs nothing that runs elsewhere."""
    story.site.start(lost)
    wait_until(lambda: story.status("nodes", lost, "state") == "Up", 120, f"the return of {lost}")
    running = story.ssh(lost, "virsh --connect qemu:///system list --name").split()
    expect(not running, f"{lost} came back and runs {running}")
    story.say(f"{lost} is powered on and Up again; it runs nothing")


def remove(story: Story, wheelhouse: Path, host: str) -> None:
    """Take a host out of the fleet."""
    before = {vm: story.count(vm)[0] for vm in story.vms}
    story.play("remove_node", wheelhouse, "--limit", f"a1,{host}")
    expect(host not in story.objects("nodes"), f"{host} is still a node of the fleet")
    expect(before == {vm: story.count(vm)[0] for vm in story.vms}, f"the removal of {host} started a VM anew")
    expect(all(story.counts_on(vm) for vm in story.vms), f"a VM ended with the removal of {host}")
    expect_nothing_left(story, host)
    story.say(f"{host} is taken out of the fleet, nothing of virtward is left on it, the VMs run on")


def expect_nothing_left(story: Story, host: str) -> None:
    accounts = "getent passwd virtward-agent virtward-aggregator"
    left = story.ssh(host, f"ls -d {' '.join(LEFT_BEHIND)} 2>/dev/null; {accounts}; true")
    expect(not left.strip(), f"{host} still has {left.split()}")


def uninstall(story: Story, wheelhouse: Path) -> None:
    """Take everything away; the VMs run on."""
    before = {vm: story.count(vm)[0] for vm in story.vms}
    story.play("uninstall", wheelhouse)
    expect(all(story.counts_on(vm) for vm in story.vms), "a VM ended with the uninstallation")
    expect(before == {vm: story.count(vm)[0] for vm in story.vms}, "a VM was started anew by the uninstallation")
    for host in story.site.machines:
        expect_nothing_left(story, host)
    for host in story.hosts:  # where libvirt is: also on one that was taken out of the fleet before
        guests = story.ssh(host, "systemctl is-enabled libvirt-guests; systemctl is-active libvirt-guests", check=False)
        expect(guests.split() == ["enabled", "active"], f"libvirt-guests of {host} is not as it was: {guests.split()}")
    story.say(f"uninstalled: nothing of virtward is left, and {', '.join(story.vms)} count on")


def package(version: str) -> Path:
    """Build a wheelhouse for another version than the present one, too; return it."""
    tree = PLACE / f"virtward-rollout-tree-{os.getpid()}"
    shutil.rmtree(tree, ignore_errors=True)
    run(["git", "clone", "-q", "--shared", str(ROOT), str(tree)])
    try:
        project = tree / "pyproject.toml"
        project.write_text(re.sub(r'(?m)^version = "[^"]*"', f'version = "{version}"', project.read_text(), count=1))
        for folder in (".venv", ".tools"):
            (tree / folder).symlink_to(ROOT / folder)
        run(["scripts/package.sh", PYTHONS[SUITE]], cwd=tree)
        target = PLACE / f"virtward-rollout-wheels-{os.getpid()}-{version}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(tree / "dist/wheelhouse", target)
        return target
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def play_all(story: Story, first: Path) -> None:
    """The whole story."""
    second = package("0.1.0.dev1+upgraded")
    roll_out(story, first)
    run_vms(story, first)
    upgrade(story, second)
    rotate(story, second)
    drain(story)
    patch(story, second)
    shut_down(story)
    lose_the_store(story, second)
    lost = lose_a_machine(story)
    come_back(story, lost)
    remove(story, second, lost)
    uninstall(story, second)
    shutil.rmtree(second, ignore_errors=True)


def play_short(story: Story, first: Path) -> None:
    """From nothing to a fleet of one, a VM, and away again."""
    roll_out(story, first)
    run_vms(story, first)
    uninstall(story, first)


def main(words: Sequence[str]) -> int:
    """Play the whole story, or the short one."""
    short = list(words) == ["short"]
    ansible = Path(os.environ.get("ANSIBLE_BIN", ROOT / ".ansible-venv/bin"))
    if short:
        story = Story(ansible, ("h1",), "virtward-rollout-short", "vws", pki=False)
    else:
        story = Story(ansible, ("h1", "h2", "h3"), "virtward-rollout-test", "vwr", pki=True)
    if why := why_no_machines():
        print(f"roll-out test: cannot run here: {why}", file=sys.stderr)
        return CANNOT_RUN
    outlet, wheels = None, None
    story.site.down()
    try:
        wheels = package("0.1.0.dev0")
        story.say("a wheelhouse is built")
        story.build()
        outlet = Outlet(story.site)
        story.say(f"{len(story.site.machines)} machines are booted, with nothing of virtward or libvirt on them")
        (play_short if short else play_all)(story, wheels)
    except NoMachinesError as error:
        print(f"roll-out test: cannot run here: {error}", file=sys.stderr)
        return CANNOT_RUN
    except MachineError as error:
        print(f"roll-out test: {error}", file=sys.stderr)
        return 1
    finally:
        if not os.environ.get("KEEP"):
            _clean_up(story, outlet, wheels)
    story.say(f"the {'short' if short else 'whole'} roll-out is as promised")
    return 0


def _clean_up(story: Story, outlet: Outlet | None, wheels: Path | None) -> None:
    if story.storage is not None:
        story.storage.kill()
        story.storage.wait()
    if outlet is not None:
        outlet.close()
    if wheels is not None:
        shutil.rmtree(wheels, ignore_errors=True)
    story.site.down()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
