"""MediaPipe on real recordings: detection rate, frames per second, and distance to the joints of OpenPose.

    python -m benchmarks.poses                     # prints the tables, writes benchmarks/results/poses.json

The recordings are in ../shared/data, next to the checkout: 20 clips of UTD-MHAD (one person, 640 x 480) and four
cameras of one recording with OpenPose's joints (portrait, about 1080 x 1920; two of them also see a bystander). Frames
are decoded and estimated in one process and its worker, as the pose stage does. Frames per second refer to
wall time. Frames per CPU second refer to the CPU time of both processes, which depends little on the load of the machine.
Distances are between the same joints of COCO-17 with an OpenPose score above 0.3 and a MediaPipe score above 0.5, as a
fraction of the median height of the person's box in that camera.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from actionprep.datasets.poses.formats import read_poses
from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.pipeline.linking import LinkingSettings, link
from actionprep.pipeline.pose_backends import open_estimator, to_sequence
from actionprep.pipeline.video import VideoReader
from benchmarks.common import Results, Side

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
OPENPOSE_SCORE, MEDIAPIPE_SCORE = 0.3, 0.5


def estimated(videos: list[Path]) -> tuple[list[PoseSequence], float, float]:
    """Poses of each video, with wall and CPU seconds."""
    before = os.times()
    start = time.perf_counter()
    found = []
    with open_estimator("mediapipe") as estimator:  # type: ignore[attr-defined]
        for video in videos:
            estimator.reset()
            people, count = [], 0
            with VideoReader(video) as reader:
                size = (reader.height, reader.width)
                for block in reader.blocks(size=8):
                    people += estimator.estimate(block.rgb)
                    count += len(block)
            found.append(to_sequence(people, estimator.skeleton, image_size=size, frame_index=np.arange(count)))
    after = os.times()
    cpu = sum(
        getattr(after, name) - getattr(before, name) for name in ("user", "system", "children_user", "children_system")
    )
    return found, time.perf_counter() - start, cpu


def distances(poses: PoseSequence, truth: PoseSequence) -> np.ndarray:
    """Distances (n,), as a fraction of body height, of joints that both detect reliably; truth: the annotated person."""
    mine, _ = poses.with_skeleton("coco17")
    theirs, _ = truth.with_skeleton("coco17")
    height = np.median((truth.bbox[:, 0, 3] - truth.bbox[:, 0, 1])[truth.present[:, 0]])
    sure = (mine.score[:, 0] > MEDIAPIPE_SCORE) & (theirs.score[:, 0] > OPENPOSE_SCORE)
    away = np.linalg.norm(mine.keypoints[:, 0] - theirs.keypoints[:, 0], axis=-1) / height
    return away[sure]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20, help="clips of UTD-MHAD, evenly chosen")
    args = parser.parse_args()
    clips = sorted((DATA / "utd_mhad_rgb" / "clips").glob("*.mp4"))
    clips = clips[:: max(1, len(clips) // args.clips)][: args.clips]
    if not clips:
        print(f"No recordings in {DATA}. Nothing was measured.", file=sys.stderr)
        return 0
    results = Results("poses", settings={"backend": "mediapipe", "complexity": 1})
    rows = []

    def measure(name: str, videos: list[Path]) -> list[PoseSequence]:
        found, wall, cpu = estimated(videos)
        frames = sum(poses.num_frames for poses in found)
        share = sum(int(poses.present.any(axis=1).sum()) for poses in found) / frames
        results.add(name, {"mediapipe": Side("mediapipe", (wall,), frames, "frames")})
        results.mark(f"{name}: share of frames with a person", share, at_least=0.99)
        rows.append([name, str(frames), f"{share:.1%}", f"{frames / wall:.1f}", f"{frames / cpu:.1f}"])
        return found

    for poses in measure(f"UTD-MHAD, {len(clips)} clips", clips):
        assert poses.num_persons == 1
    folder = DATA / "multiview_pose2sim"
    for camera in ("cam01", "cam02", "cam03", "cam04"):
        [poses] = measure(f"pose2sim {camera}", [folder / "videos" / f"{camera}.mp4"])
        [item] = read_poses(folder / "openpose_json" / f"{camera}_json")
        truth = link(item.poses, LinkingSettings(persons=1)).poses
        away = distances(poses, truth)
        rows[-1] += [f"{np.median(away):.1%}", f"{away.mean():.1%}", f"{np.percentile(away, 90):.1%}", str(len(away))]
    names = ("recording", "frames", "person found", "frames/s", "frames/CPU s", "median", "mean", "90 %", "joints")
    results.settings["table"] = [dict(zip(names, row, strict=False)) for row in rows]
    print(" | ".join(names))
    for row in rows:
        print(" | ".join(row))
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    sys.exit(main())
