"""Read csv tables and lists that people make with spreadsheets and annotation tools.

The dialect of a text is decided here only: its encoding, its separator, and lines that are not rows.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

from actionprep.datasets.findings import Finding
from actionprep.errors import UserError, name_list, nearest

Rows = list[tuple[int, dict[str, str]]]

Separator = Literal["auto", "comma", "semicolon", "tab", "bar", "space"]
"""Separator of the cells of a list; space is any run of spaces and tabs."""

_MARKS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
_SEPARATORS = "\t;,|"
_NO_MARKS = str.maketrans("", "", " _-")
_SAMPLE_ROWS = 50
_SAMPLE_BYTES = 1 << 12
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_STATED_ENCODING: ContextVar[str] = ContextVar("encoding", default="auto")


@contextmanager
def text_encoding(name: str) -> Iterator[None]:
    """Read tables and lists in this encoding, until the context ends.

    Args:
        name: An encoding that Python knows, as `study.encoding`; "auto" detects UTF-8 and UTF-16 and reads other text as
            cp1252. A byte order mark always wins. JSON and XML are UTF-8 or state their encoding.
    """
    token = _STATED_ENCODING.set(name)
    try:
        yield
    finally:
        _STATED_ENCODING.reset(token)


def is_text_encoding(name: str) -> bool:
    """Return whether `text_encoding` accepts a name."""
    if name == "auto":
        return True
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def read_csv(path: Path, *, usual: Iterable[str] = ()) -> tuple[list[str], Rows]:
    """Read a table with a header.

    The text may be UTF-8, UTF-16 or cp1252 (see `text_encoding`), the separator a tab, semicolon, comma or bar. Blank
    lines and the line `sep=;`, which Excel writes, are skipped.

    Args:
        path: The file.
        usual: Column names that the reader looks for. A column that differs from one of them only in case, spaces, "_" and
            "-" gets that name, unless the table has that name or several such columns.

    Returns:
        The column names, and each row as its line number and its cells by column. Spaces around cells are removed.

    Raises:
        UserError: If the file cannot be read, is not text, is empty, has a column twice, or has a row with more cells
            than columns.
    """
    columns, rows = _parse(path, read_text(path))
    names = usual_names(columns, usual)
    if not names:
        return columns, rows
    return [names.get(name, name) for name in columns], [
        (line, {names.get(name, name): cell for name, cell in row.items()}) for line, row in rows
    ]


def usual_names(columns: Sequence[str], usual: Iterable[str]) -> dict[str, str]:
    """Match the columns of a table with the names that a reader looks for; see `read_csv`.

    Returns:
        The usual name of each column that is spelled otherwise.
    """
    spellings: dict[str, list[str]] = {}
    for column in columns:
        spellings.setdefault(_spelling(column), []).append(column)
    matches = ((spellings.get(_spelling(name), []), name) for name in usual if name not in columns)
    return {same[0]: name for same, name in matches if len(same) == 1}


def _spelling(name: str) -> str:
    return name.casefold().translate(_NO_MARKS)


def read_list(path: Path, separator: Separator = "auto") -> list[tuple[int, list[str]]]:
    """Read a list without a header.

    Args:
        path: The file.
        separator: What is between cells; "auto" detects it.

    Returns:
        Line number and cells of each line that is not blank. Spaces around cells are removed.

    Raises:
        UserError: If the file cannot be read, is not text or is empty.
    """
    try:
        rows = split_list(read_text(path), separator)
    except csv.Error as error:
        raise UserError(f"The list {path} is not a valid csv file: {error}.") from None
    if not rows:
        raise UserError(f"The list {path} is empty.")
    return rows


def split_list(text: str, separator: Separator = "auto") -> list[tuple[int, list[str]]]:
    """Split a text as `read_list` does.

    Raises:
        csv.Error: If it is not valid csv.
    """
    mark = _MARKS.get(separator) or ("" if separator == "space" else _list_separator(text))
    if not mark:
        numbered = enumerate(text.splitlines(), start=1)
        return [(line, cells) for line, content in numbered if (cells := content.split())]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    return [
        (reader.line_num, [cell.strip() for cell in cells])
        for cells in _non_blank(reader)
        if not _is_separator_line(cells)
    ]


def _list_separator(text: str) -> str:
    """Return the separator of a list; empty for spaces, which count where no other mark gives each line cells."""
    separator = _separator(text)
    lines = [line for line in text.splitlines()[:_SAMPLE_ROWS] if line.strip()]
    is_used = sum(separator in line for line in lines) > len(lines) / 2
    return separator if is_used else ""


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, UTF-16 or cp1252, without its byte order mark.

    Raises:
        UserError: If the file cannot be read or is not text.
    """
    text, _ = _decode(path, _read_bytes(path))
    return text


def decode_head(data: bytes) -> str:
    """Decode the first bytes of a file of any kind to look at them; bytes that do not decode are replaced."""
    return data.decode(_marked_encoding(data) or "utf-8", errors="replace")


def encoding_findings(path: Path, source: str) -> list[Finding]:
    """Report a text file whose encoding had to be guessed.

    Args:
        path: The file.
        source: Its name in the finding.

    Returns:
        One finding, or none where the encoding is UTF-8 or stated by a byte order mark.
    """
    data = _read_bytes(path)
    # XML states its encoding; JSON is UTF-8 unless it is marked.
    if data.lstrip()[:1] in (b"<", b"{", b"["):
        return []
    _, guessed = _decode(path, data)
    if guessed is None:
        return []
    message = f"is not UTF-8 and states no encoding; it was read as {guessed}. If letters are wrong, set study.encoding"
    return [Finding("guessed encoding", source, message)]


def require_columns(path: Path, columns: Sequence[str], wanted: Mapping[str, str]) -> None:
    """Check that a table has some columns.

    Args:
        path: The table, for the message.
        columns: Its column names.
        wanted: Needed column names, each with the setting or option that would name another column.

    Raises:
        UserError: If a column is missing.
    """
    for name, setting in wanted.items():
        if name not in columns:
            raise UserError(
                f"No column '{name}' in {path}.{nearest(name, columns)} It has {csv_columns(columns)}. "
                f"Name the right one with {setting}."
            )


def csv_columns(columns: Sequence[str]) -> str:
    """List column names for a message, at most 20."""
    return name_list([f"'{name}'" for name in columns], 20)


def header_of(text: str) -> list[str]:
    """Return the column names of a table from its first lines; empty where there are none."""
    rows = _non_blank(csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text)))
    try:
        for cells in rows:
            if not _is_separator_line(cells):
                return [cell.strip() for cell in cells]
    except csv.Error:
        pass
    return []


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read the table {path}: {error.strerror or error}.") from None


def _decode(path: Path, data: bytes) -> tuple[str, str | None]:
    """Return the text and, where its encoding had to be guessed, the name of the encoding."""
    if data.startswith(b"PK\x03\x04"):
        raise UserError(f"The table {path} is a spreadsheet, not text. Save it as csv in UTF-8.")
    marked = _marked_encoding(data)
    wanted = _STATED_ENCODING.get()
    has_mark = any(data.startswith(mark) for mark, _ in _BYTE_ORDER_MARKS)
    if wanted != "auto" and not has_mark and data.lstrip()[:1] not in (b"<", b"{", b"["):
        return _decode_as(path, data, wanted), None
    for encoding in (marked,) if marked else ("utf-8", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            problem = f"{error.reason} at byte {error.start}"
            continue
        if "\0" in text:
            problem = f"a NUL character at position {text.index(chr(0))}"
            break
        return text, None if encoding == "utf-8" or has_mark else encoding
    tried = marked.upper().removesuffix("-SIG") if marked else "UTF-8 or cp1252"
    raise UserError(f"The table {path} is not {tried} text: {problem}. Save it as csv in UTF-8.")


def _decode_as(path: Path, data: bytes, encoding: str) -> str:
    """Decode with the encoding that the user named."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"The table {path} is not {encoding} text: {error.reason} at byte {error.start}. Set study.encoding to its "
            'encoding, or to "auto".'
        ) from None
    if "\0" in text:
        raise UserError(
            f"The table {path} is not {encoding} text: a NUL character at position {text.index(chr(0))}. Set "
            'study.encoding to its encoding, or to "auto".'
        )
    return text


def _marked_encoding(data: bytes) -> str | None:
    """Return the encoding that a byte order mark states, or UTF-16 where every second byte of Latin text is 0."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    sample = data[:_SAMPLE_BYTES]
    even, odd = sample[::2], sample[1::2]
    if odd.count(0) > 0.4 * max(len(odd), 1) and not even.count(0):
        return "utf-16-le"
    if even.count(0) > 0.4 * max(len(even), 1) and not odd.count(0):
        return "utf-16-be"
    return None


def _separator(text: str) -> str:
    """Choose the separator with which most rows have as many cells as the header, then the one with most cells."""
    best, separator = (0.0, 1), ","
    for candidate in _SEPARATORS:
        rows = _non_blank(csv.reader(io.StringIO(text, newline=""), delimiter=candidate))
        try:
            first, *others = itertools.islice(rows, _SAMPLE_ROWS)
            if _is_separator_line(first):
                return _stated_separator(first) or candidate
        except csv.Error:
            continue
        except ValueError:  # no row at all
            return ","
        if len(first) < 2:
            continue
        score = (sum(len(cells) == len(first) for cells in others) / max(len(others), 1), len(first))
        if score > best:
            best, separator = score, candidate
    return separator


def _non_blank(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    return (cells for cells in reader if any(cell.strip() for cell in cells))


def _is_separator_line(cells: Sequence[str]) -> bool:
    """Whether a row is Excel's line `sep=;`; with that separator it has two cells, the second one empty."""
    return cells[0].strip().lower()[:4] == "sep=" and len("".join(cells).strip()) <= 5


def _stated_separator(cells: Sequence[str]) -> str | None:
    rest = cells[0].strip()[4:]
    return rest if len(rest) == 1 else None


def _parse(path: Path, text: str) -> tuple[list[str], Rows]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text))
    columns: list[str] | None = None
    rows: Rows = []
    try:
        for cells in _non_blank(reader):
            line = reader.line_num
            if columns is None:
                if _is_separator_line(cells):
                    continue
                columns = [cell.strip() for cell in cells]
                repeated = {name for name in columns if name and columns.count(name) > 1}
                if repeated:
                    raise UserError(f"The table {path} has the column '{sorted(repeated)[0]}' twice.")
                continue
            if any(cell.strip() for cell in cells[len(columns) :]):
                raise UserError(
                    f"Line {line} of {path} has {len(cells)} cells and there are {len(columns)} columns. Put quotes "
                    "around cells that contain the separator."
                )
            padded = [*cells, *[""] * (len(columns) - len(cells))]
            rows.append((line, {name: cell.strip() for name, cell in zip(columns, padded, strict=False)}))
    except csv.Error as error:
        raise UserError(f"The table {path} is not a valid csv file: {error}.") from None
    if columns is None:
        raise UserError(f"The table {path} is empty.")
    return columns, rows
