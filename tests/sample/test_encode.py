"""The videos of the sample study have the same bytes each time, also on a busy machine."""

from __future__ import annotations

import hashlib
import threading
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from actionprep.sample.encode import encode_video


def test_encode_video_gives_equal_bytes_beside_other_work(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 255, (40, 144, 192, 3)).astype(np.uint8)
    frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in noise])
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            np.sort(np.random.default_rng(1).random(200_000))

    others = [threading.Thread(target=work) for _ in range(3)]
    for thread in others:
        thread.start()
    try:
        digests = set()
        for number in range(20):
            path = tmp_path / f"{number}.mp4"
            encode_video(path, frames, np.arange(40), Fraction(1, 20), rate=Fraction(20))
            digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    finally:
        done.set()
        for thread in others:
            thread.join()
    assert len(digests) == 1
