"""Writes docs/ecosystem.md from the tests that show each row of it.

    python -m tests.library.ecosystem_table

A test that carries `@pytest.mark.works_with(what, how)`, or a parameter that does, is a row.
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "ecosystem.md"
HEADER = """# What LAWN works with

Each row is shown by the test that it names. Unless the row says otherwise, that trains a few steps
across the switch: the norms of the constrained weights move before it and are constant after it.
Written by `python -m tests.library.ecosystem_table`.

| with | how | shown by |
| ---- | --- | -------- |
"""


def document() -> str:
    """What docs/ecosystem.md is to hold."""
    lines = [f"| {what} | {how} | `{test}` |" for what, how, test in rows()]
    return HEADER + "\n".join(lines) + "\n"


def rows() -> Iterator[tuple[str, str, str]]:
    """With what, how, and the test, in the order of the files."""
    for path in sorted(HERE.glob("test_*.py")):
        if "works_with" not in path.read_text(encoding="utf-8"):
            continue
        module = importlib.import_module(f"tests.library.{path.stem}")
        for name, test in vars(module).items():
            if inspect.isfunction(test) and name.startswith("test_"):
                for what, how in _marks(test):
                    yield what, how, f"tests/library/{path.stem}.py::{name}"


def _marks(test) -> Iterator[tuple[str, str]]:
    """The rows that a test shows: its own, then those of its parameters."""
    marks = getattr(test, "pytestmark", [])
    for mark in marks:
        if mark.name == "works_with":
            yield mark.args
    for mark in marks:
        if mark.name == "parametrize":
            for parameter in mark.args[1]:
                for inner in getattr(parameter, "marks", ()):
                    if inner.name == "works_with":
                        yield inner.args


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
