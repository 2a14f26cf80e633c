"""Many clips are built in one process; its memory and open files must not grow."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from recordings import moving_square, write_video

from actionprep.api import make_study
from torture.common import Part, Trials

MB_PER_1000 = 1.0
MAX_FILES = 64


def build_many(trials: Trials, folder: Path) -> None:
    """Build low-resolution frames of many clips, and fit a line to the memory after each."""
    for number in range(trials.count):
        clip = moving_square(4, height=32, width=32, speed=1, seed=number)
        write_video(folder / f"videos/any/clip_{number}.avi", clip, codec="mjpeg", pixel_format="yuvj420p")
    study, _ = make_study(folder, {}, force=True)
    study.folder.change("lowres", "sizes", (16,))
    study.scan()
    page, memory, files = os.sysconf("SC_PAGE_SIZE"), [], []

    def note(*_: object) -> None:
        trials.done += 1
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * page / 1e6)
        files.append(len(os.listdir("/proc/self/fd")))

    report = study.build("lowres", progress=note)
    trials.check(len(report.built) == trials.count, f"{len(report.built)} of {trials.count} clips were built")
    warm = len(memory) // 5
    slope = float(np.polyfit(np.arange(len(memory) - warm), memory[warm:], 1)[0]) * 1000
    trials.facts["kB per 1,000 clips"] = round(slope * 1000)
    trials.facts["open files"] = max(files)
    trials.check(slope <= MB_PER_1000, f"memory grows by {slope:.2f} MB per 1,000 clips")
    trials.check(max(files) <= MAX_FILES, f"{max(files)} files were open")


PART = Part(
    "many clips are built in one process: at most 1 MB of memory more per 1,000 clips, open files bounded",
    "clips",
    10_000,
    build_many,
)
