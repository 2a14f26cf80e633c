"""Synthetic poses of people with known motion, and stored items of these."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from actionprep.datasets.poses.formats.pose_npz import write_pose_npz
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.products.poses import write_pose_item
from actionprep.datasets.store.zarr_store import Store


def made_poses(
    num_frames: int = 12,
    num_persons: int = 1,
    *,
    layout: str = "coco17",
    dimensions: int = 2,
    image_size: tuple[int, int] | None = (96, 128),
    fps: float = 30.0,
    seed: int = 0,
    linked: bool = True,
) -> PoseSequence:
    """People at different places who drift to the right by half a pixel per frame. Person 0 is the largest."""
    joints = skeleton(layout).num_joints
    generator = np.random.default_rng(seed)
    body = generator.uniform(0, 1, (num_persons, joints, dimensions))
    size = 40 - 8 * np.arange(num_persons)[:, None, None]
    start = np.arange(num_persons)[:, None, None] * 42.0 + 4
    points = (body * size + start)[None] + 0.5 * np.arange(num_frames)[:, None, None, None]
    ids = np.broadcast_to(np.arange(num_persons), (num_frames, num_persons))
    return PoseSequence.of(
        points,
        np.full(points.shape[:3], 0.9),
        skeleton=layout,
        track_id=ids if linked else None,
        image_size=image_size,
        time=np.arange(num_frames) / fps,
    )


def store_poses(store: Store, recording: str, poses: PoseSequence, *, view: str = "0", **settings: object) -> None:
    """Write poses to a store, as the pose stage does."""
    with store.write("pose", recording, view, fingerprint=recording, provenance={"stage": "pose"}) as item:
        write_pose_item(item, poses, estimator="made", **settings)


def write_npz(path: Path, poses: PoseSequence, **known: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pose_npz(path, PoseItem(path.stem, poses, **known))  # type: ignore[arg-type]
    return path


def only(items: Iterable[PoseItem]) -> PoseItem:
    """Return the only item of the store."""
    [item] = items
    return item


def sequence(frames: int = 5, persons: int = 2, dims: int = 2, layout: str = "coco17", **more: object) -> PoseSequence:
    """Persons at random places, with three joints that are missing in the first frame."""
    rng = np.random.default_rng(1)
    shape = (frames, persons, skeleton(layout).num_joints)
    score = rng.uniform(0.1, 1, shape)
    score[0, 0, :3] = 0
    return PoseSequence.of(rng.uniform(0, 99, (*shape, dims)), score, skeleton=layout, **more)
