"""Manifests: what YAML means here, and where it is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.document import Json
from cli.errors import Failure
from cli.manifests import Manifest, dump_yaml, read_manifests


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.yaml"


def test_several_documents_and_lists_of_items_come_out_one_by_one(file: Path) -> None:
    file.write_text("kind: Node\n---\n---\nkind: List\nitems:\n- {kind: A}\n- {kind: B}\n---\n{items: [{kind: C}]}")
    assert [item.document["kind"] for item in read_manifests(str(file))] == ["Node", "A", "B", "C"]


def test_words_stay_words(file: Path) -> None:
    """YAML 1.1 would make a boolean, a number to base 60, octal and a date of these."""
    file.write_text("{a: On, b: 52:54:00, c: 010, d: 2026-01-01, e: no, f: 1e3, g: true, h: 2, i: null}")
    assert [item.document for item in read_manifests(str(file))] == [
        {
            "a": "On",
            "b": "52:54:00",
            "c": "010",
            "d": "2026-01-01",
            "e": "no",
            "f": "1e3",
            "g": True,
            "h": 2,
            "i": None,
        }
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: [", "document 1: line"),
        ("kind: Node\nspec: {a: 1,\n a: 2}", "line 3, column 2: the key 'a' stands here twice"),
        ("- 1", "a manifest is a mapping"),
        ("kind: A\n---\n7", "document 2: a manifest is a mapping"),
        ("", "holds no manifest"),
        ("a: !!python/name:os.system x", "is not understood here"),
        ("a: *b", "no anchor &b"),
        ("\x00", "no text that YAML allows"),
    ],
)
def test_broken_text_is_one_sentence_with_its_place(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(Failure) as raised:
        read_manifests(str(file))
    assert said in str(raised.value)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"cannot read .*none\.yaml: No such file"):
        read_manifests(str(tmp_path / "none.yaml"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(Failure, match="not UTF-8"):
        read_manifests(str(tmp_path / "bytes"))


_TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=30)
_ODD = st.sampled_from(
    ["On", "no", "1e3", "0x10", "52:54:00", "2026-01-01", "~", "null", "true", "-", "=", "<<", "1_000", ".5"]
)
_PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | _TEXTS | _ODD
_VALUES = st.recursive(
    _PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS | _ODD, inner, max_size=3), max_leaves=8
)


@given(_VALUES)
def test_what_we_print_is_read_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: Json) -> None:
    file = tmp_path_factory.mktemp("manifests") / "x.yaml"
    file.write_text(dump_yaml({"spec": value}))
    assert read_manifests(str(file)) == [Manifest(str(file), {"spec": value})]
