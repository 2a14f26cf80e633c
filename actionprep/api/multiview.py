"""Point tracks of all views of a snippet, on one clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.multiview import MultiviewTracks, sample_views
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.products.tracks import Tracks


def multiview_tracks(
    study: Study,
    recording: str,
    *,
    onset: float,
    offset: float,
    frames: int = 32,
    views: Sequence[str | int] = (),
    points: int | None = None,
) -> MultiviewTracks:
    """Read the point tracks of a snippet in all views, at common time steps.

    Views may differ in rate, offset and length, and may lack frames; their clocks are those of the catalog. A view
    without tracks is part of the result, without valid points, and named in `missing`.

    Args:
        study: The study, with the product tracks.
        recording: Id of the recording.
        onset: Start in seconds on the recording's clock.
        offset: End in seconds, not included.
        frames: Number of time steps T: the centers of T equal parts of the snippet.
        views: Views, in the order of the result; all views of the study if empty.
        points: Number of points N per view. Default: the largest number of a window.

    Returns:
        Positions `xy` (T, V, N, 2) in pixels, `valid` (T, V, N), and the frame of each view at each time step.

    Raises:
        UserError: If the snippet is empty, or no view has tracks.
    """
    from actionprep.datasets.products.tracks import read_tracks
    from actionprep.datasets.store.keys import ItemKey

    if not offset > onset or frames < 1:
        raise UserError(f"The snippet [{onset:g}, {offset:g}) s with {frames} time steps is empty.")
    catalog = study.catalog
    recording = catalog.recording(recording).id
    present = {view.id for view in catalog.views_of(recording)}
    chosen = [catalog.view(recording, name).id if not isinstance(name, str) else name for name in views]
    unknown = [name for name in chosen if name not in catalog.view_names]
    if unknown:
        raise UserError(f"No view '{unknown[0]}' in the study. Views: {', '.join(catalog.view_names)}.")
    tracks: dict[str, Tracks | None] = {}
    for view in chosen or catalog.view_names:
        key = ItemKey("tracks", recording, view)
        if view not in present or study.store.metadata(key) is None:
            tracks[view] = None
            continue
        item = study.store.item("tracks", recording, view)
        times = item["time"][:]
        step = np.nanmedian(np.diff(times, axis=1)) if times.shape[1] > 1 else 0.0
        with np.errstate(invalid="ignore"):
            inside = np.flatnonzero(((times >= onset - step) & (times < offset + step)).any(axis=1))
        tracks[view] = read_tracks(item, slice(inside[0], inside[-1] + 1)) if len(inside) else None
    if all(view_tracks is None for view_tracks in tracks.values()):
        raise UserError(
            f"No view of recording '{recording}' has tracks from {onset:g} to {offset:g} s. Run 'actionprep track' first."
        )
    time = onset + (np.arange(frames) + 0.5) / frames * (offset - onset)
    return sample_views(tracks, time, points=points)
