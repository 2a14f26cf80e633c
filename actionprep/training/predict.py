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
from actionprep.errors import UserError
from actionprep.settings import canonical_json
from actionprep.training.checkpoints import Checkpoint, load_checkpoint
from actionprep.training.evaluation.calibration import scaled_probabilities
from actionprep.training.evaluation.frame_scores import cells, frame_times
from actionprep.training.evaluation.pooling import Pool, pooled
from actionprep.training.evaluation.result_files import label_thresholds
from actionprep.training.predicted_timeline import Timeline
from actionprep.training.run import Run

if TYPE_CHECKING:
    from actionprep.training.evaluation.scoring import Scores


@dataclass(frozen=True)
class Asked:
    """One of the models that answer together: its share of the answer, and the temperature that scales it."""

    checkpoint: Checkpoint
    weight: float
    temperature: float = 1.0
    pool: Pool = "log"


MUCH_LONGER = 1.5
"""A recording that is looked at whole is that much longer than any snippet of the training before a warning says so."""

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
    return [
        Asked(open_checkpoint(run, device=device), weight, temperature, fused.pool)
        for run, weight, temperature in zip(fused.runs, fused.weights, fused.temperatures, strict=True)
    ]


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
              are asked, and their probabilities pooled with its weights.
    store:    with the product that the model reads, made with the settings of the training (see `pipeline_settings`).
    window_s: length of a window; None: as in the training, where whole recordings were labeled the whole recording.
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
    store = open_store(store).snapshot()
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
    from actionprep.training.inputs.base import find_input
    from actionprep.training.loop.devices import torch_device

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
            several = bool(first.card["several_labels"])
            said = [
                scaled_probabilities(score.variant_logits, one.temperature, multi_label=several)
                for one, score in zip(models, scores, strict=True)
            ]
            weights = np.array([one.weight for one in models])
            probabilities = pooled(np.stack(said), weights, models[0].pool, multi_label=several)
        elif scores[0].steps is not None:
            onset, offset, probabilities = cells(onset, offset, scores[0].steps)
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


def beyond_training(models: Sequence[Asked], timeline: Timeline) -> str | None:
    """A warning when one window, without a length, was much longer than what the training looked at; else None.

    None also of checkpoints from before they told how long their snippets were.
    """
    card = models[0].checkpoint.card
    known, seconds = card.get("snippet_seconds"), float(timeline.offset.max() - timeline.onset.min())
    if card["snippets"].get("length_s") is not None or known is None or seconds <= MUCH_LONGER * known["longest"]:
        return None
    shortest, longest = (f"{known[name]:.1f}" for name in ("shortest", "longest"))
    return (
        f"{timeline.recording} was looked at whole, {seconds:.1f} s in one window, and the snippets of the training were "
        f"{longest if shortest == longest else f'{shortest} to {longest}'} s long. Give a window, such as --length "
        f"{usual_length_ms(card)}, for answers along the recording."
    )


def usual_length_ms(card: Mapping[str, Any]) -> str:
    """The median length of the snippets that a checkpoint's card tells of, in ms, rounded to two digits."""
    median = card["snippet_seconds"]["median"] * 1000
    return f"{float(f'{median:.2g}'):.0f}"


def pipeline_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Settings of every stage behind the model's input, by product, for building the same from other videos.

    Raises UserError when the training's own items were made with several settings, or imported.
    """
    return _settings_of_stages(checkpoint.card["pipeline"]["stages"])


def takes_videos(run: Run) -> bool:
    """Whether a video is enough to ask a run's model: not where its input was imported, or made in several ways."""
    try:
        _settings_of_stages(run.facts["pipeline"]["stages"])
    except UserError:
        return False
    return True


def _settings_of_stages(stages: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for product, made in stages.items():
        # Items that differ only in where code and files were may have been made alike.
        by_content = {
            canonical_json(_without_places(one["settings"])): one["settings"] for one in made if "settings" in one
        }
        distinct = list(by_content.values())
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
    asides = ("device", "name", "which", "margin", "chunk")
    return {key: value for key, value in _without_places(made.get("settings") or {}).items() if key not in asides}


_PLACES = ("repo", "checkpoint", "environment", "files", "boxes_file", "detector")
_PLACE = re.compile(r"/|\\|\.(py|toml)$")


def _without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the places of code and files: these differ between machines, and hashes compare their contents."""
    return {
        key: "a file" if isinstance(value, str) and _PLACE.search(value) else value
        for key, value in settings.items()
        if key not in _PLACES
    }


def sliding_windows(
    span: tuple[float, float], *, length_s: float | None, stride_s: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Onsets and offsets of windows over a span, the last ending with it; without a length one window, all of it."""
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
    """A checkpoint from whatever names one: a run, its folder, or the file."""
    from actionprep.training.loop.devices import torch_device

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
    from actionprep.training.evaluation.scoring import score
    from actionprep.training.inputs.base import find_input

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
