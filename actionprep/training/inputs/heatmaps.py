"""Heatmap volumes as model input: rendered from poses when they are read, a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import field_validator

from actionprep.errors import UserError
from actionprep.settings import option
from actionprep.training.inputs._stored_volumes import StoredVolumes
from actionprep.training.inputs.base import Batch, ProductReader
from actionprep.training.inputs.joint_augmentation import body_frame
from actionprep.training.inputs.pose import PoseSamples, PoseSampling, frames_end
from actionprep.training.inputs.rng import Draws

if TYPE_CHECKING:
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store

Plane = Literal["xy", "xz", "yz"]


class HeatmapsInput(PoseSampling):
    """How poses are sampled and augmented, and how they become volumes."""

    frames: int = option(48, "Instants of a snippet that the model sees.", ge=1)
    sampling: Literal["smooth", "segments"] = option(
        "segments",
        "segments: one frame of each of as many equal segments, as published with PoseConv3D; smooth: evenly spaced "
        "instants of a part of the snippet, joints interpolated. Frames that show nobody are left out.",
    )
    source: Literal["pose", "stored"] = option(
        "pose",
        "pose: volumes are rendered from poses when they are read, and joints are changed at random before; stored: "
        "those of 'actionprep heatmaps' are read, and only sampled in time.",
    )
    kind: Literal["joint", "limb"] = option("joint", "One channel a joint, or one a limb.")
    size: tuple[int, int] = option((56, 56), "Height and width of the maps in px.")
    sigma: float = option(0.6, "Standard deviation of the Gaussians in px of the maps.", gt=0)
    truncate: float | None = option(3.0, "Where they are cut off, in sigmas, as published; none: nowhere.", gt=0)
    merge: Literal["max", "separate", "channels"] = option(
        "max",
        "Several persons of a view: max merges them in one volume, as published; separate gives each a volume of its "
        "own, for models that read those; channels puts these side by side.",
    )
    planes: tuple[Plane, ...] = option(
        ("xy", "xz", "yz"), "3D: planes that joints are projected to, their maps side by side."
    )
    camera: tuple[float, ...] = option(
        (), "3D: see the joints with this camera instead of planes: the 12 numbers of its 3 x 4 matrix, row by row."
    )
    compact: bool = option(True, "Crop to the people of the snippet; else the whole image is shown.")
    padding: float = option(0.25, "How much the box around the people is widened, as a share of its side.", ge=0)
    square: bool = option(True, "Make that box square.")
    reach: float = option(
        0.0,
        "0: that box is tight around the people, as published; else it reaches so many body sizes to each side of the mean "
        "joint, whatever the pose, so that a hand above the head does not shrink the rest.",
        ge=0,
    )
    crop_area: tuple[float, float] = option(
        (0.56, 1.0), "In training a random part of the box: smallest and largest share of its area."
    )
    crop_aspect: float = option(4 / 3, "In training the most that part is wider than high, or higher than wide.", ge=1)

    @field_validator("size")
    @classmethod
    def _positive(cls, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < 1:
            raise ValueError("Maps need at least one pixel in each direction.")
        return size

    @field_validator("crop_area")
    @classmethod
    def _share(cls, area: tuple[float, float]) -> tuple[float, float]:
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError("Shares of the area rise, above 0 and up to 1, such as [0.56, 1.0].")
        return area

    @field_validator("camera")
    @classmethod
    def _twelve(cls, camera: tuple[float, ...]) -> tuple[float, ...]:
        if len(camera) not in (0, 12):
            raise ValueError(f"A camera is a matrix of 3 rows and 4 columns: 12 numbers, got {len(camera)}.")
        return camera

    @field_validator("planes")
    @classmethod
    def _some(cls, planes: tuple[Plane, ...]) -> tuple[Plane, ...]:
        if not planes:
            raise ValueError("Name at least one plane: xy, xz or yz.")
        return planes


class HeatmapsReader(PoseSamples):
    """Batches of heatmap volumes, from the poses of the store.

    clip     (B, C, T, H, W) float32 in 0..1, C = views · planes · joints (or limbs), side by side in this order; with
             merge = "channels" views · persons · planes · joints; with merge = "separate" (B, M, C, T, H, W), M the
             persons of all views and C = planes · joints
    duration (B) float32  seconds

    Training draws change the joints, and then volumes are rendered, on the device of the batch. 2D poses have no planes; a
    camera counts as one.
    Stored volumes (source = "stored") are taken as they are, frames sampled in the same way.
    """

    Settings = HeatmapsInput
    settings: HeatmapsInput

    def __init__(self, settings: HeatmapsInput, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        self.trims_persons = settings.merge != "channels"
        self._stored: StoredVolumes | None = None
        if settings.source == "stored":
            self._use_stored(settings, store, table, views)
            return
        super().__init__(settings, store, table, views)
        if not settings.compact and self.dims == 3:
            raise UserError("3D poses have no image to show whole. Leave compact = true, which crops to the people.")

    @classmethod
    def reads(cls, settings: Any) -> str:
        """Poses, of which volumes are rendered, or the stored ones."""
        return "heatmaps" if settings.source == "stored" else "pose"

    @classmethod
    def span(cls, store: Store, recording: str, views: Sequence[str]) -> tuple[float, float]:  # noqa: D102
        there = [view for view in views if store.has("heatmaps", recording, view)]
        if any(store.has("pose", recording, view) for view in views) or not there:
            return super().span(store, recording, views)
        times = [np.asarray(store.item("heatmaps", recording, view)["time"][:], np.float64) for view in there]
        return min(float(one[0]) for one in times), max(frames_end(one) for one in times)

    def read(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:  # noqa: D102
        if self._stored is not None:
            return self._read_stored(self._stored, rows, draws)
        points, score, bank, at = self._sampled(rows, draws)
        batch = {"duration": bank.duration[at]}
        if not self.settings.compact:
            batch["image_size"] = bank.image_size[at]
        if draws is None:
            return {**self._finished(points, score, batch, None), "duration": batch["duration"]}
        # What is drawn changes joints: `augment` renders them.
        return {**batch, "keypoints": points.flatten(1, 2), "score": score.flatten(1, 2)}

    def meanings(self) -> dict[str, str]:  # noqa: D102
        if (stored := self._stored) is not None:
            merge, kind = "separate" if stored.sees_persons else "max", stored.kind
            layout, channels = stored.skeleton, stored.channels
            drawn, planes = "as stored", ""
        else:
            merge, kind = self.settings.merge, self.settings.kind
            layout, channels = self.layout_name, self.layout.joints if kind == "joint" else self.layout.limb_names
            drawn = self._meaning_of_values()
            sides = ["one, of the camera"] if self.settings.camera else self.settings.planes
            planes = f"Planes: {'one, of the picture' if self.dims == 2 else ', '.join(sides)}. "
        persons = "person (those of one view after those of another), " if merge == "separate" else ""
        axes = {"max": ["views"], "channels": ["views", "persons"], "separate": []}[merge]
        axes += [*(["planes"] if planes else []), f"{kind}s of {layout}"]
        order = f"{', '.join(axes)}, the last changing fastest" if len(axes) > 1 else axes[0]
        return {
            "clip": f"heatmaps from 0 to 1, {drawn}; axes batch, {persons}channel ({order}), instant, y, x. Views: "
            f"{', '.join(self.views)}. {planes}{kind.capitalize()}s: {', '.join(channels)}",
            "duration": "length of the snippet in s; axes batch",
        }

    def _meaning_of_values(self) -> str:
        settings = self.settings
        gaussians = f"Gaussians of {settings.sigma:g} px"
        drawn = {
            "joint": f"{gaussians} around the joint times its score",
            "limb": f"{gaussians} of the distance to the limb times the lower score of its two ends, a limb shorter than "
            "1 px drawn as its first joint",
        }[settings.kind]
        cut = "" if settings.truncate is None else f", cut off {settings.truncate:g} sigmas away"
        merged = ", the largest of all persons" if settings.merge == "max" else ""
        return f"{drawn}{cut}{merged}"

    def times(self, rows: Sequence[int], draws: Draws | None = None) -> np.ndarray:  # noqa: D102
        # Each view of stored volumes gives the frame that lies at one share of its own.
        return ProductReader.times(self, rows, draws) if self._stored is not None else super().times(rows, draws)

    def augment(self, batch: Batch, draws: Draws) -> Batch:  # noqa: D102
        if self._stored is not None:
            return batch
        found = super().augment(batch, draws)
        found.pop("image_size", None)
        return found

    def cut(self, batch: Batch, partner: Tensor, share: Tensor, draws: Draws) -> tuple[Batch, Tensor]:
        """A span of time of each volume replaced; see the base."""
        clip = batch["clip"].movedim(-3, 1)
        instants = clip.new_ones(clip.shape[:2]).bool()
        mixed, stayed = super().cut({**batch, "clip": clip, "frame_valid": instants}, partner, share, draws)
        del mixed["frame_valid"]
        return {**mixed, "clip": mixed["clip"].movedim(1, -3)}, stayed

    def without_views(self, batch: Batch, keep: Sequence[bool]) -> Batch:  # noqa: D102
        clip = batch["clip"]
        by_view = clip.unflatten(1, (len(self.views), -1))
        kept = clip.new_tensor([float(one) for one in keep]).view(1, -1, *[1] * (by_view.ndim - 2))
        return {**batch, "clip": (by_view * kept).flatten(1, 2)}

    def model_sizes(self) -> dict[str, Any]:  # noqa: D102
        settings = self.settings
        if self._stored is not None:
            return self._stored_sizes(self._stored)
        channels = self.layout.num_joints if settings.kind == "joint" else len(self.layout.limbs)
        channels *= len(self._sides)
        if settings.merge != "separate":
            channels *= len(self.views)
        if settings.merge == "channels":
            channels *= settings.persons
        height, width = settings.size
        return {
            "num_views": len(self.views),
            "num_frames": settings.frames,
            "num_joints": channels,
            "in_channels": channels,
            "maps": len(self._sides) * (len(self.views) if settings.merge != "separate" else 1),
            "map_size": height,
            "image_size": height if height == width else [height, width],
        }

    def _use_stored(self, settings: HeatmapsInput, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        """Read the store's volumes; what changes joints has no meaning then."""
        self.settings, self.store, self.table, self.views = settings, store, table, tuple(views)
        self.check_store(settings, store)
        if settings.flip:
            raise UserError(
                "Stored heatmaps cannot be mirrored when they are read. Set input.flip = 0, or have volumes rendered from "
                'poses: input.source = "pose".'
            )
        self._stored = StoredVolumes(store, table, views)
        self._mirror, self._bank, self._latest, self.in_memory = None, None, None, False

    def _read_stored(self, stored: StoredVolumes, rows: Sequence[int], draws: Draws | None) -> Batch:
        import torch

        # Frames are chosen on a fine scale that all views share, each of which may have another number of them.
        size = torch.tensor([max((count for _, count in stored.frames(int(row))), default=0) for row in rows])
        instant = (self._instants(size, draws) + 0.5) / size.clamp(min=1)[:, None]
        clips = [stored.read(int(row), share.numpy()) for row, share in zip(rows, instant, strict=True)]
        at = np.asarray(rows, np.int64)
        duration = torch.from_numpy((self.table.offset[at] - self.table.onset[at]).astype(np.float32))
        return {"clip": torch.cat(clips), "duration": duration}

    def _stored_sizes(self, stored: StoredVolumes) -> dict[str, Any]:
        channels, height, width = stored.shape[-3:]
        views = 1 if stored.sees_persons else len(self.views)
        return {
            "num_views": len(self.views),
            "num_frames": self.settings.frames,
            "num_joints": channels * views,
            "in_channels": channels * views,
            "maps": views,
            "map_size": height,
            "image_size": height if height == width else [height, width],
        }

    @property
    def _sides(self) -> tuple[Plane | list[list[float]], ...]:
        """What joints are projected with, one after the other: planes, or the camera."""
        if self.dims == 2:
            return ("xy",)
        camera = list(self.settings.camera)
        return ([camera[0:4], camera[4:8], camera[8:12]],) if camera else self.settings.planes

    def _finished(self, points: Tensor, score: Tensor, batch: Batch, draws: Draws | None) -> Batch:
        import torch

        from actionprep.datasets.poses.heatmaps import joint_heatmaps, limb_heatmaps, project, to_grid

        settings, views = self.settings, len(self.views)
        flat = [(points, score)] if self.dims == 2 else [project(points, score, side) for side in self._sides]
        # Views and planes of all samples are rendered as one batch: (B, V, P, M, T, K, 2) and (B, V, P, M, T, K)
        xy, seen = torch.stack([one for one, _ in flat], 2), torch.stack([one for _, one in flat], 2)
        samples = xy.shape[0]
        xy, seen = xy.flatten(0, 2), seen.flatten(0, 2)
        if settings.compact and settings.reach:
            # Planes of one pose are shown at one scale.
            sizes = body_frame(points, score)[1] if self.dims == 3 and not settings.camera else None
            boxes = torch.stack([_body_box(*one, settings.reach, sizes) for one in flat], 2).flatten(0, 2)
        elif settings.compact:
            boxes = _boxes(xy, seen, padding=settings.padding, square=settings.square)
        else:
            boxes = self._image_boxes(batch["image_size"])
        if draws is not None and draws.variant is None:
            boxes = _random_part(boxes, draws, views * len(flat), settings.crop_area, settings.crop_aspect)
        how: dict[str, Any] = {
            "size": settings.size,
            "sigma": settings.sigma,
            "truncate": settings.truncate,
            "persons": "max" if settings.merge == "max" else "separate",
        }
        placed = to_grid(xy, boxes, settings.size)
        if settings.kind == "joint":
            clip = joint_heatmaps(placed, seen, **how)
        else:
            clip = limb_heatmaps(placed, seen, self.layout, **how)
        clip = clip.unflatten(0, (samples, views, len(flat)))
        if settings.merge == "max":
            return {"clip": clip.flatten(1, 3)}
        clip = clip.transpose(2, 3)  # (B, V, M, P, C, T, H, W)
        return {"clip": clip.flatten(1, 4) if settings.merge == "channels" else clip.flatten(3, 4).flatten(1, 2)}

    def _image_boxes(self, image_size: Tensor) -> Tensor:
        """(B · V, 4) the whole image; raises UserError where its size is not known."""
        import torch

        if bool((image_size <= 0).any()):
            raise UserError(
                "Heatmaps of the whole image need its size, which these poses do not have. Import them with the size, "
                "or let volumes be cropped to the people (compact = true)."
            )
        height, width = image_size.flatten(0, 1).unbind(-1)
        return torch.stack([torch.zeros_like(width), torch.zeros_like(height), width, height], -1)


def _body_box(xy: Tensor, score: Tensor, reach: float, sizes: Tensor | None) -> Tensor:
    """(B, V, 4) squares around the mean joint of each view of xy (B, V, M, T, K, 2).

    sizes (B, V): body sizes; None: those in these pictures.
    """
    import torch

    center, size = body_frame(xy, score)
    half = reach * (size if sizes is None else sizes)[..., None]
    return torch.cat([center - half, center + half], -1)


def _boxes(xy: Tensor, score: Tensor, *, padding: float, square: bool) -> Tensor:
    """(N, 4) around all joints seen; of a sample that shows nobody, or one place only, a box of side 1 or so."""
    import torch

    from actionprep.datasets.poses.heatmaps import compact_boxes

    boxes = compact_boxes(xy, score, padding=padding, square=square, least_side=0.0)
    side = boxes[:, 2:] - boxes[:, :2]
    center = (boxes[:, 2:] + boxes[:, :2]) / 2
    least = 1e-6 * (1 + center.abs())
    half = torch.where(side > least, side, side.amax(-1, keepdim=True).clamp(min=1e-3)) / 2
    return torch.cat([center - half, center + half], -1)


def _random_part(boxes: Tensor, draws: Draws, num_each: int, area: tuple[float, float], aspect: float) -> Tensor:
    """A random part of each box, as random resized cropping takes it of an image; (B · num_each, 4).

    Its area is uniform in `area`, its aspect log-uniform; of ten drawn the first that fits is taken, else the whole box.
    """
    import torch

    tries = 10
    drawn = draws.uniform(shape=(num_each, tries, 4)).flatten(0, 1).to(boxes.device)
    low, side = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    share = area[0] + (area[1] - area[0]) * drawn[..., 0]
    shape = torch.exp((2 * drawn[..., 1] - 1) * math.log(aspect))
    surface = share * (side[:, 0] * side[:, 1])[:, None]
    parts = torch.stack([(surface * shape).sqrt(), (surface / shape).sqrt()], -1)  # (N, tries, 2) width, height
    fits = (parts <= side[:, None]).all(-1)
    # argmax gives the first of equals.
    first = fits.float().argmax(1)[:, None, None]
    part = parts.gather(1, first.expand(-1, 1, 2))[:, 0]
    place = drawn[..., 2:].gather(1, first.expand(-1, 1, 2))[:, 0]
    none = ~fits.any(1, keepdim=True)
    part = torch.where(none, side, part)
    corner = low + place * (side - part)
    return torch.cat([corner, corner + part], -1)
