"""Sections of the report page about single recordings: timelines of per-frame models, and wrongly classified clips."""

from __future__ import annotations

import base64
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.frame_runs import runs_of_labels
from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.label_colors import Color
from actionprep.json_values import counted

Thumbnails = Callable[[str, float, float], Sequence[bytes]]
"""Returns JPEG files with images of a recording, of which the seconds from onset to offset are given."""

_MOST_TIMELINES, _MOST_CLIPS = 12, 12


def timelines_section(path: Path, colors: Mapping[str, Color]) -> dict[str, Any] | None:
    """Prepare true and predicted labels over time, one row per recording, those with most wrong frames first.

    Args:
        path: frames.csv of a test.
        colors: Color of each label.

    Returns:
        `rows` with name, share of correct frames, and the bars of both; `labels` with their colors; a `sentence`. None if
        the file is missing.
    """
    if not path.is_file():
        return None
    recordings: dict[str, list[dict[str, str]]] = {}
    for row in _rows(path):
        recordings.setdefault(row["recording"], []).append(row)
    rows = [_timeline(name, frames, colors) for name, frames in recordings.items()]
    rows.sort(key=lambda row: row["correct"])
    names = {
        bar["label"] for row in rows[:_MOST_TIMELINES] for bars in (row["actual"], row["predicted"]) for bar in bars
    }
    shown = f"The {_MOST_TIMELINES} of {len(rows)}" if len(rows) > _MOST_TIMELINES else "Recordings"
    return {
        "sentence": (
            f"{shown} with the most wrong frames first: true labels above, predictions below. Every row is as wide as its "
            "recording is long; gaps have no known label or no window."
        ),
        "rows": rows[:_MOST_TIMELINES],
        "labels": _legend(names, colors),
    }


def wrong_clips_section(
    path: Path, colors: Mapping[str, Color], thumbnails: Thumbnails | None = None
) -> dict[str, Any] | None:
    """Prepare the wrongly classified snippets, those with the highest probability first.

    Args:
        path: samples.csv of a test.
        colors: Color of each label.
        thumbnails: Gives images of a clip.

    Returns:
        `clips` with their names, spans, labels and images, and a `sentence`. None if no snippet is wrong.
    """
    if not path.is_file():
        return None
    samples = [row for row in _rows(path) if row.get("evidence", "1") == "1"]
    wrong = [row for row in samples if row["actual"] != row["predicted"]]
    if not wrong:
        return None
    wrong.sort(key=lambda row: -float(row["probability"]))
    clips = []
    for row in wrong[:_MOST_CLIPS]:
        onset, offset = float(row["onset"]), float(row["offset"])
        images = thumbnails(row["recording"], onset, offset) if thumbnails is not None else ()
        clips.append(
            {
                "recording": row["recording"],
                "span": f"{onset:.2f} to {offset:.2f} s",
                "actual": _label(row["actual"], colors),
                "predicted": _label(row["predicted"], colors),
                "probability": float(row["probability"]),
                "images": [f"data:image/jpeg;base64,{base64.b64encode(image).decode()}" for image in images],
            }
        )
    shown = f", the {_MOST_CLIPS} that the model is surest of" if len(wrong) > _MOST_CLIPS else ""
    return {"sentence": f"{len(wrong)} of {counted(len(samples), 'snippet')} are wrong{shown}.", "clips": clips}


def css(color: Color) -> str:
    """Format a color for a style sheet."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _timeline(name: str, frames: Sequence[Mapping[str, str]], colors: Mapping[str, Color]) -> dict[str, Any]:
    times = np.array([float(frame["time"]) for frame in frames])
    step = frame_interval(times, default=1.0)
    start, duration = times[0], times[-1] - times[0] + step
    # Frames without a known label or window are not in the table.
    parts = np.flatnonzero(np.diff(times) > 1.5 * step) + 1

    def bars(column: str) -> Iterator[dict[str, Any]]:
        for part in np.split(np.arange(len(frames)), parts):
            for first, end, label in runs_of_labels([frames[index][column] for index in part]):
                onset, offset = times[part[first]], times[part[end - 1]] + step
                yield {
                    "label": label,
                    "color": css(colors.get(label, colors[""])),
                    "left": float(100 * (onset - start) / duration),
                    "width": float(100 * (offset - onset) / duration),
                    "hint": f"{label or 'none'}, {onset:.2f} to {offset:.2f} s",
                }

    return {
        "name": name,
        "correct": sum(frame["actual"] == frame["predicted"] for frame in frames) / len(frames),
        "actual": list(bars("actual")),
        "predicted": list(bars("predicted")),
        "span": f"{start:.1f} to {start + duration:.1f} s",
    }


def _legend(names: set[str], colors: Mapping[str, Color]) -> list[dict[str, str]]:
    return [
        _label(name, colors) for name in [*(name for name in colors if name in names), *sorted(names - set(colors))]
    ]


def _label(name: str, colors: Mapping[str, Color]) -> dict[str, str]:
    return {"name": name or "none", "color": css(colors.get(name, colors[""]))}


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)
