"""Settings of clips: how frames are sampled, cropped and augmented. Needs no PyTorch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from actionprep.settings import option
from actionprep.training.inputs._frame_times import Short
from actionprep.training.inputs.base import MirroringSettings

Channels = Literal["rgb", "gray", "motion", "flow", "rgb-flow", "keypoints", "rgb-keypoints"]

CHANNELS = {"rgb": 3, "gray": 1, "motion": 2, "flow": 2, "rgb-flow": 5, "keypoints": 1, "rgb-keypoints": 4}
"""Number of channels of the model's input by the setting `channels`."""


class ClipSettings(MirroringSettings):
    """How clips are sampled from stored frames, cropped and augmented."""

    frames: int = option(16, "Frames per clip.", ge=1)
    sampling: Literal["segments", "dense"] = option(
        "segments",
        "segments: one frame from each of equal parts of the snippet, so that a clip covers all of it; dense: a run of "
        "frames. Random in training, otherwise from the middle.",
    )
    rate: float | None = option(None, "For dense: frames per second; not set: consecutive frames.", gt=0)
    short: Short = option(
        "loop",
        "For dense, if a snippet is shorter than the run: start over (loop), or repeat its last frame (hold).",
    )
    trim: float = option(
        0.0, "For segments: largest share that is cut off at the start and at the end of a snippet.", ge=0, lt=0.5
    )
    time_warp: float = option(0.0, "For segments: strength of the smooth time warp, as a share.", ge=0, le=0.9)
    size: int = option(112, "Side of the square input of the model, in pixels.", ge=8)
    region: Literal["frame", "motion"] = option(
        "frame",
        "Region that is cropped: the full frame, or the square around what moves in the snippet, the same for all frames.",
    )
    margin: float = option(0.15, "For region motion: margin around what moves, as a share of its side.", ge=0, le=1)
    fit: Literal["crop", "squeeze"] = option(
        "crop", "crop: a square of the region, with its aspect ratio; squeeze: the full region, resized to a square."
    )
    crop: tuple[float, float] = option(
        (0.8, 1.0), "Smallest and largest side of a training crop, as a share of the region's short side."
    )
    test_crop: float = option(1.0, "Side of a test crop, as a share of the region's short side.", gt=0, le=2)
    anchor: tuple[float, float] = option(
        (0.5, 0.5),
        "Position of crops, as shares of the free space in x and y: (0.5, 1.0) is the middle of the bottom.",
    )
    around: float = option(
        1.0, "Largest distance of training crops from the anchor, as a share of the free space; 0: none.", ge=0, le=1
    )
    shift: float = option(0.0, "Additional shift of training crops, as a share of their side.", ge=0, lt=1)
    rotation: float = option(0.0, "Largest rotation of training crops, in rad.", ge=0)
    brightness: float = option(0.0, "Largest change of brightness, as a share.", ge=0, lt=1)
    contrast: float = option(0.0, "Largest change of contrast, as a share.", ge=0, lt=1)
    saturation: float = option(0.0, "Largest change of saturation, as a share.", ge=0, le=1)
    gray: float = option(0.0, "Share of samples that are converted to gray.", ge=0, le=1)
    channels: Channels = option(
        "rgb",
        "Channels: rgb: colors; gray: gray values; motion: gray values and their change from frame to frame; flow: optical "
        "flow in x and y; rgb-flow: both; keypoints: one pixel per joint, from 2D poses; rgb-keypoints: both.",
    )
    several_views: Literal["each", "all"] = option(
        "each",
        "each: a sample is one random view, and tests average over the views; all: a sample has all views, and their "
        "probabilities are averaged in training as well.",
    )
    clips: int = option(1, "Clips per snippet in a test, spread over the snippet.", ge=1)
    crops: Literal[1, 3] = option(1, "Crops per clip in a test: the middle, or also both ends of the longer side.")
    jitters: int = option(
        1, "Variants of each clip and crop in a test: one unchanged, further ones augmented with test_strength.", ge=1
    )
    test_strength: float = option(0.5, "Strength of augmentation in tests, as a share of that in training.", ge=0, le=1)
    memory: float = option(4.0, "Largest size of frames in memory, in GiB; larger data is read by workers.", ge=0)

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        if not 0 < self.crop[0] <= self.crop[1] <= 2:
            raise ValueError("crop must be two increasing shares in (0, 2], such as [0.8, 1.0]")
        if not all(0 <= share <= 1 for share in self.anchor):
            raise ValueError("anchor must be two shares from 0 to 1, such as [0.5, 0.5]")
        return self

    @property
    def reads_keypoints(self) -> bool:
        """Whether clips have the joints as their fourth channel."""
        return self.channels.endswith("keypoints")

    @property
    def variants(self) -> int:
        """Number of variants of each snippet in a test."""
        return self.clips * self.crops * self.jitters
