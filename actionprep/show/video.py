"""Films: views side by side on one clock, with a timeline below, written as H.264."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.frame_times import frame_interval
from actionprep.errors import SetupError, UserError
from actionprep.show.colors import DARK, NOTHING, Color, text_on
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
class FilmLayout:
    """Where everything lies in a film's picture.

    places: (x, y, width, height) of each view in px.
    """

    width: int
    height: int
    places: tuple[tuple[int, int, int, int], ...]


def film_layout(scenes: Sequence[Scene], *, columns: int, most: tuple[int, int], below: int) -> FilmLayout:
    """Views in rows of one height, as large as fits into `most` (height, width), never much larger than they are.

    below: height that the timeline takes.
    """
    head = MARGIN + TITLE + 14
    best: tuple[int, list[list[int]]] | None = None
    for wide in range(1, min(columns, len(scenes)) + 1):
        rows = [list(range(first, min(first + wide, len(scenes)))) for first in range(0, len(scenes), wide)]
        across = min(
            (most[1] - 2 * MARGIN - GAP * (len(row) - 1)) / sum(scenes[at].aspect for at in row) for row in rows
        )
        down = (most[0] - head - MARGIN - below - GAP * (len(rows) - 1)) / len(rows)
        high = int(min(across, down, max(480, max(scene.pictures.height for scene in scenes))))
        if best is None or high >= best[0]:
            best = high, rows
    assert best is not None
    high, rows = max(best[0], 64), best[1]
    widths = [[max(2, round(high * scenes[at].aspect)) for at in row] for row in rows]
    inner = max(sum(row) + GAP * (len(row) - 1) for row in widths)
    inner = max(inner, 480)
    places = []
    y = head
    for row in widths:
        x = MARGIN + (inner - sum(row) - GAP * (len(row) - 1)) // 2
        for width in row:
            places.append((x, y, width, high))
            x += width + GAP
        y += high + GAP
    height = y - GAP + below + MARGIN
    # H.264 in 4:2:0 wants even sizes.
    return FilmLayout(inner + 2 * MARGIN + inner % 2, height + height % 2, tuple(places))


def video_times(scenes: Sequence[Scene], span: tuple[float, float] | None = None) -> np.ndarray:
    """Moments of a film of several views: those of the view with the most frames, and of others where it has none."""
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
    spoken: TimelineRow | None = None,
) -> Iterator[np.ndarray]:
    """One finished picture for each time; each view shows its frame nearest to it.

    rows: bars drawn below, over `span`, with a line at the time now. spoken: a row whose label now stands above.
    """
    whole = span or (float(times[0]), float(times[-1]) + 1e-3)
    strip = Strip(rows, whole, colors=colors) if rows else None
    layout = film_layout(scenes, columns=columns, most=most, below=strip.height + 12 if strip else 0)
    ground = np.full((layout.height, layout.width, 3), DARK.ground, np.uint8)
    clock_width = text_width(f"-{whole[1]:.3f} s", TITLE) + 12
    said = max((_said_width(bar) for bar in spoken.bars), default=0) + 16 if spoken is not None else 0
    shown = fitted(title, layout.width - 2 * MARGIN - clock_width - said, TITLE, bold=True)
    put_text(ground, shown, (MARGIN, MARGIN + TITLE / 2), size=TITLE, color=DARK.ink, bold=True)
    if strip:
        strip.draw_still(ground, MARGIN, layout.height - MARGIN - strip.height, layout.width - 2 * MARGIN)
    streams = []
    for scene, (_, _, width, height) in zip(scenes, layout.places, strict=True):
        moments = [scene.nearest(float(time)) for time in times]
        streams.append(
            (moments, _once_each(scene, [moment for moment in moments if moment is not None], height, width))
        )
    for at, time in enumerate(times):
        canvas = ground.copy()
        place = (layout.width - MARGIN, MARGIN + TITLE / 2)
        put_text(canvas, f"{time:.3f} s", place, size=TITLE, color=DARK.ink, anchor="right")
        if spoken is not None:
            _say(canvas, spoken, float(time), layout.width - MARGIN - clock_width, colors or {})
        for scene, (moments, stream), (x, y, width, height) in zip(scenes, streams, layout.places, strict=True):
            if moments[at] is None:
                canvas[y : y + height, x : x + width] = DARK.empty
                middle = (x + width / 2, y + height / 2)
                put_text(canvas, "no frame at this time", middle, size=NAME, color=DARK.quiet, anchor="middle")
            else:
                canvas[y : y + height, x : x + width] = next(stream)
            if len(scenes) > 1:
                name = fitted(scene.name, width - 16, NAME, bold=True)
                place = (x + 10, y + 8 + NAME / 2)
                put_text(canvas, name, place, size=NAME, color=(255, 255, 255), bold=True, halo=(0, 0, 0))
        if strip:
            strip.draw_now(canvas, float(time))
        yield canvas


def _say(canvas: np.ndarray, row: TimelineRow, time: float, right: int, colors: Mapping[str, Color]) -> None:
    """The surest label of a row at a time, as a sign that ends at `right`."""
    now = [bar for bar in row.bars if bar.onset <= time < bar.offset and bar.label and not bar.ignored]
    if not now:
        return
    bar = max(now, key=lambda bar: 1.0 if bar.score is None else bar.score)
    color = colors.get(bar.label, NOTHING)
    left, top = max(right - _said_width(bar), MARGIN), MARGIN - 5
    canvas[top : top + TITLE + 10, left:right] = color
    place = ((left + right) / 2, MARGIN + TITLE / 2)
    put_text(canvas, _said(bar), place, size=TITLE - 2, color=text_on(color), bold=True, anchor="middle")


def _said(bar: Bar) -> str:
    return bar.label if bar.score is None else f"{bar.label}  {bar.score:.2f}"


def _said_width(bar: Bar) -> int:
    return text_width(_said(bar), TITLE - 2, bold=True) + 20


def write_video(
    pictures: Iterable[np.ndarray],
    path: str | Path,
    *,
    times: np.ndarray,
    last: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write pictures (H, W, 3) uint8 of one even size as H.264 in an MP4; returns the path.

    times: (T,) s, rising: when each is shown; the film begins at 0. last: how long the last one stays, the median step
    when not given. progress: called with 1 for each frame that is written.

    Raises UserError when there are no pictures, SetupError when the encoder or the disk refuses.
    """
    import av

    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UserError(f"A film is written as .mp4, not as {path.name}.")
    times = np.asarray(times, np.float64)
    if not len(times):
        raise UserError(f"Nothing to write to {path}: there are no pictures.")
    if "libx264" not in av.codecs_available:
        raise SetupError("This PyAV has no H.264 encoder (libx264). Install PyAV from its wheel: pip install av")
    step = frame_interval(times, default=0.5)
    ticks = np.rint((times - times[0]) / _CLOCK.numerator * _CLOCK.denominator).astype(np.int64)
    long = max(1, round((step if last is None else last) * _CLOCK.denominator))
    durations = np.append(np.diff(ticks), long)
    with atomic_write(path) as draft, av.open(str(draft), "w", options={"movflags": "+faststart"}) as container:
        rate = Fraction(1 / max(step, 1e-3)).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "19", "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _CLOCK
        stream.time_base = _CLOCK
        for tick, duration, picture in zip(ticks.tolist(), durations.tolist(), pictures, strict=True):
            if tick == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base, frame.duration = tick, _CLOCK, duration
            container.mux(stream.encode(frame))
            if progress is not None:
                progress(1)
        container.mux(stream.encode())
    return path


def _once_each(scene: Scene, moments: Sequence[int], height: int, width: int) -> Iterator[np.ndarray]:
    """Pictures of moments that may repeat; what repeats is drawn once."""
    last: tuple[int, np.ndarray] | None = None
    distinct = list(dict.fromkeys(moments))
    stream = scene.draw(distinct, height, width)
    for moment in moments:
        if last is None or last[0] != moment:
            last = moment, next(stream)
        yield last[1]
