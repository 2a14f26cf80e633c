"""Label the windows of all recordings by the segments that overlap them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from actionprep.datasets.catalog import Catalog
from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.overlap import overlap_arrays
from actionprep.datasets.products.snippets import IGNORED, NO_LABEL, SnippetTable
from actionprep.datasets.segments import CodedSegments, Segment
from actionprep.datasets.windows import EPSILON_S, Tail, frames_in, microseconds, num_windows, windows
from actionprep.errors import UserError, nearest

Rule = Literal["coverage", "iou", "segment"]

RULES: tuple[Rule, ...] = ("coverage", "iou", "segment")

MAX_CELLS = 100_000_000
"""Largest number of windows times labels in one table, which needs about 3 GB while it is made."""


@dataclass(frozen=True, slots=True)
class LabelRule:
    """When a window gets a label.

    Attributes:
        rule: Value that decides: coverage of the window, temporal IoU with the best single segment, or the largest
            share of a single segment.
        threshold: A label passes if its value is at least this.
        ignore_from: A window is ignored if no label passes and one has at least this value; None for no such band.
        multi_label: Whether a window gets all labels that pass, instead of the one with the largest value.
        background: Label of windows where none passes; None for no such class.
    """

    rule: Rule = "coverage"
    threshold: float = 0.5
    ignore_from: float | None = None
    multi_label: bool = False
    background: str | None = None


def make_snippets(
    catalog: Catalog,
    rule: LabelRule = LabelRule(),
    *,
    length_s: float | None = None,
    stride_s: float | None = None,
    tail: Tail = "drop",
    layers: Sequence[str] = (),
    exclude_layers: Sequence[str] = (),
    min_segment_s: float = 0.0,
    labels: Sequence[str] = (),
    views: Sequence[str] = (),
) -> SnippetTable:
    """Cut all recordings into windows and label them.

    These are left out and counted: recordings with neither a label nor segments, because not annotated is not
    background; recordings that are too short or that no time is common to all views of; windows without a frame in one
    of the views. A segment is clipped to the recording.

    Args:
        catalog: Recordings, views and segments.
        rule: When a window gets a label.
        length_s: Length of the windows over the time that all views cover. A label of the full recording is a segment
            from its start to its end. None makes one snippet per recording with a label, and otherwise one per segment.
        stride_s: Time from one window to the next; the length when None.
        tail: What happens to the time after the last full window, see `windows.windows`.
        layers: Use only segments of these layers; all when empty.
        exclude_layers: Ignore windows that meet a segment of these layers.
        min_segment_s: Leave out shorter segments.
        labels: Use only these labels, in this order; all in natural order when empty. The background comes first unless
            it is one of them.
        views: Ids of the views that decide which time is covered; all when empty.

    Raises:
        UserError: If nothing is labeled, a label or layer does not exist, or there would be too many windows.
    """
    _check_names(catalog, [label for label in labels if label != rule.background], (*layers, *exclude_layers))
    names = list(labels) or list(catalog_labels(catalog, layers, exclude_layers))
    segment_codes = {name: code for code, name in enumerate(names)}
    left_out = dict.fromkeys(
        (
            "segments too short",
            "recordings without label",
            "recordings without window",
            "windows without frame",
            "windows in an excluded layer",
            "windows in the ignore band",
            "windows without label",
        ),
        0,
    )
    clipped = 0
    num_made = 0
    parts: list[tuple[np.ndarray, ...]] = []
    coded: list[tuple[int, float, float, int]] = []
    for index, recording in enumerate(catalog.recordings):
        annotated = catalog.segments_of(recording.id)
        if recording.label is None and not annotated:
            left_out["recordings without label"] += 1
            continue
        span = catalog.span(recording.id, views=views or None)
        if span is None:
            left_out["recordings without window"] += 1
            continue
        is_clip = not annotated
        if recording.label is not None and is_clip:
            annotated = (Segment(*span, recording.label),)
        excluded = [segment for segment in annotated if segment.layer in exclude_layers]
        kept = [segment for segment in annotated if segment.layer not in exclude_layers]
        if layers and not is_clip:
            kept = [segment for segment in kept if segment.layer in layers]
        shortest = max(int(microseconds(min_segment_s)), 1)
        long = [segment for segment in kept if microseconds(segment.offset - segment.onset) >= shortest]
        left_out["segments too short"] += len(kept) - len(long)
        kept = [segment for segment in long if segment.label in segment_codes]
        clipped += sum(_reaches_out(segment, span) for segment in kept)
        # Time outside the recording cannot be seen and does not count.
        kept, excluded = _within(kept, span), _within(excluded, span)

        times = [
            view.times
            for view in catalog.views_of(recording.id)
            if view.status == "ok" and view.num_frames and (not views or view.id in views)
        ]
        if length_s is None:
            pairs = sorted({(segment.onset, segment.offset) for segment in kept})
            onset, offset = (np.array([pair[side] for pair in pairs], np.float64) for side in (0, 1))
            total = len(pairs)
        else:
            fewest = min(times, key=len)
            total = num_windows(span, length_s=length_s, stride_s=stride_s, tail=tail)
            num_made += num_windows(span, length_s=length_s, stride_s=stride_s, tail=tail, times=fewest)
            _check_size(num_made, len(names) + (rule.background is not None), length_s, stride_s or length_s)
            onset, offset = windows(span, length_s=length_s, stride_s=stride_s, tail=tail, times=fewest)
        has_frames = np.ones(len(onset), bool)
        for of_view in times:
            has_frames &= frames_in(of_view, onset, offset) > 0
        onset, offset = onset[has_frames], offset[has_frames]
        left_out["windows without frame"] += total - len(onset)
        if not len(onset):
            left_out["recordings without window"] += 1
            continue

        coded += [(index, segment.onset, segment.offset, segment_codes[segment.label]) for segment in kept]
        coded += [(index, segment.onset, segment.offset, IGNORED) for segment in excluded]
        if is_clip:
            overlap = _clip_overlap(onset, offset, span, segment_codes[kept[0].label] if kept else None, len(names))
        else:
            overlap = overlap_arrays(
                onset,
                offset,
                np.array([segment.onset for segment in kept], np.float64),
                np.array([segment.offset for segment in kept], np.float64),
                np.array([segment_codes[segment.label] for segment in kept], np.int64),
                num_labels=len(names),
            )
        value, iou = overlap[RULES.index(rule.rule)], overlap[1]
        label, target = label_windows(value, iou, rule)
        is_excluded = _meets(onset, offset, excluded)
        left_out["windows in an excluded layer"] += int(is_excluded.sum())
        in_band = _in_band(value, rule.ignore_from)
        left_out["windows in the ignore band"] += int(((label == IGNORED) & in_band & ~is_excluded).sum())
        left_out["windows without label"] += int(((label == IGNORED) & ~in_band & ~is_excluded).sum())
        stored = (values.astype(np.float32) for values in overlap)
        parts.append((np.full(len(onset), index, np.int32), onset, offset, label, target, *stored, is_excluded))
    if clipped:
        left_out["segments clipped to the recording"] = clipped
    if not parts:
        raise UserError(_nothing(catalog, left_out, length_s))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    code, onset, offset, label, target, coverage, iou, share, is_excluded = columns
    num_before = len(names)
    if rule.background is not None:
        label, target, names, (coverage, iou, share) = _with_background(
            label, target, names, rule, (coverage, iou, share)
        )
    label[is_excluded] = IGNORED
    target[is_excluded] = 0
    # A background that was added stands first.
    segments = _coded_segments(coded, shift=len(names) - num_before)
    return SnippetTable(
        recording=code,
        onset=onset,
        offset=offset,
        label=label,
        target=target,
        coverage=coverage,
        iou=iou,
        segment_share=share,
        labels=tuple(names),
        recordings=tuple(recording.id for recording in catalog.recordings),
        subjects=tuple(recording.subject or "" for recording in catalog.recordings),
        sessions=tuple(recording.session or "" for recording in catalog.recordings),
        splits=tuple(recording.split or "" for recording in catalog.recordings),
        sources=tuple(
            tuple(sorted({view.digest for view in catalog.views_of(recording.id) if view.digest}))
            for recording in catalog.recordings
        ),
        settings={
            "rule": rule.rule,
            "threshold": rule.threshold,
            "ignore_from": rule.ignore_from,
            "multi_label": rule.multi_label,
            "background": rule.background,
            "length_s": length_s,
            "stride_s": length_s if stride_s is None else stride_s,
            "tail": tail,
            "layers": list(layers),
            "exclude_layers": list(exclude_layers),
            "min_segment_s": min_segment_s,
        },
        left_out=left_out,
        segments=segments,
    )


def label_windows(value: np.ndarray, tie: np.ndarray, rule: LabelRule) -> tuple[np.ndarray, np.ndarray]:
    """Label windows by the value that decides.

    Args:
        value: Value of each window and label, (S, C) in [0, 1]. Of labels that pass, the largest value wins.
        tie: Decides between equal values, (S, C): the larger one wins, then the smaller label index.
        rule: When a label passes.

    Returns:
        The label of each window, (S,) int32, and the target, (S, C) uint8. The label is `IGNORED` in the ignore band.
        Elsewhere, where no label passes, it is `NO_LABEL` with multi-label or a background and `IGNORED` without.
    """
    num_labels = value.shape[1]
    passes = value >= rule.threshold - EPSILON_S
    # A threshold of 0 must not give every label to every window: a label has to touch the window.
    passes &= value > 0
    any_passes = passes.any(axis=1)
    label = np.full(len(value), NO_LABEL if rule.multi_label or rule.background is not None else IGNORED, np.int32)
    if num_labels:
        # Rounded, so that values that differ by rounding only are decided by the tie.
        rounded = value.round(9)
        largest = rounded == rounded.max(axis=1, keepdims=True)
        best = np.where(largest, tie.round(9), -1.0).argmax(axis=1)
        label[any_passes] = best[any_passes]
    target = passes.astype(np.uint8)
    if not rule.multi_label:
        target[:] = 0
        target[np.flatnonzero(any_passes), label[any_passes]] = 1
    label[_in_band(value, rule.ignore_from) & ~any_passes] = IGNORED
    return label, target


def catalog_labels(catalog: Catalog, layers: Sequence[str] = (), exclude_layers: Sequence[str] = ()) -> tuple[str, ...]:
    """List the labels that snippets of these layers can have, in natural order."""
    names = set()
    for recording in catalog.recordings:
        segments = catalog.segments_of(recording.id)
        if not segments and recording.label is not None:
            names.add(recording.label)
        names |= {
            segment.label
            for segment in segments
            if segment.layer not in exclude_layers and (not layers or segment.layer in layers)
        }
    return tuple(sorted(names, key=natural_key))


def _check_size(num_made: int, num_labels: int, length_s: float, stride_s: float) -> None:
    """Raise UserError before memory runs out."""
    if num_made * max(num_labels, 1) > MAX_CELLS:
        raise UserError(
            f"Windows of {length_s * 1000:g} ms every {stride_s * 1000:g} ms are too many: at least {num_made:,} with "
            f"{num_labels} labels each, and a table can have {MAX_CELLS // max(num_labels, 1):,}. Use a longer --stride, "
            "or fewer labels or recordings in one table."
        )


def _in_band(value: np.ndarray, ignore_from: float | None) -> np.ndarray:
    """Whether a window has a label with at least the value from which windows are ignored, (S,) bool."""
    if ignore_from is None:
        return np.zeros(len(value), bool)
    return np.asarray(((value >= ignore_from - EPSILON_S) & (value > 0)).any(axis=1))


def _meets(onset: np.ndarray, offset: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """Whether a window has a microsecond in common with one of the segments, (S,) bool."""
    first, last = microseconds(onset), microseconds(offset)
    meets = np.zeros(len(onset), bool)
    for segment in segments:
        meets |= (first < microseconds(segment.offset)) & (last > microseconds(segment.onset))
    return meets


def _reaches_out(segment: Segment, span: tuple[float, float]) -> bool:
    """Whether a segment begins or ends outside a span."""
    return bool(
        microseconds(segment.onset) < microseconds(span[0]) or microseconds(segment.offset) > microseconds(span[1])
    )


def _within(segments: Sequence[Segment], span: tuple[float, float]) -> list[Segment]:
    """Clip segments to a span; those without a microsecond in it are left out."""
    clipped = [
        replace(segment, onset=max(segment.onset, span[0]), offset=min(segment.offset, span[1])) for segment in segments
    ]
    return [segment for segment in clipped if microseconds(segment.offset) > microseconds(segment.onset)]


def _coded_segments(coded: Sequence[tuple[int, float, float, int]], *, shift: int) -> CodedSegments:
    recording, onset, offset, label = (
        np.array([row[column] for row in coded], dtype)
        for column, dtype in enumerate((np.int32, np.float64, np.float64, np.int32))
    )
    return CodedSegments(recording, onset, offset, np.where(label >= 0, label + shift, label).astype(np.int32))


def _clip_overlap(
    onset: np.ndarray, offset: np.ndarray, span: tuple[float, float], code: int | None, num_labels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute `overlap_arrays` for one segment over the full span, as studies of clips have them, without a search."""
    coverage, iou, share = (np.zeros((len(onset), num_labels)) for _ in range(3))
    if code is not None:
        coverage[:, code] = 1.0
        iou[:, code] = share[:, code] = np.minimum((offset - onset) / (span[1] - span[0]), 1.0)
    return coverage, iou, share


def _with_background(
    label: np.ndarray, target: np.ndarray, names: list[str], rule: LabelRule, overlap: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray, list[str], tuple[np.ndarray, ...]]:
    """Make the background a class: the first one, or the label of that name where segments have it."""
    assert rule.background is not None
    if rule.background in names:
        code = names.index(rule.background)
    else:
        code = 0
        names = [rule.background, *names]
        label = np.where(label >= 0, label + 1, label).astype(np.int32)
        target = np.concatenate([np.zeros((len(target), 1), np.uint8), target], axis=1)
        overlap = tuple(
            np.concatenate([np.zeros((len(values), 1), values.dtype), values], axis=1) for values in overlap
        )
    empty = label == NO_LABEL
    label[empty] = code
    target[empty, code] = 1
    return label, target, names, overlap


def _check_names(catalog: Catalog, labels: Sequence[str], layers: Sequence[str]) -> None:
    known = catalog.labels
    for label in labels:
        if label not in known:
            raise UserError(f"No label '{label}' in the catalog.{nearest(label, known)} Labels: {', '.join(known)}.")
    present = sorted({segment.layer for segments in catalog.segments.values() for segment in segments})
    for layer in layers:
        if layer not in present:
            listed = ", ".join(f"'{name}'" for name in present) or "none"
            raise UserError(f"No layer '{layer}' in the annotations.{nearest(layer, present)} Layers: {listed}.")


def _nothing(catalog: Catalog, left_out: dict[str, int], length_s: float | None) -> str:
    if left_out["recordings without label"] == len(catalog):
        has_videos = any(view.has_video for view in catalog.views)
        remedy = "Put clips into a folder per class, name" if has_videos else "Name"
        return (
            f"None of the {len(catalog)} recordings has a label or segments, so snippets cannot get labels. {remedy} "
            "a table with the columns recording and label in study.recordings, or annotation files in study.segments. "
            "Then run 'actionprep scan'."
        )
    counted = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    shorter = f" Windows of {length_s * 1000:g} ms may be too long: try a shorter --length." if length_s else ""
    return f"No recording gives a snippet ({counted}).{shorter}"
