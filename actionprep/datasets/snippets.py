"""Label the windows of all recordings by the segments that they overlap: one table of snippets."""

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
from actionprep.datasets.windows import EPSILON_S, Tail, frames_in, windows
from actionprep.errors import UserError, nearest

Rule = Literal["coverage", "iou", "segment"]

FIGURES: tuple[Rule, ...] = ("coverage", "iou", "segment")


@dataclass(frozen=True, slots=True)
class LabelRule:
    """When a window gets a label.

    rule:        the figure that counts: coverage of the window, temporal iou with the best single segment, or the share
                 of the best single segment.
    threshold:   a label passes when its figure is at least this.
    ignore_from: a window where no label passes, but one has at least this, is ignored; None for no such band.
    multi_label: all labels that pass, instead of the largest.
    background:  label of windows where none passes; None for no such class.
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

    length_s:       None: a recording labeled whole is one snippet, and otherwise each of its segments is one. Given:
                    windows of this length over the time that all views cover, for both kinds of recording; a label of
                    the whole recording is a segment from its first instant to its end.
    layers:         only segments of these; all when empty. exclude_layers: windows that meet a segment of these are
                    ignored.
    min_segment_s:  shorter segments are left out, and counted.
    labels:         only these, in this order; all, in natural order, when empty. The background, when it is not among
                    them, comes first.
    views:          only these views, by name, decide which time is covered.

    Recordings with neither a label nor segments are left out, and counted: not annotated is not background. So are
    recordings that are too short or without a common time of their views, and windows without a frame in one of the
    views.

    Raises UserError when nothing is labeled, or for labels and layers that do not exist.
    """
    _check_names(catalog, [label for label in labels if label != rule.background], (*layers, *exclude_layers))
    names = list(labels) or list(catalog_labels(catalog, layers, exclude_layers))
    segment_codes = {name: code for code, name in enumerate(names)}
    left_out = {
        "segments too short": 0,
        "recordings without label": 0,
        "recordings without window": 0,
        "windows without frame": 0,
        "windows in an excluded layer": 0,
        "windows in the ignore band": 0,
        "windows without label": 0,
    }
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
        whole = not annotated
        if whole:
            assert recording.label is not None
            annotated = (Segment(*span, recording.label),)
        excluded = [segment for segment in annotated if segment.layer in exclude_layers]
        kept = [segment for segment in annotated if segment.layer not in exclude_layers]
        if layers and not whole:
            kept = [segment for segment in kept if segment.layer in layers]
        long = [segment for segment in kept if segment.offset - segment.onset >= min_segment_s - EPSILON_S]
        left_out["segments too short"] += len(kept) - len(long)
        kept = [segment for segment in long if segment.label in segment_codes]
        if length_s is None:
            pairs = sorted({(max(segment.onset, span[0]), min(segment.offset, span[1])) for segment in kept})
            pairs = [(onset, offset) for onset, offset in pairs if offset > onset]
            onset, offset = (np.array([pair[side] for pair in pairs], np.float64) for side in (0, 1))
        else:
            onset, offset = windows(span, length_s=length_s, stride_s=stride_s, tail=tail)
        seen = np.ones(len(onset), bool)
        for view in catalog.views_of(recording.id):
            if view.status == "ok" and view.num_frames and (not views or view.id in views):
                seen &= frames_in(view.times, onset, offset) > 0
        left_out["windows without frame"] += int((~seen).sum())
        onset, offset = onset[seen], offset[seen]
        if not len(onset):
            left_out["recordings without window"] += 1
            continue
        # What lies outside of the recording cannot be seen, and counts for no figure.
        cut, cut_excluded = _within(kept, span), _within(excluded, span)
        coded += [(index, one.onset, one.offset, segment_codes[one.label]) for one in cut]
        coded += [(index, one.onset, one.offset, IGNORED) for one in cut_excluded]
        if whole:
            figures = _whole_figures(onset, offset, span, segment_codes[kept[0].label] if kept else None, len(names))
        else:
            figures = overlap_arrays(
                onset,
                offset,
                np.array([segment.onset for segment in cut], np.float64),
                np.array([segment.offset for segment in cut], np.float64),
                np.array([segment_codes[segment.label] for segment in cut], np.int64),
                num_labels=len(names),
            )
        label, target = label_windows(figures[FIGURES.index(rule.rule)], figures[1], rule)
        cut_out = np.zeros(len(onset), bool)
        for segment in excluded:
            cut_out |= (onset < segment.offset - EPSILON_S) & (offset > segment.onset + EPSILON_S)
        left_out["windows in an excluded layer"] += int(cut_out.sum())
        near = _in_reach(figures[FIGURES.index(rule.rule)], rule.ignore_from)
        left_out["windows in the ignore band"] += int(((label == IGNORED) & near & ~cut_out).sum())
        left_out["windows without label"] += int(((label == IGNORED) & ~near & ~cut_out).sum())
        small = (one.astype(np.float32) for one in figures)
        parts.append((np.full(len(onset), index, np.int32), onset, offset, label, target, *small, cut_out))
    if not parts:
        raise UserError(_nothing(catalog, left_out, length_s))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    code, onset, offset, label, target, coverage, iou, share, cut_out = columns
    num_before = len(names)
    if rule.background is not None:
        label, target, names, (coverage, iou, share) = _with_background(
            label, target, names, rule, (coverage, iou, share)
        )
    label[cut_out] = IGNORED
    target[cut_out] = 0
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


def label_windows(figure: np.ndarray, tie: np.ndarray, rule: LabelRule) -> tuple[np.ndarray, np.ndarray]:
    """Labels of windows from the figure that counts.

    figure, tie: (S, C) in [0, 1]. Of labels that pass, the one with the largest figure wins, then the larger tie, then
                 the
    smaller code.
    Returns label (S,) int32 (IGNORED in the ignore band; NO_LABEL where nothing passes, or IGNORED when only one label
    is allowed and there is no background) and target (S, C) uint8.
    """
    num_labels = figure.shape[1]
    passes = figure >= rule.threshold - EPSILON_S
    # A threshold of 0 must not give every label to every window: a label has to touch the window.
    passes &= figure > 0
    any_passes = passes.any(axis=1)
    label = np.full(len(figure), NO_LABEL if rule.multi_label or rule.background is not None else IGNORED, np.int32)
    if num_labels:
        # Rounded, so that figures that are equal but for rounding are decided by the tie.
        rounded = figure.round(9)
        largest = rounded == rounded.max(axis=1, keepdims=True)
        best = np.where(largest, tie.round(9), -1.0).argmax(axis=1)
        label[any_passes] = best[any_passes]
    target = passes.astype(np.uint8)
    if not rule.multi_label:
        target[:] = 0
        target[np.flatnonzero(any_passes), label[any_passes]] = 1
    label[_in_reach(figure, rule.ignore_from) & ~any_passes] = IGNORED
    return label, target


def _in_reach(figure: np.ndarray, ignore_from: float | None) -> np.ndarray:
    """(S,) bool: windows with a label of at least the figure from which windows are ignored; none without a band."""
    if ignore_from is None:
        return np.zeros(len(figure), bool)
    return np.asarray(((figure >= ignore_from - EPSILON_S) & (figure > 0)).any(axis=1))


def catalog_labels(catalog: Catalog, layers: Sequence[str] = (), exclude_layers: Sequence[str] = ()) -> tuple[str, ...]:
    """Labels that snippets of these layers can have, in natural order."""
    found = set()
    for recording in catalog.recordings:
        segments = catalog.segments_of(recording.id)
        if not segments and recording.label is not None:
            found.add(recording.label)
        found |= {
            segment.label
            for segment in segments
            if segment.layer not in exclude_layers and (not layers or segment.layer in layers)
        }
    return tuple(sorted(found, key=natural_key))


def _within(segments: Sequence[Segment], span: tuple[float, float]) -> list[Segment]:
    return [
        replace(segment, onset=max(segment.onset, span[0]), offset=min(segment.offset, span[1]))
        for segment in segments
        if segment.onset < span[1] and segment.offset > span[0]
    ]


def _coded_segments(coded: Sequence[tuple[int, float, float, int]], *, shift: int) -> CodedSegments:
    recording, onset, offset, label = (
        np.array([one[column] for one in coded], kind)
        for column, kind in enumerate((np.int32, np.float64, np.float64, np.int32))
    )
    return CodedSegments(recording, onset, offset, np.where(label >= 0, label + shift, label).astype(np.int32))


def _whole_figures(
    onset: np.ndarray, offset: np.ndarray, span: tuple[float, float], code: int | None, num_labels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `overlap_arrays` gives for one segment over the whole span; a study of clips has a great many."""
    coverage, iou, share = (np.zeros((len(onset), num_labels)) for _ in range(3))
    if code is not None:
        coverage[:, code] = 1.0
        iou[:, code] = share[:, code] = np.minimum((offset - onset) / (span[1] - span[0]), 1.0)
    return coverage, iou, share


def _with_background(
    label: np.ndarray, target: np.ndarray, names: list[str], rule: LabelRule, figures: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray, list[str], tuple[np.ndarray, ...]]:
    """The background as a class: first in order, or the label of that name when segments carry it already."""
    assert rule.background is not None
    if rule.background in names:
        code = names.index(rule.background)
    else:
        code = 0
        names = [rule.background, *names]
        label = np.where(label >= 0, label + 1, label).astype(np.int32)
        target = np.concatenate([np.zeros((len(target), 1), np.uint8), target], axis=1)
        figures = tuple(np.concatenate([np.zeros((len(one), 1), one.dtype), one], axis=1) for one in figures)
    empty = label == NO_LABEL
    label[empty] = code
    target[empty, code] = 1
    return label, target, names, figures


def _check_names(catalog: Catalog, labels: Sequence[str], layers: Sequence[str]) -> None:
    known = catalog.labels
    for label in labels:
        if label not in known:
            raise UserError(f"No label '{label}' in the catalog.{nearest(label, known)} Labels: {', '.join(known)}.")
    there = sorted({segment.layer for segments in catalog.segments.values() for segment in segments})
    for layer in layers:
        if layer not in there:
            listed = ", ".join(f"'{one}'" for one in there) or "none"
            raise UserError(f"No layer '{layer}' in the annotations.{nearest(layer, there)} Layers: {listed}.")


def _nothing(catalog: Catalog, left_out: dict[str, int], length_s: float | None) -> str:
    if left_out["recordings without label"] == len(catalog):
        return (
            f"None of the {len(catalog)} recordings has a label or segments, so there is nothing to label snippets "
            "by. "
            "Put clips into a folder per class, or name annotation files in study.segments, then run 'actionprep scan'."
        )
    counted = ", ".join(f"{number} {what}" for what, number in left_out.items() if number)
    shorter = f" Windows of {length_s * 1000:g} ms may be too long: try a shorter --length." if length_s else ""
    return f"No recording gives a snippet ({counted}).{shorter}"
