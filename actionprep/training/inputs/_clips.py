"""Clips of pictures as model input, whichever product the pictures are stored in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from actionprep.errors import UserError
from actionprep.settings import option
from actionprep.training.draws import Draws
from actionprep.training.inputs._moments import Short, dense_frames, even_frames, even_shares, from_the_middle
from actionprep.training.inputs.base import Batch, InputSettings, ProductReader, mirrored_codes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.snippets import SnippetTable
    from actionprep.datasets.store import ItemReader, Store

CHANNELS = {"rgb": 3, "gray": 1, "motion": 2}
"""Channels of a clip by the setting `channels`."""

# Pictures that are looked at to find where something moves.
_LOOKED_AT = 24


class ClipSettings(InputSettings):
    """How clips are sampled out of stored pictures, cut and augmented."""

    frames: int = option(16, "Frames of a clip.", ge=1)
    sampling: Literal["segments", "dense"] = option(
        "segments",
        "segments: one frame of each of so many equal parts of the snippet, so that a clip spans all of it; dense: a run "
        "of frames. In training at random, else in the middle.",
    )
    rate: float | None = option(None, "For dense: frames a second; not set: consecutive frames.", gt=0)
    short: Short = option(
        "loop",
        "For dense, where a snippet is shorter than the run: begin it anew (loop), or keep its last frame (hold).",
    )
    trim: float = option(
        0.0, "For segments: largest share of a snippet cut off at its start, and at its end.", ge=0, lt=0.5
    )
    time_warp: float = option(0.0, "For segments: strength of the smooth warp of time, as a share.", ge=0, le=0.9)
    size: int = option(112, "Side of the square that the model sees, in pixels.", ge=8)
    region: Literal["frame", "motion"] = option(
        "frame",
        "What is cut: the whole picture, or the square around what moves in the snippet, the same for all frames.",
    )
    margin: float = option(0.15, "For region motion: room around what moves, as a share of its side.", ge=0, le=1)
    fit: Literal["crop", "squeeze"] = option(
        "crop", "crop: a square of the region, shape kept; squeeze: the whole region made a square."
    )
    crop: tuple[float, float] = option(
        (0.8, 1.0), "Least and largest side of a training crop, as a share of the region's short side."
    )
    test_crop: float = option(1.0, "Side of a test crop, as a share of the region's short side.", gt=0, le=2)
    anchor: tuple[float, float] = option(
        (0.5, 0.5),
        "Where crops lie, as shares of the room they have in x and in y: (0.5, 1.0) is the middle of the bottom.",
    )
    around: float = option(
        1.0, "How far from the anchor training crops may lie, as a share of the room they have; 0: at it.", ge=0, le=1
    )
    shift: float = option(0.0, "Further shift of training crops, as a share of their side.", ge=0, lt=1)
    rotation: float = option(0.0, "Largest rotation of training crops, in rad.", ge=0)
    flip: float = option(0.0, "Share of the samples that are mirrored left to right.", ge=0, le=1)
    flip_labels: dict[str, str] = option(
        {}, 'Label that each label becomes when mirrored: { swipe_left = "swipe_right", … }; others stay.'
    )
    brightness: float = option(0.0, "Largest change of brightness, as a share.", ge=0, lt=1)
    contrast: float = option(0.0, "Largest change of contrast, as a share.", ge=0, lt=1)
    saturation: float = option(0.0, "Largest change of saturation, as a share.", ge=0, le=1)
    gray: float = option(0.0, "Share of the samples that lose their colours.", ge=0, le=1)
    channels: Literal["rgb", "gray", "motion"] = option(
        "rgb", "What the model sees: colours; brightness alone; or brightness and its change from frame to frame."
    )
    several_views: Literal["each", "all"] = option(
        "each",
        "each: a sample is one view, drawn anew each time, and tests average over the views; all: a sample is all "
        "views, whose probabilities are averaged in training too.",
    )
    clips: int = option(1, "Clips of a snippet in a test, spread over it.", ge=1)
    crops: Literal[1, 3] = option(1, "Crops of a clip in a test: the middle, or also the two ends of the longer side.")
    jitters: int = option(
        1, "Tests of each clip and crop: one as it is, further ones augmented with test_strength.", ge=1
    )
    test_strength: float = option(0.5, "Augmentation of such tests, as a share of the training's.", ge=0, le=1)
    memory: float = option(4.0, "GiB that pictures may take in memory; more are read by workers as needed.", ge=0)

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        if not 0 < self.crop[0] <= self.crop[1] <= 2:
            raise ValueError("crop is two rising shares above 0, such as [0.8, 1.0]")
        if not all(0 <= share <= 1 for share in self.anchor):
            raise ValueError("anchor is two shares from 0 to 1, such as [0.5, 0.5]")
        return self

    @property
    def variants(self) -> int:
        """Variants of each snippet in a test."""
        return self.clips * self.crops * self.jitters


class ClipReader(ProductReader):
    """Batches of clips.

    clip       (B, 3, T, size, size) float32 in 0..255, RGB; with several views (B, V, 3, T, size, size), but in training
               with `several_views = "each"`, where each sample is one view
    view_valid (B, V) bool, with several views: which of them there are

    In training `read` gives what `augment` makes clips of on the device: pictures (B, V, T, 3, H, W) uint8, box (B, V, 4)
    px and within (B, V, 2) px, the size of each picture inside the padded array. The model maps bytes to the values that
    it wants by itself (`models.pixels`).
    """

    settings: ClipSettings
    cuts_time = False

    def __init__(self, settings: ClipSettings, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        super().__init__(settings, store, table, views)
        self.check_store(settings, store)
        self._mirror = mirrored_codes(settings.flip, settings.flip_labels, table.labels)
        self._places: dict[tuple[int, int], _Place] = {}
        for code in np.unique(table.recording).tolist():
            for column, view in enumerate(self.views):
                if store.has(self.product, table.recordings[code], view):
                    self._places[code, column] = self._place(store.item(self.product, table.recordings[code], view))
        self._spans = self._find_spans()
        sizes = [place.size for place in self._places.values()]
        self._height, self._width = (max(size[axis] for size in sizes) for axis in (0, 1))
        self._boxes: dict[tuple[int, int], tuple[float, float, float, float]] = {}
        self._bank: _Bank | None = None
        self.in_memory = self._estimated_bytes() <= settings.memory * 2**30
        if self.in_memory:
            self._bank = _Bank.load(self)

    @abstractmethod
    def _place(self, item: ItemReader) -> _Place:
        """Where the pictures of one view are, and when; raises UserError when they are no RGB bytes."""

    @abstractmethod
    def _pictures(self, item: ItemReader, rows: np.ndarray) -> np.ndarray:
        """(n, H, W, 3) uint8: these pictures of a view."""

    def read(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:
        import torch

        settings = self.settings
        training = draws is not None and draws.variant is None
        crop = 0 if draws is None else (draws.variant or 0) % (settings.clips * settings.crops) // settings.clips
        by = 1.0 if training else settings.test_strength
        frames, columns, there = self._chosen(rows, draws)
        drawn = self._drawn(draws)
        pictures, within = self._gather(rows, columns, frames)
        box = torch.tensor(
            [[self._region(row, int(column)) for column in of_row] for row, of_row in zip(rows, columns, strict=True)],
            dtype=torch.float32,
            device=pictures.device,
        )
        views: Batch = {}
        if columns.shape[1] > 1:
            views["view_valid"] = torch.from_numpy(np.ascontiguousarray(there)).to(pictures.device)
        if training:
            return {"pictures": pictures, "box": box, "within": within, **views}
        made = self._cut(pictures, box, within, drawn, by, crop)
        # Bytes again: they cross to the device, and their rounding is the camera's.
        return {"clip": made.round_().clamp_(0, 255).to(torch.uint8), **views}

    def times(self, rows: Sequence[int], draws: Draws | None = None) -> np.ndarray:
        """(B, T) s: the frames of these clips, in the first view of a sample that there is.

        Of a snippet between two frames, which shows the nearer one, its own time.
        """
        frames, columns, there = self._chosen(rows, draws)
        found = np.zeros((len(rows), self.settings.frames))
        for number, row in enumerate(rows):
            onset, offset = float(self.table.onset[row]), float(self.table.offset[row])
            shown = [column for column in columns[number].tolist() if there[number, column]]
            if not shown:
                found[number] = onset
                continue
            time = self._places[int(self.table.recording[row]), shown[0]].time[frames[number, shown[0]]]
            found[number] = np.clip(time, onset, max(offset - 1e-6, onset))
        return found

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        if "pictures" not in batch:
            return batch
        rest = {name: values for name, values in batch.items() if name not in ("pictures", "box", "within")}
        return {"clip": self._cut(batch["pictures"], batch["box"], batch["within"], draws, 1.0, 0), **rest}

    def mirrored(self, draws: Draws) -> Tensor:
        return Draws(draws.seed ^ 0x5EED, draws.epoch, draws.rows).uniform() < self.settings.flip

    def mirror_codes(self) -> np.ndarray | None:
        return self._mirror

    def cut(self, batch: Batch, partner: Tensor, share: Tensor, draws: Draws) -> tuple[Batch, Tensor]:
        """A rectangle of each clip, in all its frames, from batch[partner]; see the base.

        Yun et al., "CutMix", ICCV 2019, section 3.1, on all frames of a clip alike.
        """
        import torch

        clip = batch["clip"]
        height, width = clip.shape[-2:]
        place = draws.uniform(shape=(2,)).to(clip.device)
        side = (1 - share).clamp(min=0).sqrt()
        edges = []
        for axis, size in enumerate((height, width)):
            length = (side * size).round()
            low = (place[:, axis] * (size - length + 1)).floor()
            line = torch.arange(size, device=clip.device)
            edges.append((line >= low[:, None]) & (line < (low + length)[:, None]))
        foreign = edges[0][:, :, None] & edges[1][:, None, :]
        shape = (len(clip), *[1] * (clip.ndim - 3), height, width)
        mixed = torch.where(foreign.view(shape), clip[partner], clip)
        joined = {name: values | values[partner] for name, values in batch.items() if values.dtype == torch.bool}
        return {**batch, **joined, "clip": mixed}, 1 - foreign.float().mean((1, 2))

    def without_views(self, batch: Batch, keep: Sequence[bool]) -> Batch:
        import torch

        if "view_valid" not in batch:
            return super().without_views(batch, keep)
        return {**batch, "view_valid": batch["view_valid"] & torch.tensor(list(keep), device=batch["clip"].device)}

    def to(self, device: torch.device) -> None:
        if self._bank is not None:
            self._bank.to(device)

    def model_sizes(self) -> dict[str, Any]:
        settings = self.settings
        sizes = {"num_frames": settings.frames, "image_size": settings.size}
        return sizes if settings.channels == "rgb" else {**sizes, "in_channels": CHANNELS[settings.channels]}

    @classmethod
    def span(cls, store: Store, recording: str, views: Sequence[str]) -> tuple[float, float]:
        found = []
        for view in views:
            if store.has(cls.product, recording, view):
                time = store.item(cls.product, recording, view)["time"][:]
                if len(time):
                    step = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
                    found.append((float(time[0]), float(time[-1]) + step))
        if not found:
            raise UserError(f"Recording '{recording}' has no {cls.product} in views {', '.join(views)} of {store.url}.")
        return min(start for start, _ in found), max(end for _, end in found)

    def _drawn(self, draws: Draws | None) -> Draws | None:
        """The random numbers, where any are drawn: in training, and in those tests that are augmented."""
        if draws is None or draws.variant is None:
            return draws
        return draws if draws.variant // (self.settings.clips * self.settings.crops) else None

    def _chosen(self, rows: Sequence[int], draws: Draws | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is seen of these snippets: frames (B, V, T) in the items, views (B, 1 or V), and which there are (B, V)."""
        settings = self.settings
        training = draws is not None and draws.variant is None
        variant = 0 if draws is None or draws.variant is None else draws.variant
        by = 1.0 if training else settings.test_strength
        frames = self._frames(rows, self._drawn(draws), by, variant % settings.clips)
        there = np.array([[(row, column) in self._spans for column in range(len(self.views))] for row in rows])
        if training and settings.several_views == "each" and len(self.views) > 1:
            assert draws is not None
            # Of each sample one of the views that it has.
            order = draws.uniform(shape=(len(self.views),)).numpy()
            return frames, np.where(there, order, -1.0).argmax(axis=1)[:, None], there
        return frames, np.broadcast_to(np.arange(len(self.views)), there.shape), there

    def _frames(self, rows: Sequence[int], draws: Draws | None, by: float, clip: int) -> np.ndarray:
        """(B, V, T) positions in the items; 0 in views that are not there."""
        settings, size = self.settings, self.settings.frames
        found = np.zeros((len(rows), len(self.views), size), np.int64)
        # The clip in the middle is the first variant.
        at = (from_the_middle(settings.clips)[clip] + 0.5) / settings.clips
        if draws is not None:
            place = 0.5 + by * (draws.uniform(shape=(size,)).numpy() - 0.5)
            start = at + by * (draws.uniform().numpy() - at)
            ends = draws.uniform(0, settings.trim * by, shape=(2,)).numpy()
            warp = draws.uniform(-settings.time_warp * by, settings.time_warp * by).numpy()
        for number, row in enumerate(rows):
            onset, offset = float(self.table.onset[row]), float(self.table.offset[row])
            code = int(self.table.recording[row])
            for column in range(len(self.views)):
                span = self._spans.get((row, column))
                if span is None:
                    continue
                times = self._places[code, column].time[slice(*span)]
                if settings.sampling == "dense":
                    begin = at if draws is None else float(start[number])
                    chosen = dense_frames(times, size, start=begin, rate=settings.rate, short=settings.short)
                else:
                    shares = (
                        even_shares(size, place=at)
                        if draws is None
                        else even_shares(size, place=place[number], trim=tuple(ends[number]), warp=float(warp[number]))
                    )
                    chosen = even_frames(times, onset, offset, shares)
                found[number, column] = span[0] + chosen
        return found

    def _gather(self, rows: Sequence[int], columns: np.ndarray, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures (B, V, T, 3, H, W) uint8 and the size (B, V, 2) of each in it."""
        import torch

        size = np.zeros((*columns.shape, 2), np.int64)
        index = np.full((*columns.shape, frames.shape[2]), -1, np.int64)
        apart: Tensor | None = None
        if self._bank is None:
            apart = torch.zeros((*index.shape, 3, self._height, self._width), dtype=torch.uint8)
        for number, row in enumerate(rows):
            code = int(self.table.recording[row])
            for slot, column in enumerate(columns[number].tolist()):
                size[number, slot] = self._height, self._width
                if (row, column) not in self._spans:
                    continue
                height, width = size[number, slot] = self._places[code, column].size
                chosen = frames[number, column]
                if self._bank is not None:
                    index[number, slot] = self._bank.start[code, column] + chosen
                else:
                    assert apart is not None
                    apart[number, slot, :, :, :height, :width] = torch.from_numpy(self._read(code, column, chosen))
        if self._bank is None:
            assert apart is not None
            return apart, torch.from_numpy(size)
        return self._bank.gather(index), torch.from_numpy(size).to(self._bank.pictures.device)

    def _read(self, code: int, column: int, chosen: np.ndarray) -> np.ndarray:
        """(n, 3, H, W) uint8; frames that are asked for twice are read once."""
        item = self.store.item(self.product, self.table.recordings[code], self.views[column])
        needed, back = np.unique(chosen, return_inverse=True)
        return self._pictures(item, needed).transpose(0, 3, 1, 2)[back]

    def _cut(self, pictures: Tensor, box: Tensor, within: Tensor, draws: Draws | None, by: float, crop: int) -> Tensor:
        """Clips (B, C, T, S, S) or (B, V, C, T, S, S) float32 of 0..255; a sample's views are augmented alike."""
        import torch

        from actionprep.training.inputs._pictures import cut, recolored

        settings, num_views = self.settings, pictures.shape[1]
        angle = mirrored = None
        colors: dict[str, Tensor] = {}
        if draws is None:
            placed = self._placed(box, None, None, by, crop)
        else:
            drawn = draws.uniform(-1, 1, shape=(10,)).to(box.device)
            share = torch.stack([drawn[:, 0], drawn[:, 1], drawn[:, 2]], 1)
            placed = self._placed(box, share, drawn[:, 3:5], by, crop)
            angle = (drawn[:, 5] * settings.rotation * by).repeat_interleave(num_views)
            if settings.flip and draws.variant is None:
                mirrored = self.mirrored(draws).to(box.device).repeat_interleave(num_views)
            colors = {
                "brightness": 1 + drawn[:, 6] * settings.brightness * by,
                "contrast": 1 + drawn[:, 7] * settings.contrast * by,
                "saturation": 1 + drawn[:, 8] * settings.saturation * by,
                "gray": (drawn[:, 9] + 1) / 2 < settings.gray * by,
            }
        made = cut(
            pictures.flatten(0, 1), placed.flatten(0, 1), settings.size,
            angle=angle, mirrored=mirrored, within=within.flatten(0, 1),
        )  # fmt: skip
        if colors and (settings.brightness or settings.contrast or settings.saturation or settings.gray):
            made = recolored(made, **{name: one.repeat_interleave(num_views) for name, one in colors.items()})
        return made if num_views == 1 else made.unflatten(0, (-1, num_views))

    def _placed(self, region: Tensor, drawn: Tensor | None, shift: Tensor | None, by: float, crop: int) -> Tensor:
        """The boxes (B, V, 4) that are cut out of the regions; drawn (B, 3) and shift (B, 2) in [-1, 1)."""
        import torch

        settings = self.settings
        low, high = region[..., :2], region[..., 2:]
        room = high - low
        short = room.amin(-1, keepdim=True)
        anchor = region.new_tensor(settings.anchor)
        share = torch.full_like(short, settings.test_crop)
        if crop:
            # The two ends of the longer side; of a square, left and right.
            along = torch.where(
                room[..., :1] >= room[..., 1:], region.new_tensor([1.0, 0.0]), region.new_tensor([0.0, 1.0])
            )
            anchor = anchor * (1 - along) + along * (crop - 1)
        if drawn is not None:
            least, most = settings.crop
            if by < 1:
                # A test's draws are around its own crop, by a part of the training's range.
                least, most = (settings.test_crop + by * (end - settings.test_crop) for end in (least, most))
            share = (least + (most - least) * (drawn[:, None, :1] + 1) / 2).expand_as(short)
            lowest, highest = anchor * (1 - settings.around * by), anchor + (1 - anchor) * settings.around * by
            anchor = lowest + (highest - lowest) * (drawn[:, None, 1:] + 1) / 2
        side = share * (short if settings.fit == "crop" else room)
        start = low + anchor * (room - side)
        if shift is not None and settings.shift:
            start = start + shift[:, None] * settings.shift * by * side
        return torch.cat([start, start + side.expand_as(start)], -1)

    def _region(self, row: int, column: int) -> tuple[float, float, float, float]:
        code = int(self.table.recording[row])
        place = self._places.get((code, column))
        if place is None or (row, column) not in self._spans:
            return 0.0, 0.0, float(self._width), float(self._height)
        whole = (0.0, 0.0, float(place.size[1]), float(place.size[0]))
        if self.settings.region == "frame":
            return whole
        if (row, column) not in self._boxes:
            from actionprep.training.inputs._pictures import motion_box

            first, last = self._spans[row, column]
            # Near the frames of a clip, but the same whatever is drawn.
            chosen = np.unique(np.linspace(first, last - 1, min(_LOOKED_AT, last - first)).round().astype(np.int64))
            found = motion_box(self._read(code, column, chosen).transpose(0, 2, 3, 1), margin=self.settings.margin)
            self._boxes[row, column] = whole if found is None else found
        return self._boxes[row, column]

    def _find_spans(self) -> dict[tuple[int, int], tuple[int, int]]:
        """First and last + 1 frame in the item of each row and view that there are; raises UserError for lacking frames."""
        table, found = self.table, {}
        for row in range(len(table)):
            code = int(table.recording[row])
            for column in range(len(self.views)):
                place = self._places.get((code, column))
                if place is None or not len(place.time):
                    continue
                first, last = np.searchsorted(place.time, [table.onset[row] - 1e-6, table.offset[row] - 1e-6]).tolist()
                if first == last:
                    # A snippet between two frames sees the nearer one, if that is near.
                    nearest = int(np.abs(place.time - table.onset[row]).argmin())
                    if abs(place.time[nearest] - table.onset[row]) > 1.5 * place.interval + 1e-6:
                        continue
                    first, last = nearest, nearest + 1
                if place.which != "all" and table.used[row]:
                    self._check_parts(row, column, place, first, last)
                found[row, column] = (first, last)
        lacking = [
            row
            for row in np.flatnonzero(table.used).tolist()
            if not any((row, c) in found for c in range(len(self.views)))
        ]
        if lacking:
            raise UserError(self._no_frames(lacking))
        return found

    def _check_parts(self, row: int, column: int, place: _Place, first: int, last: int) -> None:
        """Raise UserError when a store that does not hold all frames lacks some of this snippet's."""
        table, settings = self.table, self.settings
        named = f"{table.recordings[table.recording[row]]} at {table.onset[row]:.2f} s, view '{self.views[column]}'"
        if place.which == "keyframes":
            if settings.sampling == "segments" and last - first >= settings.frames:
                return
            need = f"{settings.frames}" if settings.sampling == "segments" else "consecutive frames"
            raise UserError(
                f"The store {self.store.url} holds {self.product} of keyframes alone, and {last - first} of them lie in the "
                f"snippet {named}, where this recipe needs {need}.\nDecode more: 'actionprep decode --which segments', or "
                f"--which all; or let the recipe read fewer: --set input.frames={max(last - first, 1)} "
                "input.sampling=segments."
            )
        times = place.time[first:last]
        edges = np.concatenate([[table.onset[row]], times, [table.offset[row] - place.interval]])
        gap = float(np.diff(edges).max())
        # Segments are stored with the frames around them; a hole of a frame or two is the video's own.
        if gap > 3 * place.interval + 1e-6:
            raise UserError(
                f"The store {self.store.url} holds {self.product} around annotated segments alone, and {gap:.2f} s of the "
                f"snippet {named} are not among them.\nDecode all frames, 'actionprep decode --which all', or more "
                f"around the segments: --margin {gap + 1:.0f}."
            )

    def _no_frames(self, lacking: Sequence[int]) -> str:
        table = self.table
        named = [f"{table.recordings[table.recording[row]]} at {table.onset[row]:.2f} s" for row in lacking[:5]]
        return (
            f"{len(lacking)} of {int(table.used.sum())} snippets have no {self.product} in {self.store.url}: "
            f"{'; '.join(named)}{' …' if len(lacking) > 5 else ''}.\nMake them with 'actionprep build {self.product}', or "
            "make the snippets anew from the recordings that there are: 'actionprep snippets'."
        )

    def _estimated_bytes(self) -> int:
        needed: dict[tuple[int, int], list[int]] = {}
        for (row, column), (first, last) in self._spans.items():
            span = needed.setdefault((int(self.table.recording[row]), column), [first, last])
            span[0], span[1] = min(span[0], first), max(span[1], last)
        self._needed = needed
        return sum(last - first for first, last in needed.values()) * 3 * self._height * self._width


@dataclass(frozen=True)
class _Place:
    """The pictures of one view: frame times (n) s, size (H, W), which frames of the video they are."""

    time: np.ndarray
    size: tuple[int, int]
    which: str = "all"

    @property
    def interval(self) -> float:
        """Seconds from frame to frame, mostly."""
        return float(np.median(np.diff(self.time))) if len(self.time) > 1 else 0.04


@dataclass
class _Bank:
    """The pictures of all snippets in memory: (F, 3, H, W) uint8, and where each view's frame 0 would stand."""

    pictures: Tensor
    start: dict[tuple[int, int], int]

    @classmethod
    def load(cls, reader: ClipReader) -> _Bank:
        import torch

        total = sum(last - first for first, last in reader._needed.values())
        pictures = torch.zeros((max(total, 1), 3, reader._height, reader._width), dtype=torch.uint8)
        start, at = {}, 0
        for (code, column), (first, last) in reader._needed.items():
            height, width = reader._places[code, column].size
            start[code, column] = at - first
            for begin in range(first, last, 64):
                end = min(begin + 64, last)
                part = reader._read(code, column, np.arange(begin, end))
                pictures[at : at + end - begin, :, :height, :width] = torch.from_numpy(part)
                at += end - begin
        return cls(pictures, start)

    def gather(self, index: np.ndarray) -> Tensor:
        """(*index.shape, 3, H, W); zeros where the index is negative."""
        import torch

        at = torch.from_numpy(index).to(self.pictures.device)
        found = self.pictures[at.clamp(min=0)]
        if bool((at < 0).any()):
            found[at < 0] = 0
        return found

    def to(self, device: torch.device) -> None:
        """Move to a device that has room to spare for it."""
        import torch

        if device.type == "cuda" and self.pictures.nbytes > 0.4 * torch.cuda.mem_get_info(device)[0]:
            return
        self.pictures = self.pictures.to(device)
