"""Time codes hh:mm:ss:ff, which count frames within a second."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TIMECODE = re.compile(r"(\d{1,4}):([0-5]?\d):([0-5]?\d)([:;])(\d{1,3})")


@dataclass(frozen=True, slots=True)
class Timecode:
    """A time code as text of the form hh:mm:ss:ff, or hh:mm:ss;ff with drop frames.

    Attributes:
        minutes: Minutes since 0, with the hours.
        seconds: Seconds within the minute.
        frames: Frames within the second, from 0.
        drops: Whether the code leaves out numbers to keep pace with 29.97 or 59.94 frames/s: with `;` before the frames.
    """

    minutes: int
    seconds: int
    frames: int
    drops: bool = False

    @classmethod
    def parse(cls, text: str) -> Timecode | None:
        """Parse a time code; None for text of another form."""
        match = _TIMECODE.fullmatch(text.strip())
        if match is None:
            return None
        hours, minutes, seconds, mark, frames = match.groups()
        return cls(int(hours) * 60 + int(minutes), int(seconds), int(frames), mark == ";")

    def frame_number(self, fps: float) -> int:
        """Return the number of the frame, from 0.

        Args:
            fps: Frame rate of the video. A second of the code has the nearest whole number of frames.

        Raises:
            ValueError: If the second has no such frame, or the code drops frames at a rate without them.
        """
        per_second = round(fps)
        if self.frames >= per_second:
            raise ValueError(f"time code {self} has frame {self.frames}, and the video has {fps:g} frames/s")
        number = (self.minutes * 60 + self.seconds) * per_second + self.frames
        if not self.drops:
            return number
        if per_second % 30:
            raise ValueError(f"time code {self} drops frames, as at 29.97 frames/s, and the video has {fps:g} frames/s")
        # Each minute begins two numbers later (four at 59.94), except every tenth.
        return number - per_second // 15 * (self.minutes - self.minutes // 10)

    def __str__(self) -> str:
        mark = ";" if self.drops else ":"
        return f"{self.minutes // 60:02}:{self.minutes % 60:02}:{self.seconds:02}{mark}{self.frames:02}"
