"""Clips of pictures as model input, whichever product the pictures are stored in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.errors import UserError
from actionprep.training.inputs._clip_settings import CHANNELS, ClipSettings
from actionprep.training.inputs._frame_bank import FrameBank
from actionprep.training.inputs._frame_spans import FrameSource, check_spans, find_spans
from actionprep.training.inputs._frame_times import dense_frames, even_frames, even_shares, from_the_middle
from actionprep.training.inputs.base import Batch, MirroringReader, mirrored_codes
from actionprep.training.inputs.rng import Draws

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import ItemReader, Store


# Pictures that are looked at to find where something moves.
_LOOKED_AT = 24


class ClipReader(MirroringReader):
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
        self._places: dict[tuple[int, int], FrameSource] = {}
        for code in np.unique(table.recording).tolist():
            for column, view in enumerate(self.views):
                if store.has(self.product, table.recordings[code], view):
                    self._places[code, column] = self._place(store.item(self.product, table.recordings[code], view))
        self._spans = find_spans(self._places, table, len(self.views))
        check_spans(self._spans, self._places, settings, table, self.views, product=self.product, url=store.url)
        sizes = [place.size for place in self._places.values()]
        self._height, self._width = (max(size[axis] for size in sizes) for axis in (0, 1))
        self._boxes: dict[tuple[int, int], tuple[float, float, float, float]] = {}
        self._bank: FrameBank | None = None
        needed = self._needed()
        num_bytes = sum(last - first for first, last in needed.values()) * 3 * self._height * self._width
        self.in_memory = num_bytes <= settings.memory * 2**30
        if self.in_memory:
            self._bank = FrameBank.load(needed, self._read, self._height, self._width)

    @abstractmethod
    def _place(self, item: ItemReader) -> FrameSource:
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

    def meanings(self) -> dict[str, str]:
        settings = self.settings
        views = f"view ({', '.join(self.views)}), " if len(self.views) > 1 else ""
        shown = "what moves" if settings.region == "motion" else "the frame"
        return {
            "clip": f"pictures, RGB from 0 to 255: the model maps them to the values that it wants by itself; axes batch, "
            f"{views}color, frame (in their order over the snippet), y, x. Each shows a square of {shown}, "
            f"{settings.size} px a side",
            "view_valid": "which views there are; axes batch, view",
        }

    def model_sizes(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "num_frames": settings.frames, "image_size": settings.size, "in_channels": CHANNELS[settings.channels],
        }  # fmt: skip

    @classmethod
    def instead(cls, store: Store) -> str | None:
        other = "lowres" if cls.product == "frames" else "frames"
        return other if store.items(other) else None

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

        from actionprep.training.inputs._frames import cut, recolored

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
            from actionprep.training.inputs._frames import motion_box

            first, last = self._spans[row, column]
            # Near the frames of a clip, but the same whatever is drawn.
            chosen = np.unique(np.linspace(first, last - 1, min(_LOOKED_AT, last - first)).round().astype(np.int64))
            found = motion_box(self._read(code, column, chosen).transpose(0, 2, 3, 1), margin=self.settings.margin)
            self._boxes[row, column] = whole if found is None else found
        return self._boxes[row, column]

    def _needed(self) -> dict[tuple[int, int], tuple[int, int]]:
        """First and last + 1 frame that any snippet needs, of each recording and view."""
        needed: dict[tuple[int, int], tuple[int, int]] = {}
        for (row, column), (first, last) in self._spans.items():
            key = int(self.table.recording[row]), column
            low, high = needed.get(key, (first, last))
            needed[key] = min(low, first), max(high, last)
        return needed
