"""Write poses of one view of many recordings as a PySKL pickle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actionprep.datasets.poses.formats.pyskl import write_pyskl
from actionprep.datasets.poses.writers import ViewPoses


def write(path: Path, poses: Sequence[ViewPoses]) -> None:
    """Write the recordings of one view, with labels and official splits.

    Labels are numbers: the positions in the sorted list of all labels of the file.

    Args:
        path: File to write.
        poses: Poses of each recording.

    Raises:
        UserError: If a recording has no label.
    """
    write_pyskl(path, [pose.item for pose in poses])
