"""Write rendered frames as a small H.264 file with exact frame times and reproducible bytes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def encode_video(path: Path, frames: np.ndarray, ticks: np.ndarray, time_base: Fraction, *, rate: Fraction) -> None:
    """Encode frames (T, H, W, 3) uint8 RGB of even size, shown at ticks (T,) * time_base seconds, into an MP4 file.

    The encoder runs on one thread, because its output depends on the number of threads. Its macroblock tree is off,
    because with it the last macroblocks of equal frames come out differently from time to time.
    """
    height, width = frames.shape[1:3]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        details = "bframes=2:mbtree=0"
        stream.options = {"preset": "veryfast", "crf": "25", "threads": "1", "g": "48", "x264-params": details}
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        stream.codec_context.thread_count = 1
        for image, tick in zip(frames, ticks, strict=True):
            planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = int(tick), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
