"""Open the frames of any view: a video file, a folder of images, or a recording in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actionprep.datasets.view_reading import WHOLE_FILE, Reading
from actionprep.pipeline.chapters import JoinedReader
from actionprep.pipeline.image_sequence import StillsReader, is_stills
from actionprep.pipeline.video import FrameReader, VideoReader


def open_reader(
    path: str | Path, reading: Reading = WHOLE_FILE, *, times: np.ndarray | None = None, threads: int = 1
) -> FrameReader:
    """Open a view for reading frames.

    Args:
        path: A video file, a folder of numbered images, or an animated WebP.
        reading: Further parts, stream, rate and crop.
        times: Frame times to use instead of seconds from the first frame, such as those on the recording's clock.
        threads: FFmpeg threads; 0 uses all cores but one.

    Raises:
        InputError: If it cannot be opened, or has another number of frames than `times`.
    """
    if reading.parts:
        return JoinedReader(path, reading, times=times, threads=threads)
    if is_stills(path):
        return StillsReader(path, reading, times=times)
    return VideoReader(path, times=times, threads=threads, reading=reading)
