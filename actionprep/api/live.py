"""Predict frames of a camera or a stream while they arrive, with the stages and the model of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from actionprep.api.view_names import refuse_crops
from actionprep.datasets.store.memory import MemoryItem, MemoryStore
from actionprep.datasets.windows import EPSILON_S
from actionprep.errors import InputError, UserError
from actionprep.pipeline.camera import BLOCK_SIZE, CameraSource

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.writer import ItemWriter
    from actionprep.pipeline.model_settings import OwnSettings
    from actionprep.pipeline.stage import FrameStage
    from actionprep.training.checkpoints import Checkpoint

_RECORDING = "live"


@dataclass(frozen=True)
class LivePrediction:
    """Prediction for the latest window.

    Attributes:
        onset: Onset of the window in seconds on the source's clock.
        offset: Offset of the window in seconds.
        labels: Names of the classes.
        probabilities: Predicted probabilities, shape (C,).
        latency_s: Seconds from the arrival of the newest frame in the window to the prediction.
        behind_s: Seconds from the end of the window to the newest frame, because tracks and masks look ahead.
        evidence: Whether the window shows points, people or frames.
    """

    onset: float
    offset: float
    labels: tuple[str, ...]
    probabilities: np.ndarray
    latency_s: float
    behind_s: float
    evidence: bool = True

    @property
    def label(self) -> str | None:
        """The most probable label; None if the window shows no points, people or frames."""
        return self.labels[int(self.probabilities.argmax())] if self.evidence else None

    def document(self) -> dict[str, Any]:
        """Return the prediction as plain values."""
        return {
            "onset": self.onset,
            "offset": self.offset,
            "label": self.label,
            "probability": float(self.probabilities.max()) if self.evidence else None,
            "latency_s": self.latency_s,
            "behind_s": self.behind_s,
        }


@dataclass
class LiveSummary:
    """Summary of a live session: arrived and dropped frames, and the predictions with their latency."""

    num_frames: int = 0
    num_dropped: int = 0
    seconds: float = 0.0
    predictions: list[LivePrediction] = field(default_factory=list)

    @property
    def num_without_evidence(self) -> int:
        """Number of predictions without a label, because the window shows no points, people or frames."""
        return sum(not answer.evidence for answer in self.predictions)

    def latency(self, share: float) -> float:
        """Return a quantile of the latency in seconds; NaN without predictions."""
        values = [prediction.latency_s for prediction in self.predictions]
        return float(np.quantile(values, share)) if values else float("nan")

    def document(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        return {
            "frames": self.num_frames,
            "dropped": self.num_dropped,
            "seconds": self.seconds,
            "frames_per_second": self.num_frames / self.seconds if self.seconds else None,
            "windows_without_evidence": self.num_without_evidence,
            "predictions": [prediction.document() for prediction in self.predictions],
            "latency_median_s": self.latency(0.5) if self.predictions else None,
            "latency_95_s": self.latency(0.95) if self.predictions else None,
        }


def predict_live(
    run: str | Path,
    source: str,
    *,
    length_s: float | None = None,
    stride_s: float | None = None,
    seconds: float | None = None,
    device: str = "auto",
    keep_up: bool | None = None,
    on_prediction: Callable[[LivePrediction], None] = lambda _: None,
    study: str | Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> LiveSummary:
    """Predict a source after every stride, until it ends or for some seconds.

    The source is the first view of the model; other views are missing.

    Args:
        run: Folder of a run, or a checkpoint, of a model that reads tracks, lowres or frames.
        source: Number of a camera ("0"), a device (/dev/video0), a stream (rtsp://…, http://…) or a video file.
        length_s: Window in seconds; None: as in the training.
        stride_s: Seconds from prediction to prediction; None: a quarter of the window.
        seconds: Stop after so many seconds of the source; None: at its end, which is predicted too.
        device: Device of the model.
        keep_up: Whether to drop frames (counted) instead of falling behind; None: for cameras and streams, not for files.
        on_prediction: Called with every prediction.
        study: As for `actionprep.api.predict_videos`.
        overrides: As for `actionprep.api.predict_videos`.
        warn: Called with every warning.

    Returns:
        The summary.

    Raises:
        UserError: If the model cannot work live, or if the source ends before a window is full.
    """
    from actionprep.pipeline.model_settings import OwnSettings
    from actionprep.training.predict import open_checkpoint, other_frame_rate, usual_length_ms

    checkpoint = open_checkpoint(run, device=device)
    refuse_crops(checkpoint, checkpoint.card["views"])
    own = OwnSettings(study, overrides or {}, warn)
    length_s = length_s if length_s is not None else checkpoint.card["snippets"].get("length_s")
    if length_s is None:
        known = "snippet_seconds" in checkpoint.card
        raise UserError(
            "This model was trained on full segments, so the length of its window is unknown. Set it with --length, in ms: "
            "about as long as an action takes"
            + (f", such as --length {usual_length_ms(checkpoint.card)}." if known else ".")
        )
    stride_s = length_s / 4 if stride_s is None else stride_s
    frames = CameraSource(source, keep_up=not Path(source).is_file() if keep_up is None else keep_up)
    other_rate = other_frame_rate(checkpoint.card, frames.fps, source)
    if other_rate is not None:
        warn(other_rate)
    summary = LiveSummary()
    started = time.monotonic()
    watcher: _Watcher | None = None
    due, newest = length_s, 0.0
    try:
        for block in frames.blocks(BLOCK_SIZE):
            arrived = time.monotonic()
            if watcher is None:
                watcher = _Watcher(checkpoint, frames, own, length_s=length_s, device=device)
            watcher.push(block)
            summary.num_frames += len(block)
            newest = float(block.time[-1])
            if watcher.until >= due:
                prediction = watcher.look(arrived, newest)
                due = watcher.until + stride_s
                summary.predictions.append(prediction)
                on_prediction(prediction)
            if seconds is not None and newest >= seconds:
                break
        if watcher is not None and summary.predictions and watcher.until > summary.predictions[-1].offset + EPSILON_S:
            # The rest of the source, shorter than a stride.
            prediction = watcher.look(arrived, newest)
            summary.predictions.append(prediction)
            on_prediction(prediction)
    finally:
        frames.close()
        summary.num_dropped = frames.num_dropped
        summary.seconds = time.monotonic() - started
    if watcher is None:
        raise InputError(f"{source} has no frames.")
    if not summary.predictions:
        product = checkpoint.recipe.reads
        lag = f", their {product} to {max(watcher.until, 0.0):.2f} s," if watcher.until < newest else ""
        raise UserError(
            f"{source} was shorter than a window, so there is no prediction: its frames reach to {newest:.2f} s{lag} "
            f"and a window is {length_s:.2f} s long. Give a longer video or more --seconds, or a shorter window with "
            "--length, in ms."
        )
    return summary


class _Watcher:
    """The stages behind a model's input, which receive blocks of frames, and the model on their latest output."""

    def __init__(
        self, checkpoint: Checkpoint, source: CameraSource, own: OwnSettings, *, length_s: float, device: str
    ) -> None:
        from actionprep.pipeline.decode_pass import LivePass
        from actionprep.pipeline.index import find_stage
        from actionprep.pipeline.stage import FrameStage, ViewSource
        from actionprep.training.loop.devices import torch_device
        from actionprep.training.predict import pipeline_settings

        self._checkpoint, self._length_s = checkpoint, length_s
        self._device = torch_device(device)
        self._product = checkpoint.recipe.reads
        if "+" in self._product:
            raise UserError(
                "A fusion cannot work live, because its parts lag behind differently. Use the run of one of its recipes."
            )
        self._view = checkpoint.views[0] if checkpoint.views else "0"
        view = ViewSource(
            _RECORDING, self._view, source.name, source.height, source.width, source.fps, np.zeros(0), root="."
        )
        wanted = pipeline_settings(checkpoint)
        self._items: dict[str, MemoryItem] = {}
        stages: list[FrameStage] = []
        for product in wanted:
            kind = find_stage(product)
            if not issubclass(kind, FrameStage):
                raise UserError(
                    f"A model on {self._product} cannot work live, because '{product}' needs full recordings. Models "
                    "on tracks, lowres and frames can."
                )
        chosen = own.stage_settings(wanted, checkpoint.card["pipeline"]["stages"], where=str(checkpoint.path))
        for product, settings in chosen.items():
            kind = find_stage(product)
            assert issubclass(kind, FrameStage)
            rate = getattr(settings, "rate", None)
            if rate is not None:
                raise UserError(
                    f"The training's {product} were made at {rate:g} frames per second, but live a stage gets every "
                    "frame. Give a source with that rate, and train on tracks without tracks.rate."
                )
            item = self._items[product] = MemoryItem(f"{product}/{_RECORDING}/{self._view}")
            stages.append(kind(settings, view, cast("ItemWriter", item), {}))
        self._stages = stages
        self._pass = LivePass(stages)
        self._times: list[float] = []
        self.until = -np.inf

    def push(self, block: Any) -> None:
        """Pass a block to the stages; `until` is then the end of what the product covers."""
        self._pass.push(block)
        item = self._items[self._product]
        if self._product == "tracks":
            times = item.rows("time")[-1:]
            if len(times):
                self.until = float(np.nanmax(times[-1]))
        else:
            self._times += block.time.tolist()
            self.until = self._times[-1]

    def look(self, arrived: float, newest: float) -> LivePrediction:
        """Predict the window that ends now; older rows are removed."""
        from actionprep.training.datasets import SnippetDataset
        from actionprep.training.evaluation.scoring import score
        from actionprep.training.inputs.base import find_input
        from actionprep.training.predict import windows_table

        checkpoint, recipe = self._checkpoint, self._checkpoint.recipe
        onset, offset = self.until - self._length_s, self.until
        self._forget(onset - 0.5)
        for stage in self._stages:
            stage.describe()
        store = MemoryStore({(self._product, _RECORDING, self._view): self._item()})
        table: SnippetTable = windows_table(_RECORDING, checkpoint.labels, np.array([onset]), np.array([offset]))
        reader = find_input(recipe.product)(recipe.input, store, table, checkpoint.views)
        reader.to(self._device)
        data = SnippetDataset(store, table, rows=[0], reader=reader)
        scores = score(checkpoint, data, variants=recipe.test_variants)
        return LivePrediction(
            onset,
            offset,
            checkpoint.labels,
            scores.probabilities[0],
            time.monotonic() - arrived,
            max(newest - self.until, 0.0),
            scores.num_without_evidence == 0,
        )

    def _forget(self, before: float) -> None:
        item = self._items[self._product]
        if self._product == "tracks":
            times = item.rows("time")
            gone = int((np.nanmax(times, axis=1) < before).sum())
        else:
            gone = int(np.searchsorted(self._times, before))
            del self._times[:gone]
        item.forget(gone)
        for product, other in self._items.items():
            if product != self._product:
                # The stored form of an intermediate product is never read.
                other.forget(None)

    def _item(self) -> MemoryItem:
        item = self._items[self._product]
        if self._product != "tracks":
            item.set("time", np.array(self._times))
        return item
