"""All stages: those of this package, in the order in which a study is built, and those of other packages.

This module imports no stage, so that `--help` stays light.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from actionprep.registry import Entry, Registry

if TYPE_CHECKING:
    from actionprep.pipeline.stage import Stage

STAGES: Registry[type[Stage]] = Registry(
    "stage",
    "actionprep.stages",
    (
        Entry(
            "frames",
            "actionprep.pipeline.frames:Frames",
            "Decode frames into the store, so that training does not read the videos",
        ),
        Entry("keyframes", "actionprep.pipeline.keyframes:Keyframes", "Choose representative frames of each view"),
        Entry("masks", "actionprep.pipeline.masks:Masks", "Separate foreground from background in every frame"),
        Entry(
            "tracks",
            "actionprep.pipeline.tracks:Tracks",
            "Track points through windows of frames, starting on the foreground of each window",
        ),
        Entry(
            "pose",
            "actionprep.pipeline.pose:Pose",
            "Estimate the joints of people in every frame and track each person",
        ),
        Entry(
            "heatmaps",
            "actionprep.pipeline.heatmaps:Heatmaps",
            "Render poses as heatmap volumes and store them, for other programs; training renders them on read",
        ),
        Entry("lowres", "actionprep.pipeline.lowres:Lowres", "Downscale every frame, to several sizes in one pass"),
        Entry(
            "snippets",
            "actionprep.pipeline.snippets:Snippets",
            "Cut recordings into windows and label them by the segments that they overlap",
        ),
        Entry(
            "split",
            "actionprep.pipeline.split:Split",
            "Split recordings into train, val and test without sharing a source: split/<name>",
        ),
    ),
    plural="Stages",
    subclass_of="actionprep.pipeline.stage:Stage",
)
"""Stages by the name of their product."""

COMMANDS = MappingProxyType({"frames": "decode", "tracks": "track"})
"""Command of a stage by product, if the names differ."""


@dataclass(frozen=True)
class StageEntry:
    """Help entry of a stage: product, command and one line of text."""

    name: str
    command: str
    help: str


def stage_index() -> dict[str, StageEntry]:
    """Return all stages by product name, without importing them."""
    return {
        name: StageEntry(name, COMMANDS.get(name, name), entry.help or f"A stage of the package {entry.origin}")
        for name, entry in STAGES.entries().items()
    }


def find_stage(name: str) -> type[Stage]:
    """Import the stage of a product.

    Raises:
        UserError: If there is none; names the nearest one.
    """
    return STAGES.find(name)


def known_stage(name: str) -> type[Stage] | None:
    """Import the stage of a product that a store has; None if no package here has one that can be used."""
    from actionprep.errors import ActionprepError

    try:
        return STAGES.get(name)
    except ActionprepError:
        return None


def load_stages() -> dict[str, type[Stage]]:
    """Import all stages; those of other packages that cannot be imported are left out."""
    return STAGES.working()
