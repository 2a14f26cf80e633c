"""Read Solomon Coder csv: one row per time step in s, one column per category, cells with the label or nothing.

A category is a layer. Time 0 is the start of the video. A segment ends where the first row without its label begins; the
last row is as long as the one before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat, parse_time
from actionprep.datasets.frame_runs import runs_of_labels
from actionprep.datasets.tables import read_csv, split_list


def _recognizes(path: Path, head: str) -> bool:
    if path.suffix.lower() != ".csv":
        return False
    rows = [cells for _, cells in split_list("\n".join(head.splitlines()[:20]))]
    if len(rows) < 4 or rows[0][0] != "Time" or len(rows[0]) < 2:
        return False
    try:
        times = [parse_time(cells[0]) for cells in rows[1:-1]]
        numbers = [cell for cells in rows[1:] for cell in cells[1:] if cell and _is_number(cell)]
    except ValueError:
        return False
    step = times[1] - times[0]
    return times[0] == 0 < step and not numbers and all(abs(t - i * step) < 0.1 * step for i, t in enumerate(times))


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _read(path: Path, columns: Mapping[str, str]) -> Iterator[AnnotatedRow | RowError]:
    header, rows = read_csv(path)
    if header[0] != "Time":
        raise ValueError(f"its first column must be 'Time'; it is '{header[0]}'")
    times: list[float] = []
    for line, row in rows:
        try:
            times.append(parse_time(row["Time"]))
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from None
        if len(times) > 1 and times[-1] <= times[-2]:
            raise ValueError(f"line {line} has time {row['Time']}, which does not follow {times[-2]:g}")
    if len(times) < 2:
        raise ValueError("it needs two rows, which give the length of a time step")
    times.append(2 * times[-1] - times[-2])
    for layer in filter(None, header[1:]):
        for start, end, label in runs_of_labels([row[layer] for _, row in rows]):
            if label:
                yield AnnotatedRow(None, times[start], times[end], label, layer=layer, line=rows[start][0])


FORMAT = SegmentFormat(
    "solomon",
    "Solomon Coder csv: a row per time step, a column per category",
    (".csv",),
    _recognizes,
    _read,
    times="one row per time step, in seconds from the start of the video",
)
