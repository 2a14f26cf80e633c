"""Draw the predictions of a model: a timeline with frames, or a video with labels below its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from actionprep.datasets.label_colors import Color, label_colors
from actionprep.datasets.segments import Segment
from actionprep.errors import UserError
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
    """Draw labels and their scores over the time of a recording.

    Args:
        videos: Path of each view's video, by view name.
        rows: The prediction first, then rows to compare it with, such as annotated segments. Bars with a lower score
            are fainter.
        path: .mp4 for a video of all views side by side with the current label above them; .png, .svg or .pdf for a
            chart with some frames of the first view.
        times: Frame times of each view in seconds on the recording's clock, shape (T,). Default: from the first frame
            of each video.
        title: Title of the image or video.
        details: Lines below the title of a chart.
        colors: Colors of labels. Default: those of `label_colors`.
        progress: Called with the number of video frames written and their total.

    Returns:
        The path.

    Raises:
        UserError: If the suffix is unknown, or there are no videos or no rows.
    """
    path = Path(path)
    if path.suffix.lower() not in (".mp4", ".png", ".svg", ".pdf"):
        raise UserError(f"Predictions are drawn as .mp4, .png, .svg or .pdf files; got {path.name}.")
    if not videos or not rows:
        raise UserError("Drawing a prediction needs at least one video and one row of labels.")
    colors = label_colors(bar.label for row in rows for bar in row.bars) if colors is None else colors
    scenes = [_scene(view, video, None if times is None else times[view]) for view, video in videos.items()]
    moments = video_times(scenes)
    span = (float(moments[0]), float(moments[-1]) + max(1e-3, *(scene.step for scene in scenes)))
    if path.suffix.lower() != ".mp4":
        images = scenes[0].near(fitting_images(scenes[0].aspect, span), height=200)
        return draw_timeline(rows, span, path, title=title, details=details, colors=colors, images=images)
    done = iter(range(1, len(moments) + 1))
    return write_video(
        video_frames(scenes, moments, title=title, rows=rows, span=span, colors=colors, current=rows[0]),
        path,
        times=moments,
        progress=None if progress is None else lambda _: progress(next(done), len(moments)),
    )


def _scene(view: str, video: str | Path, times: np.ndarray | None) -> Scene:
    images = VideoFrames(video, times=times)
    return Scene(view, images.times, np.arange(len(images.times)), images)


def predicted_row(segments: Iterable[tuple[Segment, float]], name: str = "prediction") -> TimelineRow:
    """Convert predicted segments and their probabilities to a timeline row."""
    return TimelineRow(
        name, tuple(Bar(segment.onset, segment.offset, segment.label, score) for segment, score in segments)
    )
