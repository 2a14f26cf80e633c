"""Recordings (events in time) and their views (the cameras that recorded them)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.view_reading import WHOLE_FILE, Reading

Clock = Literal["file", "first-frame", "container"]
"""What time zero of a view is."""


@dataclass(frozen=True)
class Recording:
    """One event in time, recorded by one or more cameras.

    Attributes:
        id: Relative path and name, with slashes.
        subject: Person or animal; None if unknown.
        session: Session; None if unknown.
        label: Label of the full recording, for clips that were cut to one action.
        split: Given split: train, val or test.
        extra: Other columns of the table that describes it.
    """

    id: str
    subject: str | None = None
    session: str | None = None
    label: str | None = None
    split: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """One camera's video of a recording.

    Attributes:
        recording: Id of the recording.
        id: Name of the view, such as `01` or `left`.
        path: Relative to the study folder, or absolute; with slashes.
        codec: Name of the codec.
        pixel_format: Name of the pixel format.
        width: Displayed width in pixels, after rotation.
        height: Displayed height in pixels, after rotation.
        rotation: Rotation in degrees that the container asks for.
        num_frames: Number of frames, counted from packets.
        header_frames: Number of frames that the container's header states, if it states one.
        fps: Frames per second.
        time_base: Unit of the container's time stamps.
        start: Time stamp of the first frame in the container, in s.
        file_start: Time stamp of the container's earliest video or audio stream, in s; None in catalogs of earlier
            versions.
        offset: Recording's clock = offset (s) + view's time * (1 + drift * 1e-6).
        drift: See `offset`; in parts per million.
        duration: Duration in s.
        stream: Index of the video stream in the file.
        digest: SHA-256 of the file's bytes.
        size_bytes: Size of the file at the last scan.
        mtime_ns: Modification time of the file at the last scan.
        ctime_ns: Time of its last change of content or attributes.
        inode: Number of the file in its file system. A replaced file has another, even with an older modification time.
        status: "unreadable" with a reason, or "ok", possibly with warnings.
        reason: Why the file cannot be read.
        warnings: What is unusual about the file.
        frame_times: (T,) float64, seconds from the first frame, from the packets.
        poses: For a view without video: how its poses are read from `path`, a JSON object; "" for a video.
        reading: How its video is read, such as a crop; the size and all coordinates are those of the crop.
    """

    recording: str
    id: str
    path: str
    codec: str = ""
    pixel_format: str = ""
    width: int = 0
    height: int = 0
    rotation: int = 0
    num_frames: int = 0
    header_frames: int | None = None
    fps: float = 0.0
    time_base: str = ""
    start: float = 0.0
    offset: float = 0.0
    drift: float = 0.0
    duration: float = 0.0
    stream: int = 0
    digest: str = ""
    size_bytes: int = 0
    mtime_ns: int = 0
    status: Literal["ok", "unreadable"] = "ok"
    reason: str = ""
    warnings: tuple[str, ...] = ()
    frame_times: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False, repr=False)
    poses: str = ""
    ctime_ns: int = field(default=0, compare=False)
    inode: int = field(default=0, compare=False)
    file_start: float | None = None
    reading: Reading = WHOLE_FILE

    def time_of_first_frame(self, clock: Clock) -> float:
        """Return the time of the first frame on a clock, in seconds, without the view's offset.

        Args:
            clock: "file" counts from the earliest stream of the file, as players do; "first-frame" counts from the
                first frame; "container" is the time stamp in the container.
        """
        if clock == "container":
            return self.start
        return self.start - self.file_start if clock == "file" and self.file_start is not None else 0.0

    @property
    def has_video(self) -> bool:
        """Whether there are frames to decode; a view of imported poses has none."""
        return not self.poses

    @property
    def times(self) -> np.ndarray:
        """(T,) float64: frame times in seconds on the recording's clock."""
        return self.offset + self.frame_times * (1 + self.drift * 1e-6)

    @property
    def frame_duration(self) -> float:
        """Median interval between frames in seconds; the last frame is assumed to last as long."""
        return frame_interval(self.frame_times, default=1 / self.fps if self.fps > 0 else 0.0)

    @property
    def span(self) -> tuple[float, float]:
        """Start of the first frame and end of the last, in seconds on the recording's clock."""
        times = self.times
        return (float(times[0]), float(times[-1]) + self.frame_duration) if len(times) else (self.offset, self.offset)
