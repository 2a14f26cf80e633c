"""Rows of a table that is a csv, a tsv or the first sheet of a workbook (.xlsx)."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from zipfile import BadZipFile

from actionprep.datasets.tables import read_text
from actionprep.errors import SetupError


def is_workbook(path: Path) -> bool:
    """Whether a file is a workbook, by its suffix."""
    return path.suffix.lower() == ".xlsx"


def table_cells(path: Path) -> list[tuple[int, list[str]]]:
    """Return line number and cells of every row that is not blank.

    Raises:
        SetupError: If a workbook needs a package that is not installed.
        ValueError: If it is not a workbook.
    """
    rows = _workbook_rows(path) if is_workbook(path) else _csv_rows(read_text(path))
    return [(line, cells) for line, cells in rows if any(cells)]


def _workbook_rows(path: Path) -> list[tuple[int, list[str]]]:
    if importlib.util.find_spec("openpyxl") is None:
        raise SetupError(f"{path} is a workbook. Reading it needs openpyxl: pip install 'actionprep[formats]'.")
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (BadZipFile, InvalidFileException, KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(f"it is not a workbook: {error}") from None
    try:
        rows = book.worksheets[0].iter_rows(values_only=True) if book.worksheets else iter(())
        return [(line, [_cell(value) for value in row]) for line, row in enumerate(rows, start=1)]
    except (SyntaxError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"its first sheet is damaged: {error}") from None
    finally:
        book.close()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _csv_rows(text: str) -> list[tuple[int, list[str]]]:
    first = "\n".join(text.splitlines()[:40])
    mark = max("\t;,", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
