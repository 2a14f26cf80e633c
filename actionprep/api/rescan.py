"""Whether a study must be scanned before its catalog is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.datasets.paths import name_problem

if TYPE_CHECKING:
    from actionprep.datasets.recordings import View
    from actionprep.datasets.study import StudyFolder


def reason_to_scan(folder: StudyFolder) -> str:
    """What has changed since the last scan, to begin a sentence with; empty when nothing has."""
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.catalog_tables import is_older
    from actionprep.datasets.scan import read_with, scan_settings
    from actionprep.datasets.video_layouts import tables_of

    filled = folder.catalog / "views.parquet"
    if not filled.exists():
        return "There is no catalog yet"
    for path in tables_of(folder, folder.study):
        if path == folder.settings_file and read_with(folder) == scan_settings(folder.study):
            continue  # what changed in it is nothing that a scan reads
        if path.stat().st_mtime_ns > filled.stat().st_mtime_ns:
            return f"{folder.relative(path)} is newer than the catalog"
    views = Catalog.read(folder.catalog).views
    if is_older(folder.catalog):
        return "An earlier version of actionprep wrote the catalog"
    strange = [view.path for view in views if not _may_be_listed(folder, view)]
    if strange:
        return f"The catalog names {strange[0]!r:.200}, which is not a video of this study"
    changed = [view.path for view in views if _has_changed(folder.root, view)]
    more = f" and {len(changed) - 1} more videos have" if len(changed) > 1 else " has"
    return f"{changed[0]}{more} changed since the last scan" if changed else ""


def _may_be_listed(folder: StudyFolder, view: View) -> bool:
    """Whether a scan can have listed this path: below the study, or where the settings look for videos."""
    path = Path(view.path)
    if not path.is_absolute():
        return not name_problem(view.path)
    # A table of recordings and the files of a skeleton data set may lie anywhere.
    if folder.study.layout in ("csv", "poses"):
        return "\0" not in view.path
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder.resolve(folder.study.videos)))


def _has_changed(root: Path, view: View) -> bool:
    """Whether a video is another than the one that was scanned; one that is gone is told when it is read."""
    try:
        found = (root / view.path).stat()
    except OSError:
        return False
    return view.mtime_ns != 0 and (found.st_size, found.st_mtime_ns) != (view.size_bytes, view.mtime_ns)
