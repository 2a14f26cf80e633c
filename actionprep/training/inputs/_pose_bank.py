"""Poses of snippets side by side in memory, and instants of them: frames found, persons chosen, joints interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.datasets.poses.skeletons import convert, skeleton, skeleton_of_item
from actionprep.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.zarr_store import Store

# A view whose nearest frame with somebody in it is this far away shows nobody at an instant.
_NEAR_S = 0.5


@dataclass(frozen=True)
class PoseSource:
    """One stored item of poses: its frame times (T) in s and its sizes."""

    time: np.ndarray
    num_persons: int
    num_joints: int
    dims: int
    skeleton: str
    image_size: tuple[int, int] | None

    @classmethod
    def of(cls, store: Store, recording: str, view: str) -> Self:
        """What an item says of itself; reads its times alone."""
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
        """First and last + 1 of the frames in [onset, offset)."""
        first, last = np.searchsorted(self.time, [onset - 1e-9, offset - 1e-9])
        return int(first), int(last)


def pose_sources(store: Store, recordings: Sequence[str], views: Sequence[str]) -> list[dict[str, PoseSource]]:
    """For each recording its items by view; raises UserError when they do not go into one batch."""
    found = [
        {view: PoseSource.of(store, recording, view) for view in views if store.has("pose", recording, view)}
        for recording in recordings
    ]
    kinds: dict[tuple[str, int], str] = {}
    for recording, places in zip(recordings, found, strict=True):
        for view, place in places.items():
            kinds.setdefault((place.skeleton, place.dims), f"pose/{recording}/{view}")
    if len(kinds) > 1:
        listed = "; ".join(f"{name} in {dims}D ({where})" for (name, dims), where in kinds.items())
        raise UserError(
            f"The poses in {store.url} are of several kinds, and a batch has one: {listed}.\n"
            "Make them all with the same estimator, or train on recordings and views of one kind (--views)."
        )
    return found


@dataclass(frozen=True)
class PoseBank:
    """Frames of snippets in which somebody is seen, of one view after the other.

    keypoints (F, M, K, C), score (F, M, K): a row a person, the same one throughout a snippet.
    first, count (S, V): frames of each snippet and view.
    place (U, V) float64: for each instant of a snippet (the times at which some view shows somebody) where it is among
        the frames of a view, between two of them where that view has none then; NaN where it has none near.
    start, size (S): instants of each snippet; time (U) float64 s: when they are.
    image_size (S, V, 2): height and width in px, 0 where not known. duration (S) s.
    """

    keypoints: Tensor
    score: Tensor
    first: Tensor
    count: Tensor
    place: Tensor
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
        places: Sequence[dict[str, PoseSource]],
        rows: Sequence[int] | np.ndarray,
        *,
        layout: str,
        persons: int,
        min_score: float,
        trim: bool,
    ) -> Self:
        """Read what these snippets show.

        layout: joints are converted to it. persons: at most so many are kept, those seen in most frames; empty rows of
        the array take no room when `trim`. min_score: joints below it are missing.
        """
        import torch

        num_joints = skeleton(layout).num_joints
        dims = next((place.dims for by_view in places for place in by_view.values()), 2)
        keypoints, scores = (
            [np.zeros((1, persons, num_joints, dims), np.float32)],
            [np.zeros((1, persons, num_joints), np.float32)],
        )
        first, count = np.zeros((len(rows), len(views)), np.int64), np.zeros((len(rows), len(views)), np.int64)
        image_size = np.zeros((len(rows), len(views), 2), np.float32)
        instants, start, size = [np.full((1, len(views)), np.nan)], np.zeros(len(rows), np.int64), []
        instant_times = [np.zeros(1)]
        total, total_instants = 1, 1
        held: tuple[tuple[int, str], PoseSequence] | None = None
        for at, row in enumerate(rows):
            code = int(table.recording[row])
            times: list[np.ndarray] = []
            for column, view in enumerate(views):
                there = places[code].get(view)
                times.append(np.zeros(0))
                if there is None:
                    continue
                image_size[at, column] = there.image_size or 0
                low, high = there.frames(float(table.onset[row]), float(table.offset[row]))
                if low >= high:
                    continue
                if held is None or held[0] != (code, view):
                    held = (code, view), _read(store, table.recordings[code], view, layout, min_score)
                points, seen = person_rows(held[1].take(np.arange(low, high)), persons=persons)
                some = (seen > 0).any((0, 2))
                times[-1] = there.time[low:high][some]
                first[at, column], count[at, column] = total, int(some.sum())
                total += int(some.sum())
                keypoints.append(points[:, some].swapaxes(0, 1))
                scores.append(seen[:, some].swapaxes(0, 1))
            found = instant_places(times)
            instant_times.append(np.unique(np.concatenate([*times, np.zeros(0)])))
            start[at] = total_instants
            size.append(len(found))
            total_instants += len(found)
            instants.append(found)
        points, seen = np.concatenate(keypoints), np.concatenate(scores)
        if trim:
            used = np.flatnonzero((seen > 0).any((0, 2)))
            most = int(used[-1]) + 1 if len(used) else 1
            points, seen = points[:, :most], seen[:, :most]
        arrays = {
            "keypoints": points,
            "score": seen,
            "first": first,
            "count": count,
            "place": np.concatenate(instants),
            "start": start,
            "size": np.array(size, np.int64),
            "time": np.concatenate(instant_times),
            "image_size": image_size,
            "duration": (table.offset[rows] - table.onset[rows]).astype(np.float32),
        }
        return cls(**{name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()})

    def to(self, device: torch.device) -> PoseBank:
        """The same on another device."""
        return PoseBank(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})

    def times(self, at: Tensor, instant: Tensor) -> Tensor:
        """(B, T) float64 s: when fractional numbers of instants (B, T) of these snippets (B) are, linear between two.

        0 of a snippet that shows nobody.
        """
        import torch

        last = (self.size[at][:, None] - 1).clamp(min=0)
        low = torch.minimum(instant.floor().long().clamp(min=0), last)
        high = torch.minimum(low + 1, last)
        some = self.size[at][:, None] > 0
        base = torch.where(some, self.start[at][:, None], 0)
        early, late = self.time[base + low], self.time[base + high]
        return torch.where(some, early + (late - early) * (instant - low).clamp(0, 1), 0.0)

    def sample(self, at: Tensor, instant: Tensor) -> tuple[Tensor, Tensor]:
        """Joints of these snippets (B) at fractional numbers of instants (B, T): (B, V, M, T, K, C) and (B, V, M, T, K).

        Linear between the two frames beside; a joint that is missing in one of them takes the other, one missing in
        both is missing, as is all that a view without frames would show.
        """
        import torch

        size = self.size[at][:, None]
        low = instant.floor().long().clamp(min=0)
        low = torch.minimum(low, (size - 1).clamp(min=0))
        high = torch.minimum(low + 1, (size - 1).clamp(min=0))
        base = torch.where(size > 0, self.start[at][:, None], 0)
        share = (instant - low).clamp(0, 1)[..., None]
        before, after = self.place[base + low], self.place[base + high]  # (B, T, V)
        after, before = torch.where(after.isnan(), before, after), torch.where(before.isnan(), after, before)
        place = before + (after - before) * share
        there = ~place.isnan() & (size > 0)[..., None]
        place = torch.where(there, place, 0.0)
        first = self.first[at][:, None]
        frame = torch.where(there, first + place.floor().long(), 0)
        next_frame = torch.where(there, first + place.ceil().long(), 0)
        part = (place - place.floor()).float()[..., None, None]  # (B, T, V, 1, 1)
        one, other = self.score[frame], self.score[next_frame]  # (B, T, V, M, K)
        part = torch.where(one <= 0, 1.0, torch.where(other <= 0, 0.0, part.expand_as(one)))
        points = torch.lerp(self.keypoints[frame], self.keypoints[next_frame], part[..., None])
        score = torch.lerp(one, other, part)
        return points.movedim(1, 3).contiguous(), score.movedim(1, 3).contiguous()


def instant_places(times: Sequence[np.ndarray]) -> np.ndarray:
    """(U, V) where each time at which some view shows somebody lies among the frames of each view; NaN: none near.

    times: for each view the rising times of its frames. With one view these are 0, 1, 2, …
    """
    together = np.unique(np.concatenate([*times, np.zeros(0)]))
    found = np.full((len(together), len(times)), np.nan)
    for column, time in enumerate(times):
        if len(time):
            place = np.interp(together, time, np.arange(len(time)))
            nearest = np.minimum(
                np.abs(together - time[np.floor(place).astype(int)]),
                np.abs(together - time[np.ceil(place).astype(int)]),
            )
            found[:, column] = np.where(nearest <= _NEAR_S, place, np.nan)
    return found


def person_rows(poses: PoseSequence, *, persons: int) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (M, T, K, C) and score (M, T, K) of a pose sequence, a row a person, M = persons.

    Linked persons stand in the order of their track ids, so that a row is one person throughout; unlinked ones stay in
    their slots. Of more persons those seen in most frames are kept, the first of equals; rows are added where there are
    fewer.
    """
    here = poses.present
    ids = np.unique(poses.track_id[here & (poses.track_id >= 0)])
    if len(ids) and not (here & (poses.track_id < 0)).any():
        rows = [here & (poses.track_id == one) for one in ids]
        keypoints = np.zeros((len(ids), *poses.keypoints.shape[:1], *poses.keypoints.shape[2:]), np.float32)
        score = np.zeros(keypoints.shape[:-1], np.float32)
        for row, mine in enumerate(rows):
            frame, slot = np.nonzero(mine)
            keypoints[row, frame], score[row, frame] = poses.keypoints[frame, slot], poses.score[frame, slot]
    else:
        keypoints, score = poses.keypoints.transpose(1, 0, 2, 3), poses.score.transpose(1, 0, 2)
    often = np.sort(np.argsort(-(score > 0).any(-1).sum(1), kind="stable")[:persons])
    keypoints, score = keypoints[often], score[often]
    short = persons - len(keypoints)
    return np.pad(keypoints, ((0, short), (0, 0), (0, 0), (0, 0))), np.pad(score, ((0, short), (0, 0), (0, 0)))


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
    nothing: Any = np.zeros((*score.shape[:2], 0), np.float32)
    return PoseSequence(
        keypoints=points,
        score=score.astype(np.float32),
        bbox=nothing,
        track_id=ids,
        filled=nothing,
        skeleton=layout,
        image_size=None,
        frame_index=frames,
    )
