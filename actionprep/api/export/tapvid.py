"""Write stored point tracks as TAP-Vid pickles, one file per view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.api.export._targets import Progress, check_target, exported, new_folder, write_json
from actionprep.api.export.poses import MANIFEST, PosesExport, request_of, size_of_files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from actionprep.api.study import Study
    from actionprep.datasets.store.keys import ItemKey

_STAMP = "actionprep tapvid tracks 1"


def export_tapvid(
    study: Study,
    folder: str | Path,
    *,
    views: Sequence[str | int] | None = None,
    video: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PosesExport:
    """Write the stored point tracks of a study in the form of the TAP-Vid benchmark.

    Each file `{recording}/{view}.pkl` is a pickled dict. A key is a clip, "{recording}/{view}/{first frame}", one per
    window of the tracks. Its dict has `points` (N, T, 2) as fractions of width and height, `occluded` (N, T) and, on
    request, `video` (T, H, W, 3).

    Args:
        study: The study.
        folder: Folder to write to. It appears when all files are written.
        views: Views by name or number; None: all.
        video: Add the stored frames (product `frames`) of each clip.
        overwrite: Replace an export of other content.
        progress: Called after each view.

    Returns:
        The counts. `without` counts views without points, and with `video` those with clips whose frames are not
        stored. An export of the same tracks stays as it is.

    Raises:
        UserError: If the study has no tracks, or if the folder is taken.
    """
    from actionprep.datasets.paths import below
    from actionprep.datasets.products.tracks import read_tracks
    from actionprep.datasets.tapvid import tapvid_clips, write_tapvid

    keys, request = request_of(study, "tracks", "tapvid", views, command="actionprep track")
    request["video"] = video
    target = Path(folder)
    before = exported(target, _STAMP)
    if before is None or before.get("request") != request:
        check_target(target, before, overwrite=overwrite)
        with new_folder(target) as draft:
            without = 0
            for number, key in enumerate(keys, start=1):
                clips = {
                    f"{key.recording}/{key.view}/{clip.start}": (
                        clip,
                        _frames(study, key, clip.frames) if video else None,
                    )
                    for clip in tapvid_clips(read_tracks(study.store.item("tracks", key.recording, key.view)))
                }
                without += not clips or (video and any(frames is None for _, frames in clips.values()))
                path = below(draft, f"{key.recording}/{key.view}.pkl")
                path.parent.mkdir(parents=True, exist_ok=True)
                write_tapvid(path, clips)
                if progress is not None:
                    progress(number, len(keys))
            counts = {"files": len(keys), "views": len(keys), "without": without}
            write_json(draft / MANIFEST, {"format": _STAMP, "request": request, "counts": counts})
    counts = (exported(target, _STAMP) or {})["counts"]
    return PosesExport(
        target,
        f"{target}/{{recording}}/{{view}}.pkl",
        "",
        counts["files"],
        counts["views"],
        before is None or before.get("request") != request,
        size_of_files(target),
        counts["without"],
    )


def _frames(study: Study, key: ItemKey, frames: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """Return the stored frames with these indices; None unless all are stored."""
    import numpy as np

    from actionprep.datasets.products.frames import read_frames

    if not study.store.has("frames", key.recording, key.view):
        return None
    item = study.store.item("frames", key.recording, key.view)
    stored = item["index"][:]
    rows = np.searchsorted(stored, frames).clip(0, max(len(stored) - 1, 0))
    if not len(stored) or (stored[rows] != frames).any():
        return None
    return read_frames(item, rows)
