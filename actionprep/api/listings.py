"""List the available formats and skeletons."""

from __future__ import annotations

from typing import Any


def list_formats() -> list[tuple[str, str, str]]:
    """Return (kind, name, description) of every layout and format that can be read."""
    from actionprep.datasets.annotations import SEGMENT_FORMATS, segment_formats
    from actionprep.datasets.cameras import CALIBRATION_FORMATS
    from actionprep.datasets.file_names import name_presets
    from actionprep.datasets.poses.formats import FORMATS
    from actionprep.datasets.view_reading import VIDEO_SOURCES
    from actionprep.pipeline.mask_sources.file_formats import MASK_FILE_FORMATS

    rows = [
        ("layout", "folder-per-class", "<class>/<clip>.mp4: each clip labeled by its folder"),
        ("layout", "views", "a pattern with {recording} and {view}, such as {recording}/cam{view}.mp4"),
        ("layout", "csv", "a table with one row per video or per segment"),
        ("layout", "poses", "a skeleton data set without videos (actionprep import)"),
    ]
    rows += [("pattern", name, f"file names of {preset.title}") for name, preset in name_presets().items()]
    rows += [("videos", name, what) for name, what, _ in VIDEO_SOURCES]
    rows += [("segments", name, format.description) for name, format in segment_formats().items()]
    rows += [("poses", name, format.title) for name, format in FORMATS.working().items()]
    rows += [("masks", name, what) for name, what, _ in MASK_FILE_FORMATS]
    rows += [("cameras", name, format.description) for name, format in CALIBRATION_FORMATS.working().items()]
    broken = [
        ("segments", SEGMENT_FORMATS.broken()),
        ("poses", FORMATS.broken()),
        ("cameras", CALIBRATION_FORMATS.broken()),
    ]
    return rows + [(kind, name, str(error)) for kind, errors in broken for name, error in errors.items()]


def format_example(kind: str, name: str) -> str:
    """Return a line that uses a format of `list_formats`: a command, or a setting with its table.

    Args:
        kind: Kind of the format.
        name: Its name.

    Returns:
        The line; empty for a format that cannot be used.
    """
    from actionprep.datasets.annotations import segment_formats
    from actionprep.datasets.cameras import CALIBRATION_FORMATS
    from actionprep.datasets.poses.formats import FORMATS
    from actionprep.datasets.view_reading import VIDEO_SOURCES
    from actionprep.pipeline.mask_sources.file_formats import MASK_FILE_FORMATS

    if kind == "layout":
        command = "actionprep import auto DATA" if name == "poses" else f"actionprep init --layout {name}"
        return f"{command} --csv videos.csv" if name == "csv" else command
    if kind == "pattern":
        return f"actionprep init --pattern {name}"
    if kind == "videos":
        return next((f"[study] {example}" for each, _, example in VIDEO_SOURCES if each == name), "")
    if kind == "masks":
        return next((f'[masks] files = "{example}"' for each, _, example in MASK_FILE_FORMATS if each == name), "")
    if kind == "segments" and name in (known := segment_formats()):
        return f"actionprep init --segments labels{known[name].suffixes[0]} --segment-format {name}"
    if kind == "poses" and name in (poses := FORMATS.working()):
        return f"actionprep import {name} {'FILE' if poses[name].one_file else 'FOLDER'}"
    if kind == "cameras" and name in (cameras := CALIBRATION_FORMATS.working()):
        return f'[study] calibration = "calibration{cameras[name].suffixes[0]}"'
    return ""


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
