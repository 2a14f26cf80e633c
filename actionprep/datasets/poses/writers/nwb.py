"""Write poses as NWB files with the extension ndx-pose, with pynwb."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from actionprep.datasets.poses.individuals import individuals_of
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.poses.writers import ViewPoses, missing_package

# NWB requires a date, and recordings have none. Equal poses make equal files.
_START = datetime(1970, 1, 1, tzinfo=UTC)


def write(path: Path, poses: ViewPoses) -> None:
    """Write one view, with one `PoseEstimation` per individual in the processing module "behavior".

    Times are seconds on the recording's clock. Missing joints are NaN, with a confidence of 0. The date of the session
    is 1970-01-01, because the study does not contain it.

    Args:
        path: File to write.
        poses: Poses of the view.

    Raises:
        UserError: If pynwb or ndx-pose is not installed.

    References:
        https://github.com/rly/ndx-pose
    """
    try:
        import ndx_pose
        import pynwb
    except ImportError as error:
        raise missing_package(error, "nwb") from None
    sequence = poses.item.poses
    layout = skeleton(sequence.skeleton)
    people = individuals_of(sequence)
    time = np.arange(sequence.num_frames) / poses.fps if sequence.time is None else sequence.time
    name = f"{poses.item.recording}/{poses.item.view}"
    file = pynwb.NWBFile(
        session_description=f"Poses of recording {poses.item.recording}, view {poses.item.view}.",
        identifier=hashlib.sha256(name.encode()).hexdigest()[:32],
        session_start_time=_START,
    )
    edges = np.array(layout.limbs, np.uint8).reshape(-1, 2)
    body = ndx_pose.Skeleton(name="skeleton", nodes=list(layout.joints), edges=edges)
    origin = "(0, 0) is the center of the top left pixel; x to the right, y down"
    frame = origin if sequence.dimensions == 2 else "origin and axes of the source of the poses"
    behavior = file.create_processing_module(name="behavior", description="poses")
    behavior.add(ndx_pose.Skeletons(skeletons=[body]))
    for column, individual in enumerate(people.names):
        series = [
            ndx_pose.PoseEstimationSeries(
                name=joint,
                data=people.keypoints[:, column, at],
                confidence=people.score[:, column, at],
                timestamps=np.asarray(time, np.float64),
                reference_frame=frame,
                unit="pixels" if sequence.image_size is not None else "unknown",
            )
            for at, joint in enumerate(layout.joints)
        ]
        behavior.add(
            ndx_pose.PoseEstimation(
                name=individual,
                pose_estimation_series=series,
                description=f"Poses of {individual} in {name}.",
                source_software="actionprep",
                skeleton=body,
            )
        )
    with pynwb.NWBHDF5IO(str(path), "w") as opened:
        opened.write(file)
