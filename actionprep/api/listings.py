"""List the available formats and skeletons."""

from __future__ import annotations

from typing import Any


def list_formats() -> list[tuple[str, str, str]]:
    """Return (kind, name, description) of every layout and format that can be read."""
    from actionprep.datasets.annotations import SEGMENT_FORMATS, segment_formats
    from actionprep.datasets.file_names import name_presets
    from actionprep.datasets.poses.formats import FORMATS

    rows = [
        ("layout", "folder-per-class", "<class>/<clip>.mp4: each clip labeled by its folder"),
        ("layout", "views", "a pattern with {recording} and {view}, such as {recording}/cam{view}.mp4"),
        ("layout", "csv", "a table with one row per video or per segment"),
        ("layout", "poses", "a skeleton data set without videos (actionprep import)"),
    ]
    rows += [("pattern", name, f"file names of {preset.title}") for name, preset in name_presets().items()]
    rows += [("segments", name, format.description) for name, format in segment_formats().items()]
    rows += [("poses", name, format.title) for name, format in FORMATS.working().items()]
    broken = [("segments", SEGMENT_FORMATS.broken()), ("poses", FORMATS.broken())]
    return rows + [(kind, name, str(error)) for kind, errors in broken for name, error in errors.items()]


def list_skeletons() -> list[dict[str, Any]]:
    """Return the properties of every built-in layout, by name."""
    from actionprep.datasets.poses.skeletons import skeleton, skeleton_names

    layouts = [skeleton(name) for name in skeleton_names()]
    return [
        {
            "name": layout.name,
            "title": layout.title,
            "joints": list(layout.joints),
            "limbs": len(layout.limbs),
            "pairs": len(layout.symmetric),
            "dimensions": layout.dimensions,
            "aliases": list(layout.aliases),
        }
        for layout in layouts
    ]
