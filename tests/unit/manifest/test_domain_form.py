"""The short form becomes the XML that an operator would have written."""

from __future__ import annotations

from typing import Any, cast
from xml.etree import ElementTree as ET

import pytest

from aggregator.core.manifest import ManifestError, check_object
from aggregator.core.objects import VirtualMachine


def expand(domain: dict[str, Any], **metadata: Any) -> ET.Element:
    return ET.fromstring(expanded_text(domain, **metadata))  # noqa: S314 (our own text)


def expanded_text(domain: dict[str, Any], **metadata: Any) -> str:
    raw: dict[str, Any] = {"apiVersion": "virtward/v1", "kind": "VirtualMachine"}
    raw |= {"metadata": {"name": "web-1", **metadata}, "spec": {"runStrategy": "Always", "domain": domain}}
    return cast("VirtualMachine", check_object(raw)).spec.domain_xml


def test_the_least_that_can_be_said() -> None:
    domain = expand({"memory": "4Gi"}, uid="7d1b6d2e-0000-4000-8000-000000000001")
    assert domain.get("type") == "kvm"
    assert domain.findtext("name") == "web-1"
    assert domain.findtext("uuid") == "7d1b6d2e-0000-4000-8000-000000000001"
    assert domain.findtext("memory") == str(4 * 1024 * 1024)
    assert domain.findtext("vcpu") == "1"
    actions = [domain.findtext(tag) for tag in ("on_poweroff", "on_reboot", "on_crash")]
    assert actions == ["destroy", "restart", "destroy"]


def test_disks_of_every_kind() -> None:
    disks = [
        {"source": "/srv/nfs/web-1.qcow2"},
        {"source": "/dev/vg0/web"},
        {"source": "nbd://10.1.3.9/web-1"},
        {"pool": "rbd", "volume": "web-1"},
        {"cdrom": "/iso/debian.iso"},
    ]
    found = expand({"memory": "1Gi", "disks": disks}).findall("devices/disk")
    assert [disk.get("type") for disk in found] == ["file", "block", "network", "volume", "file"]
    targets = [(disk.find("target") or ET.Element("x")).get("dev") for disk in found]
    assert [disk.find("target").get("dev") for disk in found if disk.find("target") is not None] == [  # type: ignore[union-attr]
        "vda",
        "vdb",
        "vdc",
        "vdd",
        "sda",
    ], targets
    assert [disk.find("driver").get("type") for disk in found] == ["qcow2", "raw", "raw", "raw", "raw"]  # type: ignore[union-attr]
    network = found[2].find("source")
    assert network is not None
    assert network.attrib == {"protocol": "nbd", "name": "web-1"}
    assert network.find("host").attrib == {"name": "10.1.3.9", "port": "10809"}  # type: ignore[union-attr]
    assert found[4].get("device") == "cdrom"
    assert found[4].find("readonly") is not None


def test_interfaces() -> None:
    wanted = [{"bridge": "br0", "vlan": 20}, {"network": "default", "mac": "52:54:00:12:34:56"}]
    bridge, network = expand({"memory": "1Gi", "interfaces": wanted}).findall("devices/interface")
    assert bridge.find("source").attrib == {"bridge": "br0"}  # type: ignore[union-attr]
    assert bridge.find("vlan/tag").attrib == {"id": "20"}  # type: ignore[union-attr]
    assert network.find("mac").attrib == {"address": "52:54:00:12:34:56"}  # type: ignore[union-attr]


def test_windows_with_secure_boot_and_tpm() -> None:
    text = expanded_text({"memory": "8Gi", "os": "windows", "firmware": "efi-secure", "tpm": True})
    domain = ET.fromstring(text)  # noqa: S314 (our own text)
    assert "http://microsoft.com/win/" in text
    assert domain.find("os").get("firmware") == "efi"  # type: ignore[union-attr]
    features = {f.get("name"): f.get("enabled") for f in domain.findall("os/firmware/feature")}
    assert features == {"enrolled-keys": "yes", "secure-boot": "yes"}
    assert domain.find("features/smm") is not None
    assert domain.find("devices/tpm/backend").get("version") == "2.0"  # type: ignore[union-attr]
    assert domain.find("clock").get("offset") == "localtime"  # type: ignore[union-attr]


def test_names_are_text_and_never_markup() -> None:
    domain = expand({"memory": "1Gi", "disks": [{"source": "/srv/a'<b>&.img"}]})
    assert domain.find("devices/disk/source").get("file") == "/srv/a'<b>&.img"  # type: ignore[union-attr]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "spec.domain.memory: it is required and missing"),
    ({"memory": "x"}, "spec.domain.memory: 'x' is not a quantity; write it like 2, 500m or 4Gi"),
    ({"memory": 4}, "spec.domain.memory: '4' is less than 1Mi; write it like 4Gi"),
    ({"memory": "1Gi", "os": "bsd"}, "spec.domain.os: 'bsd' is not known; it must be one of linux, windows"),
    (
        {"memory": "1Gi", "firmware": "uefi"},
        "spec.domain.firmware: 'uefi' is not known; it must be one of bios, efi, efi-secure",
    ),
    ({"memory": "1Gi", "cpu": {"cores": 0}}, "spec.domain.cpu.cores: 0 is out of range; it must be from 1 to 4096"),
    ({"memory": "1Gi", "cpu": 2}, "spec.domain.cpu: 2 is not a mapping; it holds fields like cores, model"),
    (
        {"memory": "1Gi", "cloudInit": {}},
        "spec.domain.cloudInit: there is no such field; known here: os, cpu, memory, firmware, tpm, disks, interfaces",
    ),
    (
        {"memory": "1Gi", "disks": [{}]},
        "spec.domain.disks[0]: a disk has exactly one of source, pool and cdrom; here are none",
    ),
    (
        {"memory": "1Gi", "disks": [{"source": "/a", "cdrom": "/b"}]},
        "spec.domain.disks[0]: a disk has exactly one of source, pool and cdrom; here are source and cdrom",
    ),
    ({"memory": "1Gi", "disks": [{"pool": "a"}]}, "spec.domain.disks[0]: pool and volume go together"),
    (
        {"memory": "1Gi", "disks": [{"source": "web.img"}]},
        (
            "spec.domain.disks[0].source: 'web.img' is neither an absolute path nor nbd://host:port/export; "
            "other disks need domainXML"
        ),
    ),
    (
        {"memory": "1Gi", "disks": [{"cdrom": "http://x/y.iso"}]},
        (
            "spec.domain.disks[0].cdrom: 'http://x/y.iso' is neither an absolute path nor nbd://host:port/export; "
            "other disks need domainXML"
        ),
    ),
    (
        {"memory": "1Gi", "disks": [{"source": "nbd://a:b/c"}]},
        "spec.domain.disks[0].source: 'nbd://a:b/c' is no URI; write nbd://host:port/export",
    ),
    (
        {"memory": "1Gi", "disks": [{"source": "/a", "format": "vmdk"}]},
        "spec.domain.disks[0].format: 'vmdk' is not known; it must be one of raw, qcow2",
    ),
    (
        {"memory": "1Gi", "interfaces": [{"vlan": 5}]},
        "spec.domain.interfaces[0]: an interface has exactly one of bridge and network; here are none",
    ),
    (
        {"memory": "1Gi", "interfaces": [{"bridge": "br0", "vlan": 5000}]},
        "spec.domain.interfaces[0].vlan: 5000 is out of range; it must be from 1 to 4094",
    ),
    (
        {"memory": "1Gi", "interfaces": [{"bridge": "br0", "mac": "33:33:00:00:00:01"}]},
        (
            "spec.domain.interfaces[0].mac: '33:33:00:00:00:01' is no MAC address of a single card; "
            "write it like 52:54:00:12:34:56"
        ),
    ),
]


@pytest.mark.parametrize(("domain", "sentence"), REFUSED, ids=[sentence[:60] for _, sentence in REFUSED])
def test_what_cannot_be_expanded_is_refused(domain: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ManifestError) as refused:
        expand(domain)
    assert str(refused.value) == sentence
