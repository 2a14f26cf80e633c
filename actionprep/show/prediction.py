"""Show what a model says of a recording: a timeline with pictures, or a film with the labels below its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from actionprep.datasets.segments import Segment
from actionprep.errors import UserError
from actionprep.show.colors import Color, label_colors
from actionprep.show.images import VideoFrames
from actionprep.show.scenes import Scene
from actionprep.show.timeline import Bar, TimelineRow, draw_timeline, fitting_images
from actionprep.show.video import video_frames, video_times, write_video


def draw_prediction(
    videos: Mapping[str, str | Path],
    rows: Sequence[TimelineRow],
    path: str | Path,
    *,
    times: Mapping[str, np.ndarray] | None = None,
    title: str = "",
    details: Sequence[str] = (),
    colors: Mapping[str, Color] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw labels with their scores over the time of a recording; returns the path.

    videos: path of each view's video by the view's name. times: their frame times (T,) in s on the recording's clock;
        from the first frame of each when not given.
    rows: the prediction first, then what it is held against, such as annotated segments. Bars with a score are the
        fainter the lower it is.
    path: .mp4 for a film of all views side by side, in which the label of the first row at that time stands above;
        .png, .svg or .pdf for a chart with some frames of the first view.
    colors: of labels; chosen when not given. progress: called with the number of film pictures done and their total.

    Raises UserError for another ending, and when there are no videos or no rows.
    """
    path = Path(path)
    if path.suffix.lower() not in (".mp4", ".png", ".svg", ".pdf"):
        raise UserError(f"A prediction is drawn as .mp4, .png, .svg or .pdf, not as {path.name}.")
    if not videos or not rows:
        raise UserError("A prediction is drawn from at least one video and one row of labels.")
    colors = label_colors(bar.label for row in rows for bar in row.bars) if colors is None else colors
    scenes = [_scene(view, video, None if times is None else times[view]) for view, video in videos.items()]
    moments = video_times(scenes)
    span = (float(moments[0]), float(moments[-1]) + max(1e-3, *(scene.step for scene in scenes)))
    if path.suffix.lower() != ".mp4":
        pictures = scenes[0].near(fitting_images(scenes[0].aspect, span), height=200)
        return draw_timeline(rows, span, path, title=title, details=details, colors=colors, pictures=pictures)
    done = iter(range(1, len(moments) + 1))
    return write_video(
        video_frames(scenes, moments, title=title, rows=rows, span=span, colors=colors, spoken=rows[0]),
        path,
        times=moments,
        progress=None if progress is None else lambda _: progress(next(done), len(moments)),
    )


def _scene(view: str, video: str | Path, times: np.ndarray | None) -> Scene:
    pictures = VideoFrames(video, times=times)
    return Scene(view, pictures.times, np.arange(len(pictures.times)), pictures)


def predicted_row(segments: Iterable[tuple[Segment, float]], name: str = "prediction") -> TimelineRow:
    """Segments with their probabilities, as a model's timeline gives them, as a row to draw."""
    return TimelineRow(name, tuple(Bar(one.onset, one.offset, one.label, score) for one, score in segments))
