"""Read the tables that BORIS exports: tabular events (START and STOP), and aggregated events (csv, tsv, xlsx).

Times are seconds from the start of the first media file of player 1, also for rows about a later file. Newer versions
write the files of each player with their lengths (`Source`, `Media duration (s)`). Older ones write the file of each row
and the total length; the length of the files then comes from the videos of the study. The subject is the layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actionprep.datasets.annotation_formats.boris import NO_SUBJECT, with_modifiers
from actionprep.datasets.annotation_formats.workbook import is_workbook, table_cells
from actionprep.datasets.annotations import AnnotatedRow, JoinedFiles, RowError, SegmentFormat, parse_time

_MEDIA = ("Media file name", "Media file path", "Media file")
_ID = "Observation id"
_OFFSET = "Time offset (s)"


@dataclass(frozen=True)
class _Event:
    """A row of the table.

    Attributes:
        line: Line in the file.
        cells: Cells by column.
        observation: Id of the observation.
    """

    line: int
    cells: Mapping[str, str]
    observation: str

    @property
    def time_offset(self) -> float:
        """Seconds that BORIS added to all times of the observation."""
        return parse_time(self.cells[_OFFSET]) if self.cells.get(_OFFSET) else 0.0

    @property
    def file(self) -> str:
        """Media file of the row; "" if the table has none."""
        return next((self.cells[name] for name in _MEDIA if self.cells.get(name)), "")


def _recognizes(path: Path, head: str) -> bool:
    if is_workbook(path):
        try:
            return any(_is_header(cells) for _, cells in table_cells(path)[:60])
        except Exception:  # another file, or a package is missing; then no format recognizes it
            return False
    return _ID in head and "Behavior" in head


def _is_header(cells: Sequence[str]) -> bool:
    return "Behavior" in cells and ("Time" in cells or "Start (s)" in cells)


def _read(path: Path, *, modifiers: bool) -> Iterator[AnnotatedRow | RowError]:
    rows = table_cells(path)
    at = next((index for index, (_, cells) in enumerate(rows) if _is_header(cells)), None)
    if at is None:
        raise ValueError(
            "it has no line with the columns 'Behavior' and 'Time', or 'Start (s)' and 'Stop (s)', as exports of BORIS have"
        )
    header = rows[at][1]
    above = next((cells[1] for _, cells in rows[:at] if cells[:1] == [_ID] and len(cells) > 1), "")
    shift = next((cells[1] for _, cells in rows[:at] if cells[:1] == [_OFFSET] and len(cells) > 1), "")
    events = []
    for line, cells in rows[at + 1 :]:
        named = dict(zip(header, cells, strict=False))
        events.append(_Event(line, {_OFFSET: shift, **named}, named.get(_ID) or above or path.stem))
    files: dict[str, list[str]] = defaultdict(list)
    for event in events:
        if event.file and event.file not in files[event.observation]:
            files[event.observation].append(event.file)
    if "Start (s)" in header:
        yield from _aggregated(events, files, modifiers=modifiers)
    else:
        yield from _tabular(events, files, modifiers=modifiers)


def _aggregated(
    events: Sequence[_Event], files: Mapping[str, Sequence[str]], *, modifiers: bool
) -> Iterator[AnnotatedRow | RowError]:
    for event in events:
        try:
            onset = parse_time(event.cells["Start (s)"]) - event.time_offset
            is_point = event.cells.get("Behavior type", "").upper().startswith("POINT")
            offset = onset if is_point else parse_time(event.cells["Stop (s)"]) - event.time_offset
            yield _row(event, onset, offset, files, modifiers=modifiers, is_point=is_point)
        except (KeyError, ValueError) as error:
            yield _damaged(event, error)


def _tabular(
    events: Sequence[_Event], files: Mapping[str, Sequence[str]], *, modifiers: bool
) -> Iterator[AnnotatedRow | RowError]:
    open_events: dict[tuple[str, ...], tuple[float, _Event]] = {}
    for event in events:
        try:
            time = parse_time(event.cells["Time"]) - event.time_offset
            status = (event.cells.get("Status") or event.cells.get("Behavior type") or "").upper()
            key = (event.observation, event.cells.get("Subject", ""), event.cells["Behavior"], *_modifiers(event))
            if status.startswith("START"):
                if key in open_events:
                    yield _unpaired(*open_events[key])
                open_events[key] = (time, event)
            elif status.startswith("STOP"):
                if key not in open_events:
                    yield RowError(f"'{event.cells['Behavior']}' stops at {time:g} s and was not started", event.line)
                    continue
                onset, first = open_events.pop(key)
                yield _row(first, onset, time, files, modifiers=modifiers)
            else:
                yield _row(event, time, time, files, modifiers=modifiers, is_point=True)
        except (KeyError, ValueError) as error:
            yield _damaged(event, error)
    for onset, event in open_events.values():
        yield _unpaired(onset, event)


def _unpaired(onset: float, event: _Event) -> RowError:
    return RowError(f"'{event.cells['Behavior']}' starts at {onset:g} s and has no stop", event.line)


def _damaged(event: _Event, error: Exception) -> RowError:
    what = f"it has no cell for {error}" if isinstance(error, KeyError) else str(error)
    return RowError(what, event.line)


def _modifiers(event: _Event) -> list[str]:
    return [
        part
        for name, value in event.cells.items()
        if name in ("Modifiers", "Modifier") or name.startswith("Modifier #")
        for part in value.split("|")
    ]


def _row(
    event: _Event,
    onset: float,
    offset: float,
    files: Mapping[str, Sequence[str]],
    *,
    modifiers: bool,
    is_point: bool = False,
) -> AnnotatedRow:
    label, not_used = with_modifiers(event.cells["Behavior"], _modifiers(event), used=modifiers)
    subject = event.cells.get("Subject", "")
    begin, joined = 0.0, None
    source = _first_player(event.cells.get("Source", ""))
    lengths = _first_player(event.cells.get("Media duration (s)", ""))
    name = event.file if event.file not in ("", "NA", "Not found") else (source[0] if source else event.observation)
    if len(source) > 1:
        begin = _begin_of(name, onset, source, lengths)
        end = begin + float(lengths[_index_of(name, source)])
        if offset > end:
            raise ValueError(
                f"'{label}' from {onset:g} to {offset:g} s continues from the media file '{name}' into the next one at "
                f"{end:g} s. Split it there in BORIS"
            )
    elif not source and len(files[event.observation]) > 1:
        total = event.cells.get("Total length", "")
        joined = JoinedFiles(
            tuple(files[event.observation]),
            files[event.observation].index(event.file),
            parse_time(total) if total else 0.0,
        )
    return AnnotatedRow(
        name,
        onset - begin,
        offset - begin,
        label,
        layer="" if subject in NO_SUBJECT else subject,
        line=event.line,
        alternatives=((event.observation, 0.0),) if begin == 0 and joined is None else (),
        is_point=is_point,
        joined=joined,
        not_used=not_used,
    )


def _first_player(text: str) -> list[str]:
    """Values of the first player in "player #1:one;two|player #2:three", or in "12.0;13.0|14.0"."""
    first = text.split("|")[0].removeprefix("player #1:")
    return [part.strip() for part in first.split(";") if part.strip()]


def _index_of(name: str, source: Sequence[str]) -> int:
    if name not in source:
        raise ValueError(f"its media file '{name}' is not one of {', '.join(source)}")
    return source.index(name)


def _begin_of(name: str, onset: float, source: Sequence[str], lengths: Sequence[str]) -> float:
    """Time at which a media file begins on the time line of its observation."""
    if len(lengths) != len(source):
        raise ValueError(f"the lengths of its media files {', '.join(source)} are '{';'.join(lengths)}'")
    return sum(float(length) for length in lengths[: _index_of(name, source)])


_SUFFIXES = (".csv", ".tsv", ".xlsx")

TABLE = SegmentFormat(
    "boris-table",
    "tabular or aggregated events of BORIS",
    _SUFFIXES,
    _recognizes,
    lambda path, columns: _read(path, modifiers=False),
    times="seconds from the start of the first media file of player 1, plus the time offset",
)
TABLE_WITH_MODIFIERS = SegmentFormat(
    "boris-table-modifiers",
    "the same, with modifiers in the labels",
    _SUFFIXES,
    lambda path, head: False,
    lambda path, columns: _read(path, modifiers=True),
    times="seconds from the start of the first media file of player 1, plus the time offset",
)
