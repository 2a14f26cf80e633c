"""Settings of the stage `masks` and of its mask sources."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import field_validator, model_validator

from actionprep.pipeline.mask_sources.source import MASK_SOURCES
from actionprep.settings import StageSettings, option


class MasksSettings(StageSettings):
    """Separate foreground from background in every frame."""

    source: str = option(
        "motion",
        "Where masks come from: motion (no weights), files (as DEVA and SAM 2 write them), person (MediaPipe's package), "
        "pose (hull of the joints), text (what a prompt names).",
    )
    files: str = option(
        "",
        "For source files: pattern with {recording} and {view} of a folder with one PNG or npz per frame, of one npz, or "
        "of a mask video.",
        names="file",
    )
    ids: tuple[int, ...] = option((), "For source files: object ids of the foreground. Empty: all but 0.")
    key: str = option("", "For source files: name of the array in npz files; empty: arr_0, or the only one.")
    first_number: int | None = option(
        None,
        "For source files: the number in the file name of frame 0; not set: 0 if there is such a file, else 1.",
        ge=0,
    )
    missing: Literal["error", "empty"] = option(
        "error", "For source files: a frame without a mask is an error, or has no foreground (counted)."
    )
    resize: bool = option(
        False, "For source files: scale masks of another size to the frames, nearest pixel (counted)."
    )
    window: float = option(
        1.0, "For source motion: seconds before and after a frame in which to look for motion.", gt=0, le=10
    )
    background: float = option(20.0, "For source motion: seconds after which a static object becomes background.", gt=0)
    threshold: float = option(
        16.0, "For source motion: gray levels of 255 that count as change, above the noise.", gt=0
    )
    min_area: float = option(
        0.0005, "For source motion: smaller spots, as a share of the frame, are dropped.", ge=0, lt=1
    )
    grow: float = option(0.006, "For source motion: foreground is grown by this share of the short side.", ge=0, lt=0.5)
    short_side: int = option(
        160, "For source motion: frames are shrunk to this short side before they are compared.", ge=16
    )

    camera: Literal["static", "moving"] = option(
        "static", "For source motion: moving compensates the motion of the camera between frames.", later=True
    )
    person_score: float = option(
        0.5, "For source person: lowest probability of a person in a foreground pixel.", gt=0, le=1, later=True
    )
    environment: str = option(
        "", "For source person: folder of MediaPipe's environment. Empty: the user's cache.", names="code", later=True
    )
    joint_score: float = option(0.3, "For source pose: lowest score of a joint of the hull.", ge=0, le=1, later=True)
    margin: float = option(
        0.03, "For source pose: the hull is grown by this share of the short side.", ge=0, lt=0.5, later=True
    )
    prompt: str = option(
        "", "For source text: what to segment, names separated by dots: 'hands . black sticks'.", later=True
    )
    box_score: float = option(0.3, "For source text: lowest score of a detected box.", gt=0, le=1, later=True)
    detector: str = option(
        "IDEA-Research/grounding-dino-tiny",
        "For source text: Grounding DINO; a folder, relative to the study's folder, or a hub name.",
        names="file",
        later=True,
    )
    segmenter: str = option(
        "facebook/sam2.1-hiera-tiny",
        "For source text: SAM 2; a folder, relative to the study's folder, or a hub name.",
        names="file",
        later=True,
    )
    device: str = option(
        "auto", "For source text: auto, cpu, cuda or cuda:N.", pattern=r"^(auto|cpu|cuda(:\d+)?)$", later=True
    )

    @field_validator("source")
    @classmethod
    def _known_source(cls, name: str) -> str:
        MASK_SOURCES.check(name)
        return name

    @model_validator(mode="after")
    def _belongs_to_source(self) -> Self:
        if (self.source == "files") != bool(self.files):
            raise ValueError(
                "'files' is the pattern for source = \"files\": give both or neither, for example "
                'source = "files", files = "masks/{recording}/{view}"'
            )
        if (self.source == "text") != bool(self.prompt.replace(".", "").strip()):
            raise ValueError(
                "'prompt' names what source = \"text\" segments: give both or neither, for example "
                'source = "text", prompt = "hands . black sticks"'
            )
        return self
