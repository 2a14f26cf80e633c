"""Imports between parts of the package match the table in docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "actionprep"
BASE = {"settings", "errors", "json_values", "registry"}
PARTS = {path.stem for path in PACKAGE.iterdir() if (path.is_dir() or path.suffix == ".py") and path.stem[0] != "_"}


def table() -> dict[str, list[str]]:
    """Return the parts that each part of the package may import, from top to bottom."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `actionprep/(\w+)(?:/|\.py)` \|.*\| ([^|]+) \|$", page, re.MULTILINE)
    return {part: re.findall(r"`(\w+)`", others) for part, others in rows if part not in BASE}


def imports(node: ast.AST) -> Iterator[str]:
    """Return the modules and names imported at run time, without those for type checkers only."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif not isinstance(node, ast.expr):
        for child in ast.iter_child_nodes(node):
            yield from imports(child)


def test_the_table_has_every_part_of_the_package():
    assert set(table()) == PARTS - BASE


def test_parts_may_only_import_parts_below_them():
    order = list(table())
    for part, others in table().items():
        assert all(order.index(other) > order.index(part) for other in others), part


@pytest.mark.parametrize("part", sorted(PARTS - BASE))
def test_a_part_imports_only_what_the_table_allows(part: str):
    allowed = {part, *table()[part]} | BASE
    files = sorted((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]
    wrong = []
    for path in files:
        for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            first, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if first == "actionprep" and other in PARTS - allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []
