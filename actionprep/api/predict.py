"""From the raw videos of one recording to a labeled timeline."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.api.video_groups import recording_name
from actionprep.api.video_store import clocks_of, store_of_videos
from actionprep.api.view_names import NamedVideos, name_videos, pattern_of_study
from actionprep.errors import ActionprepError
from actionprep.settings import canonical_json

if TYPE_CHECKING:
    from actionprep.datasets.label_colors import Color
    from actionprep.datasets.segments import Segment
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.training.checkpoints import Checkpoint
    from actionprep.training.predicted_timeline import Timeline


@dataclass(frozen=True)
class Prediction:
    """What a model said of one recording, and the files that tell it.

    videos:   by the views that they were taken for, and how that was found.
    segments: of the timeline, with the threshold and the least length that were asked for, each with its probability.
    unseen:   views without foreground, which took no part, as they take none in training.
    too_long: a warning where the recording was looked at whole and is much longer than any snippet of the training.
    said_from: with several labels, the least probability at which each is said; empty where a window has one label.
    """

    timeline: Timeline
    videos: NamedVideos
    segments: tuple[tuple[Segment, float], ...]
    files: tuple[Path, ...]
    unseen: tuple[str, ...] = ()
    said_from: Mapping[str, float] = field(default_factory=dict)
    too_long: str | None = None

    def document(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "recording": self.timeline.recording,
            "segments": [
                {"onset": one.onset, "offset": one.offset, "label": one.label, "probability": probability}
                for one, probability in self.segments
            ],
            "files": [str(path) for path in self.files],
            "views": {view: str(path) for view, path in self.videos.videos.items()},
            "views_by": dict(self.videos.by),
            "left_out": [str(path) for path in self.videos.left_out],
            "missing_views": list(self.videos.missing),
            "unseen_views": list(self.unseen),
            "said_from": dict(self.said_from),
            "too_long": self.too_long,
            "thresholds_of_val": self.timeline.thresholds is not None,
        }


def predict_videos(
    run: str | Path,
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
    workers: int = 0,
    study: str | Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Prediction:
    """From the raw videos of one recording to a labeled timeline, made just as the training's input was.

    run:     folder of a run or of fused runs, or a checkpoint. videos: "view=path", or paths that match the pattern of the
        run's study (see `actionprep.api.view_names.name_videos`); for a run of one view any path.
    recording: its name in what is written; None: from the names of the videos or of their folder.
    threshold: least probability of a label to be said; with several labels at least that which val gave it in the run's
        test, or 0.5 where none is known.
    min_length_ms: shorter segments are left out.
    offsets: seconds to add to the time of views; others have the offset that they had in every recording of the training.
    tolerance: views count as aligned when frames of one instant lie this close, in s; None: as in the training.
    carry:   let a window go on from the model's state after the one before it; None: as the recipe says.
    study:   folder of the study whose settings file may name code and files (tracks.repo, pose.environment, …); None: the
        one that holds the current folder, if any. What the checkpoint records for these settings is ignored.
    overrides: values of such settings, by table: {"tracks": {"repo": "co-tracker"}}.
    warn:    called with a sentence for every recorded setting that is ignored.
    out:     gets timeline.csv, windows.csv, timeline.png and with overlay prediction.mp4.

    Raises UserError when videos and run do not fit, or when a video cannot be read.
    """
    from actionprep.pipeline.trained import OwnSettings
    from actionprep.training.predict import beyond_training, open_models, pipeline_settings, views_of
    from actionprep.training.predict import predict_videos as predict

    models = open_models(run, device=device)
    views = views_of(models)
    pattern = pattern_of_study(models[0].checkpoint)
    named = name_videos(videos, views, pattern)
    recording = recording or recording_name(list(named.videos.values()), pattern)
    clocks_of({}, named.videos, offsets or {}, tolerance)  # refuses offsets of views that have no video
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
            settings = {name: one.model_dump(mode="json") for name, one in chosen.items()}
            shifts = {view: shift for view, shift in (offsets or {}).items() if view in videos}
            clocks = clocks_of(checkpoint.card["pipeline"].get("clocks", {}), videos, shifts, tolerance)
            # Models that read the same share one store.
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

        timeline = predict(
            models,
            named.videos,
            build,
            window_s=None if length_ms is None else length_ms / 1000,
            stride_s=None if stride_ms is None else stride_ms / 1000,
            carry=carry,
            device=device,
        )
    chosen = {"threshold": threshold, "min_s": min_length_ms / 1000}
    colors = _label_colors(Path(run), timeline.labels)
    name = Path(run).resolve().name
    files, segments = timeline.write(out, run=name, colors=colors, **chosen), tuple(timeline.segments(**chosen))
    if overlay:
        from actionprep.show.prediction import draw_prediction, predicted_row

        video, title = Path(out) / "prediction.mp4", f"{recording}  ·  run {name}  ·  threshold {threshold:.2f}"
        files.append(draw_prediction(named.videos, [predicted_row(segments)], video, title=title, colors=colors))
    said_from = (
        dict(zip(timeline.labels, timeline.said_from(threshold).tolist(), strict=True)) if timeline.several else {}
    )
    too_long = None if length_ms is not None else beyond_training(models, timeline)
    return Prediction(timeline, named, segments, tuple(files), tuple(unseen), said_from, too_long)


def _label_colors(run: Path, labels: Sequence[str]) -> dict[str, Color]:
    """Colors of the study that the run belongs to; those of the labels alone if it has none."""
    from actionprep.api.study import open_study
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.label_colors import label_colors
    from actionprep.show.charts import colors_of

    root = next((folder for folder in run.resolve().parents if (folder / "actionprep.toml").is_file()), None)
    try:
        study = None if root is None else open_study(root)
        # The last catalog as it is: a prediction must not start a scan of the study.
        of_study = {} if study is None else colors_of(study, Catalog.read(study.folder.catalog))
    except ActionprepError:
        # Drawing must not fail because the study was moved or changed after training.
        of_study = {}
    return of_study if set(labels) <= set(of_study) else label_colors(labels)
