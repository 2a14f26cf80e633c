"""Write videos: views side by side on one clock, with a timeline below, as H.264."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.datasets.label_colors import NOTHING, Color
from actionprep.errors import SetupError, UserError
from actionprep.show.colors import DARK, text_on
from actionprep.show.files import atomic_write
from actionprep.show.strip import Strip
from actionprep.show.text import fitted, put_text, text_width
from actionprep.show.timeline import Bar, TimelineRow

if TYPE_CHECKING:
    from actionprep.show.scenes import Scene

MARGIN, GAP = 16, 8
TITLE, NAME = 20, 16
_CLOCK = Fraction(1, 90000)


@dataclass(frozen=True)
class VideoLayout:
    """Layout of a video frame.

    Attributes:
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.
        boxes: x, y, width, height of each view in pixels.
    """

    width: int
    height: int
    boxes: tuple[tuple[int, int, int, int], ...]


def video_layout(scenes: Sequence[Scene], *, columns: int, most: tuple[int, int], below: int) -> VideoLayout:
    """Arrange views in rows of equal height, as large as fits, but not much larger than their videos.

    Args:
        scenes: One scene per view.
        columns: Maximum number of views side by side.
        most: Maximum height and width of the frame in pixels.
        below: Height of the timeline in pixels.
    """
    head = MARGIN + TITLE + 14
    best: tuple[int, list[list[int]]] | None = None
    for wide in range(1, min(columns, len(scenes)) + 1):
        rows = [list(range(first, min(first + wide, len(scenes)))) for first in range(0, len(scenes), wide)]
        across = min(
            (most[1] - 2 * MARGIN - GAP * (len(row) - 1)) / sum(scenes[at].aspect for at in row) for row in rows
        )
        down = (most[0] - head - MARGIN - below - GAP * (len(rows) - 1)) / len(rows)
        high = int(min(across, down, max(480, max(scene.images.height for scene in scenes))))
        if best is None or high >= best[0]:
            best = high, rows
    assert best is not None
    high, rows = max(best[0], 64), best[1]
    widths = [[max(2, round(high * scenes[at].aspect)) for at in row] for row in rows]
    inner = max(sum(row) + GAP * (len(row) - 1) for row in widths)
    inner = max(inner, 480)
    boxes = []
    y = head
    for row in widths:
        x = MARGIN + (inner - sum(row) - GAP * (len(row) - 1)) // 2
        for width in row:
            boxes.append((x, y, width, high))
            x += width + GAP
        y += high + GAP
    height = y - GAP + below + MARGIN
    # H.264 in 4:2:0 needs even sizes.
    return VideoLayout(inner + 2 * MARGIN + inner % 2, height + height % 2, tuple(boxes))


def video_times(scenes: Sequence[Scene], span: tuple[float, float] | None = None) -> np.ndarray:
    """Times of the frames of a video of several views.

    Takes the times of the view with the highest frame rate, and those of other views where it has no frames.
    """
    lead = max(scenes, key=lambda scene: 1 / scene.step if scene.step else 0.0)
    times = lead.times
    for scene in scenes:
        outside = (scene.times < times[0] - lead.step) | (scene.times > times[-1] + lead.step)
        times = np.union1d(times, scene.times[outside])
    return times if span is None else times[(times >= span[0] - 1e-9) & (times < span[1] + 1e-9)]


def video_frames(
    scenes: Sequence[Scene],
    times: np.ndarray,
    *,
    title: str,
    rows: Sequence[TimelineRow] = (),
    span: tuple[float, float] | None = None,
    colors: Mapping[str, Color] | None = None,
    columns: int = 6,
    most: tuple[int, int] = (1080, 1920),
    current: TimelineRow | None = None,
) -> Iterator[np.ndarray]:
    """Yield one video frame per time. Each view shows its frame nearest to that time.

    Args:
        scenes: One scene per view.
        times: Increasing times in seconds, shape (T,).
        title: Title at the top.
        rows: Rows of the timeline below, with a marker of the current time.
        span: Interval of the timeline in seconds. Default: that of `times`.
        colors: Colors of labels. Default: those of `label_colors`.
        columns: Maximum number of views side by side.
        most: Maximum height and width of the frame in pixels.
        current: Row whose current label is shown at the top.

    Yields:
        RGB images, shape (H, W, 3), uint8.
    """
    whole = span or (float(times[0]), float(times[-1]) + 1e-3)
    strip = Strip(rows, whole, colors=colors) if rows else None
    layout = video_layout(scenes, columns=columns, most=most, below=strip.height + 12 if strip else 0)
    ground = np.full((layout.height, layout.width, 3), DARK.ground, np.uint8)
    clock_width = text_width(f"-{whole[1]:.3f} s", TITLE) + 12
    label_room = max((_label_width(bar) for bar in current.bars), default=0) + 16 if current is not None else 0
    shown = fitted(title, layout.width - 2 * MARGIN - clock_width - label_room, TITLE, bold=True)
    put_text(ground, shown, (MARGIN, MARGIN + TITLE / 2), size=TITLE, color=DARK.ink, bold=True)
    if strip:
        strip.draw_still(ground, MARGIN, layout.height - MARGIN - strip.height, layout.width - 2 * MARGIN)
    streams = []
    for scene, (_, _, width, height) in zip(scenes, layout.boxes, strict=True):
        moments = [scene.nearest(float(time)) for time in times]
        streams.append(
            (moments, _once_each(scene, [moment for moment in moments if moment is not None], height, width))
        )
    for at, time in enumerate(times):
        canvas = ground.copy()
        position = (layout.width - MARGIN, MARGIN + TITLE / 2)
        put_text(canvas, f"{time:.3f} s", position, size=TITLE, color=DARK.ink, anchor="right")
        if current is not None:
            _draw_current_label(canvas, current, float(time), layout.width - MARGIN - clock_width, colors or {})
        for scene, (moments, stream), (x, y, width, height) in zip(scenes, streams, layout.boxes, strict=True):
            if moments[at] is None:
                canvas[y : y + height, x : x + width] = DARK.empty
                middle = (x + width / 2, y + height / 2)
                put_text(canvas, "no frame at this time", middle, size=NAME, color=DARK.quiet, anchor="middle")
            else:
                canvas[y : y + height, x : x + width] = next(stream)
            if len(scenes) > 1:
                name = fitted(scene.name, width - 16, NAME, bold=True)
                position = (x + 10, y + 8 + NAME / 2)
                put_text(canvas, name, position, size=NAME, color=(255, 255, 255), bold=True, halo=(0, 0, 0))
        if strip:
            strip.draw_now(canvas, float(time))
        yield canvas


def _draw_current_label(
    canvas: np.ndarray, row: TimelineRow, time: float, right: int, colors: Mapping[str, Color]
) -> None:
    """Draw the most probable label of a timeline row at this time, in a box that ends at `right`."""
    now = [bar for bar in row.bars if bar.onset <= time < bar.offset and bar.label and not bar.ignored]
    if not now:
        return
    bar = max(now, key=lambda bar: 1.0 if bar.score is None else bar.score)
    color = colors.get(bar.label, NOTHING)
    left, top = max(right - _label_width(bar), MARGIN), MARGIN - 5
    canvas[top : top + TITLE + 10, left:right] = color
    center = ((left + right) / 2, MARGIN + TITLE / 2)
    put_text(canvas, _label_text(bar), center, size=TITLE - 2, color=text_on(color), bold=True, anchor="middle")


def _label_text(bar: Bar) -> str:
    return bar.label if bar.score is None else f"{bar.label}  {bar.score:.2f}"


def _label_width(bar: Bar) -> int:
    return text_width(_label_text(bar), TITLE - 2, bold=True) + 20


def write_video(
    images: Iterable[np.ndarray],
    path: str | Path,
    *,
    times: np.ndarray,
    last: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write images as H.264 in an MP4 file.

    Args:
        images: RGB images of one even size, shape (H, W, 3), uint8.
        path: File that ends in .mp4.
        times: Increasing display times in seconds, shape (T,). The video starts at 0.
        last: Duration of the last image in seconds. Default: the median interval.
        progress: Called with 1 after each frame.

    Returns:
        The path.

    Raises:
        UserError: If there are no images or the suffix is not .mp4.
        SetupError: If the encoder is missing or the file cannot be written.
    """
    import av

    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UserError(f"Videos are written as .mp4 files; got {path.name}.")
    times = np.asarray(times, np.float64)
    if not len(times):
        raise UserError(f"No images to write to {path}.")
    if "libx264" not in av.codecs_available:
        raise SetupError("This PyAV has no H.264 encoder (libx264). Install PyAV from its wheel: pip install av")
    step = frame_interval(times, default=0.5)
    ticks = np.rint((times - times[0]) / _CLOCK.numerator * _CLOCK.denominator).astype(np.int64)
    last_ticks = max(1, round((step if last is None else last) * _CLOCK.denominator))
    durations = np.append(np.diff(ticks), last_ticks)
    with atomic_write(path) as draft, av.open(str(draft), "w", options={"movflags": "+faststart"}) as container:
        rate = Fraction(1 / max(step, 1e-3)).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "19", "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _CLOCK
        stream.time_base = _CLOCK
        for tick, duration, image in zip(ticks.tolist(), durations.tolist(), images, strict=True):
            if tick == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base, frame.duration = tick, _CLOCK, duration
            container.mux(stream.encode(frame))
            if progress is not None:
                progress(1)
        container.mux(stream.encode())
    return path


def _once_each(scene: Scene, moments: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:
    """Yield the drawn images of time steps. Repeated time steps are drawn once."""
    last: tuple[int, np.ndarray] | None = None
    distinct = list(dict.fromkeys(moments))
    stream = scene.draw(distinct, height, width)
    for moment in moments:
        if last is None or last[0] != moment:
            last = moment, next(stream)
        yield last[1]
