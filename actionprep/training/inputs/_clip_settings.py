"""How clips are sampled out of stored pictures, cut and augmented; needs no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from actionprep.settings import option
from actionprep.training.inputs._frame_times import Short
from actionprep.training.inputs.base import MirroringSettings

CHANNELS = {"rgb": 3, "gray": 1, "motion": 2}
"""Channels of a clip by the setting `channels`."""


class ClipSettings(MirroringSettings):
    """How clips are sampled out of stored pictures, cut and augmented."""

    frames: int = option(16, "Frames of a clip.", ge=1)
    sampling: Literal["segments", "dense"] = option(
        "segments",
        "segments: one frame of each of so many equal parts of the snippet, so that a clip spans all of it; dense: a run "
        "of frames. In training at random, else in the middle.",
    )
    rate: float | None = option(None, "For dense: frames a second; not set: consecutive frames.", gt=0)
    short: Short = option(
        "loop",
        "For dense, where a snippet is shorter than the run: begin it anew (loop), or keep its last frame (hold).",
    )
    trim: float = option(
        0.0, "For segments: largest share of a snippet cut off at its start, and at its end.", ge=0, lt=0.5
    )
    time_warp: float = option(0.0, "For segments: strength of the smooth warp of time, as a share.", ge=0, le=0.9)
    size: int = option(112, "Side of the square that the model sees, in pixels.", ge=8)
    region: Literal["frame", "motion"] = option(
        "frame",
        "What is cut: the whole picture, or the square around what moves in the snippet, the same for all frames.",
    )
    margin: float = option(0.15, "For region motion: room around what moves, as a share of its side.", ge=0, le=1)
    fit: Literal["crop", "squeeze"] = option(
        "crop", "crop: a square of the region, shape kept; squeeze: the whole region made a square."
    )
    crop: tuple[float, float] = option(
        (0.8, 1.0), "Least and largest side of a training crop, as a share of the region's short side."
    )
    test_crop: float = option(1.0, "Side of a test crop, as a share of the region's short side.", gt=0, le=2)
    anchor: tuple[float, float] = option(
        (0.5, 0.5),
        "Where crops lie, as shares of the room they have in x and in y: (0.5, 1.0) is the middle of the bottom.",
    )
    around: float = option(
        1.0, "How far from the anchor training crops may lie, as a share of the room they have; 0: at it.", ge=0, le=1
    )
    shift: float = option(0.0, "Further shift of training crops, as a share of their side.", ge=0, lt=1)
    rotation: float = option(0.0, "Largest rotation of training crops, in rad.", ge=0)
    brightness: float = option(0.0, "Largest change of brightness, as a share.", ge=0, lt=1)
    contrast: float = option(0.0, "Largest change of contrast, as a share.", ge=0, lt=1)
    saturation: float = option(0.0, "Largest change of saturation, as a share.", ge=0, le=1)
    gray: float = option(0.0, "Share of the samples that lose their colors.", ge=0, le=1)
    channels: Literal["rgb", "gray", "motion"] = option(
        "rgb", "What the model sees: colors; brightness alone; or brightness and its change from frame to frame."
    )
    several_views: Literal["each", "all"] = option(
        "each",
        "each: a sample is one view, drawn anew each time, and tests average over the views; all: a sample is all "
        "views, whose probabilities are averaged in training too.",
    )
    clips: int = option(1, "Clips of a snippet in a test, spread over it.", ge=1)
    crops: Literal[1, 3] = option(1, "Crops of a clip in a test: the middle, or also the two ends of the longer side.")
    jitters: int = option(
        1, "Tests of each clip and crop: one as it is, further ones augmented with test_strength.", ge=1
    )
    test_strength: float = option(0.5, "Augmentation of such tests, as a share of the training's.", ge=0, le=1)
    memory: float = option(4.0, "GiB that pictures may take in memory; more are read by workers as needed.", ge=0)

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        if not 0 < self.crop[0] <= self.crop[1] <= 2:
            raise ValueError("crop is two rising shares above 0, such as [0.8, 1.0]")
        if not all(0 <= share <= 1 for share in self.anchor):
            raise ValueError("anchor is two shares from 0 to 1, such as [0.5, 0.5]")
        return self

    @property
    def variants(self) -> int:
        """Variants of each snippet in a test."""
        return self.clips * self.crops * self.jitters
