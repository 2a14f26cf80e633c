"""Predicted timeline of a recording: probabilities over time, segments, and their files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.label_colors import NOTHING, Color, label_colors
from actionprep.datasets.paths import no_link
from actionprep.datasets.segments import Segment
from actionprep.datasets.windows import EPSILON_S
from actionprep.training.run import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Timeline:
    """Predictions for the windows of one recording.

    Attributes:
        recording: Name of the recording.
        labels: Names of the classes.
        onset: Onset of each window in seconds on the recording's clock, shape (W,). If the model labels every time step,
            a window is the part around one step, and parts of overlapping windows overlap too.
        offset: Offset of each window in seconds, exclusive, shape (W,).
        probabilities: Predicted probabilities, shape (W, C).
        several: Whether a window can have any number of labels.
        frame_times: Times of the frames of the recording in seconds, shape (T,); empty if unknown.
        thresholds: With several labels, the minimum probability of each, shape (C,); None: 0.5.
        evidence: Whether each window shows points, people or frames, shape (W,); None: all do. Others have no label.
    """

    recording: str
    labels: tuple[str, ...]
    onset: np.ndarray
    offset: np.ndarray
    probabilities: np.ndarray
    several: bool = False
    frame_times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    thresholds: np.ndarray | None = None
    evidence: np.ndarray | None = None

    @property
    def has_evidence(self) -> np.ndarray:
        """Whether each window shows points, people or frames, bool of shape (W,)."""
        return np.ones(len(self.onset), bool) if self.evidence is None else self.evidence

    @property
    def num_without_evidence(self) -> int:
        """Number of windows without points, people or frames, which have no label."""
        return int((~self.has_evidence).sum())

    def pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return intervals with the same covering windows: onset (P,), offset (P,) and mean probabilities (P, C).

        Intervals that no window with evidence covers are left out.
        """
        seen = self.has_evidence
        window_onset, window_offset = self.onset[seen], self.offset[seen]
        edges = np.unique(np.concatenate([window_onset, window_offset]))
        # Windows that touch share one edge, though its sums may round otherwise on either side.
        edges = edges[np.diff(edges, prepend=-np.inf) > EPSILON_S]
        # Each window adds its probabilities at its onset and subtracts them at its offset.
        change = np.zeros((len(edges), len(self.labels) + 1))
        weighed = np.concatenate([self.probabilities[seen], np.ones((len(window_onset), 1))], axis=1)
        np.add.at(change, np.searchsorted(edges, window_onset + EPSILON_S, side="right") - 1, weighed)
        np.add.at(change, np.searchsorted(edges, window_offset + EPSILON_S, side="right") - 1, -weighed)
        total = np.cumsum(change, axis=0)[:-1]
        count = np.round(total[:, -1])
        covered = count > 0
        mean = np.clip(total[covered, :-1] / count[covered, None], 0, 1)
        return edges[:-1][covered], edges[1:][covered], mean

    def votes(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Let the windows that cover each frame vote for their most probable label.

        In a tie the more probable label wins, then the first one.

        Args:
            times: Times of the frames in seconds, shape (T,).

        Returns:
            Codes (T,), -1 without a window, and the share of the votes (T,).
        """
        code = np.full(len(times), -1)
        share = np.zeros(len(times))
        order = np.argsort(self.onset, kind="stable")
        order = order[self.has_evidence[order]]
        onset, offset, probabilities = self.onset[order], self.offset[order], self.probabilities[order]
        top_class = probabilities.argmax(axis=1)
        longest = float((offset - onset).max()) if len(onset) else 0.0
        for frame, time in enumerate(times):
            # Only windows that begin no longer before the frame than a window lasts can cover it.
            low, high = np.searchsorted(onset, [time - longest - 1e-6, time + 1e-9], side="right").tolist()
            covering = low + np.flatnonzero(time + 1e-9 < offset[low:high])
            if len(covering):
                count = np.bincount(top_class[covering], minlength=len(self.labels))
                mean = probabilities[covering].mean(axis=0)
                code[frame] = int(np.lexsort((-mean, -count))[0])
                share[frame] = count[code[frame]] / len(covering)
        return code, share

    def frames_csv(self) -> str:
        """Return one row per frame: time, the label with most votes, and its share; empty without a window."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["recording", "time", "label", "votes"])
        for time, code, share in zip(self.frame_times, *self.votes(self.frame_times), strict=True):
            label = self.labels[code] if code >= 0 else ""
            writer.writerow([self.recording, f"{time:.3f}", label, f"{share:.3f}"])
        return buffer.getvalue()

    def minimum_probability(self, threshold: float = 0.0) -> np.ndarray:
        """Return the minimum probability of each label, shape (C,); with several labels at least its own threshold."""
        own = np.zeros(len(self.labels))
        if self.several:
            own = np.full(len(self.labels), 0.5) if self.thresholds is None else self.thresholds
        return np.maximum(own, threshold)

    def segments(self, *, threshold: float = 0.0, min_s: float = 0.0) -> list[tuple[Segment, float]]:
        """Join neighboring intervals of one label to segments.

        Args:
            threshold: Minimum probability of a label; with several labels at least the threshold of the label.
            min_s: Minimum length of a segment in seconds.

        Returns:
            Segments, each with its mean probability over time.
        """
        onset, offset, mean = self.pieces()
        if not len(onset):
            return []
        is_predicted = mean >= self.minimum_probability(threshold)
        if not self.several:
            is_predicted &= np.arange(mean.shape[1]) == mean.argmax(axis=1)[:, None]
        joined = []
        for code, label in enumerate(self.labels):
            pieces_of_label = np.flatnonzero(is_predicted[:, code])
            if not len(pieces_of_label):
                continue
            apart = (np.diff(pieces_of_label) > 1) | (onset[pieces_of_label[1:]] > offset[pieces_of_label[:-1]] + 1e-9)
            for run in np.split(pieces_of_label, np.flatnonzero(apart) + 1):
                seconds = offset[run] - onset[run]
                probability = float((mean[run, code] * seconds).sum() / seconds.sum())
                segment = Segment(float(onset[run[0]]), float(offset[run[-1]]), label)
                if segment.offset - segment.onset >= min_s:
                    joined.append((segment, probability))
        return sorted(joined, key=lambda pair: (pair[0].onset, pair[0].label))

    def to_csv(self, *, threshold: float = 0.0, min_s: float = 0.0) -> str:
        """Return the segments as csv: recording, onset, offset, label, probability."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["recording", "onset", "offset", "label", "probability"])
        for segment, probability in self.segments(threshold=threshold, min_s=min_s):
            times = (f"{segment.onset:.3f}", f"{segment.offset:.3f}")
            writer.writerow([self.recording, *times, segment.label, f"{probability:.4f}"])
        return buffer.getvalue()

    def windows_csv(self) -> str:
        """Return one csv row per window: whether it shows anything (evidence 1 or 0), and its probabilities if so."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["recording", "onset", "offset", "evidence", *self.labels])
        for onset, offset, seen, row in zip(
            self.onset, self.offset, self.has_evidence, self.probabilities, strict=True
        ):
            cells = [f"{value:.4f}" if seen else "" for value in row]
            writer.writerow([self.recording, f"{onset:.3f}", f"{offset:.3f}", int(seen), *cells])
        return buffer.getvalue()

    def write(
        self,
        folder: str | Path,
        *,
        threshold: float = 0.0,
        min_s: float = 0.0,
        run: str = "",
        colors: Mapping[str, Color] | None = None,
    ) -> list[Path]:
        """Write timeline.csv, windows.csv, timeline.png and, if frame times are known, frames.csv.

        Args:
            folder: Folder to write to.
            threshold: Minimum probability of a label.
            min_s: Minimum length of a segment in seconds.
            run: Name of the run, for the title of the chart.
            colors: Colors of labels in the chart. Default: those of `label_colors`.

        Returns:
            Paths of the files.
        """
        folder = Path(folder)
        paths = [folder / name for name in ("timeline.csv", "windows.csv", "timeline.png")]
        if len(self.frame_times):
            paths.append(folder / "frames.csv")
            write_text(paths[-1], self.frames_csv())
        write_text(paths[0], self.to_csv(threshold=threshold, min_s=min_s))
        write_text(paths[1], self.windows_csv())
        self.figure(threshold=threshold, min_s=min_s, run=run, colors=colors).savefig(no_link(paths[2]), dpi=150)
        return paths

    def figure(
        self,
        *,
        threshold: float = 0.0,
        min_s: float = 0.0,
        run: str = "",
        colors: Mapping[str, Color] | None = None,
    ) -> Figure:
        """Plot the segments over time above the probability of every label.

        Segments that are too short for their name are listed below the plot.
        """
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch

        onset, offset, mean = self.pieces()
        chosen = label_colors(self.labels) if colors is None else colors
        rgb = {label: "#{:02x}{:02x}{:02x}".format(*chosen.get(label, NOTHING)) for label in self.labels}
        segments = self.segments(threshold=threshold, min_s=min_s)
        span = float(offset[-1] - onset[0]) if len(onset) else 1.0
        short = [
            segment for segment, _ in segments if segment.offset - segment.onset <= 0.008 * span * len(segment.label)
        ]
        notes = _short_segments(short)
        rows = len(self.labels)
        figure = Figure(figsize=(11, 2.1 + 0.32 * rows + 0.2 * len(notes)), layout="constrained")
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, max(rows * 0.35, 1)])
        for segment, probability in segments:
            width = segment.offset - segment.onset
            alpha = 0.35 + 0.65 * probability
            top.barh(0, width, left=segment.onset, height=0.9, color=rgb[segment.label], alpha=alpha)
            if segment not in short:
                center = segment.onset + width / 2
                top.text(center, 0, segment.label, ha="center", va="center", fontsize=9, parse_math=False, clip_on=True)
        top.set(yticks=[], ylim=(-0.5, 0.5))
        title = [self.recording, *([f"run {run}"] if run else []), f"threshold {threshold:.2f}"]
        top.set_title("  ·  ".join(title), loc="left", fontsize=11, parse_math=False)
        top.spines[["top", "right", "left"]].set_visible(False)
        if len(onset):
            gaps = np.flatnonzero(onset[1:] > offset[:-1] + EPSILON_S)
            edges = np.append(np.insert(onset, gaps + 1, offset[gaps]), offset[-1])
            mean = np.insert(mean, gaps + 1, np.nan, axis=0)
            for code, label in enumerate(self.labels):
                below.stairs(code + 0.9 * mean[:, code], edges, baseline=code, fill=True, color=rgb[label], alpha=0.85)
        below.set_yticks(np.arange(rows) + 0.45, self.labels, parse_math=False)
        below.set(ylim=(-0.1, rows), xlabel="time (s)")
        below.tick_params(axis="y", length=0)
        scale = below.secondary_yaxis("right")
        scale.set_yticks([rows - 1, rows - 0.1], ["0", "1"], fontsize=8)  # the same for all rows
        scale.set_ylabel("probability", fontsize=8)
        scale.spines["right"].set_visible(False)
        below.grid(axis="x", alpha=0.3)
        below.spines[["top", "right", "left"]].set_visible(False)
        present = {segment.label for segment, _ in segments}
        handles = [Patch(color=rgb[label], label=label) for label in self.labels if label in present]
        if handles:
            legend = figure.legend(handles=handles, loc="outside upper right", ncols=8, fontsize=8, frameon=False)
            for text in legend.get_texts():
                text.set_parse_math(False)
        if notes:
            figure.supxlabel("\n".join(notes), x=0.01, ha="left", fontsize=8, parse_math=False)
        return figure


_MOST_SHORT = 24


def _short_segments(segments: Sequence[Segment]) -> list[str]:
    """List segments as lines, four per line."""
    phrases = [f"{segment.label} {segment.onset:.2f}–{segment.offset:.2f} s" for segment in segments[:_MOST_SHORT]]
    if len(segments) > _MOST_SHORT:
        phrases.append(f"and {len(segments) - _MOST_SHORT} more in timeline.csv")
    lines = ["  ·  ".join(phrases[first : first + 4]) for first in range(0, len(phrases), 4)]
    return [f"Short: {lines[0]}", *lines[1:]] if lines else []
