"""Say what happens in a camera's or a stream's pictures while they come: a run's stages and model on a sliding window."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from actionprep.datasets.store.zarr_store import ItemKey, Store
from actionprep.errors import InputError, SetupError, UserError

if TYPE_CHECKING:
    from actionprep.datasets.snippets import SnippetTable
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter
    from actionprep.pipeline.stage import FrameStage
    from actionprep.pipeline.trained import OwnSettings
    from actionprep.training.checkpoints import Checkpoint

# Frames that are pushed through the stages together: fewer answer sooner, more cost less.
_BLOCK = 4
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
    frames = _Source(source, keep_up=not Path(source).is_file() if keep_up is None else keep_up)
    summary = LiveSummary()
    started = time.monotonic()
    watcher: _Watcher | None = None
    due, newest = length_s, 0.0
    try:
        for block in frames.blocks(_BLOCK):
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
        self, checkpoint: Checkpoint, source: _Source, own: OwnSettings, *, length_s: float, device: str
    ) -> None:
        from actionprep.pipeline.passes import LivePass
        from actionprep.pipeline.stage import FrameStage, ViewSource, find_stage
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


class MemoryItem:
    """An item that is only in memory: takes what a stage writes, and reads as an item of a store does."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.attributes: dict[str, Any] = {}
        self._parts: dict[str, list[np.ndarray]] = {}
        self._empty: dict[str, np.ndarray] = {}

    def create(self, name: str, *, shape: tuple[int, ...], dtype: Any, **facts: Any) -> None:
        """Begin an array that grows along its first axis."""
        self._parts[name] = []
        self._empty[name] = np.zeros((0, *shape), np.dtype(dtype))

    def append(self, name: str, rows: np.ndarray) -> None:
        """Add rows."""
        self._parts[name].append(np.asarray(rows, self._empty[name].dtype))

    def write(self, name: str, values: np.ndarray, **facts: Any) -> None:
        """A whole array."""
        self.set(name, np.asarray(values))

    def set(self, name: str, values: np.ndarray) -> None:
        """Replace an array."""
        self._parts[name], self._empty[name] = [values], values[:0]

    def rows(self, name: str) -> np.ndarray:
        """All rows that are there, joined once."""
        parts = self._parts[name]
        if len(parts) != 1:
            self._parts[name] = parts = [np.concatenate([self._empty[name], *parts])]
        return parts[0]

    def forget(self, count: int | None) -> None:
        """Drop the first rows of every array that grows; None: all."""
        for name in self._parts:
            self._parts[name] = [] if count is None else [self.rows(name)[count:]]

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._parts:
            raise KeyError(f"No array '{name}' in {self.where}. It has {', '.join(self)}.")
        return self.rows(name)


class MemoryStore(Store):
    """As much of a store as readers of model input need, over items in memory."""

    def __init__(self, items: Mapping[tuple[str, str, str], MemoryItem]) -> None:
        self.url, self.path = "memory", None
        self._items = dict(items)

    def items(self, product: str | None = None) -> list[ItemKey]:
        """Keys of the items."""
        return [ItemKey(*key) for key in self._items if product in (None, key[0])]

    def has(self, product: str, recording: str, view: str = "") -> bool:
        """Whether there is such an item."""
        return (product, recording, view) in self._items

    def item(self, product: str, recording: str, view: str = "") -> ItemReader:
        """One item, which reads as one on a disk."""
        return cast("ItemReader", self._items[product, recording, view])


class _Source:
    """Frames of a camera, a stream or a file, in blocks, with their times; read ahead by a thread."""

    def __init__(self, name: str, *, keep_up: bool) -> None:
        import av

        self.name = name
        self.num_dropped = 0
        device = f"/dev/video{name}" if name.isdecimal() else name
        try:
            self._container = av.open(device, format="v4l2") if device.startswith("/dev/") else av.open(device)
            stream = self._container.streams.video[0]
        except (av.FFmpegError, OSError, IndexError) as error:
            raise SetupError(
                f"Cannot open '{name}' as a camera, a stream or a video: {error}. A camera is named by its number (0) or "
                "device (/dev/video0), a stream by its address (rtsp://…); is it plugged in, and is no other program "
                "using it?"
            ) from None
        self.height, self.width = stream.height, stream.width
        self.fps = float(stream.average_rate or stream.guessed_rate or 25)
        self._keep_up = keep_up
        # About a second of pictures may wait; of a file the reader waits instead.
        self._waiting: queue.Queue[Any] = queue.Queue(maxsize=max(int(self.fps), 2 * _BLOCK))
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="live-source", daemon=True)

    def blocks(self, size: int) -> Iterator[Any]:
        """Blocks of up to `size` frames, as soon as that many are there."""
        from actionprep.pipeline.frame_conversion import Converter, Orientation
        from actionprep.pipeline.video import VideoBlock

        self._thread.start()
        converter: Converter | None = None
        index, ended, first = 0, False, 0.0
        while not ended:
            frames: list[Any] = []
            while len(frames) < size and not ended:
                frame = self._waiting.get()
                ended = frame is None
                if not ended:
                    frames.append(frame)
            if not frames:
                break
            if converter is None:
                orientation = Orientation.of(frames[0][0])
                one = frames[0][0]
                self.height, self.width = (one.width, one.height) if orientation.transposed else (one.height, one.width)
                converter = Converter(self.height, self.width, orientation)
                first = frames[0][1]
            yield VideoBlock(
                [frame for frame, _ in frames],
                converter,
                index=np.arange(index, index + len(frames)),
                time=np.array([at for _, at in frames]) - first,
                status=np.zeros(len(frames), np.uint8),
            )
            index += len(frames)
        if self._error is not None:
            raise InputError(f"{self.name} broke off: {self._error}")

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._waiting.get(timeout=0.05)
            except queue.Empty:
                self._thread.join(timeout=0.05)
        self._container.close()

    def _read(self) -> None:
        import av

        try:
            for count, frame in enumerate(self._container.decode(video=0)):
                if self._stop.is_set():
                    break
                at = float(frame.time) if frame.time is not None else count / self.fps
                self._put((frame, at))
        except (av.FFmpegError, OSError) as error:
            self._error = error
        finally:
            self._put(None)

    def _put(self, what: Any) -> None:
        while not self._stop.is_set():
            try:
                self._waiting.put(what, timeout=0.1)
                return
            except queue.Full:
                if self._keep_up:
                    try:
                        self._waiting.get_nowait()
                        self.num_dropped += 1
                    except queue.Empty:
                        continue
