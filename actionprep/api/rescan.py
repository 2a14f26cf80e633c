"""Whether a study must be scanned before its catalog is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.errors import is_read_error

if TYPE_CHECKING:
    from actionprep.datasets.recordings import View
    from actionprep.datasets.study import StudyFolder


def reason_to_scan(folder: StudyFolder) -> str:
    """What has changed since the last scan, to begin a sentence with; empty when nothing has."""
    from actionprep.datasets.catalog import Catalog
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
    # The disk or the network may be well again.
    failed = [view.path for view in views if view.status != "ok" and is_read_error(view.reason)]
    if failed:
        more = f" and {len(failed) - 1} more videos" if len(failed) > 1 else ""
        return f"{failed[0]}{more} could not be read by the last scan"
    changed = [view.path for view in views if _has_changed(folder.root, view)]
    more = f" and {len(changed) - 1} more videos have" if len(changed) > 1 else " has"
    return f"{changed[0]}{more} changed since the last scan" if changed else ""


def _has_changed(root: Path, view: View) -> bool:
    """Whether a video is another than the one that was scanned; one that is gone is told when it is read."""
    try:
        found = (root / view.path).stat()
    except OSError:
        return False
    return view.mtime_ns != 0 and (found.st_size, found.st_mtime_ns) != (view.size_bytes, view.mtime_ns)
