"""One small exact model: which VMs of a few sit on which of a few nodes, so that as many as possible do.

Knows numbers only: sizes, room, who may sit where, which sets may share no domain. HiGHS solves it. Deterministic:
one thread, a fixed seed, and limits in nodes of the search tree, never in seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from aggregator.placement.columns import FloatArray

if TYPE_CHECKING:
    import highspy

CALL_WORK = 4_000  # what building and presolving one model costs, in units of work
ENTRY_WORK = 4  # and each of its entries
ITERATION_WORK = 25  # and each simplex iteration
WORK_PER_S = 200_000  # measured on one core of a small server; a budget in seconds is made work by it


def load_solver() -> None:
    """Import the solver now: the first import takes 0.4 s, which a thread can spend while nobody waits for it."""
    import highspy  # noqa: F401, PLC0415 - by whoever decides nothing it is never needed


class Model(Struct, frozen=True, eq=False):
    """places: per VM the nodes it may take. now: its place, -1 for none. must: it may not lose its seat.

    sizes: cpu and memory by VM; room: by node. apart: sets of VMs of which at most
    one may sit in each of the sets of nodes beside it.
    """

    places: list[list[int]]
    now: list[int]
    must: list[bool]
    sizes: FloatArray
    room: FloatArray
    apart: list[tuple[list[int], list[list[int]]]]


class Solution(Struct, frozen=True, eq=False):
    """place: per VM its node, -1 for none; None: nothing was found. proven: no better one exists. work: spent."""

    place: list[int] | None
    proven: bool
    work: int


class _Rows:
    """The constraints, row by row."""

    def __init__(self) -> None:
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.start: list[int] = []
        self.index: list[int] = []
        self.value: list[float] = []

    def add(self, columns: list[int], values: list[float], lower: float, upper: float) -> None:
        self.start.append(len(self.index))
        self.index += columns
        self.value += values
        self.lower.append(lower)
        self.upper.append(upper)


def solve(model: Model, tree_nodes_max: int) -> Solution:
    """Return the best seats found within so many nodes of the search tree."""
    pairs = [(vm, node) for vm, nodes in enumerate(model.places) for node in nodes]
    column = {pair: number for number, pair in enumerate(pairs)}
    rows = _rows(model, column)
    start = np.array([model.now[vm] == node for vm, node in pairs], dtype=np.float64)
    solver = _load(len(pairs), rows, tree_nodes_max)
    solver.setSolution(len(pairs), np.arange(len(pairs), dtype=np.int32), start)
    solver.run()
    info = solver.getInfo()
    work = CALL_WORK + ENTRY_WORK * len(rows.index) + ITERATION_WORK * max(0, int(info.simplex_iteration_count))
    if info.primal_solution_status != _feasible():
        return Solution(None, proven=False, work=work)
    place = [-1] * len(model.places)
    for (vm, node), taken in zip(pairs, solver.getSolution().col_value, strict=True):
        if taken > 0.5:  # noqa: PLR2004 - a binary, within the solver's tolerance
            place[vm] = node
    return Solution(place, proven=_is_optimal(solver), work=work)


def _rows(model: Model, column: dict[tuple[int, int], int]) -> _Rows:
    rows = _Rows()
    for vm, nodes in enumerate(model.places):
        own = [column[vm, node] for node in nodes]
        rows.add(own, [1.0] * len(own), 1.0 if model.must[vm] else 0.0, 1.0)
    takers: dict[int, list[int]] = {}
    for vm, node in column:
        takers.setdefault(node, []).append(vm)
    for node, vms in takers.items():
        for sizes, room in zip(model.sizes, model.room, strict=True):
            whole = max(1.0, float(room[node]))
            sized = [vm for vm in vms if sizes[vm] > 0]
            shares = [float(sizes[vm]) / whole for vm in sized]
            rows.add([column[vm, node] for vm in sized], shares, -np.inf, max(0.0, float(room[node])) / whole)
    for vms, domains in model.apart:
        for domain in domains:
            together = [column[vm, node] for vm in vms for node in domain if (vm, node) in column]
            if len(together) > 1:
                rows.add(together, [1.0] * len(together), 0.0, 1.0)
    return rows


def _load(columns: int, rows: _Rows, tree_nodes_max: int) -> highspy._core._Highs:
    import highspy  # noqa: PLC0415 - a tenth of a second and 20 MB that only a fleet in want of room needs

    solver = highspy._core._Highs()  # noqa: SLF001 - highspy.Highs announces itself on stdout, where our answers go
    options: dict[str, bool | int | float | str] = {
        "output_flag": False,
        "threads": 1,
        "parallel": "off",
        "random_seed": 0,
        "mip_max_nodes": tree_nodes_max,
        "mip_pscost_minreliable": 0,  # trying branches out costs more than so small a tree
        "mip_heuristic_run_rins": False,  # nor do models inside the model pay (measured: half of the time)
        "mip_heuristic_run_rens": False,
    }
    for name, value in options.items():
        solver.setOptionValue(name, value)
    solver.passModel(
        columns,
        len(rows.start),
        len(rows.index),
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMaximize),
        0.0,
        np.ones(
            columns
        ),  # each seat is worth the same: whole numbers prune far better than sizes or wishes beside them
        np.zeros(columns),
        np.ones(columns),
        np.array(rows.lower),
        np.array(rows.upper),
        np.array(rows.start, dtype=np.int32),
        np.array(rows.index, dtype=np.int32),
        np.array(rows.value),
        np.ones(columns, dtype=np.int32),
    )
    return solver


def _feasible() -> int:
    import highspy  # noqa: PLC0415 - as above

    return int(highspy.SolutionStatus.kSolutionStatusFeasible)


def _is_optimal(solver: highspy._core._Highs) -> bool:
    import highspy  # noqa: PLC0415 - as above

    return bool(solver.getModelStatus() == highspy.HighsModelStatus.kOptimal)
