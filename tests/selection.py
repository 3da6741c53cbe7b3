"""Which tests run: slices of the whole, the laboratory's tests one at a time, and a line on what was left out.

A pytest plugin, loaded by name from pyproject.toml. Knows pytest; must not know what any test is about.
"""

import zlib
from collections import Counter
from collections.abc import Collection

import pytest

LABORATORY_FOLDER = "laboratory"
LABORATORY_FIXTURE = "laboratory"  # one for all tests of a file that ask for it
SUMMARY_KEY = "virtward_left_out"


class Slice:
    """The k-th of n parts, from text like `2/4`; ValueError says what is wrong with it."""

    def __init__(self, text: str) -> None:
        part, _, parts = text.partition("/")
        if not (part.isdecimal() and parts.isdecimal()):
            raise ValueError(f"slice {text!r}: write k/n, like 1/4")
        self.part, self.parts = int(part), int(parts)
        if not 1 <= self.part <= self.parts:
            raise ValueError(f"slice {text!r}: k counts from 1 to n")

    def holds(self, key: str) -> bool:
        """Tell whether the test with this key is in the slice: the same answer on every machine and run."""
        return zlib.crc32(key.encode()) % self.parts == self.part - 1


def slice_key(node_id: str, fixtures: Collection[str]) -> str:
    """Tests that share the laboratory of their file stay together, for it is built once; others are dealt singly."""
    return node_id.partition("::")[0] if LABORATORY_FIXTURE in fixtures else node_id


class Selection:
    """Deals the tests out and counts what stays behind, in the main process and in each of xdist's workers."""

    def __init__(self, wanted: Slice | None) -> None:
        self.wanted = wanted
        self.left_out: Counter[str] = Counter()
        self.sliced_off: frozenset[str] = frozenset()

    @pytest.hookimpl(tryfirst=True)  # before xdist writes the group's name into the test's
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        for item in items:
            if LABORATORY_FOLDER in item.path.parts:
                item.add_marker(pytest.mark.laboratory)
                item.add_marker(pytest.mark.xdist_group(LABORATORY_FOLDER))
        if self.wanted is None:
            return
        keys = {item.nodeid: slice_key(item.nodeid, getattr(item, "fixturenames", ())) for item in items}
        others = [item for item in items if not self.wanted.holds(keys[item.nodeid])]
        items[:] = [item for item in items if self.wanted.holds(keys[item.nodeid])]
        self.sliced_off = frozenset(item.nodeid for item in others)
        config.hook.pytest_deselected(items=others)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.left_out.update(self.kind(item) for item in items)

    def kind(self, item: pytest.Item) -> str:
        if item.nodeid in self.sliced_off:
            return "in other slices"
        marked = [name for name in ("browser", "slow") if item.get_closest_marker(name)]
        return marked[0] if marked else "not asked for"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output: dict[str, dict[str, int]] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[SUMMARY_KEY] = dict(self.left_out)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        # Every worker collects everything, so each tells the same story: the last one's is as good as any.
        output: dict[str, dict[str, int]] = getattr(node, "workeroutput", {})
        self.left_out = Counter(output.get(SUMMARY_KEY, {}))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(left_out_line(self.left_out))


def left_out_line(left_out: Counter[str]) -> str:
    """One line for people: how many tests of which kind did not run."""
    if not left_out.total():
        return "left out: nothing"
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
    return f"left out: {left_out.total()} tests ({kinds}); make test-all runs every one"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slice", default="", help="run only the k-th of n parts of the tests, like 2/4")


def pytest_configure(config: pytest.Config) -> None:
    text: str = config.getoption("--slice")
    try:
        wanted = Slice(text) if text else None
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    config.pluginmanager.register(Selection(wanted), "virtward-selection")
