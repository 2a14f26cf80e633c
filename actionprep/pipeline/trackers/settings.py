"""Settings of the stage `tracks` and of its point trackers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import field_validator, model_validator

from actionprep.pipeline.trackers.tracker import TRACKERS
from actionprep.settings import StageSettings, option


class TracksSettings(StageSettings):
    """Track points through windows of frames, starting on the foreground of each window."""

    tracker: str = option(
        "lk", "lk, lk_anchored or dis (no weights), cotracker3_offline, cotracker3_online, cotracker2 or tapnextpp."
    )
    grid: int = option(20, "Grid size G: up to G x G points in each window.", ge=1, le=256)
    window: int = option(16, "Frames per window.", ge=2, le=1024)
    stride: int = option(8, "Frames from the start of one window to the next; at most the window.", ge=1)
    rate: float | None = option(
        None, "Track this many frames per second, the nearest to each tick, and skip the others. Not set: all.", gt=0
    )
    seed_at: Literal["middle", "first"] = option("middle", "Frame of a window in which its points start.")
    direction: Literal["both", "forward"] = option(
        "both", "Track points in both directions from their start, or forward only."
    )
    seeding: Literal["mask", "box", "frame", "whole-frame", "points"] = option(
        "mask",
        "Where points start: mask spreads them over the foreground; box places a grid over its box and frame over the "
        "frame, as CoTracker does, and both keep only points on the foreground; whole-frame does not use masks; "
        "points takes only those of the table `points`.",
    )
    points: str = option(
        "",
        "Table (csv) of points to track besides those of `seeding`: x and y in pixels, and optionally recording, view, and "
        "frame or time of its start. Without frame and time, a point starts in every window.",
        names="file",
        later=True,
    )
    empty: Literal["nothing", "whole-frame"] = option(
        "nothing", "If a window has no foreground: no points, or the grid over the frame. Such windows are counted."
    )
    short_side: int = option(
        480, "Downscale frames to this short side for tracking; results are in pixels of the video; 0: never.", ge=0
    )
    forward_backward: float = option(
        1.0, "For lk: forward–backward error, in pixels of the tracked frame, at which a point counts as lost.", gt=0
    )
    patch: int = option(
        11, "For lk: side of the square patch that is tracked, in pixels of the tracked frame.", ge=5, le=63
    )
    levels: int = option(4, "For lk: pyramid levels.", ge=1, le=8)
    checkpoint: str = option(
        "",
        "For CoTracker and TAPNext++: path of the weights, relative to the study folder; empty, for CoTracker only: "
        "torch.hub's, downloaded if missing.",
        names="file",
    )
    repo: str = option(
        "",
        "For CoTracker and TAPNext++: folder with the code, relative to the study folder; empty, for CoTracker only: "
        "torch.hub's, at a pinned commit.",
        names="code",
    )
    device: str = option(
        "auto", "For CoTracker and TAPNext++: auto, cpu, cuda or cuda:N.", pattern=r"^(auto|cpu|cuda(:\d+)?)$"
    )

    @field_validator("tracker")
    @classmethod
    def _known_tracker(cls, name: str) -> str:
        TRACKERS.check(name)
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.stride > self.window:
            raise ValueError(
                f"stride {self.stride} is more than window {self.window}: frames between windows would be lost"
            )
        if self.seeding == "points" and not self.points:
            raise ValueError("seeding = points needs a table of points: set points, or --points FILE")
        return self

    @property
    def num_slots(self) -> int:
        """Maximum number of points per window, without those of the table `points`."""
        return 0 if self.seeding == "points" else self.grid**2

    @property
    def uses_masks(self) -> bool:
        """Whether points start on the foreground."""
        return self.seeding not in ("whole-frame", "points")
