"""Holds modules, functions and constructors to the sizes that CONTRIBUTING.md promises.

Knows Python's syntax tree; must not know what the code is about. Usage: check_sizes.py [FOLDER …]
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
CONSTRUCTOR_PARAMETERS_MAX = 6  # without self
FOLDERS = ("fleet", "agent", "aggregator", "cli", "simulator", "lab", "benchmarks", "scripts", "tests")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parameter_count(function: Function) -> int:
    arguments = function.args
    named = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
    return named - 1 + (arguments.vararg is not None) + (arguments.kwarg is not None)


def function_problems(function: Function) -> Iterator[str]:
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if lines > FUNCTION_LINES_MAX:
        yield f"{function.lineno}: function {function.name} has {lines} lines, {FUNCTION_LINES_MAX} are allowed"
    if function.name == "__init__" and parameter_count(function) > CONSTRUCTOR_PARAMETERS_MAX:
        count = parameter_count(function)
        yield f"{function.lineno}: constructor takes {count} parameters, {CONSTRUCTOR_PARAMETERS_MAX} are allowed"


def module_problems(source: str) -> Iterator[str]:
    """Yield `LINE: what is too large` for one module's source; SyntaxError if it is no Python."""
    lines = len(source.splitlines())
    if lines > MODULE_LINES_MAX:
        yield f"{MODULE_LINES_MAX}: module has {lines} lines, {MODULE_LINES_MAX} are allowed"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            yield from function_problems(node)


def main(folders: list[str]) -> int:
    problems = [
        f"{path}:{problem}"
        for folder in folders
        for path in sorted(Path(folder).rglob("*.py"))
        for problem in module_problems(path.read_text(encoding="utf-8"))
    ]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(FOLDERS)))
