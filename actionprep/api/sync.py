"""Estimate the clocks of the views of a recording, and write them into the table of offsets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from actionprep.datasets.atomic_files import write_text
from actionprep.errors import UserError, nearest
from actionprep.pipeline.synchronization.joint import join_pairs
from actionprep.pipeline.synchronization.pairs import PairEstimate, estimate_pair
from actionprep.pipeline.synchronization.signals import Signal, audio_signal, joint_speed, video_signals

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.recordings import View

SignalName = Literal["audio", "joints", "motion", "brightness"]
SIGNALS: tuple[SignalName, ...] = get_args(SignalName)
"""Signals in the order in which "auto" tries them."""


@dataclass(frozen=True, slots=True)
class SyncedView:
    """Estimated clock of a view.

    Attributes:
        view: Id of the view.
        offset: Offset in s for the table of offsets; None if unsure.
        drift: Drift in parts per million for that table; None if unknown.
        change: How much later the middle of the view's frames is now than with its present clock, in s; None if unsure.
        confidence: 0 to 1.
        reason: Why the clock is unsure; "" if it is sure.
    """

    view: str
    offset: float | None
    drift: float | None
    change: float | None
    confidence: float
    reason: str

    @property
    def sure(self) -> bool:
        """Whether the clock is known."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class Sync:
    """Estimated clocks of the views of one recording.

    Attributes:
        recording: Id of the recording.
        signal: The signal that was compared.
        reference: View that keeps its present clock.
        views: One entry per view.
        pairs: Estimates of pairs (a, b), relative to their present clocks.
        rejected: Pairs that contradict the others and were left out.
        signals: The signal of each view, on its present clock.
        changes: How each view's present clock changes: offset in s and drift in ppm; None if unsure.
    """

    recording: str
    signal: SignalName
    reference: str
    views: tuple[SyncedView, ...]
    pairs: Mapping[tuple[str, str], PairEstimate]
    rejected: tuple[tuple[str, str], ...]
    signals: Mapping[str, Signal]
    changes: Mapping[str, tuple[float, float] | None]

    @property
    def sure(self) -> bool:
        """Whether the clocks of all views are known."""
        return all(view.sure for view in self.views)


def sync_views(
    study: Study,
    recording: str,
    *,
    views: Sequence[str | int] = (),
    signal: SignalName | Literal["auto"] = "auto",
    reference: str | int | None = None,
    max_offset: float = 5.0,
) -> Sync:
    """Estimate offset and drift of the views of a recording from what they show or hear. Nothing is written.

    Args:
        study: The study.
        recording: Id of the recording.
        views: Views to compare; all if empty.
        signal: "audio" (rise of loudness), "joints" (speed of the joints, from the product pose), "motion" (change
            between frames), "brightness" (change of the mean gray level), or "auto": the first of these that gives a
            sure clock for all views, else the one with most sure views.
        reference: View that keeps its clock; the first if None.
        max_offset: Largest change of an offset that is searched, in s.

    Returns:
        The estimate. Views with an unsure clock have no offset, and a reason.

    Raises:
        UserError: If there are fewer than two readable views, or a view lacks the signal.
        InputError: If a video cannot be read.
    """
    catalog = study.catalog
    recording = catalog.recording(recording).id
    known = [view for view in catalog.views_of(recording) if view.status == "ok" and view.num_frames]
    if views:
        wanted = {catalog.view(recording, name).id for name in views}
        known = [view for view in known if view.id in wanted]
    if len(known) < 2:
        raise UserError(
            f"Recording '{recording}' has {len(known)} readable views to compare; 'sync' needs two. "
            "Run 'actionprep scan' to list unreadable videos."
        )
    if signal != "auto" and signal not in SIGNALS:
        raise UserError(f"No signal '{signal}'.{nearest(signal, SIGNALS)} Signals: auto, {', '.join(SIGNALS)}.")
    base = known[0].id if reference is None else catalog.view(recording, reference).id
    if base not in [view.id for view in known]:
        raise UserError(f"The reference view '{base}' is not one of the compared views: {_names(known)}.")
    measured = _Signals(study, known)
    best: Sync | None = None
    lacking = []
    for name in SIGNALS if signal == "auto" else (signal,):
        signals = measured.of(name)
        without = [view for view in known if signals[view.id] is None]
        if without:
            lacking.append((name, without))
            continue
        result = _estimate(
            study, recording, name, known, base, {key: values for key, values in signals.items() if values}, max_offset
        )
        if best is None or _num_sure(result) > _num_sure(best):
            best = result
        if result.sure:
            break
    if best is None:
        raise UserError(f"Recording '{recording}': {_why_lacking(*lacking[0])}")
    return best


def save_sync(study: Study, results: Sequence[Sync]) -> Path:
    """Write sure clocks into the study's table of offsets. Other rows of the table stay.

    Args:
        study: The study. Without a table, `offsets.csv` is made and named in actionprep.toml.
        results: Estimates. Views with an unsure clock are not written.

    Returns:
        The table.
    """
    from actionprep.datasets.tables import read_csv

    folder = study.folder
    name = folder.study.offsets
    path = folder.root / "offsets.csv" if name is None else folder.resolve(name)
    columns, rows = ["recording", "view", "offset", "drift"], []
    if name is not None:
        present, lines = read_csv(path, usual=columns)
        columns = list(dict.fromkeys([*present, *columns]))
        rows = [dict(row) for _, row in lines]
    elif path.exists():
        raise UserError(f"{path} exists, but actionprep.toml does not name it. Set study.offsets, or move the file.")
    names = {recording.id for recording in study.catalog.recordings}
    clocks = {(result.recording, view.view): view for result in results for view in result.views if view.sure}
    kept = [row for row in rows if (_recording_id(row.get("recording") or "", names), row["view"]) not in clocks]
    for (recording, view), clock in clocks.items():
        drift = "" if clock.drift is None else f"{clock.drift:.3f}"
        kept.append({"recording": recording, "view": view, "offset": f"{clock.offset:.6f}", "drift": drift})
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: row.get(column, "") for column in columns} for row in kept)
    write_text(path, text.getvalue())
    if name is None:
        folder.change("study", "offsets", "offsets.csv")
    return path


class _Signals:
    """Signals of views on their present clocks; each video is decoded once."""

    def __init__(self, study: Study, views: Sequence[View]) -> None:
        self._study, self._views = study, views
        self._decoded: dict[str, dict[str, Signal]] = {}

    def of(self, name: SignalName) -> dict[str, Signal | None]:
        """Signal of each view; None where the view has none."""
        return {view.id: self._signal(view, name) for view in self._views}

    def _signal(self, view: View, name: SignalName) -> Signal | None:
        if name == "joints":
            return self._joints(view)
        if not view.has_video:
            return None
        path = self._study.folder.resolve(view.path)
        if name == "audio":
            heard = audio_signal(path, start=view.start)
            return None if heard is None else Signal(view.offset + heard.time * (1 + view.drift * 1e-6), heard.value)
        if view.id not in self._decoded:
            self._decoded[view.id] = video_signals(path, view.times)
        return self._decoded[view.id][name]

    def _joints(self, view: View) -> Signal | None:
        from actionprep.datasets.store.keys import ItemKey

        if self._study.store.metadata(ItemKey("pose", view.recording, view.id)) is None:
            return None
        poses = self._study.poses(view.recording, view=view.id)
        index = poses.frame_index if poses.frame_index is not None else np.arange(poses.num_frames)
        return joint_speed(poses, view.times[index])


def _estimate(
    study: Study,
    recording: str,
    name: SignalName,
    views: Sequence[View],
    reference: str,
    signals: Mapping[str, Signal],
    max_offset: float,
) -> Sync:
    pairs = {
        (a.id, b.id): estimate_pair(signals[a.id], signals[b.id], max_offset=max_offset)
        for a, b in combinations(views, 2)
    }
    tolerance = max(view.frame_duration for view in views) / 2
    clocks, rejected = join_pairs([view.id for view in views], pairs, reference=reference, tolerance=tolerance)
    made = []
    for view in views:
        clock = clocks[view.id]
        if not clock.sure:
            made.append(SyncedView(view.id, None, None, None, clock.confidence, clock.reason))
            continue
        # The estimate maps the view's present clock, which may have an offset and a drift, to the reference's.
        rate = 1 + (clock.drift or 0.0) * 1e-6
        offset = clock.offset + rate * view.offset
        drift = None if clock.drift is None and not view.drift else (rate * (1 + view.drift * 1e-6) - 1) * 1e6
        middle = float(view.times.mean())
        start = view.time_of_first_frame(study.folder.study.clock)
        made.append(
            SyncedView(
                view.id,
                offset - start,
                drift,
                clock.offset + (rate - 1) * middle,
                clock.confidence,
                "",
            )
        )
    changes = {view: (clock.offset, clock.drift or 0.0) if clock.sure else None for view, clock in clocks.items()}
    return Sync(recording, name, reference, tuple(made), pairs, tuple(rejected), signals, changes)


def _num_sure(result: Sync) -> int:
    return sum(view.sure for view in result.views)


def _why_lacking(name: SignalName, views: Sequence[View]) -> str:
    if name == "joints":
        return f"views {_names(views)} have no stored poses. Run 'actionprep pose' first, or choose another --signal."
    what = "sound" if name == "audio" else "video"
    return f"views {_names(views)} have no {what}. Choose another --signal, or leave them out with --views."


def _names(views: Sequence[View]) -> str:
    return ", ".join(view.id for view in views)


def _recording_id(name: str, names: set[str]) -> str:
    """Id of the recording that a row names by its id or its end; "" for a row that applies to all of them."""
    if name in names or not name:
        return name
    fits = [name_of_view for name_of_view in names if name_of_view.endswith(f"/{name}")]
    return fits[0] if len(fits) == 1 else name
