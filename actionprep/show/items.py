"""Draw one item of a study: find it, choose the moments, make a sheet, a film or a chart of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.paths import safe_name
from actionprep.errors import UserError, nearest
from actionprep.show.charts import colors_of, draw_chart, rows_of
from actionprep.show.contact import contact_sheet
from actionprep.show.files import write_image
from actionprep.show.products import SCENES
from actionprep.show.scenes import Scene
from actionprep.show.video import video_frames, video_times, write_video

if TYPE_CHECKING:
    from actionprep.api import Study
    from actionprep.datasets.store.zarr_store import ItemKey

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
    """Draw a product of a recording; returns where the picture or film is.

    product: video, frames, keyframes, masks, tracks, pose, heatmaps, lowres, segments, snippets or split;
        "snippets/name" and "split/name" for those that are not called default. Without a recording, segments and
        snippets are drawn for all recordings, other products for the first that has them.
    views: names or indices; all that have the product when empty. They stand side by side, each with its frame nearest
        to the moment on the recording's clock.
    out: ends in .png for a sheet or chart, in .mp4 for a film; show/<product>-<recording>-<views>.png of the study by
        default, with what was named.
    columns, rows: of a sheet; with several views a row is one moment.
    start, stop: only what lies between, in s on the recording's clock.
    whole: show whole pictures; else those of tracks, masks and poses are cut to where something is drawn.
    progress: called with the number of film pictures that are done and their total.
    replacing: called with the place of a picture or film that takes the place of another.

    Raises UserError for a product, recording or view that is not there, and when there is nothing to draw.
    """
    kind, name = _product(product)
    film = out is not None and Path(out).suffix.lower() == ".mp4"
    if kind == "split" and film:
        raise UserError("A split is not a thing of time: draw it as a picture, with --out ending in .png.")
    if kind in _CHARTS and not film:
        place = _place(study, out, product, recording, views)
        _tell_of(place, replacing)
        return draw_chart(study, kind, name, recording, place, views=views, start=start, stop=stop)
    pictured = "video" if kind in _CHARTS else kind
    recording = _recording(study, kind, recording)
    scenes = _between(_scenes(study, pictured, recording, views, whole=whole), start, stop, f"{kind} of '{recording}'")
    title = "  ·  ".join([recording, *([scenes[0].name] if len(scenes) == 1 else []), kind])
    place = _place(study, out, product, recording, views)
    _tell_of(place, replacing)
    if not film:
        return write_image(contact_sheet(scenes, title=title, kind=kind, columns=columns, rows=rows), place)
    times = video_times(scenes)
    span = (float(times[0]), float(times[-1]) + max(1e-3, *(scene.step for scene in scenes)))
    bars = rows_of(study, recording, snippets=name if kind == "snippets" else None)
    done = iter(range(1, len(times) + 1))
    return write_video(
        video_frames(scenes, times, title=title, rows=bars, span=span, colors=colors_of(study), columns=columns),
        place,
        times=times,
        progress=None if progress is None else lambda _: progress(next(done), len(times)),
    )


def _product(product: str) -> tuple[str, str]:
    """What to draw and, for tables, the name of the table."""
    from actionprep.pipeline.index import stage_index

    kind, _, name = product.partition("/")
    by_command = {entry.command: entry.name for entry in stage_index().values()}
    kind = by_command.get(kind, kind)
    known = [*SCENES, *_CHARTS]
    if kind not in known:
        raise UserError(
            f"No product '{product}' to show.{nearest(kind, known)} These can be drawn: {', '.join(known)}."
        )
    if name and kind not in ("snippets", "split"):
        raise UserError(
            f"'{product}' names a table, which only snippets and split have. For the {kind} of a recording give its id "
            f"as a second word: actionprep show {kind} {name}"
        )
    return kind, name or "default"


def _recording(study: Study, kind: str, recording: str | None) -> str:
    """The recording to draw: the one that is asked for, held against what there is, or the first."""
    if kind in ("video", *_CHARTS):
        if not len(study.catalog):
            raise UserError(f"The study {study.root} has no recordings. Put videos there and run 'actionprep scan'.")
        return study.catalog.recording(recording or study.catalog.recordings[0].id).id
    there = sorted({key.recording for key in _stored(study, kind)}, key=natural_key)
    if not there:
        raise UserError(
            f"Nothing to show: the store has no {kind}. It has {', '.join(study.store.products()) or 'nothing yet'}. "
            f"Make them with 'actionprep {_command(kind)}'."
        )
    if recording is None or recording in there:
        return recording or there[0]
    if recording in {one.id for one in study.catalog.recordings}:
        some = ", ".join(there[:5]) + (" …" if len(there) > 5 else "")
        raise UserError(
            f"Recording '{recording}' has no {kind}. There are {kind} of {some}. "
            f"Make what is missing with 'actionprep {_command(kind)}'."
        )
    raise UserError(
        f"No recording '{recording}'.{nearest(recording, there)} There are {kind} of {len(there)}: "
        f"{', '.join(there[:5])}{' …' if len(there) > 5 else ''}"
    )


def _scenes(study: Study, kind: str, recording: str, views: Sequence[str | int], *, whole: bool) -> list[Scene]:
    """The views that are asked for, or all that have the product, in natural order."""
    if kind == "video":
        there = [view.id for view in study.catalog.views_of(recording) if view.status == "ok" and view.num_frames]
    else:
        there = [key.view for key in _stored(study, kind) if key.recording == recording]
    wanted = [_view(study, recording, view, there, kind) for view in views] or sorted(there, key=natural_key)
    if not wanted:
        raise UserError(
            f"Nothing to show: no view of recording '{recording}' has a video that can be read. "
            "See what 'actionprep scan' says of it."
        )
    scenes = [scene for view in dict.fromkeys(wanted) for scene in SCENES[kind](study, recording, view, whole)]
    filled = [scene for scene in scenes if len(scene)]
    if not filled:
        raise UserError(f"Nothing to show: the {kind} of '{recording}' are empty (views {', '.join(wanted)}).")
    return filled


def _stored(study: Study, kind: str) -> list[ItemKey]:
    """The items to draw; heatmaps that are not stored are rendered from poses."""
    if kind == "heatmaps":
        return study.store.items("heatmaps") or study.store.items("pose")
    return study.store.items(kind)


def _view(study: Study, recording: str, view: str | int, there: list[str], kind: str) -> str:
    name = str(view)
    if name not in there and recording in {one.id for one in study.catalog.recordings}:
        name = study.catalog.view(recording, view).id
    if name not in there:
        raise UserError(
            f"View '{view}' of recording '{recording}' has no {kind}. Views with {kind}: "
            f"{', '.join(sorted(there, key=natural_key))}."
        )
    return name


def _command(kind: str) -> str:
    from actionprep.pipeline.index import stage_index

    entry = stage_index().get("pose" if kind == "heatmaps" else kind)
    return entry.command if entry is not None else kind


def _between(scenes: list[Scene], start: float | None, stop: float | None, what: str) -> list[Scene]:
    """Only the moments from start to stop."""
    if start is None and stop is None:
        return scenes
    low, high = -np.inf if start is None else start, np.inf if stop is None else stop
    kept = [scene.between(low, high) for scene in scenes]
    if not any(len(scene) for scene in kept):
        first = min(float(scene.times[0]) for scene in scenes)
        last = max(float(scene.times[-1]) for scene in scenes)
        asked = f"{'its begin' if start is None else f'{start:g} s'} and {'its end' if stop is None else f'{stop:g} s'}"
        raise UserError(f"Nothing to show of the {what} between {asked}: it lasts from {first:.2f} to {last:.2f} s.")
    return [scene for scene in kept if len(scene)]


def _tell_of(place: Path, replacing: Callable[[Path], None] | None) -> None:
    if replacing is not None and place.exists():
        replacing(place)


def _place(
    study: Study, out: str | Path | None, product: str, recording: str | None, views: Sequence[str | int]
) -> Path:
    """Where the picture goes."""
    if out is None:
        name = safe_name("-".join(part for part in (product, recording, *map(str, views)) if part))
        return study.root / "show" / f"{name}.png"
    place = Path(out)
    if place.suffix.lower() not in (".png", ".mp4"):
        raise UserError(f"--out must end in .png for a picture or .mp4 for a film, got {str(out)!r}.")
    return place
