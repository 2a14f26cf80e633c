"""Time of a stored item beside the time of its syncs, and beside a plain loop that writes and syncs the same files.

    python -m benchmarks.item [--rounds 60]

The item has the arrays of the point tracks of a clip with 20 windows of 16 frames and 40 points.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from actionprep.datasets.store.zarr_store import Store
from benchmarks.common import Results, interleaved, speed_ratio

XY = np.random.default_rng(0).random((20, 16, 40, 2), np.float32)
VISIBLE = np.ones(XY.shape[:3], np.uint8)


def write_item(store: Store, recording: str) -> None:
    """Write and commit an item."""
    with store.write("tracks", recording, "0", fingerprint="f", provenance={}) as item:
        item.create("xy", shape=XY.shape[1:], dtype=XY.dtype, axes=("window", "t", "point", "axis"), chunk=4)
        item.append("xy", XY)
        item.create("visible", shape=VISIBLE.shape[1:], dtype=VISIBLE.dtype, axes=("window", "t", "point"), chunk=4)
        item.append("visible", VISIBLE)
        for name in ("time", "scale"):
            item.write(name, np.zeros(XY.shape[:2]), axes=("window", "t"))
        for name in ("start", "count"):
            item.write(name, np.arange(len(XY)), axes=("window",))


def write_plainly(folder: Path, files: dict[str, bytes]) -> None:
    """Write and sync files, and the folders that they are in, then rename the folder that all are in."""
    draft = f"{folder}.draft"
    folders = sorted({parent for name in files for parent in [name.rpartition("/")[0]] if parent})
    os.makedirs(draft)
    for name in folders:
        os.makedirs(f"{draft}/{name}")
    for name, content in files.items():
        with open(f"{draft}/{name}", "wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
    for place, _, _ in os.walk(draft):
        handle = os.open(place, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    os.rename(draft, folder)


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    results = Results("item", settings={"rounds": args.rounds})
    fsync, syncs = os.fsync, [0.0, 0.0]

    def timed_fsync(handle: int) -> None:
        begun = time.perf_counter()
        fsync(handle)
        syncs[0] += time.perf_counter() - begun
        syncs[1] += 1

    shares: list[float] = []
    numbers = itertools.count()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        store = Store(Path(name) / "store", create=True)
        write_item(store, "first")
        item = Path(name) / "store/tracks/first/0"
        files = {path.relative_to(item).as_posix(): path.read_bytes() for path in item.rglob("*") if path.is_file()}

        def ours() -> None:
            syncs[:] = [0.0, 0.0]
            begun = time.perf_counter()
            os.fsync = timed_fsync  # type: ignore[assignment]
            try:
                write_item(store, f"next_{next(numbers)}")
            finally:
                os.fsync = fsync
            shares.append((time.perf_counter() - begun) / syncs[0])

        def plain() -> None:
            write_plainly(Path(name) / f"plain_{next(numbers)}", files)

        sides = interleaved({"item of the store": ours, "plain files": plain}, rounds=args.rounds, unit="items")
    results.add("point tracks of a clip", sides)
    results.notes.append(f"{syncs[1]:.0f} syncs per item, {len(files)} files")
    results.mark("stored item: time / time of its syncs", statistics.median(shares), at_most=2.0)
    results.mark(
        "stored item: rate / plain loop that writes and syncs the same files",
        speed_ratio(sides["item of the store"], sides["plain files"]),
        at_least=0.5,
    )
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
