"""Cut recordings into windows and label them by the segments that they overlap."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from actionprep.errors import UserError
from actionprep.pipeline.stage import ArrayStage, ResultTable, stage
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter
    from actionprep.datasets.store.zarr_store import Store


class SnippetSettings(StageSettings):
    """Cut recordings into windows and label them by the segments they overlap."""

    name: str = option("default", "Name of the product: snippets/<name>.", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    length: float | None = option(
        None,
        "Length of a window in ms. Not set: one snippet per recording with a label, else one per segment.",
        gt=0,
    )
    stride: float | None = option(None, "From one window's start to the next in ms. Not set: the length.", gt=0)
    length_frames: int | None = option(None, "Length of a window in frames, instead of length.", ge=1, later=True)
    stride_frames: int | None = option(None, "Stride in frames, instead of stride.", ge=1, later=True)
    frame_rate: float | None = option(
        None,
        "Frames per second that length_frames and stride_frames count. Not set: the frame rate of the videos, which must "
        "be the same for all.",
        gt=0,
        later=True,
    )
    iou: float = option(0.5, "A window gets a label if the value of the rule is at least this.", ge=0, le=1)
    rule: Literal["coverage", "iou", "segment"] = option(
        "coverage",
        "Value that decides: coverage (fraction of the window that the label's segments cover), iou (intersection "
        "over union with the best single segment), segment (fraction of the best single segment in the window).",
    )
    ignore_from: float | None = option(
        None,
        "Windows in which no label passes, and one has at least this value, are ignored instead of background.",
        ge=0,
        le=1,
    )
    multi_label: bool = option(False, "Give a window all labels that pass, instead of the one with the largest value.")
    background: str | None = option(None, "Label of windows where no label passes. Not set: such windows are not used.")
    tail: Literal["drop", "shift", "keep"] = option(
        "drop",
        "Time after the last full window: drop it, shift one more window back to the end, or keep a shorter one.",
    )
    layers: tuple[str, ...] = option((), "Only segments of these layers; all when empty.")
    exclude_layers: tuple[str, ...] = option((), "Windows that meet a segment of these layers are ignored.")
    min_segment: float = option(0.0, "Segments shorter than this, in ms, are left out.", ge=0)
    labels: tuple[str, ...] = option((), "Only these labels, in this order; all when empty.")
    views: tuple[str, ...] = option((), "Only these views decide which time of a recording is covered; all when empty.")

    @model_validator(mode="after")
    def _bands_in_order(self) -> Self:
        if self.ignore_from is not None and self.ignore_from >= self.iou:
            raise ValueError(f"ignore_from ({self.ignore_from:g}) must lie below iou ({self.iou:g})")
        if self.length is not None and self.length_frames is not None:
            raise ValueError("give the length in ms (length) or in frames (length_frames), not both")
        if self.stride is not None and self.stride_frames is not None:
            raise ValueError("give the stride in ms (stride) or in frames (stride_frames), not both")
        if not (self.stride is None and self.stride_frames is None) and (
            self.length is None and self.length_frames is None
        ):
            raise ValueError("a stride needs a length")
        if self.frame_rate is not None and self.length_frames is None and self.stride_frames is None:
            raise ValueError("frame_rate needs length_frames or stride_frames")
        return self


@stage("snippets", version=4, settings=SnippetSettings)
class Snippets(ArrayStage):
    """Makes snippets/<name>: recording, onset, offset, label, target, coverage, iou, segment_share, segment_…."""

    @classmethod
    def build(cls, settings: SnippetSettings, catalog: Catalog, store: Store, item: ItemWriter) -> None:
        """Make the table from the catalog and write it."""
        from actionprep.datasets.products.snippets import write_snippets

        write_snippets(snippets_for(settings, catalog), item)

    @classmethod
    def results(cls, item: ItemReader, catalog: Catalog) -> ResultTable:
        """Return the number of windows per label, without label, ignored and dropped."""
        from actionprep.datasets.products.snippets import NO_LABEL, SnippetTable

        table = SnippetTable.read(item)
        windows = {event: count for event, count in table.left_out.items() if event.startswith("windows")}
        without_label = windows.pop("windows without label", 0) + int((table.label == NO_LABEL).sum())
        rows: list[tuple[str | int, ...]] = list(table.counts().items())
        rows.append(("(without label)", without_label))
        for event, count in windows.items():
            if count:
                what = "dropped" if event == "windows without frame" else "ignored"
                rows.append((f"({what}: {event.removeprefix('windows ')})", count))
        rows.append(("(recordings)", len(np.unique(table.recording))))
        return ResultTable(
            "Snippets per label", ("label", "snippets"), tuple(rows), frozenset({"windows without label", *windows})
        )

    @classmethod
    def events(cls, attributes: Mapping[str, Any]) -> dict[str, int]:  # noqa: D102
        return dict(attributes.get("left_out", {}))

    @classmethod
    def depends_on(cls, settings: SnippetSettings, catalog: Catalog) -> dict[str, Any]:
        """Recordings, their segments and the frame times of their readable views."""
        return {
            "recordings": [
                [recording.id, recording.subject, recording.session, recording.label, recording.split]
                for recording in catalog.recordings
            ],
            "segments": [
                [recording.id, segment.onset, segment.offset, segment.label, segment.layer]
                for recording in catalog.recordings
                for segment in catalog.segments_of(recording.id)
            ],
            "views": [
                [view.recording, view.id, view.digest, hashlib.sha256(view.times.astype("<f8").tobytes()).hexdigest()]
                for recording in catalog.recordings
                for view in catalog.views_of(recording.id)
                if view.status == "ok"
            ],
        }


def snippets_for(settings: SnippetSettings, catalog: Catalog) -> SnippetTable:
    """Make the table of snippets of these settings."""
    from actionprep.datasets.snippets import LabelRule, make_snippets

    return make_snippets(
        catalog,
        LabelRule(
            rule=settings.rule,
            threshold=settings.iou,
            ignore_from=settings.ignore_from,
            multi_label=settings.multi_label,
            background=settings.background,
        ),
        length_s=_seconds(settings.length, settings.length_frames, settings, catalog),
        stride_s=_seconds(settings.stride, settings.stride_frames, settings, catalog),
        tail=settings.tail,
        layers=settings.layers,
        exclude_layers=settings.exclude_layers,
        min_segment_s=settings.min_segment / 1000,
        labels=settings.labels,
        views=settings.views,
    )


def _seconds(ms: float | None, frames: int | None, settings: SnippetSettings, catalog: Catalog) -> float | None:
    """Convert a length in ms or frames to seconds; None if neither is set."""
    if frames is not None:
        return frames / (settings.frame_rate or _frame_rate(catalog, settings.views))
    return None if ms is None else ms / 1000


def _frame_rate(catalog: Catalog, views: Sequence[str]) -> float:
    """Return the frame rate of all views.

    Raises:
        UserError: If they differ by more than 1 %: a window would last longer in some recordings.
    """
    rates = {
        1 / view.frame_duration: f"{view.recording}/{view.id}"
        for view in catalog.views
        if view.status == "ok" and view.num_frames > 1 and view.frame_duration > 0 and (not views or view.id in views)
    }
    if not rates:
        raise UserError("No view has two frames, so lengths in frames need frame_rate (--frame-rate).")
    slowest, fastest = min(rates), max(rates)
    if fastest > 1.01 * slowest:
        raise UserError(
            f"Views have different frame rates, such as {slowest:.4g} ({rates[slowest]}) and {fastest:.4g} "
            f"({rates[fastest]}) frames per second, so a length in frames has no single duration. Set --frame-rate, or "
            "give the length in ms."
        )
    return sorted(rates)[len(rates) // 2]
