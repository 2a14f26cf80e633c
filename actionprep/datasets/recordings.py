"""Recordings, events in time, and their views, the cameras that saw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Clock = Literal["file", "first-frame", "container"]
"""What time zero of a view is."""


@dataclass(frozen=True)
class Recording:
    """One event in time, seen by one or more cameras.

    id:    relative path plus name, with slashes.
    label: of the whole recording, for clips that were cut to one action.
    split: the part that was given for it: train, val or test.
    extra: other columns of the table that it came from.
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

    path:          relative to the study folder, or absolute; with slashes.
    width, height: of the displayed picture in pixels, after rotation (degrees).
    start:         time stamp of the first frame in the container, in s.
    file_start:    time stamp of the container's earliest video or audio stream, in s; None in catalogs without it.
    offset, drift: recording's clock = offset (s) + view's time * (1 + drift * 1e-6).
    frame_times:   (T,) float64 s from the first frame, as the packets say.
    poses:         for a view without video: how its poses are read from path, a JSON object; "" for a video.
    header_frames: what the container's header states, where it states it.
    digest:        hash of the file's bytes.
    status:        "unreadable" with a reason, or "ok", perhaps with warnings.
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
    file_start: float | None = None

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
        """Whether there are frames to decode; a view may have nothing but poses."""
        return not self.poses

    @property
    def times(self) -> np.ndarray:
        """(T,) float64: frame times in seconds on the recording's clock."""
        return self.offset + self.frame_times * (1 + self.drift * 1e-6)

    @property
    def frame_duration(self) -> float:
        """Median time from frame to frame in seconds; what the last frame is taken to last."""
        if len(self.frame_times) > 1:
            return float(np.median(np.diff(self.frame_times)))
        return 1 / self.fps if self.fps > 0 else 0.0

    @property
    def span(self) -> tuple[float, float]:
        """From the first frame to the end of the last, in seconds on the recording's clock."""
        times = self.times
        return (float(times[0]), float(times[-1]) + self.frame_duration) if len(times) else (self.offset, self.offset)
