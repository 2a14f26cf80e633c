"""Cost of raw, losslessly compressed and JPEG frames: bytes, time to write, time to read a clip.

    python -m benchmarks.storage [--video clip.mp4]

Without --video, a video is generated. The frames are those of `actionprep decode` with each `storage`, at the same
size. A clip is 16 consecutive frames from a random position, read with `read_frames`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from actionprep.datasets.products.frames import read_frames
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.zarr_store import Store
from actionprep.pipeline.decode_pass import decode_pass
from actionprep.pipeline.index import find_stage
from actionprep.pipeline.probe import probe
from actionprep.pipeline.stage import ViewSource
from benchmarks.common import Results, interleaved
from benchmarks.decode import make_video

CLIP, CLIPS, SIZE = 16, 12, 256
STORAGES = ("raw", "zstd", "jpeg")


def write(video: Path, store: Store, storage: str) -> float:
    """Store the frames of a video with one setting and return the elapsed seconds."""
    facts = probe(video)
    source = ViewSource("recording", "0", str(video), facts.height, facts.width, facts.fps, facts.times)
    settings = find_stage("frames").Settings.read({"size": SIZE, "storage": storage}, where="the benchmark")
    item: Any = SimpleNamespace(
        key=ItemKey("frames", "recording", "0"), settings=settings, fingerprint="b", provenance={}
    )
    begun = time.perf_counter()
    decode_pass(source, [item], store, threads=1)
    return time.perf_counter() - begun


def read_clips(item: Any, starts: Iterable[int]) -> list[Any]:
    """Read the clips that begin at `starts`."""
    return [read_frames(item, slice(start, start + CLIP)) for start in starts]


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = args.video or folder / "video.mp4"
        if args.video is None:
            make_video(video, num_frames=200)
        items, seconds, sizes = {}, {}, {}
        for storage in STORAGES:
            store = Store(folder / storage, create=True)
            seconds[storage] = write(video, store, storage)
            files = [file for file in (folder / storage).rglob("*") if file.is_file()]
            sizes[storage] = sum(file.stat().st_size for file in files)
            items[storage] = store.item("frames", "recording", "0")
        num_frames = len(items["raw"]["time"])
        starts = np.random.default_rng(0).integers(0, num_frames - CLIP, CLIPS)
        sides = interleaved(
            {storage: partial(read_clips, items[storage], starts) for storage in STORAGES},
            work=CLIPS,
            unit="clips",
        )
        results = Results(
            "storage",
            settings={
                "video": args.video.name if args.video else "made for this",
                "frames": num_frames,
                "short_side": SIZE,
                "clip": CLIP,
                "bytes_a_frame": {one: round(size / num_frames) for one, size in sizes.items()},
                "seconds_to_write": {one: round(value, 3) for one, value in seconds.items()},
            },
        )
        results.add(f"clips of {CLIP} frames, short side {SIZE} px", sides)
        results.save()
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
