"""Write poses as csv of DeepLabCut."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from actionprep.datasets.poses.individuals import individuals_of
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.poses.writers import ViewPoses

SCORER = "actionprep"


def write(path: Path, poses: ViewPoses) -> None:
    """Write one view.

    The rows are frames by number. One linked person has the header of single-animal projects (scorer, bodyparts,
    coords), otherwise there is the row "individuals" too. The likelihood is the score. Missing joints are empty cells.

    Args:
        path: File to write.
        poses: Poses of the view.
    """
    sequence = poses.item.poses
    people = individuals_of(sequence)
    joints = skeleton(sequence.skeleton).joints
    axes = (*"xyz"[: sequence.dimensions], "likelihood")
    columns = [(name, joint, axis) for name in people.names for joint in joints for axis in axes]
    score = np.where(people.score > 0, people.score, np.nan)[..., None].astype(np.float32)
    values = np.concatenate([people.keypoints, score], -1).reshape(sequence.num_frames, -1)
    # The shortest text of a single-precision number reads back as the same number.
    texts = np.where(np.isnan(values), "", values.astype(str))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["scorer", *[SCORER] * len(columns)])
        if people.names != ("id_0",):
            table.writerow(["individuals", *[name for name, _, _ in columns]])
        table.writerow(["bodyparts", *[joint for _, joint, _ in columns]])
        table.writerow(["coords", *[axis for _, _, axis in columns]])
        for number, row in zip(sequence.frame_index.tolist(), texts.tolist(), strict=True):
            table.writerow([number, *row])
