"""The XML reader and hostile input: whatever comes is a Domain or a DomainXmlError, at no more cost than its length.

Random trees of the words that the reader looks for, with values that nobody means; good XML with characters changed;
and what is made to cost: entities, depth, width, length, numbers.
"""

from __future__ import annotations

import tracemalloc
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.domain_xml import DISKS_MAX, XML_BYTES_MAX, DomainXmlError, parse_domain

MEMORY_PER_CHARACTER_MAX = 400
"""An element of four characters is an object of Python's, with a dict and a place in a list."""
MEMORY_SPARE = 1 << 20
GOOD = """<domain type='kvm' id='4'><name>web-1</name><uuid>63625264-6470-54cf-8fdc-96cebe67af84</uuid>
<memory unit='MiB'>16</memory><vcpu current='1'>2</vcpu><memoryBacking><hugepages><page size='2' unit='M'/></hugepages>
</memoryBacking><os firmware='efi'><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><cpu mode='custom'><model>
Skylake</model></cpu><devices><disk type='network' device='disk'><driver name='qemu' type='raw' cache='none'/><source
protocol='nbd' name='a'><host name='10.0.0.1' port='10809'/></source><target dev='vda'/></disk><disk type='file'><source
file='/srv/a.img'/><target dev='vdb'/><readonly/></disk><interface type='bridge'><source bridge='br0'/></interface>
<hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source>
</hostdev><tpm model='tpm-crb'/></devices></domain>"""
TAGS = [
    "name",
    "uuid",
    "memory",
    "vcpu",
    "os",
    "type",
    "loader",
    "nvram",
    "cpu",
    "model",
    "feature",
    "memoryBacking",
    "hugepages",
    "page",
    "devices",
    "disk",
    "source",
    "host",
    "target",
    "driver",
    "readonly",
    "shareable",
    "interface",
    "hostdev",
    "address",
    "vendor",
    "product",
    "mdev",
    "tpm",
    "filesystem",
    "channel",
    "seclabel",
    "alias",
]
KEYS = [
    "type",
    "device",
    "mode",
    "unit",
    "size",
    "current",
    "arch",
    "machine",
    "firmware",
    "protocol",
    "name",
    "port",
    "transport",
    "socket",
    "file",
    "dev",
    "pool",
    "volume",
    "bridge",
    "network",
    "domain",
    "bus",
    "slot",
    "function",
    "id",
    "uuid",
    "startupPolicy",
    "cache",
    "nodeset",
]
values = st.sampled_from(
    [
        "",
        "0",
        "-1",
        "1",
        "²",
        "٣",
        "1e9",
        "9" * 400,
        "0x",
        "0xzz",
        "/",
        "//",
        "/..",
        "nbd",
        "kvm",
        "pci",
        "G",
        "KiB",
        "ü",
    ]
) | st.text(max_size=12)


def sane(text: str) -> str:
    """Only what XML can hold at all; what it cannot is another test's."""
    return "".join(c for c in text if c in "\t\n\r" or 0x20 <= ord(c) < 0xD800 or 0xE000 <= ord(c) < 0xFFFE)


@st.composite
def elements(draw: st.DrawFn, depth: int = 2) -> str:
    tag = draw(st.sampled_from(TAGS))
    keys = draw(st.lists(st.sampled_from(KEYS), max_size=4, unique=True))
    attributes = "".join(f" {key}={quoteattr(sane(draw(values)))}" for key in keys)
    inner = escape(sane(draw(values)))
    if depth:
        inner += "".join(draw(st.lists(elements(depth=depth - 1), max_size=3)))
    return f"<{tag}{attributes}>{inner}</{tag}>"


def survives(xml: str) -> None:
    """Read it: a Domain, or one sentence."""
    try:
        domain = parse_domain(xml)
    except DomainXmlError as error:
        said = str(error)
    else:
        said = "fine"
        assert domain.memory_bytes >= 0
        assert len(domain.disks) <= DISKS_MAX
    assert "\n" not in said
    assert len(said) < 2000


@given(st.lists(elements(), max_size=5), st.booleans())
@settings(max_examples=120, deadline=None)
def test_trees_of_known_words_with_values_nobody_means(parts: list[str], named: bool) -> None:  # noqa: FBT001
    head = "<name>a</name><memory>1024</memory>" if named else ""
    survives(f"<domain type='kvm'>{head}{''.join(parts)}</domain>")


@given(st.lists(elements(), max_size=5))
@settings(max_examples=100, deadline=None)
def test_devices_nobody_means(parts: list[str]) -> None:
    survives(f"<domain type='kvm'><name>a</name><memory>1024</memory><devices>{''.join(parts)}</devices></domain>")


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_good_xml_with_characters_changed(data: st.DataObject) -> None:
    text = list(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from("<>&'\"/=; \n0-²aZü\x00\ud800]!["))
    survives("".join(text[: data.draw(st.integers(0, len(text)))]))


@given(st.text(max_size=400))
def test_text_at_random(text: str) -> None:
    survives(text)


ENTITIES = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10 if n else 'ha' * 10}'>" for n in range(12))


@pytest.mark.parametrize(
    "xml",
    [
        f"<!DOCTYPE domain [{ENTITIES}]><domain><name>&a11;</name></domain>",
        "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name></domain>",
        "<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x.dtd'><domain/>",
        "<domain>" + "<a>" * 200_000,
        "<domain>" + "<a/>" * 250_000 + "</domain>",
        "<domain " + " ".join(f"a{n}='b'" for n in range(90_000)) + "/>",
        "<domain><name>" + "x" * (XML_BYTES_MAX - 100) + "</name></domain>",
        "<domain>" + " " * XML_BYTES_MAX + "</domain>",
        GOOD.replace(">16<", ">" + "9" * 5000 + "<"),
        GOOD.replace("current='1'", "current='" + "9" * 5000 + "'"),
        GOOD.replace(">16<", ">²<"),
        GOOD.replace("current='1'", "current='²'"),
        GOOD.replace("size='2'", "size='²'"),
        GOOD.replace("size='2'", "size='" + "9" * 5000 + "'"),
        GOOD.replace("slot='0x00'", "slot='0x" + "f" * 5000 + "'"),
        GOOD.replace("slot='0x00'", "slot='" + "9" * 5000 + "'"),
        GOOD.replace("<devices>", "<devices>" + "<disk><source file='/a'/></disk>" * 30_000),
        GOOD.replace("<devices>", "<devices>" + "<hostdev/><interface type='bridge'><source/></interface>" * 10_000),
        "<?xml version='1.0' encoding='utf-16'?>" + GOOD,
    ],
    ids=lambda xml: xml[:40].replace("\n", " "),
)
def test_xml_that_is_made_to_cost_costs_no_more_than_its_length(xml: str) -> None:
    tracemalloc.start()
    try:
        survives(xml)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_PER_CHARACTER_MAX * len(xml) + MEMORY_SPARE
