"""Apply a trained model to recordings: probabilities of windows, merged into a labelled timeline."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.segments import Segment
from actionprep.datasets.snippets import SnippetTable
from actionprep.datasets.store import Store
from actionprep.datasets.windows import EPSILON_S
from actionprep.errors import UserError
from actionprep.training.checkpoints import Checkpoint, load_checkpoint
from actionprep.training.frame_scores import cells, frame_times
from actionprep.training.run import Run, write_text
from actionprep.training.tested import label_thresholds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from actionprep.training.scoring import Scores


@dataclass(frozen=True)
class Timeline:
    """What a model says of one recording, window by window.

    onset, offset (W) float64  s on the recording's clock, half open; of a model that labels every instant a window is
        the part of one around one of its instants, and parts of windows that overlap do so too
    probabilities (W, C) float64
    several: labels are independent of each other, and a window may have any number of them.
    frame_times (T) float64  s, the frames of the recording; empty where they are not known
    thresholds (C) with several labels, the probability from which each is said; None: one half, for all.
    """

    recording: str
    labels: tuple[str, ...]
    onset: np.ndarray
    offset: np.ndarray
    probabilities: np.ndarray
    several: bool = False
    frame_times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    thresholds: np.ndarray | None = None

    def pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Intervals on which the covering windows stay the same: onset (P), offset (P), mean probabilities (P, C).

        Intervals that no window covers are left out.
        """
        edges = np.unique(np.concatenate([self.onset, self.offset]))
        # Windows that touch share one edge, though its sums may round otherwise on either side.
        edges = edges[np.diff(edges, prepend=-np.inf) > EPSILON_S]
        # Every window adds its probabilities from its onset on and takes them away at its offset.
        change = np.zeros((len(edges), len(self.labels) + 1))
        weighed = np.concatenate([self.probabilities, np.ones((len(self.onset), 1))], axis=1)
        np.add.at(change, np.searchsorted(edges, self.onset + EPSILON_S, side="right") - 1, weighed)
        np.add.at(change, np.searchsorted(edges, self.offset + EPSILON_S, side="right") - 1, -weighed)
        total = np.cumsum(change, axis=0)[:-1]
        count = np.round(total[:, -1])
        covered = count > 0
        mean = np.clip(total[covered, :-1] / count[covered, None], 0, 1)
        return edges[:-1][covered], edges[1:][covered], mean

    def votes(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the windows that cover each frame vote for: codes (T), -1 without a window, and the share of the votes (T).

        times (T) s. A window votes for its most probable label; of equally many votes the more probable label wins, and
        then the one that stands first.
        """
        code = np.full(len(times), -1)
        share = np.zeros(len(times))
        order = np.argsort(self.onset, kind="stable")
        onset, offset, probabilities = self.onset[order], self.offset[order], self.probabilities[order]
        said = probabilities.argmax(axis=1)
        longest = float((offset - onset).max()) if len(onset) else 0.0
        for at, instant in enumerate(times):
            # Only windows that begin no longer before the frame than a window lasts can cover it.
            low, high = np.searchsorted(onset, [instant - longest - 1e-6, instant + 1e-9], side="right").tolist()
            covering = low + np.flatnonzero(instant + 1e-9 < offset[low:high])
            if len(covering):
                count = np.bincount(said[covering], minlength=len(self.labels))
                mean = probabilities[covering].mean(axis=0)
                code[at] = int(np.lexsort((-mean, -count))[0])
                share[at] = count[code[at]] / len(covering)
        return code, share

    def frames_csv(self) -> str:
        """A row a frame: time, the label that most of its windows vote for, and their share; empty without a window."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["recording", "time", "label", "votes"])
        for instant, code, share in zip(self.frame_times, *self.votes(self.frame_times), strict=True):
            label = self.labels[code] if code >= 0 else ""
            writer.writerow([self.recording, f"{instant:.3f}", label, f"{share:.3f}"])
        return buffer.getvalue()

    def said_from(self, threshold: float = 0.0) -> np.ndarray:
        """(C) The least probability at which each label is said; with several labels at least its own threshold."""
        own = np.zeros(len(self.labels))
        if self.several:
            own = np.full(len(self.labels), 0.5) if self.thresholds is None else self.thresholds
        return np.maximum(own, threshold)

    def segments(self, *, threshold: float = 0.0, min_s: float = 0.0) -> list[tuple[Segment, float]]:
        """Neighbouring pieces of one label as one segment, each with its mean probability over time.

        threshold: pieces whose label is less probable have none; with several labels at least that of the label.
        min_s:     shorter segments are left out.
        """
        onset, offset, mean = self.pieces()
        if not len(onset):
            return []
        said = mean >= self.said_from(threshold)
        if not self.several:
            said &= np.arange(mean.shape[1]) == mean.argmax(axis=1)[:, None]
        found = []
        for code, label in enumerate(self.labels):
            at = np.flatnonzero(said[:, code])
            if not len(at):
                continue
            apart = (np.diff(at) > 1) | (onset[at[1:]] > offset[at[:-1]] + 1e-9)
            for run in np.split(at, np.flatnonzero(apart) + 1):
                seconds = offset[run] - onset[run]
                probability = float((mean[run, code] * seconds).sum() / seconds.sum())
                segment = Segment(float(onset[run[0]]), float(offset[run[-1]]), label)
                if segment.offset - segment.onset >= min_s:
                    found.append((segment, probability))
        return sorted(found, key=lambda one: (one[0].onset, one[0].label))

    def to_csv(self, *, threshold: float = 0.0, min_s: float = 0.0) -> str:
        """The segments as csv: recording, onset, offset, label, probability."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["recording", "onset", "offset", "label", "probability"])
        for segment, probability in self.segments(threshold=threshold, min_s=min_s):
            times = (f"{segment.onset:.3f}", f"{segment.offset:.3f}")
            writer.writerow([self.recording, *times, segment.label, f"{probability:.4f}"])
        return buffer.getvalue()

    def windows_csv(self) -> str:
        """A row a window with the probability of every label."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["recording", "onset", "offset", *self.labels])
        for onset, offset, row in zip(self.onset, self.offset, self.probabilities, strict=True):
            writer.writerow([self.recording, f"{onset:.3f}", f"{offset:.3f}", *(f"{one:.4f}" for one in row)])
        return buffer.getvalue()

    def write(self, folder: str | Path, *, threshold: float = 0.0, min_s: float = 0.0) -> list[Path]:
        """Write timeline.csv, windows.csv, timeline.png and, where frames are known, frames.csv; returns their paths."""
        folder = Path(folder)
        paths = [folder / name for name in ("timeline.csv", "windows.csv", "timeline.png")]
        if len(self.frame_times):
            paths.append(folder / "frames.csv")
            write_text(paths[-1], self.frames_csv())
        write_text(paths[0], self.to_csv(threshold=threshold, min_s=min_s))
        write_text(paths[1], self.windows_csv())
        self.figure(threshold=threshold, min_s=min_s).savefig(paths[2], dpi=150)
        return paths

    def figure(self, *, threshold: float = 0.0, min_s: float = 0.0) -> Figure:
        """The segments over time above the probability of every label."""
        from matplotlib import colormaps
        from matplotlib.figure import Figure

        onset, offset, mean = self.pieces()
        colors = colormaps["tab10" if len(self.labels) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
        rows = len(self.labels)
        figure = Figure(figsize=(11, 1.6 + 0.32 * rows), layout="constrained")
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, max(rows * 0.35, 1)])
        for segment, probability in self.segments(threshold=threshold, min_s=min_s):
            color = colors[self.labels.index(segment.label) % len(colors)]
            width = segment.offset - segment.onset
            top.barh(0, width, left=segment.onset, height=0.9, color=color, alpha=0.35 + 0.65 * probability)
            if len(onset) and width > 0.08 * (offset[-1] - onset[0]):
                top.text(segment.onset + width / 2, 0, segment.label, ha="center", va="center", fontsize=9)
        top.set(yticks=[], ylim=(-0.5, 0.5))
        top.set_title(self.recording, loc="left", fontsize=11)
        top.spines[["top", "right", "left"]].set_visible(False)
        if len(onset):
            edges = np.append(onset, offset[-1])
            for code in range(rows):
                heights = code + 0.45 + 0.9 * (mean[:, code] - 0.5)
                color = colors[code % len(colors)]
                below.stairs(heights, edges, baseline=code, fill=True, color=color, alpha=0.85)
        below.set(yticks=np.arange(rows) + 0.45, yticklabels=self.labels, ylim=(-0.1, rows), xlabel="seconds")
        below.tick_params(axis="y", length=0)
        below.grid(axis="x", alpha=0.3)
        below.spines[["top", "right", "left"]].set_visible(False)
        return figure


@dataclass(frozen=True)
class Asked:
    """One of the models that answer together, and its share of the answer."""

    checkpoint: Checkpoint
    weight: float


Model = Run | Checkpoint | str | Path | Sequence[Asked]
"""What predictions take: a run or a fusion, by its folder; a checkpoint; or models that were opened already."""


def open_models(run: Model, *, device: str = "auto") -> Sequence[Asked]:
    """The model of a run, or of a folder that 'actiontrain fuse' wrote, all models that it asks; weights sum to 1."""
    from actionprep.training.fusion import fused_runs

    if isinstance(run, (list, tuple)):
        return run
    assert isinstance(run, (Run, Checkpoint, str, Path))
    folder = run.folder if isinstance(run, Run) else run
    fused = None if isinstance(folder, Checkpoint) else fused_runs(folder)
    if fused is None:
        return [Asked(open_checkpoint(run, device=device), 1.0)]
    return [Asked(open_checkpoint(one, device=device), float(weight)) for one, weight in zip(*fused, strict=True)]


def views_of(models: Sequence[Asked]) -> tuple[str, ...]:
    """Names of all views that some of the models look at: first those of the model with most of them."""
    most = sorted((one.checkpoint.views for one in models), key=len, reverse=True)
    return tuple(dict.fromkeys(view for views in most for view in views))


def predict(
    run: Model,
    store: Store | str | Path,
    *,
    recordings: Sequence[str] | None = None,
    window_s: float | None = None,
    stride_s: float | None = None,
    carry: bool | None = None,
    device: str = "auto",
) -> list[Timeline]:
    """Slide windows over recordings of a store and say what happens in each.

    run:      a run, a checkpoint, or the path of either; or a folder that 'actiontrain fuse' wrote: then all its runs
              are asked, and their probabilities averaged with its weights.
    store:    with the product that the model reads, made with the settings of the training (see `pipeline_settings`).
    window_s: length of a window; None: as in the training, where whole recordings were labelled the whole recording.
    stride_s: from one window to the next; None: a quarter of the window.
    carry:    let a window go on from the state in which the model left the one that ends where it begins; None: as the
              recipe says.

    A model that was trained on the labels of every instant says what happens at each instant of its windows; a fusion
    says what happens in each window.

    With several labels each is said from the threshold that val gave it in the run's test; from one half where the run
    was not tested, of a fusion, and of a model that labels every instant.

    Raises UserError when the store lacks the product or was made in another way than the training's.
    """
    models = open_models(run, device=device)
    store = store if isinstance(store, Store) else Store(store)
    return _ask(
        models,
        [store] * len(models),
        recordings=recordings,
        window_s=window_s,
        stride_s=stride_s,
        carry=carry,
        device=device,
    )


def _ask(
    models: Sequence[Asked],
    stores: Sequence[Store],
    *,
    recordings: Sequence[str] | None = None,
    window_s: float | None = None,
    stride_s: float | None = None,
    carry: bool | None = None,
    device: str = "auto",
) -> list[Timeline]:
    """What the models say together of the same windows, each of the store that holds its input."""
    from actionprep.training.devices import torch_device
    from actionprep.training.inputs.base import find_input

    first = models[0].checkpoint
    asked = [(one.checkpoint, store) for one, store in zip(models, stores, strict=True)]
    there: list[str] = []
    for checkpoint, store in asked:
        recipe = checkpoint.recipe
        find_input(recipe.product).check_store(recipe.input, store)
        check_pipeline(checkpoint, store)
        known = {key.recording for key in store.items(recipe.reads)}
        there = sorted(known if checkpoint is first else known.intersection(there))
        for name in recordings or ():
            if name not in known:
                raise UserError(
                    f"No {recipe.reads} of recording '{name}' in {store.url}. There are {', '.join(sorted(known)[:8])}."
                )
    length_s = window_s if window_s is not None else first.card["snippets"].get("length_s")
    thresholds = label_thresholds(first) if len(models) == 1 else None
    found = []
    for recording in recordings or there:
        views = [_views_there(checkpoint, store, recording) for checkpoint, store in asked]
        spans = [
            find_input(checkpoint.recipe.product).span(store, recording, seen)
            for (checkpoint, store), seen in zip(asked, views, strict=True)
        ]
        # What some models alone see of, the others cannot answer.
        span = max(start for start, _ in spans), min(end for _, end in spans)
        onset, offset = sliding_windows(span, length_s=length_s, stride_s=stride_s)
        table = windows_table(recording, first.labels, onset, offset)
        scores = [
            _score(one, store, table, torch_device(device), carry=one.recipe.carry if carry is None else carry)
            for one, store in asked
        ]
        if len(scores) > 1:
            shares = np.array([one.weight for one in models])
            probabilities = np.einsum("r,rwc->wc", shares, np.stack([one.probabilities for one in scores]))
        elif scores[0].instants is not None:
            onset, offset, probabilities = cells(onset, offset, scores[0].instants)
        else:
            probabilities = scores[0].probabilities
        times = [
            frame_times(store, checkpoint.recipe.reads, recording, seen[:1])
            for (checkpoint, store), seen in zip(asked, views, strict=True)
        ]
        found.append(
            Timeline(
                recording,
                first.labels,
                onset,
                offset,
                probabilities,
                bool(first.card["several_labels"]),
                max(times, key=len),
                thresholds,
            )
        )
    return found


def predict_videos(
    run: Model,
    videos: Mapping[str, str | Path],
    build: Callable[[Checkpoint, dict[str, Path]], Store],
    **options: Any,
) -> Timeline:
    """The timeline of one recording from its raw videos, by the view that each shows.

    build: makes a store of the videos as the model's training made its own (`pipeline_settings`); the pipeline's side. Of
        a fusion it is called for each model, with the videos of the views that this one looks at.
    options: as for `predict`.
    """
    models = open_models(run, device=options.get("device", "auto"))
    views = views_of(models)
    if not videos or len(videos) > max(len(views), 1):
        raise UserError(
            f"This model was trained on {len(views)} view(s), {', '.join(views)}, and got {len(videos)} video(s). Give the "
            "videos of one recording, one a view, in this order; later views may be missing."
        )
    missing = [str(video) for video in videos.values() if not Path(video).is_file()]
    if missing:
        raise UserError(f"No such video: {', '.join(missing)}.")
    stores = []
    for one in models:
        wanted = one.checkpoint.views
        mine = {view: Path(video) for view, video in videos.items() if view in wanted or not wanted}
        if not mine:
            raise UserError(
                f"{one.checkpoint.path} looks at view {', '.join(wanted)} alone, and the videos are of view "
                f"{', '.join(videos)}."
            )
        stores.append(build(one.checkpoint, mine))
    [timeline] = _ask(models, stores, **options)
    return timeline


def pipeline_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Settings of every stage behind the model's input, by product, for building the same from other videos.

    Raises UserError when the training's own items were made with several settings, or imported.
    """
    found = {}
    for product, made in checkpoint.card["pipeline"]["stages"].items():
        distinct = [one.get("settings") for one in made]
        distinct = [one for at, one in enumerate(distinct) if one is not None and one not in distinct[:at]]
        if len(distinct) > 1:
            raise UserError(
                f"The training's {product} were made with {len(distinct)} different settings, so it is not known how "
                "to make them for a new video. Build the training's store with one, and train anew."
            )
        if distinct and distinct[0].get("backend") == "import":
            raise UserError(
                f"This model was trained on an imported {product}, which cannot be made from a video. Build the training's "
                f"{product} with an estimator ('actionprep {product} --backend …') and train on that; or import the new "
                "recording's too, and call actionprep.training.predict with that store."
            )
        if distinct:
            found[product] = distinct[0]
    if found.get("frames", {}).get("which", "all") != "all":
        # A new video has no annotated segments, and all of it is looked at.
        found["frames"] = {**found["frames"], "which": "all"}
        found.pop("keyframes", None)
    return found


def check_pipeline(checkpoint: Checkpoint, store: Store) -> None:
    """Raise UserError when the store's items were made with other settings than the training's."""
    from actionprep.training.run import pipeline_of

    product = checkpoint.recipe.reads
    theirs = pipeline_of(store, product)["stages"]
    for name, made in checkpoint.card["pipeline"]["stages"].items():
        known = [_deciding(one) for one in made]
        for one in map(_deciding, theirs.get(name, [])):
            if known and one not in known:
                differing = sorted(key for key in {*one, *known[0]} if one.get(key) != known[0].get(key))
                raise UserError(
                    f"The {name} in {store.url} were made with other settings than those that the model was trained "
                    "on: "
                    f"{', '.join(differing)}. Build them with the training's settings (they are in the checkpoint), "
                    "or train on these."
                )


def _deciding(made: dict[str, Any]) -> dict[str, Any]:
    """Settings of a stage that decide what it makes: not where it ran, nor from which folder its weights came."""
    asides = ("device", "repo", "checkpoint", "name", "which", "margin", "chunk")
    return {key: value for key, value in (made.get("settings") or {}).items() if key not in asides}


def sliding_windows(
    span: tuple[float, float], *, length_s: float | None, stride_s: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Onsets and offsets of windows over a span, the last ending with it; without a length one window, all of it."""
    start, end = span
    if length_s is not None and length_s <= 0:
        raise UserError(f"A window must be longer than 0 s, got {length_s:g}.")
    if length_s is None or length_s >= end - start:
        return np.array([start]), np.array([end])
    stride = length_s / 4 if stride_s is None else stride_s
    if stride <= 0:
        raise UserError(f"The stride must be above 0 s, got {stride:g}.")
    count = int(np.floor((end - start - length_s) / stride + 1e-9)) + 1
    onset = start + stride * np.arange(count)
    if onset[-1] + length_s < end - 1e-6:
        onset = np.append(onset, end - length_s)
    return onset, onset + length_s


def open_checkpoint(run: Run | Checkpoint | str | Path, *, device: str = "auto") -> Checkpoint:
    """A checkpoint from whatever names one: a run, its folder, or the file."""
    from actionprep.training.devices import torch_device

    if isinstance(run, Checkpoint):
        return run
    if not isinstance(run, Run) and Path(run).is_dir():
        run = Run.open(run)
    return load_checkpoint(run.best if isinstance(run, Run) else run, device=str(torch_device(device)))


def _views_there(checkpoint: Checkpoint, store: Store, recording: str) -> list[str]:
    product = checkpoint.recipe.reads
    there = [view for view in checkpoint.views if any(store.has(one, recording, view) for one in product.split("+"))]
    if not there:
        have = ", ".join(key.view for key in store.items(product) if key.recording == recording)
        raise UserError(
            f"Recording '{recording}' has none of the views that the model was trained on "
            f"({', '.join(checkpoint.views)}); "
            f"it has {have}."
        )
    return there


def _score(checkpoint: Checkpoint, store: Store, table: SnippetTable, device: Any, *, carry: bool) -> Scores:
    from actionprep.training.datasets import SnippetDataset
    from actionprep.training.inputs.base import find_input
    from actionprep.training.scoring import score

    recipe = checkpoint.recipe
    reader = find_input(recipe.product)(recipe.input, store, table, checkpoint.views)
    reader.to(device)
    dataset = SnippetDataset(store, table, rows=np.arange(len(table)), reader=reader)
    return score(checkpoint, dataset, variants=recipe.test_variants, carry=carry)


def windows_table(recording: str, labels: tuple[str, ...], onset: np.ndarray, offset: np.ndarray) -> SnippetTable:
    """A table of windows (W) of one recording, whose labels are not known."""
    size, num_labels = len(onset), len(labels)
    nothing = np.zeros((size, num_labels), np.float32)
    return SnippetTable(
        recording=np.zeros(size, np.int32),
        onset=onset,
        offset=offset,
        label=np.zeros(size, np.int32),
        target=np.zeros((size, num_labels), np.uint8),
        coverage=nothing,
        iou=nothing,
        segment_share=nothing,
        labels=labels,
        recordings=(recording,),
        subjects=("",),
        sessions=("",),
        splits=("",),
    )
