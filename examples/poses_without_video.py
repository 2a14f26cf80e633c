"""A classifier on poses that come without videos, in the form that any program can write: one npz file per clip."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from actionprep.api import import_poses, open_study
from actionprep.training.fit import fit
from actionprep.training.recipes import find_recipe
from actionprep.training.test import run_test


def write_poses(folder: Path, *, clips: int) -> Path:
    """Write poses of one person who stands or waves: keypoints (T, M, K, 2) in px, score (T, M, K)."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    body = generator.uniform(80, 240, (17, 2))
    for number in range(clips):
        label = ("stand", "wave")[number % 2]
        keypoints = np.tile(body * generator.uniform(0.8, 1.2) + generator.uniform(-20, 20, 2), (40, 1, 1, 1))
        keypoints += generator.normal(0, 1, keypoints.shape)
        if label == "wave":
            keypoints[:, 0, 9, 0] += 40 * np.sin(np.arange(40) / 3 + generator.uniform(0, 6))
        np.savez(
            folder / f"clip_{number:02}.npz",
            keypoints=keypoints.astype(np.float32),
            score=np.ones((40, 1, 17), np.float32),
            skeleton="coco17",
            label=label,
            subject=f"s{number // 2 % 5}",
        )
    return folder


def main(folder: Path, *, clips: int = 60, epochs: int = 40) -> float:
    """Import the poses into a study, train, and return the accuracy on subjects that training has not seen."""
    poses = write_poses(folder / "poses", clips=clips)
    import_poses(folder, [poses], format="pose-npz", image_size=(320, 320), fps=25)
    study = open_study(folder)
    study.build("snippets")
    run = fit(study.store, find_recipe("skeleton-tcn").changed({"epochs": epochs}), folder / "runs/first")
    return float(run_test(run)["metrics"]["accuracy"])


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else Path(tempfile.mkdtemp()) / "study"
    print(f"accuracy {main(target):.1%}")
