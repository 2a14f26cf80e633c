"""Small videos and studies with known pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from actionprep.api import Study, open_study
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.segments import Segment
from actionprep.pipeline.probe import probe
from actionprep.show.scenes import Scene

HEIGHT, WIDTH = 96, 128


def gray_of(frame: int) -> int:
    """Return the gray value of a frame of a test video."""
    return 40 + 4 * frame


def write_video(path: Path, num_frames: int, fps: int, *, height: int = HEIGHT, width: int = WIDTH) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "4", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(num_frames):
            image = np.full((height, width, 3), gray_of(number), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def make_study(root: Path, *, segments: Sequence[Segment] = (), label: str | None = None) -> Study:
    """Create a study with recording "kitchen/take.1": view "a" (20 frames, 10 fps) and "b" (50 frames, 25 fps, 0.1 s later).

    The catalog is written as a scan would.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "actionprep.toml").write_text('[study]\nlayout = "views"\npattern = "{recording}/{view}.mp4"\n')
    views = []
    for view, num_frames, fps, offset in (("a", 20, 10, 0.0), ("b", 50, 25, 0.1)):
        path = root / "videos" / "kitchen" / "take.1" / f"{view}.mp4"
        facts = probe(write_video(path, num_frames, fps))
        views.append(
            View(
                recording="kitchen/take.1",
                id=view,
                path=path.relative_to(root).as_posix(),
                codec=facts.codec,
                width=facts.width,
                height=facts.height,
                num_frames=facts.num_frames,
                fps=facts.fps,
                offset=offset,
                duration=facts.duration,
                digest=facts.digest,
                frame_times=facts.times,
            )
        )
    Catalog(
        (Recording("kitchen/take.1", subject="anna", label=label),),
        tuple(views),
        {"kitchen/take.1": tuple(segments)} if segments else {},
    ).write(root / "catalog")
    return open_study(root)


def write_tracks(study: Study, view: str, *, place: tuple[float, float] = (40.0, 30.0)) -> None:
    """Two windows of 8 frames, 4 apart. Point 0 is visible at `place` in all frames, point 1 is lost at (100, 70)."""
    times = study.catalog.view("kitchen/take.1", view).times
    start = np.array([0, 4])
    frame = start[:, None] + np.arange(8)
    xy = np.full((2, 8, 3, 2), np.nan, np.float32)
    xy[:, :, 0], xy[:, :, 1] = place, (100.0, 70.0)
    visibility = np.zeros((2, 8, 3), np.float32)
    visibility[:, :, 0] = 0.9
    with study.store.write("tracks", "kitchen/take.1", view, fingerprint="f", provenance={}) as item:
        for name, values, axes in (
            ("xy", xy, ("window", "frame", "point", "xy")),
            ("visibility", visibility, ("window", "frame", "point")),
            ("confidence", visibility, ("window", "frame", "point")),
            ("valid", np.tile([True, True, False], (2, 1)), ("window", "point")),
            ("frame", frame.astype(np.int32), ("window", "frame")),
            ("frame_valid", np.ones((2, 8), bool), ("window", "frame")),
            ("time", times[frame], ("window", "frame")),
            ("start", start.astype(np.int32), ("window",)),
            ("seed", start.astype(np.int32), ("window",)),
            ("region", np.tile(np.float32([20, 20, 110, 80]), (2, 1)), ("window", "box")),
        ):
            item.write(name, values, axes=axes)
        item.attributes.update(
            tracker="lk", visible_rule="visibility", visible_above=0.5, visible_share=0.5, region=[20, 20, 110, 80]
        )


class PlainImages:
    """Images filled with their number as the gray value."""

    def __init__(self, height: int = HEIGHT, width: int = WIDTH) -> None:
        self.height, self.width = height, width
        self.asked: list[int] = []

    def at(self, numbers: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:
        for number in numbers:
            self.asked.append(int(number))
            yield np.full((height, width, 3), number, np.uint8)


def plain_scene(view: str, times: Sequence[float], *, height: int = HEIGHT, width: int = WIDTH) -> Scene:
    return Scene(view, np.asarray(times, float), np.arange(len(times)), PlainImages(height, width))


def decoded_frames(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """Return images and times of a video, decoded without the package's reader."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in frames], [
        float(frame.pts * frame.time_base) for frame in frames
    ]


def read_image(path: Path) -> np.ndarray:
    """Return an image file as an RGB array."""
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
