"""Compare one decode pass that fills the store with common decode loops on the same file.

    python -m benchmarks.decode [--rounds 9] [--file a_video.mp4]

Ours makes frames, keyframes and lowres (short side 112) in one pass and writes them to a store on the disk, checksums,
digests and commit included; once with all frames at a short side of 256, once with those of the keyframes at native
size. It is compared with the fastest decode-and-resize loop (one shared reformatter, area filter, automatic FFmpeg
threads, nothing written) and a loop with `to_ndarray` for every frame.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.zarr_store import Store
from actionprep.pipeline.decode_pass import decode_pass
from actionprep.pipeline.index import find_stage
from actionprep.pipeline.probe import probe
from actionprep.pipeline.stage import ViewSource
from benchmarks.common import Results, Side, interleaved, speed_ratio

SIDE = 112
FRAMES = 1800
PASSES = ("one pass that stores all frames", "one pass that stores the keyframes' frames")
LOOPS = (
    "shared reformatter, nothing written",
    "shared reformatter, nothing written, 1 FFmpeg thread",
    "shared reformatter, nothing written, threads everywhere",
)
NAIVE = "to_ndarray for every frame"

Settings = dict[str, dict[str, Any]]


def make_video(path: Path, *, num_frames: int = FRAMES, height: int = 480, width: int = 640) -> None:
    """A moving texture with moving discs, H.264 with the defaults of x264 (B-frames, keyframes 250 apart)."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 255, (height + 120, width + 160, 3), np.uint8), (0, 0), 3)
    texture = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(num_frames):
            x, y = int(40 + 30 * np.sin(index / 20)), int(40 + 30 * np.cos(index / 31))
            image = texture[y : y + height, x : x + width].copy()
            for disc in range(4):
                center = (
                    int(width / 2 + 200 * np.sin(index / 15 + disc)),
                    int(height / 2 + 150 * np.cos(index / 22 + 2 * disc)),
                )
                cv2.circle(image, center, 40, (50 * disc, 200 - 40 * disc, 90 + 30 * disc), -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))


def our_pass(path: Path, store_folder: Path, settings: Settings) -> Callable[[], int]:
    """Run the engine for one view: a new store, three committed items."""
    facts = probe(path)
    source = ViewSource("recording", "0", str(path), facts.height, facts.width, facts.fps, facts.times)
    items: dict[str, Any] = {
        name: SimpleNamespace(
            key=ItemKey(name, "recording", "0"),
            settings=find_stage(name).Settings(**values),
            fingerprint="benchmark",
            provenance={},
        )
        for name, values in settings.items()
    }
    # Frames of keyframes need these first. This decodes nothing.
    passes = [["keyframes"], ["frames", "lowres"]] if settings["frames"].get("which") else [list(items)]

    def run() -> int:
        store = Store(store_folder, create=True)
        for names in passes:
            outcome = decode_pass(source, [items[name] for name in names], store, threads=0)
            assert all(item.problem is None for item in outcome.items)
        return outcome.num_frames

    return run


def fastest_loop(path: Path, side: int, *, codec_threads: int, scale_threads: int) -> Callable[[], int]:
    """Decode and shrink with one shared reformatter, keeping the images in memory. Nothing is written."""

    def run() -> int:
        reformatter, images = VideoReformatter(), []
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type, stream.thread_count = "AUTO", codec_threads
            for frame in container.decode(stream):
                small = reformatter.reformat(frame, side, side, "rgb24", interpolation="AREA", threads=scale_threads)
                images.append(small.to_ndarray())
        return len(images)

    return run


def naive_loop(path: Path) -> Callable[[], int]:
    """Common loop: convert every frame to RGB, then resize with OpenCV."""

    def run() -> int:
        images = []
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                image = frame.to_ndarray(format="rgb24")
                images.append(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))
        return len(images)

    return run


def measure(results: Results, name: str, path: Path, every: Settings, few: Settings, rounds: int) -> dict[str, Side]:
    """Time all sides on one file."""
    num_frames = probe(path).num_frames
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        timed = interleaved(
            {
                PASSES[0]: our_pass(path, store, every),
                PASSES[1]: our_pass(path, store, few),
                LOOPS[0]: fastest_loop(path, SIDE, codec_threads=0, scale_threads=1),
                LOOPS[1]: fastest_loop(path, SIDE, codec_threads=1, scale_threads=1),
                LOOPS[2]: fastest_loop(path, SIDE, codec_threads=0, scale_threads=0),
                NAIVE: naive_loop(path),
            },
            rounds=rounds,
            work=num_frames,
            unit="frames",
            before=lambda: shutil.rmtree(store, ignore_errors=True),
        )
    results.add(name, timed)
    return timed


def main() -> int:
    """Run and write benchmarks/results/decode.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--file", type=Path, action="append", default=[], help="also measure this file, without targets"
    )
    options = parser.parse_args()
    every: dict[str, dict[str, Any]] = {"frames": {"size": 256}, "keyframes": {}, "lowres": {"sizes": (SIDE,)}}
    few: dict[str, dict[str, Any]] = {**every, "keyframes": {}, "frames": {"which": "keyframes", "size": 0}}
    results = Results("decode", settings={"every": every, "few": few, "rounds": options.rounds, "small_side": SIDE})
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "video.mp4"
        make_video(video)
        timed = measure(results, f"{FRAMES} frames 640x480 H.264", video, every, few, options.rounds)
        for path in options.file:
            measure(results, path.name, path, every, few, options.rounds)
    fastest = min((timed[name] for name in LOOPS), key=lambda side: side.median)
    results.notes.append(f"the fastest loop of this run was: {fastest.name}")
    naive = timed[NAIVE]
    for name in PASSES:
        results.mark(
            f"rate of {name} / fastest decode-and-resize loop", speed_ratio(timed[name], fastest), at_least=0.8
        )
        results.mark(f"rate of {name} / to_ndarray loop", speed_ratio(timed[name], naive), at_least=1.5)
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
