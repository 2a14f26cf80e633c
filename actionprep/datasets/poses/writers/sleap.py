"""Write poses as labels of SLEAP, with sleap-io."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actionprep.datasets.poses.individuals import individuals_of
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.poses.writers import ViewPoses, missing_package


def write(path: Path, poses: ViewPoses) -> None:
    """Write one view as predicted instances, with a track per linked person.

    Coordinates have (0, 0) at the center of the first pixel, as in the store.

    Args:
        path: File to write.
        poses: Poses of the view.

    Raises:
        UserError: If sleap-io is not installed.
    """
    try:
        import sleap_io
    except ImportError as error:
        raise missing_package(error, "sleap") from None
    sequence = poses.item.poses
    layout = skeleton(sequence.skeleton)
    people = individuals_of(sequence)
    nodes = [sleap_io.Node(joint) for joint in layout.joints]
    body = sleap_io.Skeleton(
        nodes=nodes,
        edges=[sleap_io.Edge(nodes[a], nodes[b]) for a, b in layout.limbs],
        symmetries=[sleap_io.Symmetry({nodes[a], nodes[b]}) for a, b in layout.symmetric],
        name=layout.name,
    )
    tracks = {name: sleap_io.Track(name) for name, id in zip(people.names, people.track_ids, strict=True) if id >= 0}
    video = sleap_io.Video(filename=poses.video or f"{path.stem}.mp4", open_backend=False)
    present = np.asarray((people.score > 0).any(-1))
    frames = []
    for row, number in enumerate(sequence.frame_index.tolist()):
        instances = []
        for column in np.flatnonzero(present[row]).tolist():
            score = people.score[row, column].astype(np.float64)
            instances.append(
                sleap_io.PredictedInstance.from_numpy(
                    people.keypoints[row, column].astype(np.float64),
                    skeleton=body,
                    point_scores=score,
                    score=float(score[score > 0].mean()),
                    track=tracks.get(people.names[column]),
                )
            )
        frames.append(sleap_io.LabeledFrame(video=video, frame_idx=number, instances=instances))
    labels = sleap_io.Labels(
        labeled_frames=frames, videos=[video], skeletons=[body], tracks=list(tracks.values())
    )  # fmt: skip
    sleap_io.save_slp(labels, str(path), verbose=False)
