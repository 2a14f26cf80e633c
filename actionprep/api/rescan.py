"""Whether a study must be scanned before its catalog is used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.datasets.paths import name_problem
from actionprep.errors import SetupError, is_read_error, name_list

if TYPE_CHECKING:
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.recordings import View
    from actionprep.datasets.study import StudyFolder


def reason_to_scan(folder: StudyFolder) -> str:
    """Return what has changed since the last scan, as the beginning of a sentence; empty if nothing has."""
    current = current_catalog(folder)
    return current if isinstance(current, str) else ""


def current_catalog(folder: StudyFolder) -> Catalog | str:
    """Read the catalog if nothing has changed since the last scan.

    Every table and video is compared by its size, times and inode, and by its content where one of these differs.

    Returns:
        The catalog, or what has changed, as the beginning of a sentence.
    """
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.catalog_tables import is_older
    from actionprep.datasets.file_states import changed_file
    from actionprep.datasets.scan import has_changed, read_with, scan_settings, tables_file
    from actionprep.datasets.video_layouts import tables_of

    written = folder.catalog / "views.parquet"
    if not written.exists():
        return "There is no catalog yet"
    settings_file = folder.relative(folder.settings_file)
    tables = {folder.relative(path): path for path in tables_of(folder, folder.study)}
    if tables_file(folder).exists():
        if read_with(folder) != scan_settings(folder.study):
            return f"{settings_file} has changed since the last scan"
        changed_table = changed_file(tables, tables_file(folder), ignore=settings_file)
        if changed_table:
            return changed_table
    else:  # a catalog of version 0.1 has no states of tables: their times must do
        for name, path in tables.items():
            is_same = name == settings_file and read_with(folder) == scan_settings(folder.study)
            if not is_same and path.stat().st_mtime_ns > written.stat().st_mtime_ns:
                return f"{name} is newer than the catalog"
    catalog = Catalog.read(folder.catalog)
    if is_older(folder.catalog):
        return "An earlier version of actionprep wrote the catalog"
    views = catalog.views
    foreign = [path for view in views for path in (view.path, *view.reading.parts) if not _may_be_listed(folder, path)]
    if foreign:
        return f"The catalog names {foreign[0]!r:.200}, which is not a video of this study"
    # The disk or the network may work again.
    failed = [view.path for view in views if view.status != "ok" and is_read_error(view.reason)]
    if failed:
        return f"{name_list(failed, 1)} could not be read by the last scan"
    others, catalog = _with_other_content(folder, catalog, [v for v in views if has_changed(folder.root, v)])
    changed = [view.path for view in others]
    removed = [path for path in changed if not (folder.root / path).exists()]
    removed += [
        part
        for view in views
        for part in view.reading.parts
        if view.path in changed and not (folder.root / part).exists()
    ]
    if removed:
        return f"{name_list(removed, 1)} {'were' if len(removed) > 1 else 'was'} removed since the last scan"
    if changed:
        return f"{name_list(changed, 1)} {'have' if len(changed) > 1 else 'has'} changed since the last scan"
    return catalog


def _with_other_content(folder: StudyFolder, catalog: Catalog, views: Sequence[View]) -> tuple[list[View], Catalog]:
    """Return the views with another content of their files, and the catalog: with the new states if there are none.

    A copied or moved study has other inodes, and the same content.
    """
    from actionprep.datasets.scan import with_state
    from actionprep.datasets.view_reading import content_digest, state_of

    same = {}
    for view in views:
        path = folder.root / view.path
        parts = [folder.root / part for part in view.reading.parts]
        state = state_of(path, parts)
        try:
            if not view.digest or state.size != view.size_bytes or content_digest(path, parts) != view.digest:
                continue
        except OSError:
            continue  # the scan reports it
        same[view.recording, view.id] = with_state(view, state)
    others = [view for view in views if (view.recording, view.id) not in same]
    if same and not others:
        updated = tuple(same.get((view.recording, view.id), view) for view in catalog.views)
        catalog = replace(catalog, views=updated)
        with suppress(SetupError):  # a study that is read-only: its files are compared again next time
            catalog.write(folder.catalog)
    return others, catalog


def _may_be_listed(folder: StudyFolder, listed: str) -> bool:
    """Return whether a scan can have listed this path: below the study, or where the settings look for videos."""
    if not os.path.isabs(listed):
        return not name_problem(listed)
    # A table of recordings and the files of a skeleton data set may be anywhere.
    if folder.study.layout in ("csv", "poses"):
        return "\0" not in listed
    return Path(os.path.abspath(listed)).is_relative_to(os.path.abspath(folder.resolve(folder.study.videos)))
