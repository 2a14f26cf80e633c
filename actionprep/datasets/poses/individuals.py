"""Persons as columns: one individual per track id, as tables and arrays of other programs have them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.sequence import PoseSequence

_TRACK, _SLOT = "id_", "slot_"


@dataclass(frozen=True)
class Individuals:
    """Joints of N individuals.

    Attributes:
        names: Names, "id_3" for track id 3; "slot_0" and so on for persons that are not linked over frames.
        keypoints: Coordinates, float32 of shape (T, N, K, C); NaN for missing joints.
        score: Scores, float32 of shape (T, N, K); 0 for missing joints.
    """

    names: tuple[str, ...]
    keypoints: NDArray[np.float32]
    score: NDArray[np.float32]

    @property
    def track_ids(self) -> tuple[int, ...]:
        """Track id of each individual; -1 for persons that are not linked."""
        return tuple(track_ids(self.names))


def individuals_of(poses: PoseSequence) -> Individuals:
    """Return the persons of a sequence by track id, in rising order.

    If a present person has no track id, the slots of the sequence are the individuals.
    """
    present = poses.present
    linked = not (present & (poses.track_id < 0)).any()
    ids = np.unique(poses.track_id[present]).tolist() if linked else []
    shape = (poses.num_frames, len(ids) or poses.num_persons, poses.num_joints)
    if not ids:
        names = tuple(f"{_TRACK if linked else _SLOT}{slot}" for slot in range(poses.num_persons))
        keypoints, score = poses.keypoints, poses.score
    else:
        names = tuple(f"{_TRACK}{id}" for id in ids)
        keypoints = np.zeros((*shape, poses.dimensions), np.float32)
        score = np.zeros(shape, np.float32)
        for column, id in enumerate(ids):
            frame, slot = np.nonzero(present & (poses.track_id == id))
            keypoints[frame, column] = poses.keypoints[frame, slot]
            score[frame, column] = poses.score[frame, slot]
    return Individuals(names, np.where((score > 0)[..., None], keypoints, np.float32(np.nan)), score)


def track_ids(names: Sequence[str]) -> list[int]:
    """Return the track ids of individuals by their names.

    Names that this module writes contain the track id. Other names are numbered in their order.
    """
    numbers = [re.fullmatch(rf"{_TRACK}(\d{{1,9}})", name) for name in names]
    ids = [int(number[1]) for number in numbers if number is not None]
    if len(ids) == len(names) == len(set(ids)):
        return ids
    if names and all(re.fullmatch(rf"{_SLOT}\d+", name) for name in names):
        return [-1] * len(names)
    return list(range(len(names)))


def track_id_array(names: Sequence[str], score: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the track ids of shape (T, N) for scores of shape (T, N, K); -1 where an individual is absent."""
    present = (np.nan_to_num(score) > 0).any(-1)
    return np.where(present, np.array(track_ids(names), np.int64), -1)
