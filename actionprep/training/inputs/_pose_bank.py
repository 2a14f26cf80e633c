"""Poses of snippets in memory, and their joints at fractional time steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.datasets.poses.skeletons import convert, skeleton, skeleton_of_item
from actionprep.datasets.windows import frame_range
from actionprep.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store

# Maximum distance to the nearest frame with a person, beyond which a view has no person at a time step.
_NEAR_S = 0.5


@dataclass(frozen=True)
class PoseSource:
    """Frame times and sizes of a stored pose item.

    Attributes:
        time: Frame times in seconds, shape (T,).
        num_persons: Number of person slots.
        num_joints: Number of joints.
        dims: 2 or 3.
        skeleton: Name of the joint layout.
        image_size: Height and width in pixels, if known.
    """

    time: np.ndarray
    num_persons: int
    num_joints: int
    dims: int
    skeleton: str
    image_size: tuple[int, int] | None

    @classmethod
    def of(cls, store: Store, recording: str, view: str) -> Self:
        """Read the attributes and frame times of an item."""
        item = store.item("pose", recording, view)
        _, persons, joints, dims = item["keypoints"].shape
        size = item.attributes.get("image_size")
        return cls(
            np.asarray(item["time"][:], np.float64),
            int(persons),
            int(joints),
            int(dims),
            skeleton_of_item(item.attributes),
            None if size is None else (int(size[0]), int(size[1])),
        )

    def frames(self, onset: float, offset: float) -> tuple[int, int]:
        """Return the first frame in [onset, offset) and the frame after the last one."""
        return frame_range(self.time, onset, offset)


def pose_sources(store: Store, recordings: Sequence[str], views: Sequence[str]) -> list[dict[str, PoseSource]]:
    """List the pose items of each recording by view.

    Raises:
        UserError: If they differ in skeleton or dimension, so that they do not fit into one batch.
    """
    sources = [
        {view: PoseSource.of(store, recording, view) for view in views if store.has("pose", recording, view)}
        for recording in recordings
    ]
    kinds: dict[tuple[str, int], str] = {}
    for recording, by_view in zip(recordings, sources, strict=True):
        for view, source in by_view.items():
            kinds.setdefault((source.skeleton, source.dims), f"pose/{recording}/{view}")
    if len(kinds) > 1:
        listed = "; ".join(f"{name} in {dims}D ({item})" for (name, dims), item in kinds.items())
        raise UserError(
            f"The poses in {store.url} differ in kind, but a batch has a single kind: {listed}.\n"
            "Create all with the same estimator, or train on recordings and views of one kind (--views)."
        )
    return sources


@dataclass(frozen=True)
class PoseBank:
    """Frames of S snippets in which a person is visible, one view after the other.

    The time steps of a snippet are the times at which a person is visible in some view.

    Attributes:
        keypoints: (F, M, K, C) float32; row m is the same person throughout a snippet.
        score: (F, M, K) float32.
        first: Position of the first frame of each snippet and view, shape (S, V).
        count: Number of frames of each snippet and view, shape (S, V).
        position: Fractional frame index of each time step in each view, float64 of shape (U, V); between two frames if
            the view has none at that time, NaN if it has none nearby.
        start: Position of the first time step of each snippet, shape (S,).
        size: Number of time steps of each snippet, shape (S,).
        time: Time of each step in seconds, float64 of shape (U,).
        image_size: Height and width in pixels, shape (S, V, 2); 0 if unknown.
        duration: Duration in seconds, shape (S,).
    """

    keypoints: Tensor
    score: Tensor
    first: Tensor
    count: Tensor
    position: Tensor
    start: Tensor
    size: Tensor
    time: Tensor
    image_size: Tensor
    duration: Tensor

    @classmethod
    def load(
        cls,
        store: Store,
        table: SnippetTable,
        views: Sequence[str],
        sources: Sequence[dict[str, PoseSource]],
        rows: Sequence[int] | np.ndarray,
        *,
        layout: str,
        persons: int,
        min_score: float,
        trim: bool,
        skip_empty: bool = True,
    ) -> Self:
        """Read the poses of snippets.

        Args:
            store: Store to read.
            table: Table of snippets.
            views: Names of the views.
            sources: Pose items of each recording by view.
            rows: Rows of the table.
            layout: Skeleton that joints are converted to.
            persons: Maximum number of persons; those visible in most frames are kept.
            min_score: Joints with a lower score count as missing.
            trim: Remove person slots that are empty in all snippets.
            skip_empty: Leave out frames without a person.

        Returns:
            The poses.
        """
        import torch

        num_joints = skeleton(layout).num_joints
        dims = next((source.dims for by_view in sources for source in by_view.values()), 2)
        keypoints, scores = (
            [np.zeros((1, persons, num_joints, dims), np.float32)],
            [np.zeros((1, persons, num_joints), np.float32)],
        )
        first, count = np.zeros((len(rows), len(views)), np.int64), np.zeros((len(rows), len(views)), np.int64)
        image_size = np.zeros((len(rows), len(views), 2), np.float32)
        positions, start, size = [np.full((1, len(views)), np.nan)], np.zeros(len(rows), np.int64), []
        step_times = [np.zeros(1)]
        total, total_steps = 1, 1
        latest: tuple[tuple[int, str], PoseSequence] | None = None
        for snippet, row in enumerate(rows):
            code = int(table.recording[row])
            times: list[np.ndarray] = []
            for column, view in enumerate(views):
                source = sources[code].get(view)
                times.append(np.zeros(0))
                if source is None:
                    continue
                image_size[snippet, column] = source.image_size or 0
                low, high = source.frames(float(table.onset[row]), float(table.offset[row]))
                if low >= high:
                    continue
                if latest is None or latest[0] != (code, view):
                    latest = (code, view), _read(store, table.recordings[code], view, layout, min_score)
                points, score = person_rows(latest[1].take(np.arange(low, high)), persons=persons)
                has_person = (score > 0).any((0, 2)) | (not skip_empty)
                times[-1] = source.time[low:high][has_person]
                first[snippet, column], count[snippet, column] = total, int(has_person.sum())
                total += int(has_person.sum())
                keypoints.append(points[:, has_person].swapaxes(0, 1))
                scores.append(score[:, has_person].swapaxes(0, 1))
            snippet_positions = step_positions(times)
            step_times.append(np.unique(np.concatenate([*times, np.zeros(0)])))
            start[snippet] = total_steps
            size.append(len(snippet_positions))
            total_steps += len(snippet_positions)
            positions.append(snippet_positions)
        points, score = np.concatenate(keypoints), np.concatenate(scores)
        if trim:
            filled = np.flatnonzero((score > 0).any((0, 2)))
            num_slots = int(filled[-1]) + 1 if len(filled) else 1
            points, score = points[:, :num_slots], score[:, :num_slots]
        arrays = {
            "keypoints": points,
            "score": score,
            "first": first,
            "count": count,
            "position": np.concatenate(positions),
            "start": start,
            "size": np.array(size, np.int64),
            "time": np.concatenate(step_times),
            "image_size": image_size,
            "duration": (table.offset[rows] - table.onset[rows]).astype(np.float32),
        }
        return cls(**{name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()})

    def to(self, device: torch.device) -> PoseBank:
        """Return a copy on another device."""
        return PoseBank(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})

    def times(self, snippets: Tensor, step: Tensor) -> Tensor:
        """Compute the times of fractional time steps, by linear interpolation.

        Args:
            snippets: Snippets, shape (B,).
            step: Fractional indices of time steps, shape (B, T).

        Returns:
            Seconds, float64 of shape (B, T); 0 for a snippet without time steps.
        """
        import torch

        last = (self.size[snippets][:, None] - 1).clamp(min=0)
        low = torch.minimum(step.floor().long().clamp(min=0), last)
        high = torch.minimum(low + 1, last)
        has_steps = self.size[snippets][:, None] > 0
        base = torch.where(has_steps, self.start[snippets][:, None], 0)
        early, late = self.time[base + low], self.time[base + high]
        return torch.where(has_steps, early + (late - early) * (step - low).clamp(0, 1), 0.0)

    def sample(self, snippets: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Sample joints at fractional time steps, by linear interpolation between neighboring frames.

        A joint that is missing in one of the two frames is taken from the other one. If it is missing in both, or if
        the view has no frame nearby, it is missing.

        Args:
            snippets: Snippets, shape (B,).
            step: Fractional indices of time steps, shape (B, T).

        Returns:
            Keypoints (B, V, M, T, K, C) and scores (B, V, M, T, K).
        """
        import torch

        size = self.size[snippets][:, None]
        low = step.floor().long().clamp(min=0)
        low = torch.minimum(low, (size - 1).clamp(min=0))
        high = torch.minimum(low + 1, (size - 1).clamp(min=0))
        base = torch.where(size > 0, self.start[snippets][:, None], 0)
        share = (step - low).clamp(0, 1)[..., None]
        before, after = self.position[base + low], self.position[base + high]  # (B, T, V)
        after, before = torch.where(after.isnan(), before, after), torch.where(before.isnan(), after, before)
        position = before + (after - before) * share
        exists = ~position.isnan() & (size > 0)[..., None]
        position = torch.where(exists, position, 0.0)
        first = self.first[snippets][:, None]
        frame = torch.where(exists, first + position.floor().long(), 0)
        next_frame = torch.where(exists, first + position.ceil().long(), 0)
        part = (position - position.floor()).float()[..., None, None]  # (B, T, V, 1, 1)
        score_before, score_after = self.score[frame], self.score[next_frame]  # (B, T, V, M, K)
        part = torch.where(score_before <= 0, 1.0, torch.where(score_after <= 0, 0.0, part.expand_as(score_before)))
        points = torch.lerp(self.keypoints[frame], self.keypoints[next_frame], part[..., None])
        score = torch.lerp(score_before, score_after, part)
        return points.movedim(1, 3).contiguous(), score.movedim(1, 3).contiguous()


def step_positions(times: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the fractional frame index, in each view, of every time at which a person is visible in some view.

    Args:
        times: Frame times of each view in seconds, increasing.

    Returns:
        Positions of shape (U, V); NaN where the view has no frame nearby. With one view these are 0, 1, 2, …
    """
    steps = np.unique(np.concatenate([*times, np.zeros(0)]))
    positions = np.full((len(steps), len(times)), np.nan)
    for column, time in enumerate(times):
        if len(time):
            position = np.interp(steps, time, np.arange(len(time)))
            nearest = np.minimum(
                np.abs(steps - time[np.floor(position).astype(int)]),
                np.abs(steps - time[np.ceil(position).astype(int)]),
            )
            positions[:, column] = np.where(nearest <= _NEAR_S, position, np.nan)
    return positions


def person_rows(poses: PoseSequence, *, persons: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrange the persons of a pose sequence in rows.

    Linked persons are sorted by track ID, so that a row is one person throughout. Unlinked ones stay in their slots.
    Persons visible in most frames are kept, the first ones in a tie.

    Args:
        poses: Pose sequence.
        persons: Number of rows M; missing ones are filled with zeros.

    Returns:
        Keypoints (M, T, K, C) and scores (M, T, K).
    """
    present = poses.present
    ids = np.unique(poses.track_id[present & (poses.track_id >= 0)])
    if len(ids) and not (present & (poses.track_id < 0)).any():
        rows = [present & (poses.track_id == track_id) for track_id in ids]
        keypoints = np.zeros((len(ids), *poses.keypoints.shape[:1], *poses.keypoints.shape[2:]), np.float32)
        score = np.zeros(keypoints.shape[:-1], np.float32)
        for row, member in enumerate(rows):
            frame, slot = np.nonzero(member)
            keypoints[row, frame], score[row, frame] = poses.keypoints[frame, slot], poses.score[frame, slot]
    else:
        keypoints, score = poses.keypoints.transpose(1, 0, 2, 3), poses.score.transpose(1, 0, 2)
    kept = np.sort(np.argsort(-(score > 0).any(-1).sum(1), kind="stable")[:persons])
    keypoints, score = keypoints[kept], score[kept]
    missing = persons - len(keypoints)
    return np.pad(keypoints, ((0, missing), (0, 0), (0, 0), (0, 0))), np.pad(score, ((0, missing), (0, 0), (0, 0)))


def _read(store: Store, recording: str, view: str, layout: str, min_score: float) -> PoseSequence:
    item = store.item("pose", recording, view)
    points, score = item["keypoints"][:], item["score"][:]
    ids = np.asarray(item["track_id"][:], np.int64) if "track_id" in item else np.full(score.shape[:2], -1, np.int64)
    score = np.where(np.isfinite(score) & np.isfinite(points).all(-1) & (score >= min_score), score, 0)
    source = skeleton_of_item(item.attributes)
    if skeleton(source).name != skeleton(layout).name:
        points, score, _ = convert(points, score, source, layout)
    points = np.where((score > 0)[..., None], points, 0).astype(np.float32)
    frames = np.arange(len(points))
    empty: Any = np.zeros((*score.shape[:2], 0), np.float32)
    return PoseSequence(
        keypoints=points,
        score=score.astype(np.float32),
        bbox=empty,
        track_id=ids,
        filled=empty,
        skeleton=layout,
        image_size=None,
        frame_index=frames,
    )
