"""Clips of frames as model input, for every product that stores frames."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.errors import UserError
from actionprep.training.inputs._clip_settings import CHANNELS, ClipSettings
from actionprep.training.inputs._frame_bank import FrameBank
from actionprep.training.inputs._frame_spans import FrameSource, check_spans, find_spans
from actionprep.training.inputs._frame_times import dense_frames, even_frames, even_shares, middle_first
from actionprep.training.inputs.base import Batch, MirroringReader, available_products, build_hint, mirrored_codes
from actionprep.training.inputs.rng import Draws

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.poses.sequence import PoseSequence
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.zarr_store import Store


# Number of frames in which motion is searched.
_MOTION_FRAMES = 24


class ClipReader(MirroringReader):
    """Batches of clips.

    Arrays of a batch:

    - clip: (B, C, T, size, size) float32, RGB in 0..255; with several views (B, V, C, T, size, size), except in
      training with `several_views = "each"`, where each sample is one view. C is 3; with keypoints it is 4, and the
      fourth channel is 255 where a joint is.
    - view_valid: (B, V) bool, with several views: which of them exist.

    In training, `read` returns what `augment` turns into clips on the device: images (B, V, T, C, H, W) uint8, box (B,
    V, 4) in pixels, and within (B, V, 2), the height and width of each image inside the padded array. The model maps
    bytes to its value range (`models.pixels`).
    """

    settings: ClipSettings
    cuts_time = False

    def __init__(self, settings: ClipSettings, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        super().__init__(settings, store, table, views)
        self.check_store(settings, store)
        self._mirror = mirrored_codes(settings.flip, settings.flip_labels, table.labels)
        self._sources: dict[tuple[int, int], FrameSource] = {}
        for code in np.unique(table.recording).tolist():
            for column, view in enumerate(self.views):
                if store.has(self.product, table.recordings[code], view):
                    self._sources[code, column] = self._source(store.item(self.product, table.recordings[code], view))
        self._spans = find_spans(self._sources, table, len(self.views))
        check_spans(self._spans, self._sources, settings, table, self.views, product=self.product, url=store.url)
        sizes = [source.size for source in self._sources.values()]
        self._height, self._width = (max(size[axis] for size in sizes) for axis in (0, 1))
        self._num_channels = 4 if settings.reads_keypoints else 3
        self._poses: dict[tuple[int, int], PoseSequence] = {}
        self._boxes: dict[tuple[int, int], tuple[float, float, float, float]] = {}
        self._bank: FrameBank | None = None
        needed = self._needed_frames()
        num_bytes = (
            sum(last - first for first, last in needed.values()) * self._num_channels * self._height * self._width
        )
        self.in_memory = num_bytes <= settings.memory * 2**30
        if self.in_memory:
            self._bank = FrameBank.load(needed, self._read, (self._num_channels, self._height, self._width))

    @abstractmethod
    def _source(self, item: ItemReader) -> FrameSource:
        """Describe the stored frames of one view; raises UserError unless they are RGB bytes."""

    @abstractmethod
    def _stored_frames(self, item: ItemReader, rows: np.ndarray) -> np.ndarray:
        """Read frames of a view, uint8 of shape (n, H, W, 3)."""

    def read(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:
        import torch

        settings = self.settings
        training = draws is not None and draws.variant is None
        crop = 0 if draws is None else (draws.variant or 0) % (settings.clips * settings.crops) // settings.clips
        strength = 1.0 if training else settings.test_strength
        frames, columns, exists = self._choose(rows, draws)
        drawn = self._active_draws(draws)
        images, within = self._gather(rows, columns, frames)
        box = torch.tensor(
            [
                [self._region(row, int(column)) for column in row_columns]
                for row, row_columns in zip(rows, columns, strict=True)
            ],
            dtype=torch.float32,
            device=images.device,
        )
        views: Batch = {}
        if columns.shape[1] > 1:
            views["view_valid"] = torch.from_numpy(np.ascontiguousarray(exists)).to(images.device)
        if training:
            return {"images": images, "box": box, "within": within, **views}
        clip = self._cut(images, box, within, drawn, strength, crop)
        # Back to bytes, which are transferred to the device; rounding is that of a camera.
        return {"clip": clip.round_().clamp_(0, 255).to(torch.uint8), **views}

    def times(self, rows: Sequence[int], draws: Draws | None = None) -> np.ndarray:
        """Return the times of the frames of these clips, in seconds, shape (B, T).

        They are those of the first view that exists. A snippet between two frames has the time of the nearer one.
        """
        frames, columns, exists = self._choose(rows, draws)
        times = np.zeros((len(rows), self.settings.frames))
        for sample, row in enumerate(rows):
            onset, offset = float(self.table.onset[row]), float(self.table.offset[row])
            visible_columns = [column for column in columns[sample].tolist() if exists[sample, column]]
            if not visible_columns:
                times[sample] = onset
                continue
            time = self._sources[int(self.table.recording[row]), visible_columns[0]].time[
                frames[sample, visible_columns[0]]
            ]
            times[sample] = np.clip(time, onset, max(offset - 1e-6, onset))
        return times

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        if "images" not in batch:
            return batch
        rest = {name: values for name, values in batch.items() if name not in ("images", "box", "within")}
        return {"clip": self._cut(batch["images"], batch["box"], batch["within"], draws, 1.0, 0), **rest}

    def evidence(self, batch: Batch) -> Tensor:
        """Return which samples have a view; windows without frames are found by their times."""
        return batch["view_valid"].any(1) if "view_valid" in batch else super().evidence(batch)

    def cut(self, batch: Batch, partner: Tensor, share: Tensor, draws: Draws) -> tuple[Batch, Tensor]:
        """Replace a rectangle of each clip, in all its frames, by that of its partner; see the base class.

        References:
            Yun et al., "CutMix", ICCV 2019, section 3.1, applied to all frames of a clip alike.
        """
        import torch

        clip = batch["clip"]
        height, width = clip.shape[-2:]
        position = draws.uniform(shape=(2,)).to(clip.device)
        side = (1 - share).clamp(min=0).sqrt()
        edges = []
        for axis, size in enumerate((height, width)):
            length = (side * size).round()
            low = (position[:, axis] * (size - length + 1)).floor()
            pixel = torch.arange(size, device=clip.device)
            edges.append((pixel >= low[:, None]) & (pixel < (low + length)[:, None]))
        replaced = edges[0][:, :, None] & edges[1][:, None, :]
        shape = (len(clip), *[1] * (clip.ndim - 3), height, width)
        mixed = torch.where(replaced.view(shape), clip[partner], clip)
        joined = {name: values | values[partner] for name, values in batch.items() if values.dtype == torch.bool}
        return {**batch, **joined, "clip": mixed}, 1 - replaced.float().mean((1, 2))

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
        content = "what moves" if settings.region == "motion" else "the frame"
        joints = ", and as the fourth channel 255 where a joint is" if settings.reads_keypoints else ""
        return {
            "clip": f"frames, RGB from 0 to 255{joints}, which the model maps to its value range; axes batch, "
            f"{views}color, frame (in temporal order), y, x. Each frame shows a square of {content}, "
            f"{settings.size} px a side",
            "view_valid": "which views exist; axes batch, view",
        }

    def model_sizes(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "num_frames": settings.frames, "image_size": settings.size, "in_channels": CHANNELS[settings.channels],
        }  # fmt: skip

    @classmethod
    def reads(cls, settings: Any) -> str:
        return f"{cls.product}+pose" if settings.reads_keypoints else cls.product

    @classmethod
    def check_store(cls, settings: Any, store: Store, *, training: bool = False) -> None:
        plain = settings.with_changes({"channels": "rgb"}, where="[input] of the recipe")
        super().check_store(plain, store, training=training)
        if not settings.reads_keypoints or store.items("pose"):
            return
        key = store.items(cls.product)[0]
        if "keypoints" not in store.item(key.product, key.recording, key.view):
            raise UserError(
                f"input.channels = \"{settings.channels}\" reads 'pose' beside '{cls.product}', but the store {store.url} "
                f"{available_products(store)}.\n{build_hint('pose')}, or set input.channels=rgb."
            )

    @classmethod
    def alternative(cls, store: Store) -> str | None:
        other = "lowres" if cls.product == "frames" else "frames"
        return other if store.items(other) else None

    @classmethod
    def span(cls, store: Store, recording: str, views: Sequence[str]) -> tuple[float, float]:
        spans = []
        for view in views:
            if store.has(cls.product, recording, view):
                time = store.item(cls.product, recording, view)["time"][:]
                if len(time):
                    spans.append((float(time[0]), float(time[-1]) + frame_interval(time, default=1 / 25)))
        if not spans:
            raise UserError(f"Recording '{recording}' has no {cls.product} in views {', '.join(views)} of {store.url}.")
        return min(start for start, _ in spans), max(end for _, end in spans)

    def _active_draws(self, draws: Draws | None) -> Draws | None:
        """The random numbers if any are used: in training and in augmented variants of tests."""
        if draws is None or draws.variant is None:
            return draws
        return draws if draws.variant // (self.settings.clips * self.settings.crops) else None

    def _choose(self, rows: Sequence[int], draws: Draws | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose frames (B, V, T) in the items and views (B, 1 or V), and return which views exist (B, V)."""
        settings = self.settings
        training = draws is not None and draws.variant is None
        variant = 0 if draws is None or draws.variant is None else draws.variant
        strength = 1.0 if training else settings.test_strength
        frames = self._frames(rows, self._active_draws(draws), strength, variant % settings.clips)
        exists = np.array([[(row, column) in self._spans for column in range(len(self.views))] for row in rows])
        if training and settings.several_views == "each" and len(self.views) > 1:
            assert draws is not None
            # One of the views of each sample.
            order = draws.uniform(shape=(len(self.views),)).numpy()
            return frames, np.where(exists, order, -1.0).argmax(axis=1)[:, None], exists
        return frames, np.broadcast_to(np.arange(len(self.views)), exists.shape), exists

    def _frames(self, rows: Sequence[int], draws: Draws | None, strength: float, clip: int) -> np.ndarray:
        """Frame indices (B, V, T) in the items; 0 in views that do not exist."""
        settings, size = self.settings, self.settings.frames
        frames = np.zeros((len(rows), len(self.views), size), np.int64)
        # The first variant is the clip in the middle.
        center = (middle_first(settings.clips)[clip] + 0.5) / settings.clips
        if draws is not None:
            position = 0.5 + strength * (draws.uniform(shape=(size,)).numpy() - 0.5)
            start = center + strength * (draws.uniform().numpy() - center)
            ends = draws.uniform(0, settings.trim * strength, shape=(2,)).numpy()
            warp = draws.uniform(-settings.time_warp * strength, settings.time_warp * strength).numpy()
        for sample, row in enumerate(rows):
            onset, offset = float(self.table.onset[row]), float(self.table.offset[row])
            code = int(self.table.recording[row])
            for column in range(len(self.views)):
                span = self._spans.get((row, column))
                if span is None:
                    continue
                times = self._sources[code, column].time[slice(*span)]
                if settings.sampling == "dense":
                    run_start = center if draws is None else float(start[sample])
                    indices = dense_frames(times, size, start=run_start, rate=settings.rate, short=settings.short)
                else:
                    shares = (
                        even_shares(size, position=center)
                        if draws is None
                        else even_shares(
                            size, position=position[sample], trim=tuple(ends[sample]), warp=float(warp[sample])
                        )
                    )
                    indices = even_frames(times, onset, offset, shares)
                frames[sample, column] = span[0] + indices
        return frames

    def _gather(self, rows: Sequence[int], columns: np.ndarray, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """Frames (B, V, T, C, H, W) uint8, and the height and width (B, V, 2) of each."""
        import torch

        size = np.zeros((*columns.shape, 2), np.int64)
        index = np.full((*columns.shape, frames.shape[2]), -1, np.int64)
        images: Tensor | None = None
        if self._bank is None:
            images = torch.zeros((*index.shape, self._num_channels, self._height, self._width), dtype=torch.uint8)
        for sample, row in enumerate(rows):
            code = int(self.table.recording[row])
            for slot, column in enumerate(columns[sample].tolist()):
                size[sample, slot] = self._height, self._width
                if (row, column) not in self._spans:
                    continue
                height, width = size[sample, slot] = self._sources[code, column].size
                indices = frames[sample, column]
                if self._bank is not None:
                    index[sample, slot] = self._bank.start[code, column] + indices
                else:
                    assert images is not None
                    images[sample, slot, :, :, :height, :width] = torch.from_numpy(self._read(code, column, indices))
        if self._bank is None:
            assert images is not None
            return images, torch.from_numpy(size)
        return self._bank.gather(index), torch.from_numpy(size).to(self._bank.images.device)

    def _read(self, code: int, column: int, indices: np.ndarray) -> np.ndarray:
        """Frames (n, C, H, W) uint8; repeated frames are read once."""
        item = self.store.item(self.product, self.table.recordings[code], self.views[column])
        needed, inverse = np.unique(indices, return_inverse=True)
        frames = self._stored_frames(item, needed).transpose(0, 3, 1, 2)
        if self.settings.reads_keypoints:
            raster = self._keypoints(item, code, column, needed, frames.shape[2:])
            frames = np.concatenate([frames, 255 * raster[:, None]], axis=1)
        return frames[inverse]

    def _keypoints(
        self, item: ItemReader, code: int, column: int, indices: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray:
        """Raster of the joints (n, H, W), uint8 of 0 and 1; raises UserError if a view has no 2D poses."""
        from actionprep.datasets.poses.raster import has_raster, pose_raster, poses_in_frames
        from actionprep.datasets.products.poses import read_pose_item

        if "keypoints" in item:
            return (item["keypoints"][indices] > 0).astype(np.uint8)
        recording, view = self.table.recordings[code], self.views[column]
        if (code, column) not in self._poses:
            if not self.store.has("pose", recording, view):
                raise UserError(
                    f"Recording '{recording}' has {self.product} but no poses in view '{view}' of {self.store.url}, and "
                    f'input.channels = "{self.settings.channels}" needs both. {build_hint("pose")}, choose views with '
                    "--views, or set input.channels=rgb."
                )
            self._poses[code, column] = read_pose_item(self.store.item("pose", recording, view))
        poses = self._poses[code, column]
        if not has_raster(poses):
            raise UserError(
                f"pose/{recording}/{view} in {self.store.url} cannot be drawn into frames: keypoint channels need 2D poses "
                "in pixels, with a known frame size. Create them from the videos with 'actionprep pose', or set "
                "input.channels=rgb."
            )
        where = f"{self.product}/{recording}/{view} in {self.store.url}"
        poses = poses_in_frames(poses, item.attributes, where)
        return pose_raster(poses, self._sources[code, column].time[indices], size=size)

    def _cut(
        self, images: Tensor, box: Tensor, within: Tensor, draws: Draws | None, strength: float, crop: int
    ) -> Tensor:
        """Clips (B, C, T, S, S) or (B, V, C, T, S, S), float32 in 0..255. All views of a sample are augmented alike."""
        import torch

        from actionprep.training.inputs._frames import cut, recolored

        settings, num_views = self.settings, images.shape[1]
        angle = mirrored = None
        colors: dict[str, Tensor] = {}
        if draws is None:
            boxes = self._crop_boxes(box, None, None, strength, crop)
        else:
            drawn = draws.uniform(-1, 1, shape=(10,)).to(box.device)
            share = torch.stack([drawn[:, 0], drawn[:, 1], drawn[:, 2]], 1)
            boxes = self._crop_boxes(box, share, drawn[:, 3:5], strength, crop)
            angle = (drawn[:, 5] * settings.rotation * strength).repeat_interleave(num_views)
            if settings.flip and draws.variant is None:
                mirrored = self.mirrored(draws).to(box.device).repeat_interleave(num_views)
            colors = {
                "brightness": 1 + drawn[:, 6] * settings.brightness * strength,
                "contrast": 1 + drawn[:, 7] * settings.contrast * strength,
                "saturation": 1 + drawn[:, 8] * settings.saturation * strength,
                "gray": (drawn[:, 9] + 1) / 2 < settings.gray * strength,
            }
        clips = cut(
            images.flatten(0, 1), boxes.flatten(0, 1), settings.size,
            angle=angle, mirrored=mirrored, within=within.flatten(0, 1),
        )  # fmt: skip
        if colors and (settings.brightness or settings.contrast or settings.saturation or settings.gray):
            factors = {name: values.repeat_interleave(num_views) for name, values in colors.items()}
            clips = torch.cat([recolored(clips[:, :3], **factors), clips[:, 3:]], 1)
        return clips if num_views == 1 else clips.unflatten(0, (-1, num_views))

    def _crop_boxes(
        self, region: Tensor, drawn: Tensor | None, shift: Tensor | None, strength: float, crop: int
    ) -> Tensor:
        """Boxes (B, V, 4) to crop out of the regions; drawn (B, 3) and shift (B, 2) are in [-1, 1)."""
        import torch

        settings = self.settings
        low, high = region[..., :2], region[..., 2:]
        room = high - low
        short = room.amin(-1, keepdim=True)
        anchor = region.new_tensor(settings.anchor)
        share = torch.full_like(short, settings.test_crop)
        if crop:
            # Both ends of the longer side; of a square, left and right.
            along = torch.where(
                room[..., :1] >= room[..., 1:], region.new_tensor([1.0, 0.0]), region.new_tensor([0.0, 1.0])
            )
            anchor = anchor * (1 - along) + along * (crop - 1)
        if drawn is not None:
            smallest, largest = settings.crop
            if strength < 1:
                # Variants of tests vary around the test crop, by a part of the range in training.
                smallest, largest = (
                    settings.test_crop + strength * (end - settings.test_crop) for end in (smallest, largest)
                )
            share = (smallest + (largest - smallest) * (drawn[:, None, :1] + 1) / 2).expand_as(short)
            lowest, highest = (
                anchor * (1 - settings.around * strength),
                anchor + (1 - anchor) * settings.around * strength,
            )
            anchor = lowest + (highest - lowest) * (drawn[:, None, 1:] + 1) / 2
        side = share * (short if settings.fit == "crop" else room)
        start = low + anchor * (room - side)
        if shift is not None and settings.shift:
            start = start + shift[:, None] * settings.shift * strength * side
        return torch.cat([start, start + side.expand_as(start)], -1)

    def _region(self, row: int, column: int) -> tuple[float, float, float, float]:
        code = int(self.table.recording[row])
        source = self._sources.get((code, column))
        if source is None or (row, column) not in self._spans:
            return 0.0, 0.0, float(self._width), float(self._height)
        full_frame = (0.0, 0.0, float(source.size[1]), float(source.size[0]))
        if self.settings.region == "frame":
            return full_frame
        if (row, column) not in self._boxes:
            from actionprep.training.inputs._frames import motion_box

            first, last = self._spans[row, column]
            # Close to the frames of a clip, but independent of random numbers.
            indices = np.unique(
                np.linspace(first, last - 1, min(_MOTION_FRAMES, last - first)).round().astype(np.int64)
            )
            box = motion_box(
                self._read(code, column, indices)[:, :3].transpose(0, 2, 3, 1), margin=self.settings.margin
            )
            self._boxes[row, column] = full_frame if box is None else box
        return self._boxes[row, column]

    def _needed_frames(self) -> dict[tuple[int, int], tuple[int, int]]:
        """First frame and frame after the last that any snippet needs, of each recording and view."""
        needed: dict[tuple[int, int], tuple[int, int]] = {}
        for (row, column), (first, last) in self._spans.items():
            key = int(self.table.recording[row]), column
            low, high = needed.get(key, (first, last))
            needed[key] = min(low, first), max(high, last)
        return needed
