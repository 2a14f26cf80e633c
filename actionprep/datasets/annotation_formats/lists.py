"""Read lists of published data sets by a preset: columns, separator, first number, end and class names as data.

The presets that come with the package are TOML files in `list_presets`. A user's own TOML file works alike.
"""

from __future__ import annotations

import csv
import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from actionprep.datasets.annotation_formats.class_names import ClassNames, find_class_names
from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat, parse_interval, parse_time
from actionprep.datasets.tables import Separator, header_of, read_csv, read_list, split_list
from actionprep.errors import UserError, nearest
from actionprep.settings import Settings, option

PRESETS = Path(__file__).parent / "list_presets"
"""Folder of the presets that come with the package, one TOML file per preset."""

_TIMES = {
    "onset": "s",
    "offset": "s",
    "onset_ms": "ms",
    "offset_ms": "ms",
    "onset_frame": "frame",
    "offset_frame": "frame",
}
_FIELDS = ("recording", "class", "label", *_TIMES, "num_frames", "time", "layer", "annotator", "split")
_SKIPPED = "-"
_MANY = "*"
_SAMPLE_ROWS = 50


class ListPreset(Settings):
    """How a list of segments or clips is written."""

    title: str = option(..., "What the list is, in one line.")
    source: str = option("", "Where the list comes from and what its numbers mean.")
    separator: Separator = option("auto", "What is between cells: comma, semicolon, tab, bar, space or auto.")
    columns: tuple[str, ...] = option(
        (),
        "Fields of a list without header, in order: a name of a field, '-' to skip one, 'class*' for all that follow.",
    )
    header: dict[str, str] = option({}, "Fields of a list with header: name of the column of each field.")
    pattern: str = option("", "Instead of columns: a regular expression of a line, with fields as named groups.")
    first_number: int = option(0, "Number of the first frame.")
    end: Literal["exclusive", "inclusive"] = option(
        "exclusive", "Whether the frame of the offset is the first one after the segment, or its last one."
    )
    time_zero: str = option("start of the video", "What time 0 is.")
    span: float = option(1.0, "Length in s of what a row with a single time is about; the time is in its middle.", gt=0)
    first_class: int = option(0, "Number of the first class.")
    classes: tuple[str, ...] = option(
        (), "Names of files with class names beside the list; the first that exists counts."
    )
    strip: str = option("", "Start of the names of recordings that is not part of them.")
    trimmed: str = option("", "Names of clips that were cut out, such as {recording}_{onset:06.0f}_{offset:06.0f}.")
    label: Literal["", "folder"] = option(
        "", "Where a list of clips without label has it: folder is the one of the clip."
    )
    layers: dict[str, str] = option({}, "Columns with further labels of a row, by the name of their layer.")
    file: str = option("", "Regular expression of the name of the list, with groups split and label.")
    splits: dict[str, str] = option({}, "Split that a word of the list means; words for no split are left out: none.")
    recognized: str = option(
        "", "Regular expression that each line matches if auto may choose the preset; '' for never."
    )

    @field_validator("columns", "header")
    @classmethod
    def _known_fields(cls, fields: Any) -> Any:
        for field in fields:
            name = field.removesuffix(_MANY)
            if name not in (*_FIELDS, _SKIPPED):
                raise ValueError(f"no field '{field}'.{nearest(name, _FIELDS)} Fields: {', '.join(_FIELDS)}, -")
        if any(field.endswith(_MANY) for field in list(fields)[:-1]):
            raise ValueError("only the last field may end with *")
        return fields

    @field_validator("pattern", "file", "recognized")
    @classmethod
    def _valid_expression(cls, text: str) -> str:
        try:
            unknown = [name for name in re.compile(text).groupindex if name not in _FIELDS]
        except re.error as error:
            raise ValueError(f"'{text}' is not a regular expression: {error}") from None
        if unknown:
            raise ValueError(f"no field '{unknown[0]}'. Fields: {', '.join(_FIELDS)}")
        return text

    @model_validator(mode="after")
    def _has_fields(self) -> Self:
        if sum(map(bool, (self.columns, self.header, self.pattern))) != 1:
            raise ValueError("a preset needs one of columns, header and pattern")
        names = self.fields
        if "recording" not in names:
            raise ValueError("a preset needs the field recording")
        units = {_TIMES[name] for name in names if name in _TIMES}
        if len(units) > 1:
            raise ValueError(f"times must have one unit, and the fields have {' and '.join(sorted(units))}")
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that a row has."""
        names = self.columns or tuple(self.header) or tuple(re.compile(self.pattern).groupindex)
        return tuple(name.removesuffix(_MANY) for name in names)

    @property
    def unit(self) -> str:
        """Unit of the times: s, ms or frame; empty for lists of clips."""
        return next((_TIMES[name] for name in self.fields if name in _TIMES), "s" if "time" in self.fields else "")


def load_preset(path: Path) -> ListPreset:
    """Read the TOML file of a preset.

    Raises:
        UserError: If it cannot be read or is not a preset.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read the list preset {path}: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The list preset {path} is not valid TOML in UTF-8: {error}.") from None
    return ListPreset.read(values, where=str(path))


def list_format(path: Path) -> SegmentFormat:
    """Return the annotation format of a preset file; its name is that of the file."""
    preset = load_preset(path)
    reader = functools.partial(_read, preset, None)
    format = SegmentFormat(
        path.stem,
        preset.title,
        (".csv", ".lst", ".txt"),
        functools.partial(_recognizes, preset),
        reader,
        class_files=preset.classes,
        resembles=functools.partial(_resembles, preset),
        times=_times_of(preset),
    )
    return replace(format, with_classes=lambda classes: replace(format, read=functools.partial(_read, preset, classes)))


def _times_of(preset: ListPreset) -> str:
    if not preset.unit:
        return "full clips"
    if preset.unit == "frame":
        end = "exclusive" if "num_frames" in preset.fields else preset.end
        return f"frames from {preset.first_number}, end {end}; time 0 is the {preset.time_zero}"
    return f"{'seconds' if preset.unit == 's' else 'milliseconds'} from the {preset.time_zero}"


def preset_text(name: str) -> str:
    """Return the TOML text of a preset that comes with the package.

    Raises:
        UserError: If there is none of this name.
    """
    names = sorted(path.stem for path in PRESETS.glob("*.toml"))
    if name not in names:
        raise UserError(f"No list preset '{name}'.{nearest(name, names)} Presets: {', '.join(names)}.")
    return (PRESETS / f"{name}.toml").read_text(encoding="utf-8")


def _recognizes(preset: ListPreset, path: Path, head: str) -> bool:
    if not preset.recognized or path.suffix.lower() not in (".csv", ".lst", ".txt"):
        return False
    lines = _whole_lines(head)
    if preset.header:
        # The expression is about the line with the column names.
        return bool(lines) and re.fullmatch(preset.recognized, ",".join(header_of(head))) is not None
    return bool(lines) and all(re.fullmatch(preset.recognized, line.strip()) for line in lines)


def _resembles(preset: ListPreset, path: Path, head: str) -> bool:
    """Whether the first rows have the right number of cells, with numbers where the preset has them.

    A preset that auto may choose never only resembles a file.
    """
    if preset.header or preset.recognized or path.suffix.lower() not in (".csv", ".lst", ".txt"):
        return False
    needs_name = not {"label", "class"} & set(preset.fields)
    if needs_name and re.fullmatch(preset.file, path.stem) is None:
        return False
    try:
        cells = list(_cells(preset, split_list("\n".join(_whole_lines(head)), preset.separator)))
    except csv.Error:
        return False
    rows = [row for entry in cells for row in _rows(preset, path, *entry, _AnyClass())]
    return bool(rows) and not any(isinstance(row, RowError) for row in rows)


class _AnyClass(ClassNames):
    """Class names that a look at a file does not need."""

    def __init__(self) -> None:
        super().__init__(Path(), {})

    def label(self, number: int, first: int) -> str:
        return str(number)


def _whole_lines(head: str) -> list[str]:
    lines = head.splitlines()
    if len(head) >= 1 << 15 and len(lines) > 1:
        lines.pop()  # cut off
    return [line for line in lines if line.strip()][:_SAMPLE_ROWS]


def _read(
    preset: ListPreset, classes: Path | None, path: Path, columns: Mapping[str, str]
) -> Iterator[AnnotatedRow | RowError]:
    names = ClassNames.read(classes) if classes is not None else find_class_names(path, preset.classes)
    rows = _rows_with_header(preset, path) if preset.header else _cells(preset, read_list(path, preset.separator))
    all_rows = (row for line, values in rows for row in _rows(preset, path, line, values, names))
    yield from _joined(all_rows) if "time" in preset.fields else all_rows


Values = Mapping[str, str | list[str]] | str
"""Cells of a row by field; a text is the reason why there are none."""


def _rows_with_header(preset: ListPreset, path: Path) -> Iterator[tuple[int, Values]]:
    header, rows = read_csv(path)
    wanted = [*preset.header.values(), *preset.layers.values()]
    missing = [column for column in wanted if column not in header]
    if missing:
        raise ValueError(f"no column '{missing[0]}'.{nearest(missing[0], header)} It has {', '.join(header[:20])}")
    for line, row in rows:
        values: dict[str, str | list[str]] = {field: row[column] for field, column in preset.header.items()}
        yield line, {**values, **{f"layer {name}": row[column] for name, column in preset.layers.items()}}


def _cells(preset: ListPreset, rows: list[tuple[int, list[str]]]) -> Iterator[tuple[int, Values]]:
    expression = re.compile(preset.pattern) if preset.pattern else None
    num_fixed = len(preset.fields)
    has_rest = bool(preset.columns) and preset.columns[-1].endswith(_MANY)
    num_fixed -= has_rest and preset.columns[-1] == f"{_SKIPPED}{_MANY}"
    for line, cells in rows:
        if expression is not None:
            match = expression.fullmatch(" ".join(cells))
            yield line, f"it does not have the form {preset.pattern}" if match is None else match.groupdict("")
        elif len(cells) < num_fixed or (len(cells) > num_fixed and not has_rest):
            number = f"{num_fixed} or more" if has_rest else str(num_fixed)
            shown = " ".join(cells)
            yield line, f"it has {len(cells)} cells instead of {number} ({' '.join(preset.columns)}): '{shown[:80]}'"
        else:
            values: dict[str, str | list[str]] = dict(zip(preset.fields, cells, strict=False))
            if has_rest:
                values[preset.fields[-1]] = cells[len(preset.fields) - 1 :]
            yield line, values


def _rows(
    preset: ListPreset, path: Path, line: int, values: Values, names: ClassNames | None
) -> Iterator[AnnotatedRow | RowError]:
    if isinstance(values, str):
        yield RowError(values, line)
        return
    try:
        for row in _parsed(preset, path, values, names):
            yield replace(row, line=line)
    except (ValueError, OverflowError) as error:
        yield RowError(str(error), line)


def _parsed(
    preset: ListPreset, path: Path, values: Mapping[str, str | list[str]], names: ClassNames | None
) -> Iterator[AnnotatedRow]:
    cells = {field: value for field, value in values.items() if isinstance(value, str)}
    in_name = re.fullmatch(preset.file, path.stem) if preset.file else None
    of_file = {} if in_name is None else {key: value or "" for key, value in in_name.groupdict().items()}
    recording = cells["recording"].removeprefix(preset.strip)
    if not recording:
        raise ValueError("it names no recording")
    labels = _labels(preset, values, names) or [of_file.get("label", "")]
    if preset.label == "folder" and labels == [""]:
        labels = [recording.replace("\\", "/").rpartition("/")[0].rpartition("/")[2]]
    split = cells.get("split") or of_file.get("split") or None
    if preset.splits:
        if split not in preset.splits:
            raise ValueError(f"'{split}' is no split of this list. Give one of {', '.join(preset.splits)}")
        split = preset.splits[split]
        if split == "none":
            return
    times = _times(preset, cells)
    row = AnnotatedRow(
        recording, 0.0, 0.0, "", layer=cells.get("layer", ""), annotator=cells.get("annotator", ""), split=split
    )
    if times is None:
        row = replace(row, is_full_clip=True)
    else:
        row = replace(row, **times, unit="frame" if preset.unit == "frame" else "s")
    if preset.trimmed and not row.is_full_clip:
        clip = preset.trimmed.format(recording=recording, onset=row.onset, offset=row.offset)
        row = replace(row, alternatives=((clip, -row.onset),))
    yield from (replace(row, label=label) for label in labels if not preset.layers)
    for name in preset.layers:
        if label := cells.get(f"layer {name}", ""):
            yield replace(row, label=label, layer=name)


def _labels(preset: ListPreset, values: Mapping[str, str | list[str]], names: ClassNames | None) -> list[str]:
    for field in ("label", "class"):
        given = values.get(field, [])
        texts = [given] if isinstance(given, str) else given
        if texts and field == "class":
            return [_class(text, preset, names) for text in texts]
        if texts:
            return list(texts)
    return []


def _class(text: str, preset: ListPreset, names: ClassNames | None) -> str:
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise ValueError(f"'{text}' is not the number of a class")
    return text if names is None else names.label(int(text), preset.first_class)


def _times(preset: ListPreset, cells: Mapping[str, str]) -> dict[str, Any] | None:
    """Onset and offset of a row; None for a full clip."""
    if "time" in cells:
        middle = parse_time(cells["time"])
        return {"onset": middle - preset.span / 2, "offset": middle + preset.span / 2}
    if preset.unit == "frame":
        first = _whole(cells["onset_frame"]) - preset.first_number
        if first < 0:
            raise ValueError(f"frame {cells['onset_frame']} is before the first frame, which is {preset.first_number}")
        if "num_frames" in cells:
            return {"onset": first, "offset": first + _whole(cells["num_frames"])}
        return {
            "onset": first,
            "offset": _whole(cells["offset_frame"]) - preset.first_number + (preset.end == "inclusive"),
        }
    if "onset_ms" in cells:
        return parse_interval(cells["onset_ms"], cells["offset_ms"], 1e-3)
    if "onset" in cells:
        return parse_interval(cells["onset"], cells["offset"])
    if "num_frames" in cells:
        _whole(cells["num_frames"])
    return None


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,15}", text):
        raise ValueError(f"'{text}' is not the number of a frame")
    return int(text)


def _joined(rows: Iterator[AnnotatedRow | RowError]) -> Iterator[AnnotatedRow | RowError]:
    """Join rows of one recording and label whose times touch or are equal."""
    by_label: dict[tuple[str | None, str], list[AnnotatedRow]] = {}
    for row in rows:
        if isinstance(row, RowError):
            yield row
        else:
            by_label.setdefault((row.recording, row.label), []).append(row)
    for same in by_label.values():
        first, *others = sorted(same, key=lambda row: row.onset)
        for row in others:
            if row.onset > first.offset + 1e-6:
                yield first
                first = row
            else:
                first = replace(first, offset=max(first.offset, row.offset))
        yield first
