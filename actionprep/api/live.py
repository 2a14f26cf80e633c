"""Say what happens in a camera's or a stream's pictures while they come: a run's stages and model on a sliding window."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from actionprep.datasets.store.memory import MemoryItem, MemoryStore
from actionprep.errors import InputError, UserError
from actionprep.pipeline.camera import BLOCK_SIZE, CameraSource

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.writer import ItemWriter
    from actionprep.pipeline.stage import FrameStage
    from actionprep.pipeline.trained import OwnSettings
    from actionprep.training.checkpoints import Checkpoint

_RECORDING = "live"


@dataclass(frozen=True)
class LivePrediction:
    """What a model says of the latest window.

    onset, offset: s on the source's clock. probabilities (C) float64.
    latency_s: from the arrival of the newest frame that is looked at to the answer. behind_s: how far the window ends
    behind the newest frame, because tracks and masks look ahead.
    """

    onset: float
    offset: float
    labels: tuple[str, ...]
    probabilities: np.ndarray
    latency_s: float
    behind_s: float

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.labels[int(self.probabilities.argmax())]

    def document(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "onset": self.onset,
            "offset": self.offset,
            "label": self.label,
            "probability": float(self.probabilities.max()),
            "latency_s": self.latency_s,
            "behind_s": self.behind_s,
        }


@dataclass
class LiveSummary:
    """How a live session went: frames that came, those that were left out to keep up, and every answer's latency."""

    num_frames: int = 0
    num_dropped: int = 0
    seconds: float = 0.0
    predictions: list[LivePrediction] = field(default_factory=list)

    def latency(self, share: float) -> float:
        """The latency in s that this share of the answers stays under; nan without answers."""
        values = [one.latency_s for one in self.predictions]
        return float(np.quantile(values, share)) if values else float("nan")

    def document(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "frames": self.num_frames,
            "dropped": self.num_dropped,
            "seconds": self.seconds,
            "frames_per_second": self.num_frames / self.seconds if self.seconds else None,
            "predictions": [one.document() for one in self.predictions],
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
    """Watch a source until it ends, or for some seconds of it, and say after each stride what happens.

    run:      folder of a run, or a checkpoint, of a model that reads tracks, small frames or frames.
    source:   number of a camera ("0"), a device (/dev/video0), a stream (rtsp://…, http://…) or a video file.
    length_s: the window; None: as in the training. stride_s: from answer to answer; None: a quarter of the window.
    study, overrides, warn: as for `actionprep.api.predict_videos`.
    keep_up:  leave out frames (counted) rather than fall behind; None: for cameras and streams, not for files.

    The source is the model's first view; others count as missing. Raises UserError for a model that cannot work live, and
    when the source ends before a window is full.
    """
    from actionprep.pipeline.trained import OwnSettings
    from actionprep.training.predict import open_checkpoint, usual_length_ms

    checkpoint = open_checkpoint(run, device=device)
    own = OwnSettings(study, overrides or {}, warn)
    length_s = length_s if length_s is not None else checkpoint.card["snippets"].get("length_s")
    if length_s is None:
        known = "snippet_seconds" in checkpoint.card
        raise UserError(
            "This model was trained on whole segments, so it does not say how much of a stream it should look at. Say so "
            "with --length, in ms: about as long as an action takes"
            + (f", such as --length {usual_length_ms(checkpoint.card)}." if known else ".")
        )
    stride_s = length_s / 4 if stride_s is None else stride_s
    frames = CameraSource(source, keep_up=not Path(source).is_file() if keep_up is None else keep_up)
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
                found = watcher.look(arrived, newest)
                due = watcher.until + stride_s
                summary.predictions.append(found)
                on_prediction(found)
            if seconds is not None and newest >= seconds:
                break
    finally:
        frames.close()
        summary.num_dropped = frames.num_dropped
        summary.seconds = time.monotonic() - started
    if watcher is None:
        raise InputError(f"{source} gave no picture.")
    if not summary.predictions:
        product = checkpoint.recipe.reads
        lag = f", their {product} to {max(watcher.until, 0.0):.2f} s," if watcher.until < newest else ""
        raise UserError(
            f"Nothing could be said of {source}, which was shorter than a window: its pictures reach to {newest:.2f} s{lag} "
            f"and a window is {length_s:.2f} s long. Give a longer film or more --seconds, or a shorter window with "
            "--length, in ms."
        )
    return summary


class _Watcher:
    """The stages behind a model's input, fed with blocks, and the model on what they made lately."""

    def __init__(
        self, checkpoint: Checkpoint, source: CameraSource, own: OwnSettings, *, length_s: float, device: str
    ) -> None:
        from actionprep.pipeline.index import find_stage
        from actionprep.pipeline.passes import LivePass
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
                    f"A model on {self._product} cannot work live, because '{product}' is made of whole recordings. Models "
                    "on tracks, lowres and frames can."
                )
        chosen = own.stage_settings(wanted, checkpoint.card["pipeline"]["stages"], where=str(checkpoint.path))
        for product, settings in chosen.items():
            kind = find_stage(product)
            assert issubclass(kind, FrameStage)
            rate = getattr(settings, "rate", None)
            if rate is not None:
                raise UserError(
                    f"The training's {product} were made at {rate:g} frames a second, and live a stage sees every "
                    "frame. Give a source with that rate, and train on tracks without tracks.rate."
                )
            item = self._items[product] = MemoryItem(f"{product}/{_RECORDING}/{self._view}")
            stages.append(kind(settings, view, cast("ItemWriter", item), {}))
        self._stages = stages
        self._pass = LivePass(stages)
        self._times: list[float] = []
        self.until = -np.inf

    def push(self, block: Any) -> None:
        """Give a block to the stages; `until` is then the end of what the product covers."""
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
        """What the model says of the window that ends now; older rows are forgotten."""
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
        found = score(checkpoint, data, variants=recipe.test_variants).probabilities[0]
        return LivePrediction(
            onset, offset, checkpoint.labels, found, time.monotonic() - arrived, max(newest - self.until, 0.0)
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
                # Nobody reads the stored form of what only feeds another stage.
                other.forget(None)

    def _item(self) -> MemoryItem:
        item = self._items[self._product]
        if self._product != "tracks":
            item.set("time", np.array(self._times))
        return item
