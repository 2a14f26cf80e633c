"""Frames of numbered videos are read in random order."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from numbered_videos import KINDS, read_numbers, write_numbered

from actionprep.pipeline.video import VideoReader
from torture.common import Part, Trials

COUNT = 150
TICK_S = 0.001
VARIABLE = {"h264-variable.mp4": "libx264", "h264-variable.mkv": "libx264", "vp9-variable.webm": "libvpx-vp9"}


def access_frames(trials: Trials, folder: Path) -> None:
    """Read single frames and small groups, and compare the numbers in them with their indices."""
    readers: dict[str, VideoReader] = {}
    for name, (codec, options, pixels) in KINDS.items():
        path = folder / name
        try:
            write_numbered(path, codec, COUNT, options=options, pixel_format=pixels)
        except Exception as error:  # this FFmpeg has no such encoder
            print(f"not written: {name}: {error}")
            continue
        readers[name] = VideoReader(path)
        _check_times(trials, name, readers[name], np.arange(COUNT) / 25)
    gaps = np.random.default_rng(trials.random.randrange(1 << 30)).integers(5, 200, COUNT)
    ticks = np.r_[0, np.cumsum(gaps)[:-1]]
    for name, codec in VARIABLE.items():
        options = {"deadline": "realtime", "cpu-used": "8"} if "vp9" in codec else {"preset": "ultrafast", "bf": "2"}
        path = write_numbered(
            folder / name, codec, COUNT, options=options, pts=ticks.tolist(), time_base=Fraction(1, 1000)
        )
        readers[name] = VideoReader(path)
        _check_times(trials, name, readers[name], ticks / 1000)
    trials.facts["videos"] = len(readers)
    names = list(readers)
    while trials.go_on:
        name = trials.random.choice(names)
        wanted = [trials.random.randrange(COUNT) for _ in range(trials.random.choice([1, 1, 1, 2, 5]))]
        numbers = read_numbers(readers[name].frames_at(wanted))
        trials.done += len(wanted)
        trials.check(numbers == wanted, f"{name}: frames {wanted} are {numbers}")
    for reader in readers.values():
        reader.close()


def _check_times(trials: Trials, name: str, reader: VideoReader, times: np.ndarray) -> None:
    if trials.check(reader.num_frames == COUNT, f"{name} has {reader.num_frames} frames, not {COUNT}"):
        error = float(np.abs(reader.times - times).max())
        if name.endswith(".mpg"):
            # This container does not store the time of each frame: FFmpeg estimates it.
            trials.facts[f"ms that times of {name} are wrong (not checked)"] = round(error * 1000)
            return
        trials.check(error <= TICK_S / 2 + 1e-9, f"{name}: times are wrong by {error:g} s")


PART = Part(
    "frames of numbered videos in many codecs and containers are read at random: the right ones, times within half a ms",
    "frames read",
    10_000,
    access_frames,
)
