"""Random training clips from each form of a store: Zarr, HDF5, npz snippets and memory-mapped npy, in one run."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from actionprep.datasets.npz_snippets import write_snippet
from actionprep.datasets.store.hdf5_store import write_hdf5
from actionprep.datasets.store.npz_store import NpzStore
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from benchmarks.common import Results, interleaved, speed_ratio
from benchmarks.read import CLIP, decode_all, make_video

SNIPPETS, LENGTH = 20, 39
"""Snippets, and frames of each: 1.3 s at 29.97 frames per second, as the gesture-snippet system stores them."""


def clips(results: Results, folder: Path, video: Path, side: int) -> None:
    """Read 16 consecutive frames of each of 20 snippets of 39 frames, at side x side."""
    frames = decode_all(video, side)
    starts = np.linspace(0, len(frames) - LENGTH, SNIPPETS).astype(int)
    store = Store(folder / "store", create=True)
    for number, start in enumerate(starts):
        snippet = frames[start : start + LENGTH]
        name = f"{number:09d}_a"
        with store.write("frames", name, "0", fingerprint="b", provenance={}) as item:
            item.create("rgb", shape=(side, side, 3), dtype=np.uint8, axes=("time", "y", "x", "channel"), chunk=8)
            item.append("rgb", snippet)
        for kind in ("compressed", "plain"):
            path = folder / kind / "train" / "a" / f"{name}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_snippet(path, {"video": snippet, "time": np.arange(LENGTH) / 29.97}, compress=kind == "compressed")
        np.save(folder / f"{name}.npy", snippet)
    write_hdf5(folder / "store.h5", store, store.items())
    stores = {
        "zarr": store,
        "hdf5": open_store(folder / "store.h5"),
        "npz": NpzStore(folder / "plain"),
        "compressed npz": NpzStore(folder / "compressed"),
    }
    arrays = {
        form: [opened.item(key.product, key.recording, key.view)["rgb"] for key in opened.items("frames")]
        for form, opened in stores.items()
    }
    arrays["memory-mapped npy"] = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))]
    first = np.random.default_rng(1).integers(0, LENGTH - CLIP, SNIPPETS)
    for form, opened in arrays.items():
        assert len(opened) == SNIPPETS, form
        assert all(np.array_equal(a[5:9], b[5:9]) for a, b in zip(opened, arrays["memory-mapped npy"], strict=True))
    sides = interleaved(
        {form: partial(read_all, arrays[form], first) for form in arrays},
        work=SNIPPETS,
        unit="clips",
        rounds=7,
    )
    results.add(f"clips of {CLIP} of {LENGTH} frames at {side} px", sides)
    for form in ("hdf5", "npz", "compressed npz"):
        results.mark(f"{side} px clips: Zarr store beside {form}", speed_ratio(sides["zarr"], sides[form]), at_least=1)
    ratio = speed_ratio(sides["zarr"], sides["memory-mapped npy"])
    results.mark(f"{side} px clips: Zarr store beside npy", ratio, at_least=0.3)


def read_all(arrays: list, first: np.ndarray) -> list[np.ndarray]:
    """One clip of each snippet, as arrays in memory."""
    return [np.array(array[start : start + CLIP]) for array, start in zip(arrays, first.tolist(), strict=True)]


def main() -> int:
    """Run all."""
    settings = {"snippets": SNIPPETS, "frames": LENGTH, "clip": CLIP, "page_cache": "warm"}
    results = Results("formats", settings=settings)
    with tempfile.TemporaryDirectory() as name:
        make_video(Path(name) / "video.mp4")
        for side in (112, 320):
            folder = Path(name) / str(side)
            folder.mkdir()
            clips(results, folder, Path(name) / "video.mp4", side)
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
