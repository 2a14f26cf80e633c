"""Small stores of poses. The classes are the moving hand and its motion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from training_fakes import table_of, write_snippets

from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.store.zarr_store import Store

FPS = 10.0
CLASSES = ("raise_left", "raise_right", "spread")


def body(layout: str = "coco17", dims: int = 2) -> np.ndarray:
    """(K, C) joints of a standing person, about 100 px high, all at different positions."""
    names = skeleton(layout).joints
    rng = np.random.default_rng(7)
    points = rng.uniform(-10, 10, (len(names), dims)).astype(np.float32)
    for joint, name in enumerate(names):
        side = 25 if name.startswith("left") else -25 if name.startswith("right") else 0
        height = {"ankle": 50, "foot": 50, "knee": 30, "hip": 5, "wrist": 0, "hand": 5, "elbow": -10, "shoulder": -30}
        points[joint, 0] += side
        points[joint, 1] += next((y for part, y in height.items() if name.endswith(part)), -45)
    return points


def write_pose(
    store: Store,
    recording: str,
    view: str = "0",
    *,
    label: str = CLASSES[0],
    layout: str = "coco17",
    dims: int = 2,
    frames: int = 12,
    persons: int = 1,
    slots: int = 2,
    seed: int = 0,
    start: float = 0.0,
    image_size: tuple[int, int] | None = (240, 320),
    made: dict | None = None,
) -> None:
    """Person 0 does the action of the label. Others stand 80 px apart. The remaining slots are empty."""
    rng = np.random.default_rng(seed)
    found = skeleton(layout)
    moving = {"raise_left": ["left"], "raise_right": ["right"], "spread": ["left", "right"]}[label]
    points = np.zeros((frames, slots, found.num_joints, dims), np.float32)
    score = np.zeros(points.shape[:-1], np.float32)
    for person in range(persons):
        points[:, person] = body(layout, dims) + rng.normal(0, 0.5, (frames, found.num_joints, dims))
        score[:, person] = 0.9
        if person == 0:
            for joint, name in enumerate(found.joints):
                if any(name == f"{side}_wrist" for side in moving):
                    rise = 60 * np.sin(np.linspace(0, np.pi, frames))
                    points[:, 0, joint, 0 if label == "spread" else 1] -= rise * (-1 if name.startswith("left") else 1)
        points[:, person, :, :2] += np.float32([160 + 80 * person, 120])
    points *= score[..., None] > 0
    track_id = np.where(np.arange(slots) < persons, np.arange(slots), -1) * np.ones((frames, 1), np.int64)
    box = np.zeros((frames, slots, 4), np.float32)
    time = start + np.arange(frames) / FPS
    arrays = {
        "keypoints": (points, ("time", "person", "joint", "axis")),
        "score": (score, ("time", "person", "joint")),
        "bbox": (box, ("time", "person", "edge")),
        "track_id": (track_id.astype(np.int64), ("time", "person")),
        "filled": (np.zeros((frames, slots, found.num_joints), np.uint8), ("time", "person", "joint")),
        "index": (np.arange(frames), ("time",)),
        "time": (time, ("time",)),
    }
    put_pose(store, recording, view, arrays, made=made, skeleton=layout, image_size=image_size)


def put_pose(
    store: Store, recording: str, view: str, arrays: dict, *, made: dict | None = None, **attributes: object
) -> None:
    """Write an item of these arrays with their axes. made: settings of the stage."""
    origin = {"stage": "pose", "version": 1, "settings": made or {"estimator": "made up"}, "inputs": {}}
    with store.write("pose", recording, view, fingerprint=f"{recording}{view}", provenance=origin) as item:
        for name, (values, axes) in arrays.items():
            item.write(name, values, axes=axes)
        item.attributes.update(estimator="made up", **attributes)


def make_pose_store(
    folder: Path, *, subjects: int = 3, views: tuple[str, ...] = ("0",), repeats: int = 1, **options: object
) -> Store:
    """Create a store where every subject does every class. Recordings of 1.2 s have names like s1_spread_0."""
    store = Store(folder, create=True)
    recordings, labels, of_subject = [], [], []
    for subject in range(1, subjects + 1):
        for label in CLASSES:
            for repeat in range(repeats):
                name = f"s{subject}_{label}_{repeat}"
                recordings.append(name)
                labels.append(label)
                of_subject.append(str(subject))
                for view in views:
                    write_pose(store, name, view, label=label, seed=100 * len(recordings) + len(view), **options)
    write_snippets(store, table_of(recordings, labels, of_subject, seconds=1.2, names=CLASSES))
    return store


def one_recording(folder: Path, points: np.ndarray, score: np.ndarray | None = None, **attributes: object) -> Store:
    """A store of one recording with these keypoints (T, M, K, C)."""
    store = Store(folder, create=True)
    frames, persons = points.shape[:2]
    score = np.ones(points.shape[:-1], np.float32) if score is None else score
    arrays = {
        "keypoints": (points.astype(np.float32), ("time", "person", "joint", "axis")),
        "score": (score.astype(np.float32), ("time", "person", "joint")),
        "track_id": (np.tile(np.arange(persons), (frames, 1)), ("time", "person")),
        "time": (np.arange(frames) / FPS, ("time",)),
    }
    put_pose(store, "a", "0", arrays, **{"skeleton": "coco17", "image_size": [100, 100], **attributes})
    write_snippets(store, table_of(["a"], [CLASSES[0]], ["1"], seconds=frames / FPS, names=CLASSES))
    return store
