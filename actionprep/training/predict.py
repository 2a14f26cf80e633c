"""Apply a trained model to recordings: probabilities of windows, merged into a labeled timeline."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.products.snippets import SnippetTable
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from actionprep.datasets.windows import microseconds, windows
from actionprep.errors import UserError, name_list
from actionprep.json_values import counted
from actionprep.settings import canonical_json
from actionprep.training.checkpoints import Checkpoint, load_checkpoint
from actionprep.training.evaluation.calibration import scaled_probabilities
from actionprep.training.evaluation.frame_scores import (
    FrameScores,
    cells,
    frame_times,
    windows_with_frames,
)
from actionprep.training.evaluation.pooling import Pool, pooled
from actionprep.training.evaluation.result_files import label_thresholds
from actionprep.training.predicted_timeline import Timeline
from actionprep.training.run import Run

if TYPE_CHECKING:
    from actionprep.training.evaluation.scoring import Scores


@dataclass(frozen=True)
class PooledModel:
    """A model of a prediction, with its weight in the pool and the temperature that scales its logits."""

    checkpoint: Checkpoint
    weight: float
    temperature: float = 1.0
    pool: Pool = "log"


MUCH_LONGER = 1.5
"""A recording in one window causes a warning if it is this many times longer than any snippet of the training."""

Model = Run | Checkpoint | str | Path | Sequence[PooledModel]
"""Model to predict with: a run or a fusion, or its folder; a checkpoint; or opened models."""


def open_models(run: Model, *, device: str = "auto") -> Sequence[PooledModel]:
    """Open the model of a run, or all models of a fusion; their weights sum to 1."""
    from actionprep.training.fusion import fused_runs

    if isinstance(run, (list, tuple)):
        return run
    assert isinstance(run, (Run, Checkpoint, str, Path))
    folder = run.folder if isinstance(run, Run) else run
    fused = None if isinstance(folder, Checkpoint) else fused_runs(folder)
    if fused is None:
        return [PooledModel(open_checkpoint(run, device=device), 1.0)]
    return [
        PooledModel(open_checkpoint(run, device=device), weight, temperature, fused.pool)
        for run, weight, temperature in zip(fused.runs, fused.weights, fused.temperatures, strict=True)
    ]


def views_of(models: Sequence[PooledModel]) -> tuple[str, ...]:
    """Return the views of all models, those of the model with most views first."""
    most = sorted((model.checkpoint.views for model in models), key=len, reverse=True)
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
    """Predict recordings of a store in sliding windows.

    A model that labels every time step predicts each step of its windows; a fusion predicts each window. With several
    labels, a label applies from the threshold that val gave it in the run's test. It is 0.5 for runs without a test, for
    fusions, and for models that label every time step.

    Args:
        run: Run, checkpoint, or the path of either. Of a fusion, the probabilities of all runs are pooled.
        store: Store with the product that the model reads, built with the settings of the training (see
            `pipeline_settings`).
        recordings: Recordings to predict; None: all that have the product.
        window_s: Length of a window in seconds; None: as in the training, or the full recording if that had no length.
        stride_s: Time from window to window in seconds; None: a quarter of the window.
        carry: Whether a window continues from the state at the end of the previous one; None: as in the recipe.
        device: Device of the model.

    Returns:
        One timeline per recording.

    Raises:
        UserError: If the store has no such product, or built it with other settings than the training.
    """
    models = open_models(run, device=device)
    store = open_store(store).snapshot()
    return _predict_pooled(
        models,
        [store] * len(models),
        recordings=recordings,
        window_s=window_s,
        stride_s=stride_s,
        carry=carry,
        device=device,
    )


def _predict_pooled(
    models: Sequence[PooledModel],
    stores: Sequence[Store],
    *,
    recordings: Sequence[str] | None = None,
    window_s: float | None = None,
    stride_s: float | None = None,
    carry: bool | None = None,
    device: str = "auto",
) -> list[Timeline]:
    """Predict the same windows with every model, each from its own store, and pool the results."""
    from actionprep.training.inputs.base import find_input
    from actionprep.training.loop.devices import torch_device

    first = models[0].checkpoint
    pairs = [(model.checkpoint, store) for model, store in zip(models, stores, strict=True)]
    common: list[str] = []
    for checkpoint, store in pairs:
        recipe = checkpoint.recipe
        find_input(recipe.product).check_store(recipe.input, store)
        check_pipeline(checkpoint, store)
        known = {key.recording for key in store.items(recipe.reads)}
        common = sorted(known if checkpoint is first else known.intersection(common))
        for name in recordings or ():
            if name not in known:
                raise UserError(
                    f"No {recipe.reads} of recording '{name}' in {store.url}. Available: {name_list(sorted(known), 8)}."
                )
    length_s = window_s if window_s is not None else first.card["snippets"].get("length_s")
    thresholds = label_thresholds(first) if len(models) == 1 else None
    timelines = []
    for recording in recordings or common:
        views = [_available_views(checkpoint, store, recording) for checkpoint, store in pairs]
        spans = [
            find_input(checkpoint.recipe.product).span(store, recording, seen)
            for (checkpoint, store), seen in zip(pairs, views, strict=True)
        ]
        # Only the time that all models cover can be predicted.
        span = max(start for start, _ in spans), min(end for _, end in spans)
        onset, offset = sliding_windows(span, length_s=length_s, stride_s=stride_s)
        has_frames = [
            windows_with_frames(store, checkpoint.recipe.reads, recording, seen, onset, offset)
            for (checkpoint, store), seen in zip(pairs, views, strict=True)
        ]
        scores = [
            _score(
                checkpoint,
                store,
                windows_table(recording, first.labels, onset, offset, known=with_frames),
                torch_device(device),
                carry=checkpoint.recipe.carry if carry is None else carry,
            )
            for (checkpoint, store), with_frames in zip(pairs, has_frames, strict=True)
        ]
        evidence = np.zeros(len(onset), bool)
        for score, with_frames in zip(scores, has_frames, strict=True):
            evidence |= with_frames if score.evidence is None else with_frames & score.evidence
        if len(scores) > 1:
            several = bool(first.card["several_labels"])
            scaled = [
                scaled_probabilities(score.variant_logits, model.temperature, multi_label=several)
                for model, score in zip(models, scores, strict=True)
            ]
            weights = np.array([model.weight for model in models])
            probabilities = pooled(np.stack(scaled), weights, models[0].pool, multi_label=several)
        elif scores[0].steps is not None:
            steps = scores[0].steps
            marks = np.broadcast_to(evidence[:, None, None], (*steps.time.shape, 1))
            marked = FrameScores(steps.time, np.concatenate([steps.probabilities, marks], axis=2))
            onset, offset, probabilities = cells(onset, offset, marked)
            probabilities, evidence = probabilities[:, :-1], probabilities[:, -1] > 0
        else:
            probabilities = scores[0].probabilities
        times = [
            frame_times(store, checkpoint.recipe.reads, recording, seen[:1])
            for (checkpoint, store), seen in zip(pairs, views, strict=True)
        ]
        timelines.append(
            Timeline(
                recording,
                first.labels,
                onset,
                offset,
                probabilities,
                bool(first.card["several_labels"]),
                max(times, key=len),
                thresholds,
                evidence,
            )
        )
    return timelines


def predict_with_built_store(
    run: Model,
    videos: Mapping[str, str | Path],
    build: Callable[[Checkpoint, dict[str, Path]], Store],
    **options: Any,
) -> Timeline:
    """Predict one recording from its raw videos.

    Args:
        run: Model.
        videos: View → file.
        build: Builds a store from the videos with the settings of a checkpoint (`pipeline_settings`). Of a fusion, it is
            called for each model with the videos of its views.
        options: Options of `predict`.
    """
    models = open_models(run, device=options.get("device", "auto"))
    views = views_of(models)
    if not videos or len(videos) > max(len(views), 1):
        raise UserError(
            f"This model was trained on {counted(len(views), 'view')}, {', '.join(views)}, but got "
            f"{counted(len(videos), 'video')}. Give the videos of one recording, one per view, in this order; later views "
            "may be missing."
        )
    missing = [str(video) for video in videos.values() if not Path(video).is_file()]
    if missing:
        raise UserError(f"No such video: {', '.join(missing)}.")
    stores = []
    for model in models:
        wanted = model.checkpoint.views
        mine = {view: Path(video) for view, video in videos.items() if view in wanted or not wanted}
        if not mine:
            raise UserError(
                f"{model.checkpoint.path} reads only view {', '.join(wanted)}, but the videos are of view "
                f"{', '.join(videos)}."
            )
        stores.append(build(model.checkpoint, mine))
    [timeline] = _predict_pooled(models, stores, **options)
    return timeline


def beyond_training(models: Sequence[PooledModel], timeline: Timeline) -> str | None:
    """Describe a single window that is much longer than the training snippets; None for other windows.

    Checkpoints of early versions do not contain the length of their snippets.
    """
    card = models[0].checkpoint.card
    known, seconds = card.get("snippet_seconds"), float(timeline.offset.max() - timeline.onset.min())
    if card["snippets"].get("length_s") is not None or known is None or seconds <= MUCH_LONGER * known["longest"]:
        return None
    shortest, longest = (f"{known[name]:.1f}" for name in ("shortest", "longest"))
    return (
        f"{timeline.recording} was predicted in one window of {seconds:.1f} s, but the snippets of the training were "
        f"{longest if shortest == longest else f'{shortest} to {longest}'} s long. Set a window, such as --length "
        f"{usual_length_ms(card)}, to label parts of the recording."
    )


def other_frame_rate(card: Mapping[str, Any], rate: float | None, what: str) -> str | None:
    """Describe a frame rate that the training did not have.

    Args:
        card: Card of the checkpoint.
        rate: Frames per second; None if unknown.
        what: What has this frame rate, for the message.

    Returns:
        A warning; None if the rate is within 10 % of those of the training, or if one of them is unknown.
    """
    known = card.get("frame_rates")
    if any(
        (entry.get("settings") or {}).get("which") == "keyframes"
        for entry in card["pipeline"]["stages"].get("frames", [])
    ):
        return None  # keyframes have no rate
    if rate is None or not known or known[0] / _RATE_TOLERANCE <= rate <= known[1] * _RATE_TOLERANCE:
        return None
    lowest, highest = (f"{value:.4g}" for value in known)
    trained = lowest if lowest == highest else f"{lowest} to {highest}"
    return (
        f"{what} has {rate:.4g} frames/s, and the model was trained on {trained} frames/s. Movements look "
        f"{'slower' if rate > known[1] else 'faster'} to it, so its labels may be wrong. Convert the video to the frame "
        "rate of the training, or train on recordings with this frame rate."
    )


_RATE_TOLERANCE = 1.1


def usual_length_ms(card: Mapping[str, Any]) -> str:
    """Return the median length of the training snippets in ms, rounded to two digits."""
    median = card["snippet_seconds"]["median"] * 1000
    return f"{float(f'{median:.2g}'):.0f}"


def pipeline_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the settings of every stage behind the model's input, by product, to build it from other videos.

    Raises:
        UserError: If the items of the training were built with several settings, or imported.
    """
    return _settings_of_stages(checkpoint.card["pipeline"]["stages"])


def takes_videos(run: Run) -> bool:
    """Whether a run can predict from videos: not if its input was imported, or built with several settings."""
    try:
        _settings_of_stages(run.facts["pipeline"]["stages"])
    except UserError:
        return False
    return True


def _settings_of_stages(stages: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for product, made in stages.items():
        # Items that differ only in the paths of code and files may have been made in the same way.
        by_content = {
            canonical_json(_without_paths(entry["settings"])): entry["settings"]
            for entry in made
            if "settings" in entry
        }
        distinct = list(by_content.values())
        if len(distinct) > 1:
            raise UserError(
                f"The training's {product} were built with {len(distinct)} different settings ({_differences(distinct)}), "
                "so it is unknown which to use for a new video. Build them with one setting and train again; or add the "
                "recording to a study, build it, and predict it there: 'actiontrain predict --recording ID'."
            )
        if distinct and distinct[0].get("backend") == "import":
            raise UserError(
                f"This model was trained on an imported {product}, which cannot be built from a video. Import the "
                f"{product} of the new recording into a study too, and predict it there: 'actiontrain predict --recording "
                f"ID'. Or build the training's {product} with an estimator ('actionprep {product} --backend …') and train "
                "again."
            )
        if distinct:
            settings[product] = distinct[0]
    if settings.get("frames", {}).get("which", "all") != "all":
        # A new video has no annotated segments: use all of its frames.
        settings["frames"] = {**settings["frames"], "which": "all"}
        settings.pop("keyframes", None)
    return settings


def _differences(settings: Sequence[Mapping[str, Any]]) -> str:
    """Names of the settings that differ, with their values."""
    names = sorted({name for values in settings for name in values})
    parts = []
    for name in names:
        values = list(dict.fromkeys(str(table.get(name)) for table in settings))
        if len(values) > 1:
            parts.append(f"{name}: {', '.join(values)}")
    return "; ".join(parts)


def check_pipeline(checkpoint: Checkpoint, store: Store) -> None:
    """Raise UserError if the items of a store were built with other settings than those of the training."""
    from actionprep.training.run import pipeline_of

    product = checkpoint.recipe.reads
    theirs = pipeline_of(store, product)["stages"]
    for name, made in checkpoint.card["pipeline"]["stages"].items():
        known = [_deciding(entry) for entry in made]
        for used in map(_deciding, theirs.get(name, [])):
            if known and used not in known:
                differing = sorted(key for key in {*used, *known[0]} if used.get(key) != known[0].get(key))
                raise UserError(
                    f"The {name} in {store.url} were made with other settings than those that the model was trained "
                    "on: "
                    f"{', '.join(differing)}. Build them with the training's settings (they are in the checkpoint), "
                    "or train on these."
                )


def _deciding(made: dict[str, Any]) -> dict[str, Any]:
    """Settings of a stage that determine its output: without device, names and paths."""
    asides = ("device", "name", "which", "margin", "chunk")
    return {key: value for key, value in _without_paths(made.get("settings") or {}).items() if key not in asides}


_PATH_SETTINGS = ("repo", "checkpoint", "environment", "files", "boxes_file", "detector")
_PATH = re.compile(r"/|\\|\.(py|toml)$")


def _without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without paths, which differ between machines; hashes compare the contents."""
    return {
        key: "a file" if isinstance(value, str) and _PATH.search(value) else value
        for key, value in settings.items()
        if key not in _PATH_SETTINGS
    }


def sliding_windows(
    span: tuple[float, float], *, length_s: float | None, stride_s: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return onsets and offsets of windows over a span. The last one ends with it; without a length there is one window."""
    start, end = span
    if length_s is not None and length_s <= 0:
        raise UserError(f"A window must be longer than 0 s, got {length_s:g}.")
    if length_s is None or microseconds(length_s) >= microseconds(end - start):
        return np.array([start]), np.array([end])
    stride = length_s / 4 if stride_s is None else stride_s
    if stride <= 0:
        raise UserError(f"The stride must be above 0 s, got {stride:g}.")
    return windows(span, length_s=length_s, stride_s=stride, tail="shift")


def open_checkpoint(run: Run | Checkpoint | str | Path, *, device: str = "auto") -> Checkpoint:
    """Open the checkpoint of a run, of its folder, or of a file."""
    from actionprep.training.loop.devices import torch_device

    if isinstance(run, Checkpoint):
        return run
    if not isinstance(run, Run) and Path(run).is_dir():
        run = Run.open(run)
    return load_checkpoint(run.best if isinstance(run, Run) else run, device=str(torch_device(device)))


def _available_views(checkpoint: Checkpoint, store: Store, recording: str) -> list[str]:
    product = checkpoint.recipe.reads
    available = [
        view for view in checkpoint.views if any(store.has(part, recording, view) for part in product.split("+"))
    ]
    if not available:
        have = ", ".join(key.view for key in store.items(product) if key.recording == recording)
        raise UserError(
            f"Recording '{recording}' has none of the views that the model was trained on "
            f"({', '.join(checkpoint.views)}); "
            f"it has {have or 'no view'}."
        )
    return available


def _score(checkpoint: Checkpoint, store: Store, table: SnippetTable, device: Any, *, carry: bool) -> Scores:
    from actionprep.training.datasets import SnippetDataset
    from actionprep.training.evaluation.scoring import score
    from actionprep.training.inputs.base import find_input

    recipe = checkpoint.recipe
    reader = find_input(recipe.product)(recipe.input, store, table, checkpoint.views)
    reader.to(device)
    dataset = SnippetDataset(store, table, rows=np.arange(len(table)), reader=reader)
    return score(checkpoint, dataset, variants=recipe.test_variants, carry=carry)


def windows_table(
    recording: str,
    labels: tuple[str, ...],
    onset: np.ndarray,
    offset: np.ndarray,
    *,
    known: np.ndarray | None = None,
) -> SnippetTable:
    """Create a table of windows of one recording without labels.

    Args:
        recording: Name of the recording.
        labels: Names of the classes.
        onset: Onset of each window in seconds, shape (W,).
        offset: Offset of each window in seconds, shape (W,).
        known: Which windows contain frames, shape (W,). None: all. Inputs do not require frames in the others.

    Returns:
        The table, with one row per window.
    """
    size, num_labels = len(onset), len(labels)
    nothing = np.zeros((size, num_labels), np.float32)
    return SnippetTable(
        recording=np.zeros(size, np.int32),
        onset=onset,
        offset=offset,
        label=np.zeros(size, np.int32) if known is None else np.where(known, 0, -1).astype(np.int32),
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
