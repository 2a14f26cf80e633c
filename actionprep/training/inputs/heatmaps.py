"""Heatmap volumes as model input, rendered from poses one batch at a time."""

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
from actionprep.training.inputs.pose import PoseSamples, PoseSampling, end_of_frames
from actionprep.training.inputs.rng import Draws

if TYPE_CHECKING:
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store

Plane = Literal["xy", "xz", "yz"]


class HeatmapsInput(PoseSampling):
    """How poses are sampled and augmented, and rendered as volumes."""

    frames: int = option(48, "Time steps per snippet.", ge=1)
    sampling: Literal["smooth", "segments", "pyskl"] = option(
        "segments",
        "segments: one frame from each of as many equal segments, the middle one in tests; pyskl: the frames that PySKL "
        "chooses, which loop in short snippets, as published with PoseConv3D; smooth: evenly spaced time steps of a part of "
        "the snippet, with interpolated joints. Frames without a person are skipped, except by pyskl.",
    )
    source: Literal["pose", "stored"] = option(
        "pose",
        "pose: render volumes from poses, with augmented joints in training; stored: read the volumes of 'actionprep "
        "heatmaps', which are only sampled in time.",
    )
    kind: Literal["joint", "limb"] = option("joint", "One channel per joint or per limb.")
    size: tuple[int, int] = option((56, 56), "Height and width of the maps in pixels.")
    sigma: float = option(0.6, "Standard deviation of the Gaussians in pixels of the maps.", gt=0)
    truncate: float | None = option(3.0, "Cut-off of the Gaussians in sigmas, as published; not set: no cut-off.", gt=0)
    merge: Literal["max", "separate", "channels"] = option(
        "max",
        "Several persons in a view: max merges them in one volume, as published; separate renders one volume per person, "
        "for models that support it; channels puts these volumes side by side.",
    )
    planes: tuple[Plane, ...] = option(
        ("xy", "xz", "yz"), "3D: planes that joints are projected on, with their maps side by side."
    )
    camera: tuple[float, ...] = option(
        (), "3D: project joints with this camera instead of on planes: the 12 numbers of its 3 x 4 matrix, row by row."
    )
    compact: bool = option(True, "Crop to the people in the snippet; otherwise the full image is shown.")
    padding: float = option(0.25, "Padding of the box around the people, as a share of its side.", ge=0)
    square: bool = option(True, "Make the box square.")
    reach: float = option(
        0.0,
        "0: the box is tight around the people, as published; otherwise it extends by this many body sizes from the mean "
        "joint to each side, whatever the pose, so that a raised hand does not shrink the rest.",
        ge=0,
    )
    crop_area: tuple[float, float] = option(
        (0.56, 1.0), "Training crops of the box: smallest and largest share of its area."
    )
    crop_aspect: float = option(4 / 3, "Training crops of the box: largest aspect ratio.", ge=1)

    @field_validator("size")
    @classmethod
    def _positive(cls, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < 1:
            raise ValueError("size must be at least 1 pixel in each direction.")
        return size

    @field_validator("crop_area")
    @classmethod
    def _share(cls, area: tuple[float, float]) -> tuple[float, float]:
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError("crop_area must be two increasing shares in (0, 1], such as [0.56, 1.0].")
        return area

    @field_validator("camera")
    @classmethod
    def _twelve(cls, camera: tuple[float, ...]) -> tuple[float, ...]:
        if len(camera) not in (0, 12):
            raise ValueError(f"camera must be a 3 x 4 matrix: 12 numbers, got {len(camera)}.")
        return camera

    @field_validator("planes")
    @classmethod
    def _some(cls, planes: tuple[Plane, ...]) -> tuple[Plane, ...]:
        if not planes:
            raise ValueError("planes must contain at least one of xy, xz and yz.")
        return planes


class HeatmapsReader(PoseSamples):
    """Batches of heatmap volumes, rendered from the poses of the store.

    Arrays of a batch:

    - clip: (B, C, T, H, W) float32 in 0..1, with C = views · planes · joints (or limbs), side by side in this order.
      With merge = "channels", C = views · persons · planes · joints. With merge = "separate", (B, M, C, T, H, W) with
      the M persons of all views and C = planes · joints.
    - duration: (B,) float32, seconds.

    In training, joints are augmented before volumes are rendered, on the device of the batch. 2D poses have a single
    plane, and a camera counts as one. Stored volumes (source = "stored") are used as they are, with frames sampled in
    the same way.
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
            raise UserError("3D poses have no image to show in full. Set compact = true, which crops to the people.")

    @classmethod
    def reads(cls, settings: Any) -> str:
        """Return "pose", or "heatmaps" if stored volumes are read."""
        return "heatmaps" if settings.source == "stored" else "pose"

    @classmethod
    def span(cls, store: Store, recording: str, views: Sequence[str]) -> tuple[float, float]:  # noqa: D102
        stored = [view for view in views if store.has("heatmaps", recording, view)]
        if any(store.has("pose", recording, view) for view in views) or not stored:
            return super().span(store, recording, views)
        times = [np.asarray(store.item("heatmaps", recording, view)["time"][:], np.float64) for view in stored]
        return min(float(time[0]) for time in times), max(end_of_frames(time) for time in times)

    def read(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:  # noqa: D102
        if self._stored is not None:
            return self._read_stored(self._stored, rows, draws)
        points, score, bank, snippets = self._sample(rows, draws)
        batch = {"duration": bank.duration[snippets]}
        if not self.settings.compact:
            batch["image_size"] = bank.image_size[snippets]
        if draws is None:
            return {**self._model_inputs(points, score, batch, None), "duration": batch["duration"]}
        # Random numbers change joints, which `augment` renders afterwards.
        return {**batch, "keypoints": points.flatten(1, 2), "score": score.flatten(1, 2)}

    def meanings(self) -> dict[str, str]:  # noqa: D102
        if (stored := self._stored) is not None:
            merge, kind = "separate" if stored.sees_persons else "max", stored.kind
            layout, channels = stored.skeleton, stored.channels
            values, planes = "as stored", ""
        else:
            merge, kind = self.settings.merge, self.settings.kind
            layout, channels = self.layout_name, self.layout.joints if kind == "joint" else self.layout.limb_names
            values = self._meaning_of_values()
            projections = ["one, of the camera"] if self.settings.camera else self.settings.planes
            planes = f"Planes: {'one, of the image' if self.dims == 2 else ', '.join(projections)}. "
        persons = "person (those of one view after those of another), " if merge == "separate" else ""
        axes = {"max": ["views"], "channels": ["views", "persons"], "separate": []}[merge]
        axes += [*(["planes"] if planes else []), f"{kind}s of {layout}"]
        order = f"{', '.join(axes)}, the last changing fastest" if len(axes) > 1 else axes[0]
        return {
            "clip": f"heatmaps from 0 to 1, {values}; axes batch, {persons}channel ({order}), time step, y, x. Views: "
            f"{', '.join(self.views)}. {planes}{kind.capitalize()}s: {', '.join(channels)}",
            "duration": "length of the snippet in s; axes batch",
        }

    def _meaning_of_values(self) -> str:
        settings = self.settings
        gaussians = f"Gaussians of {settings.sigma:g} px"
        rendering = {
            "joint": f"{gaussians} around the joint times its score",
            "limb": f"{gaussians} of the distance to the limb times the lower score of its two ends, with a limb shorter "
            "than 1 px rendered as its first joint",
        }[settings.kind]
        cutoff = "" if settings.truncate is None else f", cut off {settings.truncate:g} sigmas away"
        merged = ", the maximum over persons" if settings.merge == "max" else ""
        return f"{rendering}{cutoff}{merged}"

    def times(self, rows: Sequence[int], draws: Draws | None = None) -> np.ndarray:  # noqa: D102
        # Stored volumes have no common times: each view shows the frame at the same share of its frames.
        return ProductReader.times(self, rows, draws) if self._stored is not None else super().times(rows, draws)

    def augment(self, batch: Batch, draws: Draws) -> Batch:  # noqa: D102
        if self._stored is not None:
            return batch
        augmented = super().augment(batch, draws)
        augmented.pop("image_size", None)
        return augmented

    def cut(self, batch: Batch, partner: Tensor, share: Tensor, draws: Draws) -> tuple[Batch, Tensor]:
        """Replace a span of time of each volume; see the base class."""
        clip = batch["clip"].movedim(-3, 1)
        steps = clip.new_ones(clip.shape[:2]).bool()
        mixed, kept = super().cut({**batch, "clip": clip, "frame_valid": steps}, partner, share, draws)
        del mixed["frame_valid"]
        return {**mixed, "clip": mixed["clip"].movedim(1, -3)}, kept

    def without_views(self, batch: Batch, keep: Sequence[bool]) -> Batch:  # noqa: D102
        clip = batch["clip"]
        by_view = clip.unflatten(1, (len(self.views), -1))
        kept = clip.new_tensor([float(flag) for flag in keep]).view(1, -1, *[1] * (by_view.ndim - 2))
        return {**batch, "clip": (by_view * kept).flatten(1, 2)}

    def model_sizes(self) -> dict[str, Any]:  # noqa: D102
        settings = self.settings
        if self._stored is not None:
            return self._stored_sizes(self._stored)
        channels = self.layout.num_joints if settings.kind == "joint" else len(self.layout.limbs)
        channels *= len(self._projections)
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
            "maps": len(self._projections) * (len(self.views) if settings.merge != "separate" else 1),
            "map_size": height,
            "image_size": height if height == width else [height, width],
        }

    def _use_stored(self, settings: HeatmapsInput, store: Store, table: SnippetTable, views: Sequence[str]) -> None:
        """Read stored volumes. Settings that change joints have no effect."""
        self.settings, self.store, self.table, self.views = settings, store, table, tuple(views)
        self.check_store(settings, store)
        if settings.flip:
            raise UserError(
                "Stored heatmaps cannot be mirrored. Set input.flip = 0, or render volumes from poses: input.source = "
                '"pose".'
            )
        self._stored = StoredVolumes(store, table, views)
        self._mirror, self._bank, self._latest, self.in_memory = None, None, None, False

    def _read_stored(self, stored: StoredVolumes, rows: Sequence[int], draws: Draws | None) -> Batch:
        import torch

        # Frames are chosen as shares that all views have in common, because their numbers of frames can differ.
        size = torch.tensor([max((count for _, count in stored.frames(int(row))), default=0) for row in rows])
        shares = (self._steps(size, draws) + 0.5) / size.clamp(min=1)[:, None]
        clips = [stored.read(int(row), share.numpy()) for row, share in zip(rows, shares, strict=True)]
        row_array = np.asarray(rows, np.int64)
        duration = torch.from_numpy((self.table.offset[row_array] - self.table.onset[row_array]).astype(np.float32))
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
    def _projections(self) -> tuple[Plane | list[list[float]], ...]:
        """Projections of joints, one after the other: planes, or the camera."""
        if self.dims == 2:
            return ("xy",)
        camera = list(self.settings.camera)
        return ([camera[0:4], camera[4:8], camera[8:12]],) if camera else self.settings.planes

    def _model_inputs(self, points: Tensor, score: Tensor, batch: Batch, draws: Draws | None) -> Batch:
        import torch

        from actionprep.datasets.poses.heatmaps import joint_heatmaps, limb_heatmaps, project, to_grid

        settings, views = self.settings, len(self.views)
        flat = (
            [(points, score)]
            if self.dims == 2
            else [project(points, score, projection) for projection in self._projections]
        )
        # Views and planes of all samples form one batch: (B, V, P, M, T, K, 2) and (B, V, P, M, T, K).
        xy, visible = torch.stack([values for values, _ in flat], 2), torch.stack([values for _, values in flat], 2)
        samples = xy.shape[0]
        xy, visible = xy.flatten(0, 2), visible.flatten(0, 2)
        if settings.compact and settings.reach:
            # All planes of a pose have the same scale.
            sizes = body_frame(points, score)[1] if self.dims == 3 and not settings.camera else None
            boxes = torch.stack([_body_box(*values, settings.reach, sizes) for values in flat], 2).flatten(0, 2)
        elif settings.compact:
            boxes = _boxes(xy, visible, padding=settings.padding, square=settings.square)
        else:
            boxes = self._full_image_boxes(batch["image_size"])
        if draws is not None and draws.variant is None:
            boxes = _random_crop(boxes, draws, views * len(flat), settings.crop_area, settings.crop_aspect)
        rendering: dict[str, Any] = {
            "size": settings.size,
            "sigma": settings.sigma,
            "truncate": settings.truncate,
            "persons": "max" if settings.merge == "max" else "separate",
        }
        grid_xy = to_grid(xy, boxes, settings.size)
        if settings.kind == "joint":
            clip = joint_heatmaps(grid_xy, visible, **rendering)
        else:
            clip = limb_heatmaps(grid_xy, visible, self.layout, **rendering)
        clip = clip.unflatten(0, (samples, views, len(flat)))
        if settings.merge == "max":
            return {"clip": clip.flatten(1, 3)}
        clip = clip.transpose(2, 3)  # (B, V, M, P, C, T, H, W)
        return {"clip": clip.flatten(1, 4) if settings.merge == "channels" else clip.flatten(3, 4).flatten(1, 2)}

    def _full_image_boxes(self, image_size: Tensor) -> Tensor:
        """Boxes of the full image, shape (B · V, 4).

        Raises:
            UserError: If its size is unknown.
        """
        import torch

        if bool((image_size <= 0).any()):
            raise UserError(
                "Heatmaps of the full image require its size, which these poses do not have. Import the poses with the "
                "image size, or crop to the people (compact = true)."
            )
        height, width = image_size.flatten(0, 1).unbind(-1)
        return torch.stack([torch.zeros_like(width), torch.zeros_like(height), width, height], -1)


def _body_box(xy: Tensor, score: Tensor, reach: float, sizes: Tensor | None) -> Tensor:
    """Squares around the mean joint of each view, shape (B, V, 4).

    Args:
        xy: Joints of shape (B, V, M, T, K, 2).
        score: Scores of shape (B, V, M, T, K).
        reach: Half the side, in body sizes.
        sizes: Body sizes, shape (B, V); None: computed from `xy`.
    """
    import torch

    center, size = body_frame(xy, score)
    half = reach * (size if sizes is None else sizes)[..., None]
    return torch.cat([center - half, center + half], -1)


def _boxes(xy: Tensor, score: Tensor, *, padding: float, square: bool) -> Tensor:
    """Boxes around all visible joints, shape (N, 4). A sample without a person, or with a single point, gets a small box."""
    import torch

    from actionprep.datasets.poses.heatmaps import compact_boxes

    boxes = compact_boxes(xy, score, padding=padding, square=square, least_side=0.0)
    side = boxes[:, 2:] - boxes[:, :2]
    center = (boxes[:, 2:] + boxes[:, :2]) / 2
    smallest = 1e-6 * (1 + center.abs())
    half = torch.where(side > smallest, side, side.amax(-1, keepdim=True).clamp(min=1e-3)) / 2
    return torch.cat([center - half, center + half], -1)


def _random_crop(boxes: Tensor, draws: Draws, per_sample: int, area: tuple[float, float], aspect: float) -> Tensor:
    """Random crops of boxes, like random resized crops of images, shape (B · per_sample, 4).

    The area is uniform in `area` and the aspect ratio is log-uniform. The first of ten candidates that fits is used,
    otherwise the full box.
    """
    import torch

    num_tries = 10
    drawn = draws.uniform(shape=(per_sample, num_tries, 4)).flatten(0, 1).to(boxes.device)
    low, side = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    share = area[0] + (area[1] - area[0]) * drawn[..., 0]
    shape = torch.exp((2 * drawn[..., 1] - 1) * math.log(aspect))
    surface = share * (side[:, 0] * side[:, 1])[:, None]
    crops = torch.stack([(surface * shape).sqrt(), (surface / shape).sqrt()], -1)  # (N, tries, 2) width, height
    fits = (crops <= side[:, None]).all(-1)
    # argmax returns the first maximum.
    first = fits.float().argmax(1)[:, None, None]
    crop = crops.gather(1, first.expand(-1, 1, 2))[:, 0]
    position = drawn[..., 2:].gather(1, first.expand(-1, 1, 2))[:, 0]
    no_fit = ~fits.any(1, keepdim=True)
    crop = torch.where(no_fit, side, crop)
    corner = low + position * (side - crop)
    return torch.cat([corner, corner + crop], -1)
