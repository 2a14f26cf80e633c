"""Files of poses for other programs, one writer each; `WRITERS` lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.datasets.poses.sequence import PoseItem


@dataclass(frozen=True)
class ViewPoses:
    """Poses of one view, as writers take them.

    Attributes:
        item: The poses, with recording and view.
        fps: Median frame rate.
        video: Path of the video; "" without one.
    """

    item: PoseItem
    fps: float
    video: str = ""


@dataclass(frozen=True)
class PoseWriter:
    """One format that poses are written in.

    Attributes:
        name: Name of the command `actionprep export NAME`.
        title: What is written, for lists and help.
        reads: Name of the pose format that reads the files.
        suffix: Suffix of the files.
        writer: "module:function" that takes a path and a `ViewPoses`, or a list of these if `joint` is set.
        dimensions: Numbers of coordinates that the format has.
        joint: One file per view with all recordings, instead of one file per recording and view.
    """

    name: str
    title: str
    reads: str
    suffix: str
    writer: str
    dimensions: tuple[int, ...] = (2,)
    joint: bool = False

    @property
    def pattern(self) -> str:
        """Path of each file in the folder of the export, as `actionprep import` takes it."""
        return f"{{view}}{self.suffix}" if self.joint else f"{{recording}}/{{view}}{self.suffix}"

    @property
    def write(self) -> Callable[[Path, Any], None]:
        """The writer."""
        module, _, function = self.writer.partition(":")
        writer: Callable[[Path, Any], None] = getattr(import_module(f"{__name__}.{module}"), function)
        return writer

    def check(self, poses: ViewPoses) -> None:
        """Check that the format can express these poses.

        Raises:
            UserError: If it cannot.
        """
        dimensions = poses.item.poses.dimensions
        if dimensions not in self.dimensions:
            raise UserError(
                f"The poses of recording '{poses.item.recording}', view {poses.item.view} are {dimensions}D, and "
                f"'{self.name}' files are 2D. Formats for 3D: "
                f"{', '.join(name for name, writer in WRITERS.items() if 3 in writer.dimensions)}."
            )


_BOTH = (2, 3)

WRITERS: Mapping[str, PoseWriter] = MappingProxyType(
    {
        writer.name: writer
        for writer in (
            PoseWriter("pyskl", "PySKL pickles, one per view", "pyskl", ".pkl", "pyskl:write", _BOTH, joint=True),
            PoseWriter("coco", "COCO keypoints JSON, one file per view", "coco", ".json", "coco:write"),
            PoseWriter("dlc", "DeepLabCut csv, one file per view", "deeplabcut", ".csv", "deeplabcut:write", _BOTH),
            PoseWriter("sleap", "SLEAP labels, one .slp file per view", "sleap", ".slp", "sleap:write"),
            PoseWriter("nwb", "NWB with ndx-pose, one file per view", "nwb", ".nwb", "nwb:write", _BOTH),
            PoseWriter("netcdf", "netCDF of movement, one file per view", "netcdf", ".nc", "netcdf:write", _BOTH),
        )
    }
)
"""Writers by name."""


def missing_package(error: ImportError, format: str) -> UserError:
    """Return the error for a writer whose package is not installed."""
    return UserError(
        f"Files of the format '{format}' need the package '{error.name}', which is not installed. Install it with: "
        "pip install 'actionprep[formats]'"
    )
