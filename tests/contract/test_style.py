"""Size budget of the source: files under 300 lines, functions of at most 40 (docstring and blank lines not counted)."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE_LIMIT, FUNCTION_LIMIT = 300, 40
# Known to be too long; to be split, nothing may be added.
DEBT = {
    "libs/verify/src/fp_verify/verdict.py: final_verdict",
    "operator/src/fp_operator/programs.py: make_programs",
}


def sources() -> list[Path]:
    """Every module of every package."""
    return sorted(
        path for folder in ("libs", "services", "operator", "jobs") for path in (ROOT / folder).rglob("src/**/*.py")
    )


def functions(text: str) -> Iterator[tuple[str, int]]:
    """(name, lines that count) of every function of a module."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            counted = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            if ast.get_docstring(node, clean=False) is not None:
                first = node.body[0]
                counted -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
            yield node.name, sum(bool(lines[number - 1].strip()) for number in counted)


def test_there_are_sources() -> None:
    assert len(sources()) > 50


def test_files_are_short() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {name: size for name, size in sizes.items() if size >= FILE_LIMIT} == {}


def test_functions_are_short() -> None:
    long = {
        f"{path.relative_to(ROOT)}: {name}": size
        for path in sources()
        for name, size in functions(path.read_text())
        if size > FUNCTION_LIMIT
    }
    assert {name: size for name, size in long.items() if name not in DEBT} == {}


def test_the_budget_sees_a_long_function() -> None:
    text = "def short():\n    '''one\n\n    two'''\n\n    return 1\n\n\ndef long():\n" + "    x = 1\n" * 40
    assert list(functions(text)) == [("short", 2), ("long", 41)]
