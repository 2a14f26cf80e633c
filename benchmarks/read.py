"""Random training clips: the store compared with decoding on demand, compressed npz and memory-mapped npy."""

from __future__ import annotations

import tempfile
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from actionprep.datasets.store.zarr_store import Store
from benchmarks.common import Results, interleaved, speed_ratio

FRAMES = 300
CLIP = 16
CLIPS = 24
TRACK_WINDOWS, POINTS = 40, 400


def make_video(path: Path) -> None:
    """A moving texture, 640x480 at 30 fps, H.264 with x264's default keyframe distance of 250."""
    texture = np.random.default_rng(0).integers(0, 255, (480 + 64, 640 + 64, 3), np.uint8)
    texture = texture.reshape(68, 8, 88, 8, 3).mean((1, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for at in range(FRAMES):
            dy, dx = at % 64, (2 * at) % 64
            image = np.ascontiguousarray(texture[dy : dy + 480, dx : dx + 640])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def decode_all(path: Path, side: int) -> np.ndarray:
    """All frames, resized to side x side."""
    reformatter = VideoReformatter()
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return np.stack(
            [
                reformatter.reformat(frame, side, side, "rgb24", interpolation="AREA").to_ndarray()
                for frame in container.decode(video=0)
            ]
        )


def decode_clip(path: Path, start: int, side: int) -> np.ndarray:
    """Decode one clip on demand, as a data loader does: open, seek to the previous keyframe, decode up to the end."""
    reformatter = VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"
        ticks = 1 / (stream.average_rate * stream.time_base)
        container.seek(int(start * ticks), stream=stream)
        taken = []
        for frame in container.decode(stream):
            at = round(frame.pts / ticks)
            if at >= start:
                taken.append(reformatter.reformat(frame, side, side, "rgb24", interpolation="AREA").to_ndarray())
            if len(taken) == CLIP:
                break
    return np.stack(taken)


def clips(results: Results, folder: Path, video: Path, side: int) -> None:
    """Clips of 16 frames at side x side."""
    frames = decode_all(video, side)
    store = Store(folder / f"store{side}", create=True)
    with store.write("lowres", "a", "0", fingerprint="b", provenance={}) as item:
        item.create("rgb", shape=(side, side, 3), dtype=np.uint8, axes=("time", "y", "x", "channel"), chunk=8)
        item.append("rgb", frames)
    np.savez_compressed(folder / f"{side}.npz", video=frames)
    np.save(folder / f"{side}.npy", frames)
    starts = np.random.default_rng(1).integers(0, FRAMES - CLIP, CLIPS)
    rgb = store.item("lowres", "a", "0")["rgb"]
    mapped = np.load(folder / f"{side}.npy", mmap_mode="r")
    assert np.array_equal(rgb[40:56], mapped[40:56])

    def npz() -> None:
        for start in starts[:4]:
            with np.load(folder / f"{side}.npz") as file:
                file["video"][start : start + CLIP]

    sides = interleaved(
        {
            "store": lambda: [rgb[start : start + CLIP] for start in starts],
            "decode on demand (PyAV seek)": lambda: [decode_clip(video, int(start), side) for start in starts[:4]],
            "compressed npz": npz,
            "memory-mapped npy": lambda: [np.array(mapped[start : start + CLIP]) for start in starts],
        },
        work={"store": CLIPS, "decode on demand (PyAV seek)": 4, "compressed npz": 4, "memory-mapped npy": CLIPS},
        unit="clips",
        rounds=7,
    )
    results.add(f"clips of {CLIP} frames at {side} px", sides)
    _mark(results, f"{side} px clips", sides, decode=True)


def tracks(results: Results, folder: Path) -> None:
    """All tracks of a snippet: one window of 16 frames x 400 points with visibility and confidence."""
    generator = np.random.default_rng(2)
    arrays = {
        "xy": generator.normal(size=(TRACK_WINDOWS, CLIP, POINTS, 2)).astype(np.float32),
        "visibility": generator.random((TRACK_WINDOWS, CLIP, POINTS)).astype(np.float32),
        "confidence": generator.random((TRACK_WINDOWS, CLIP, POINTS)).astype(np.float32),
    }
    store = Store(folder / "store-tracks", create=True)
    with store.write("tracks", "a", "0", fingerprint="b", provenance={}) as item:
        for name, values in arrays.items():
            axes = ("window", "frame", "point", "xy")[: values.ndim]
            item.create(name, shape=values.shape[1:], dtype=values.dtype, axes=axes, chunk=1)
            item.append(name, values)
            np.save(folder / f"{name}.npy", values)
    np.savez_compressed(folder / "tracks.npz", **arrays)  # type: ignore[arg-type]
    opened = store.item("tracks", "a", "0")
    mapped = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in arrays}
    picks = generator.integers(0, TRACK_WINDOWS, 200)

    def npz() -> None:
        for pick in picks[:10]:
            with np.load(folder / "tracks.npz") as file:
                [file[name][pick] for name in arrays]

    sides = interleaved(
        {
            "store": lambda: [[opened[name][pick] for name in arrays] for pick in picks],
            "compressed npz": npz,
            "memory-mapped npy": lambda: [[np.array(mapped[name][pick]) for name in arrays] for pick in picks],
        },
        work={"store": 200, "compressed npz": 10, "memory-mapped npy": 200},
        unit="snippets",
        rounds=9,
    )
    results.add(f"tracks of a snippet ({CLIP} frames x {POINTS} points)", sides)
    _mark(results, "tracks", sides, decode=False)


def _mark(results: Results, what: str, sides: dict, *, decode: bool) -> None:
    ours = sides["store"]
    if decode:
        ratio = speed_ratio(ours, sides["decode on demand (PyAV seek)"])
        results.mark(f"{what}: store beside decoding on demand", ratio, at_least=50)
    results.mark(f"{what}: store beside compressed npz", speed_ratio(ours, sides["compressed npz"]), at_least=50)
    results.mark(f"{what}: store beside memory-mapped npy", speed_ratio(ours, sides["memory-mapped npy"]), at_least=0.3)


def main() -> int:
    """Run all."""
    results = Results("read", settings={"frames": FRAMES, "clip": CLIP, "clips": CLIPS, "page_cache": "warm"})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_video(folder / "video.mp4")
        for side in (112, 320):
            clips(results, folder, folder / "video.mp4", side)
        tracks(results, folder)
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
