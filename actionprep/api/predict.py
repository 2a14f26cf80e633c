"""Predict labeled timelines of new videos and of recordings of a store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.api.video_groups import recording_name
from actionprep.api.video_store import clocks_of, store_of_videos
from actionprep.api.view_names import NamedVideos, name_videos, pattern_of_study, refuse_crops
from actionprep.datasets.paths import below
from actionprep.datasets.study_colors import colors_near
from actionprep.settings import canonical_json

if TYPE_CHECKING:
    from actionprep.datasets.label_colors import Color
    from actionprep.datasets.segments import Segment
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.pipeline.view_tasks import Workers
    from actionprep.training.checkpoints import Checkpoint
    from actionprep.training.predict import PooledModel
    from actionprep.training.predicted_timeline import Timeline


@dataclass(frozen=True)
class Prediction:
    """Predicted timeline of one recording, and its files.

    Attributes:
        timeline: Predictions of the windows.
        videos: Videos by view, and how their views were found; None for a recording of a store.
        segments: Segments of the timeline for the requested threshold and minimum length, each with its probability.
        files: Written files.
        unseen: Views without foreground, which were left out as in training.
        said_from: With several labels, the minimum probability of each; empty if a window has one label.
        too_long: A warning if the recording was predicted in one window and is much longer than the training snippets.
        other_frame_rate: A warning if the recording has a frame rate that the training did not have.
    """

    timeline: Timeline
    videos: NamedVideos | None
    segments: tuple[tuple[Segment, float], ...]
    files: tuple[Path, ...]
    unseen: tuple[str, ...] = ()
    said_from: Mapping[str, float] = field(default_factory=dict)
    too_long: str | None = None
    other_frame_rate: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the prediction as plain values."""
        videos = self.videos or NamedVideos({}, (), {})
        return {
            "recording": self.timeline.recording,
            "segments": [
                {"onset": part.onset, "offset": part.offset, "label": part.label, "probability": probability}
                for part, probability in self.segments
            ],
            "files": [str(path) for path in self.files],
            "views": {view: str(path) for view, path in videos.videos.items()},
            "views_by": dict(videos.by),
            "left_out": [str(path) for path in videos.left_out],
            "missing_views": list(videos.missing),
            "unseen_views": list(self.unseen),
            "said_from": dict(self.said_from),
            "too_long": self.too_long,
            "windows": len(self.timeline.onset),
            "windows_without_evidence": self.timeline.num_without_evidence,
            "other_frame_rate": self.other_frame_rate,
            "thresholds_of_val": self.timeline.thresholds is not None,
        }


def predict_videos(
    run: str | Path | Checkpoint,
    videos: Sequence[str | Path],
    *,
    recording: str | None = None,
    out: str | Path = "prediction",
    overlay: bool = False,
    length_ms: float | None = None,
    stride_ms: float | None = None,
    threshold: float = 0.0,
    min_length_ms: float = 0.0,
    offsets: Mapping[str, float] | None = None,
    tolerance: float | None = None,
    carry: bool | None = None,
    device: str = "auto",
    workers: int | Workers = 0,
    study: str | Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Prediction:
    """Predict the timeline of one recording from its raw videos, processed as for the training.

    Args:
        run: Folder of a run or of fused runs, or a checkpoint.
        videos: "view=path", or paths that match the pattern of the run's study (see
            `actionprep.api.view_names.name_videos`); for a run of one view any path.
        recording: Name of the recording in the results. None: from the names of the videos or of their folder.
        out: Folder for timeline.csv, windows.csv, frames.csv, timeline.png and, with overlay, prediction.mp4.
        overlay: Whether to write a video with the labels.
        length_ms: Window in ms; None: as in the training.
        stride_ms: Time from window to window in ms; None: a quarter of the window.
        threshold: Minimum probability of a label. With several labels, at least the threshold that val gave the label in
            the run's test, or 0.5 if there is none.
        min_length_ms: Minimum length of a segment in ms.
        offsets: Seconds to add to the time of views. Other views have the offset that they had in every recording of the
            training.
        tolerance: Largest difference in s between frames of the same time in aligned views; None: as in the training.
        carry: Whether to carry the state of the model from window to window; None: as in the recipe.
        device: Device of the model.
        workers: Processes that build the products, or where else to build them; 0 builds in this process.
        study: Folder of the study that provides settings which name code and files (tracks.repo, pose.environment, …).
            None: the one that contains the current folder, if any. Values in the checkpoint are ignored.
        overrides: Values of such settings, by table: {"tracks": {"repo": "co-tracker"}}.
        warn: Called with a sentence for every recorded setting that is ignored.

    Returns:
        The prediction.

    Raises:
        UserError: If videos and run do not fit, or if a video cannot be read.
    """
    from actionprep.pipeline.model_settings import OwnSettings
    from actionprep.training.predict import open_models, pipeline_settings, predict_with_built_store, views_of

    models = open_models(run, device=device)
    views = views_of(models)
    pattern = pattern_of_study(models[0].checkpoint)
    refuse_crops(models[0].checkpoint, views)
    named = name_videos(videos, views, pattern)
    recording = recording or recording_name(list(named.videos.values()), pattern)
    clocks_of({}, named.videos, offsets or {}, tolerance)  # an offset of a view without video is an error
    unseen: list[str] = []
    warned: set[str] = set()

    def warn_once(sentence: str) -> None:
        if sentence not in warned:
            warned.add(sentence)
            warn(sentence)

    own = OwnSettings(study, overrides or {}, warn_once)
    with tempfile.TemporaryDirectory(prefix="actionprep-predict-") as folder:
        made: dict[str, Store] = {}

        def build(checkpoint: Checkpoint, videos: dict[str, Path]) -> Store:
            product = checkpoint.recipe.reads
            chosen = own.stage_settings(
                pipeline_settings(checkpoint), checkpoint.card["pipeline"]["stages"], where=str(checkpoint.path)
            )
            settings = {name: model.model_dump(mode="json") for name, model in chosen.items()}
            shifts = {view: shift for view, shift in (offsets or {}).items() if view in videos}
            clocks = clocks_of(checkpoint.card["pipeline"].get("clocks", {}), videos, shifts, tolerance)
            # Models with the same input share one store.
            key = canonical_json([settings, product, list(videos), clocks.offsets, clocks.settings])
            if key not in made:
                inner = Path(folder) / str(len(made))
                inner.mkdir()
                not_seen: list[str] = []
                made[key] = store_of_videos(
                    inner, recording, videos, settings, product, workers,
                    clocks=clocks, paths_from=own.root, unseen=not_seen,
                )  # fmt: skip
                unseen.extend(view for view in not_seen if view not in unseen)
            return made[key]

        timeline = predict_with_built_store(
            models,
            named.videos,
            build,
            window_s=None if length_ms is None else length_ms / 1000,
            stride_s=None if stride_ms is None else stride_ms / 1000,
            carry=carry,
            device=device,
        )
    path, run_name = _run_of(run, models)
    colors = colors_near(path, timeline.labels)
    written = _write_files(
        models,
        timeline,
        named,
        out,
        run_name=run_name,
        colors=colors,
        threshold=threshold,
        min_length_ms=min_length_ms,
        length_ms=length_ms,
        unseen=unseen,
    )
    if not overlay:
        return written
    from actionprep.show.prediction import draw_prediction, predicted_row

    title = [recording, *([f"run {run_name}"] if run_name else []), f"threshold {threshold:.2f}"]
    video = draw_prediction(
        named.videos,
        [predicted_row(written.segments)],
        Path(out) / OVERLAY,
        title="  ·  ".join(title),
        colors=colors,
    )
    return replace(written, files=(*written.files, video))


OVERLAY = "prediction.mp4"
"""Video with the predicted labels."""


def predict_recordings(
    run: str | Path | Sequence[PooledModel],
    store: Store,
    recordings: Sequence[str],
    *,
    out: str | Path = "prediction",
    length_ms: float | None = None,
    stride_ms: float | None = None,
    threshold: float = 0.0,
    min_length_ms: float = 0.0,
    carry: bool | None = None,
    device: str = "auto",
) -> list[Prediction]:
    """Predict timelines of recordings of a store, from the products that it contains.

    This also works for products that cannot be built from a video, such as imported poses.

    Args:
        run: Folder of a run or of fused runs, a checkpoint, or opened models.
        store: Store with the product that the model reads.
        recordings: Recordings of the store.
        out: Folder for the results; each recording gets a folder of its name.
        length_ms: Window in ms; None: as in the training.
        stride_ms: Time from window to window in ms; None: a quarter of the window.
        threshold: Minimum probability of a label, as for `predict_videos`.
        min_length_ms: Minimum length of a segment in ms.
        carry: Whether to carry the state of the model from window to window; None: as in the recipe.
        device: Device of the model.

    Returns:
        One prediction per recording, in the given order.

    Raises:
        UserError: If a recording or the product is missing, or was built with other settings than the training.
    """
    from actionprep.training.predict import open_models
    from actionprep.training.predict import predict as predict_store

    models = open_models(run, device=device)
    timelines = predict_store(
        models,
        store,
        recordings=recordings,
        window_s=None if length_ms is None else length_ms / 1000,
        stride_s=None if stride_ms is None else stride_ms / 1000,
        carry=carry,
        device=device,
    )
    path, run_name = _run_of(run, models)
    return [
        _write_files(
            models,
            timeline,
            None,
            below(out, *timeline.recording.split("/")),
            run_name=run_name,
            colors=colors_near(path, timeline.labels),
            threshold=threshold,
            min_length_ms=min_length_ms,
            length_ms=length_ms,
        )
        for timeline in timelines
    ]


def write_joint_timeline(folder: str | Path) -> Path:
    """Write timeline.csv of a folder of predictions: the segments of all recordings in the folders below it.

    Args:
        folder: Folder with one folder per recording.

    Returns:
        Path of the table.
    """
    from actionprep.datasets.natural_order import natural_key
    from actionprep.training.run import write_text

    folder = Path(folder)
    target = folder / "timeline.csv"
    rows: list[str] = []
    header = "recording,onset,offset,label,probability\n"
    for path in sorted(folder.rglob("timeline.csv"), key=lambda path: natural_key(str(path))):
        if path != target:
            rows.append(path.read_text(encoding="utf-8").partition("\n")[2])
    write_text(target, header + "".join(rows))
    return target


def _write_files(
    models: Sequence[PooledModel],
    timeline: Timeline,
    named: NamedVideos | None,
    out: str | Path,
    *,
    run_name: str,
    colors: dict[str, Color],
    threshold: float,
    min_length_ms: float,
    length_ms: float | None,
    unseen: Sequence[str] = (),
) -> Prediction:
    """Write the files of a timeline; a video with labels of an earlier prediction is removed."""
    from actionprep.training.evaluation.frame_scores import frame_rate
    from actionprep.training.predict import beyond_training, other_frame_rate

    chosen = {"threshold": threshold, "min_s": min_length_ms / 1000}
    files = timeline.write(out, run=run_name, colors=colors, **chosen)
    segments = tuple(timeline.segments(**chosen))
    (Path(out) / OVERLAY).unlink(missing_ok=True)
    said_from = (
        dict(zip(timeline.labels, timeline.minimum_probability(threshold).tolist(), strict=True))
        if timeline.several
        else {}
    )
    too_long = None if length_ms is not None else beyond_training(models, timeline)
    rate = frame_rate(timeline.frame_times)
    warnings = [other_frame_rate(model.checkpoint.card, rate, timeline.recording) for model in models]
    return Prediction(
        timeline,
        named,
        segments,
        tuple(files),
        tuple(unseen),
        said_from,
        too_long,
        next((warning for warning in warnings if warning is not None), None),
    )


def _run_of(run: str | Path | Checkpoint | Sequence[PooledModel], models: Sequence[PooledModel]) -> tuple[Path, str]:
    """Return the path of a run and its name for titles; the name of several opened models is empty."""
    from actionprep.training.run import FINAL

    path = models[0].checkpoint.path
    if isinstance(run, (str, Path)):
        path = Path(run).resolve()
    elif models[0].checkpoint.card.get("phase") != "published":
        path = path.resolve().parent
    if len(models) > 1 and not isinstance(run, (str, Path)):
        return path, ""
    return path, path.parent.name if path.name == FINAL else path.name
