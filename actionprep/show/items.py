"""Draw one item of a study as a contact sheet, a video or a chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.paths import safe_name
from actionprep.errors import UserError, name_list, nearest
from actionprep.json_values import counted
from actionprep.show.charts import colors_of, draw_chart, rows_of
from actionprep.show.contact import contact_sheet
from actionprep.show.files import write_image
from actionprep.show.products import SCENES
from actionprep.show.scenes import Scene
from actionprep.show.video import video_frames, video_times, write_video

if TYPE_CHECKING:
    from actionprep.api import Study
    from actionprep.datasets.store.keys import ItemKey

Progress = Callable[[int, int], None]

_CHARTS = ("segments", "snippets", "split")


def show_item(
    study: Study,
    product: str,
    recording: str | None = None,
    *,
    views: Sequence[str | int] = (),
    out: str | Path | None = None,
    columns: int = 6,
    rows: int = 4,
    start: float | None = None,
    stop: float | None = None,
    whole: bool = False,
    progress: Progress | None = None,
    replacing: Callable[[Path], None] | None = None,
) -> Path:
    """Draw a product of a recording.

    Args:
        study: The study.
        product: video, frames, keyframes, masks, tracks, pose, heatmaps, lowres, segments, snippets or split.
            "snippets/name" and "split/name" select tables other than "default".
        recording: Id of the recording. Default: all recordings for segments and snippets, otherwise the first recording
            that has the product.
        views: Names or indices. Default: all views that have the product. Views are drawn side by side, each with its
            frame nearest to the time on the recording's clock.
        out: .png file for a sheet or chart, .mp4 file for a video. Default: show/<product>-<recording>-<views>.png in
            the study.
        columns: Maximum number of images per row of a sheet.
        rows: Maximum number of rows of a sheet. With several views a row is one time.
        start: Start in seconds on the recording's clock.
        stop: End (exclusive) in seconds on the recording's clock.
        whole: Draw full frames. By default frames of tracks, masks and poses are cropped to the action.
        progress: Called with the number of video frames written and their total.
        replacing: Called with the path if an existing file is replaced.

    Returns:
        Path of the image or video.

    Raises:
        UserError: If the product, recording or view does not exist, or available is nothing to draw.
    """
    kind, name = _product(product)
    as_video = out is not None and Path(out).suffix.lower() == ".mp4"
    if kind == "split" and as_video:
        raise UserError("A split cannot be drawn as a video. Draw it as an image: --out FILE.png.")
    if kind in _CHARTS and not as_video:
        path = _output_path(study, out, product, recording, views)
        _report_replacing(path, replacing)
        return draw_chart(study, kind, name, recording, path, views=views, start=start, stop=stop)
    drawn_kind = "video" if kind in _CHARTS else kind
    recording = _recording(study, kind, recording)
    scenes = _between(
        _scenes(study, drawn_kind, recording, views, whole=whole), start, stop, f"{kind} of '{recording}'"
    )
    title = "  ·  ".join([recording, *([scenes[0].name] if len(scenes) == 1 else []), kind])
    path = _output_path(study, out, product, recording, views)
    _report_replacing(path, replacing)
    if not as_video:
        return write_image(contact_sheet(scenes, title=title, kind=kind, columns=columns, rows=rows), path)
    times = video_times(scenes)
    span = (float(times[0]), float(times[-1]) + max(1e-3, *(scene.step for scene in scenes)))
    bars = rows_of(study, recording, snippets=name if kind == "snippets" else None)
    done = iter(range(1, len(times) + 1))
    return write_video(
        video_frames(scenes, times, title=title, rows=bars, span=span, colors=colors_of(study), columns=columns),
        path,
        times=times,
        progress=None if progress is None else lambda _: progress(next(done), len(times)),
    )


def _product(product: str) -> tuple[str, str]:
    """Split "snippets/name" into the product and the name of the table."""
    from actionprep.pipeline.index import stage_index

    kind, _, name = product.partition("/")
    by_command = {entry.command: entry.name for entry in stage_index().values()}
    kind = by_command.get(kind, kind)
    known = [*SCENES, *_CHARTS]
    if kind not in known:
        raise UserError(f"Cannot draw '{product}'.{nearest(kind, known)} Available products: {', '.join(known)}.")
    if name and kind not in ("snippets", "split"):
        raise UserError(
            f"'{product}' names a table, but only snippets and split have named tables. To draw the {kind} of a "
            f"recording, use: actionprep show {kind} {name}"
        )
    return kind, name or "default"


def _recording(study: Study, kind: str, recording: str | None) -> str:
    """Check the requested recording, or choose the first one that has the product."""
    if kind in ("video", *_CHARTS):
        if not len(study.catalog):
            raise UserError(f"The study {study.root} has no recordings. Add videos and run 'actionprep scan'.")
        return study.catalog.recording(recording or study.catalog.recordings[0].id).id
    available = sorted({key.recording for key in _stored(study, kind)}, key=natural_key)
    if not available:
        raise UserError(
            f"The store has no {kind}. Available products: {', '.join(study.store.products()) or 'none'}. "
            f"Run 'actionprep {_command(kind)}' to build them."
        )
    if recording is None or recording in available:
        return recording or available[0]
    if recording in {known.id for known in study.catalog.recordings}:
        some = name_list(available)
        raise UserError(
            f"Recording '{recording}' has no {kind}. Recordings with {kind}: {some}. "
            f"Run 'actionprep {_command(kind)}' to build the missing ones."
        )
    raise UserError(
        f"No recording '{recording}'.{nearest(recording, available)} {counted(len(available), 'recording')} with {kind}: "
        f"{name_list(available)}"
    )


def _scenes(study: Study, kind: str, recording: str, views: Sequence[str | int], *, whole: bool) -> list[Scene]:
    """Scenes of the requested views, or of all views that have the product, in natural order."""
    if kind == "video":
        available = [view.id for view in study.catalog.views_of(recording) if view.status == "ok" and view.num_frames]
    else:
        available = [key.view for key in _stored(study, kind) if key.recording == recording]
    wanted = [_view(study, recording, view, available, kind) for view in views] or sorted(available, key=natural_key)
    if not wanted:
        raise UserError(f"No view of recording '{recording}' has a readable video. Run 'actionprep scan' to see why.")
    scenes = [scene for view in dict.fromkeys(wanted) for scene in SCENES[kind](study, recording, view, whole)]
    filled = [scene for scene in scenes if len(scene)]
    if not filled:
        raise UserError(f"The {kind} of '{recording}' are empty (views {', '.join(wanted)}).")
    return filled


def _stored(study: Study, kind: str) -> list[ItemKey]:
    """Items to draw. Heatmaps that are not stored are rendered from poses."""
    if kind == "heatmaps":
        return study.store.items("heatmaps") or study.store.items("pose")
    return study.store.items(kind)


def _view(study: Study, recording: str, view: str | int, available: list[str], kind: str) -> str:
    name = str(view)
    if name not in available and recording in {known.id for known in study.catalog.recordings}:
        name = study.catalog.view(recording, view).id
    if name not in available:
        raise UserError(
            f"View '{view}' of recording '{recording}' has no {kind}. Views with {kind}: "
            f"{', '.join(sorted(available, key=natural_key))}."
        )
    return name


def _command(kind: str) -> str:
    from actionprep.pipeline.index import stage_index

    entry = stage_index().get("pose" if kind == "heatmaps" else kind)
    return entry.command if entry is not None else kind


def _between(scenes: list[Scene], start: float | None, stop: float | None, what: str) -> list[Scene]:
    """Restrict scenes to times from start to stop."""
    if start is None and stop is None:
        return scenes
    low, high = -np.inf if start is None else start, np.inf if stop is None else stop
    kept = [scene.between(low, high) for scene in scenes]
    if not any(len(scene) for scene in kept):
        first = min(float(scene.times[0]) for scene in scenes)
        last = max(float(scene.times[-1]) for scene in scenes)
        asked = f"{'the start' if start is None else f'{start:g} s'} and {'the end' if stop is None else f'{stop:g} s'}"
        raise UserError(f"No {what} between {asked}. Available: {first:.2f} to {last:.2f} s.")
    return [scene for scene in kept if len(scene)]


def _report_replacing(path: Path, replacing: Callable[[Path], None] | None) -> None:
    if replacing is not None and path.exists():
        replacing(path)


def _output_path(
    study: Study, out: str | Path | None, product: str, recording: str | None, views: Sequence[str | int]
) -> Path:
    """Path of the image or video."""
    if out is None:
        name = safe_name("-".join(part for part in (product, recording, *map(str, views)) if part))
        return study.root / "show" / f"{name}.png"
    path = Path(out)
    if path.suffix.lower() not in (".png", ".mp4"):
        raise UserError(f"--out must end in .png (image) or .mp4 (video); got {str(out)!r}.")
    return path
