"""Read csv tables that people make: any usual separator, spaces around names, a byte order mark, line numbers kept."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from actionprep.errors import UserError, nearest

Rows = list[tuple[int, dict[str, str]]]


def read_csv(path: Path) -> tuple[list[str], Rows]:
    """Column names, and each row as (line number, values by column); cells are stripped, blank rows left out.

    The separator is the one of tab, semicolon and comma that the first line has most of.

    Raises UserError for a file that cannot be read, is no text, is empty, names a column twice, or has a row of other
    length.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"Cannot read the table {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"The table {path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    first = text.split("\n", 1)[0]
    separator = max("\t;,", key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator)
    return _parse(path, reader)


def require_columns(path: Path, columns: Sequence[str], wanted: Mapping[str, str]) -> None:
    """Raise UserError for columns that a table lacks.

    wanted: the column's name and the setting or option that would name another.
    """
    for name, setting in wanted.items():
        if name not in columns:
            raise UserError(
                f"No column '{name}' in {path}.{nearest(name, columns)} It has {csv_columns(columns)}. "
                f"Name the right one with {setting}."
            )


def csv_columns(columns: Sequence[str]) -> str:
    """Names of columns for a message."""
    return ", ".join(f"'{name}'" for name in columns[:20]) + (" …" if len(columns) > 20 else "")


def _parse(path: Path, reader: Iterator[list[str]]) -> tuple[list[str], Rows]:
    columns: list[str] | None = None
    rows: Rows = []
    try:
        for cells in reader:
            line: int = reader.line_num  # type: ignore[attr-defined]
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = [cell.strip() for cell in cells]
                twice = {name for name in columns if name and columns.count(name) > 1}
                if twice:
                    raise UserError(f"The table {path} has the column '{sorted(twice)[0]}' twice.")
                continue
            if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
                raise UserError(
                    f"Line {line} of {path} has {len(cells)} cells and there are {len(columns)} columns. Put quotes "
                    "round cells that hold the separator."
                )
            padded = [*cells, *[""] * (len(columns) - len(cells))]
            rows.append((line, {name: cell.strip() for name, cell in zip(columns, padded, strict=False)}))
    except csv.Error as error:
        raise UserError(f"The table {path} is not a proper csv: {error}.") from None
    if columns is None:
        raise UserError(f"The table {path} is empty.")
    return columns, rows
