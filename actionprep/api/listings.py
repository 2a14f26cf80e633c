"""Which formats and skeletons there are."""

from __future__ import annotations

from typing import Any


def list_formats() -> list[tuple[str, str, str]]:
    """(kind, name, what it is) of every layout and format that is read."""
    from actionprep.datasets.annotations import SEGMENT_FORMATS, segment_formats
    from actionprep.datasets.poses.formats import FORMATS

    rows = [
        ("layout", "folder-per-class", "<class>/<clip>.mp4: each clip labeled by its folder"),
        ("layout", "views", "a pattern with {recording} and {view}, such as {recording}/cam{view}.mp4"),
        ("layout", "csv", "a table with one row a video, or one row a segment"),
        ("layout", "poses", "a skeleton data set without videos (actionprep import)"),
    ]
    rows += [("segments", name, one.description) for name, one in segment_formats().items()]
    rows += [("poses", name, one.title) for name, one in FORMATS.working().items()]
    broken = [("segments", SEGMENT_FORMATS.broken()), ("poses", FORMATS.broken())]
    return rows + [(kind, name, str(error)) for kind, errors in broken for name, error in errors.items()]


def list_skeletons() -> list[dict[str, Any]]:
    """Facts of every layout that comes with the package, by name."""
    from actionprep.datasets.poses.skeletons import skeleton, skeleton_names

    layouts = [skeleton(name) for name in skeleton_names()]
    return [
        {
            "name": one.name,
            "title": one.title,
            "joints": list(one.joints),
            "limbs": len(one.limbs),
            "pairs": len(one.symmetric),
            "dimensions": one.dimensions,
            "aliases": list(one.aliases),
        }
        for one in layouts
    ]
