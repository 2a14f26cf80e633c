"""Paths and loaders of the exact ground truth of a sample study."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from actionprep.errors import UserError
from actionprep.sample.cameras import Camera, read_calibration

OPENPOSE_VIEWS = (0, 1, 3, 6)
OPENPOSE_RECORDINGS = 8
"""Views, and number of recordings (the first ones, with each action once), that also have joints as OpenPose JSON. With
one file per frame, all recordings and views would be tens of thousands of files."""


@dataclass(frozen=True)
class TrueSegment:
    """One action, seconds on the recording's clock: [onset, offset)."""

    onset: float
    offset: float
    label: str


@dataclass(frozen=True)
class TrueJoints:
    """BODY_25 joints of one view: time (T,) s, xy (T, 25, 2) px, visibility (T, 25) bool.

    xy is accurate to 1/64 px, also where a joint is hidden or outside the image. The center of the first pixel is (0, 0).
    """

    time: np.ndarray
    xy: np.ndarray
    visibility: np.ndarray


@dataclass(frozen=True)
class TrueTracks:
    """Skin points of one view: time (T,) s, xy (T, N, 2) px, visibility (T, N) bool, part (N,) names of body parts.

    Point n is the same point of the skin in all views of a recording.
    """

    time: np.ndarray
    xy: np.ndarray
    visibility: np.ndarray
    part: np.ndarray


@dataclass(frozen=True)
class SampleTruth:
    """Paths and loaders of a sample study.

    Times are in seconds on the recording's clock: frame times of the file plus the offset of the view. Loaders raise
    UserError if the study does not have the recording or view.
    """

    folder: Path

    @property
    def videos(self) -> Path:
        """Folder of the videos `{recording}/cam{view}.mp4`."""
        return self.folder / "videos"

    @property
    def segments_csv(self) -> Path:
        """Columns recording, onset, offset, label."""
        return self.folder / "segments.csv"

    @property
    def recordings_csv(self) -> Path:
        """Columns recording, subject, session."""
        return self.folder / "recordings.csv"

    @property
    def views_csv(self) -> Path:
        """Columns recording, view, offset: seconds to add to the file's times to be on the recording's clock."""
        return self.folder / "views.csv"

    @property
    def calibration_toml(self) -> Path:
        """Intrinsics and extrinsics of the cameras."""
        return self.folder / "calibration.toml"

    @cached_property
    def recordings(self) -> tuple[str, ...]:
        """Names of the recordings, in order."""
        return tuple(row["recording"] for row in _rows(self.recordings_csv))

    @cached_property
    def views(self) -> tuple[int, ...]:
        """Ids of the views; every recording has all of them."""
        return tuple(self.cameras)

    @cached_property
    def cameras(self) -> dict[int, Camera]:
        """The calibrated cameras by view."""
        return read_calibration(self.calibration_toml)

    @cached_property
    def subjects(self) -> dict[str, str]:
        """The subject of each recording."""
        return {row["recording"]: row["subject"] for row in _rows(self.recordings_csv)}

    def video(self, recording: str, view: int) -> Path:
        """The video file of one view."""
        self._check(recording, view)
        return self.videos / recording / f"cam{view}.mp4"

    def openpose(self, recording: str, view: int) -> Path:
        """Folder of one OpenPose BODY_25 JSON file per frame, for OPENPOSE_VIEWS of the first OPENPOSE_RECORDINGS.

        `joints_2d` gives the same joints of all views and recordings.

        Confidence is 1 for visible and 0.5 for hidden joints. Joints outside the image are 0, 0, 0, as OpenPose writes
        joints that it has not detected.
        """
        self._check(recording, view)
        if view not in OPENPOSE_VIEWS:
            known = ", ".join(str(known) for known in OPENPOSE_VIEWS if known in self.views)
            raise UserError(
                f"View {view} of the sample study has no OpenPose files. Views with OpenPose files: {known}."
            )
        if recording not in self.recordings[:OPENPOSE_RECORDINGS]:
            raise UserError(
                f"Recording '{recording}' of the sample study has no OpenPose files. Recordings with OpenPose files: "
                f"{self.recordings[0]} to {self.recordings[OPENPOSE_RECORDINGS - 1]}. 'joints_2d' has the joints of all."
            )
        return self.folder / "truth" / "openpose" / recording / f"cam{view}"

    def offset(self, recording: str, view: int) -> float:
        """Seconds to add to the file's frame times to be on the recording's clock."""
        self._check(recording, view)
        for row in _rows(self.views_csv):
            if row["recording"] == recording and row["view"] == str(view):
                return float(row["offset"])
        return 0.0

    def segments(self, recording: str) -> tuple[TrueSegment, ...]:
        """The actions of one recording, in order."""
        self._check(recording)
        return tuple(
            TrueSegment(float(row["onset"]), float(row["offset"]), row["label"])
            for row in _rows(self.segments_csv)
            if row["recording"] == recording
        )

    def frame_times(self, recording: str, view: int) -> np.ndarray:
        """Times (T,) of the view's frames on the recording's clock, seconds."""
        return self._view(recording, view)["time"]

    def joints_2d(self, recording: str, view: int) -> TrueJoints:
        """Joints in the image at each frame."""
        arrays = self._view(recording, view)
        return TrueJoints(arrays["time"], arrays["joints_xy"], arrays["joints_visibility"])

    def joints_3d(self, recording: str) -> tuple[np.ndarray, np.ndarray]:
        """Times (S,) every 20 ms and joints (S, 25, 3) in meters, world z up."""
        self._check(recording)
        arrays = _arrays(self.folder / "truth" / "motion" / f"{recording}.npz")
        return arrays["time"], arrays["joints_xyz"]

    def tracks(self, recording: str, view: int) -> TrueTracks:
        """Skin points in the image at each frame."""
        arrays = self._view(recording, view)
        return TrueTracks(arrays["time"], arrays["tracks_xy"], arrays["tracks_visibility"], arrays["tracks_part"])

    def mask_file(self, recording: str, view: int) -> Path:
        """The npz file with `foreground` (T, H, W) uint8, 0 or 1, of one view."""
        self._check(recording, view)
        return self.folder / "truth" / "masks" / recording / f"cam{view}.npz"

    def masks(self, recording: str, view: int) -> np.ndarray:
        """Foreground (T, H, W) bool: pixels that the body covers at least by half."""
        return _arrays(self.mask_file(recording, view))["foreground"].astype(bool)

    def mask(self, recording: str, view: int, frame: int) -> np.ndarray:
        """Foreground (H, W) bool of one frame. For many frames, call `masks` once."""
        return np.asarray(self.masks(recording, view)[frame])

    def _view(self, recording: str, view: int) -> dict[str, np.ndarray]:
        self._check(recording, view)
        return _arrays(self.folder / "truth" / "views" / recording / f"cam{view}.npz")

    def _check(self, recording: str, view: int | None = None) -> None:
        if recording not in self.recordings:
            raise UserError(
                f"No recording '{recording}' in the sample study {self.folder}. Available recordings: {self.recordings[0]} "
                f"to {self.recordings[-1]}."
            )
        if view is not None and view not in self.views:
            known = ", ".join(map(str, self.views))
            raise UserError(f"No view {view} in the sample study {self.folder}. Available views: {known}.")


def write_openpose(folder: Path, xy: np.ndarray, visibility: np.ndarray, inside: np.ndarray) -> None:
    """Write joints (T, 25, 2) as OpenPose JSON, one person and one file per frame, named as by OpenPose."""
    folder.mkdir(parents=True, exist_ok=True)
    confidence = np.where(visibility, 1.0, 0.5) * inside
    triples = np.concatenate([np.round(xy, 2) * inside[..., None], confidence[..., None]], axis=-1)
    for frame, values in enumerate(triples.reshape(len(triples), -1).tolist()):
        person = {
            "person_id": [-1],
            "pose_keypoints_2d": values,
            "face_keypoints_2d": [],
            "hand_left_keypoints_2d": [],
            "hand_right_keypoints_2d": [],
        }
        text = json.dumps({"version": 1.3, "people": [person]}, separators=(",", ":"))
        (folder / f"{folder.name}_{frame:012d}_keypoints.json").write_text(text, encoding="ascii")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
