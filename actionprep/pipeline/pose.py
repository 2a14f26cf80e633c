"""Estimate the joints of persons in every frame, and link persons over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import field_validator, model_validator

from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.datasets.poses.skeletons import layout_in, skeleton
from actionprep.datasets.products.poses import write_pose_item
from actionprep.errors import InputError
from actionprep.pipeline.linking import LinkingSettings, link
from actionprep.pipeline.pose_backends import POSE_BACKENDS, FramePoses, PoseEstimator, open_estimator, to_sequence
from actionprep.pipeline.pose_backends.mmpose import MODELS
from actionprep.pipeline.stage import FrameBlock, FrameStage, Input, ViewSource, ViewStage, stage
from actionprep.settings import StageSettings, canonical_json, is_no_layout_file, option

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter
    from actionprep.pipeline.pose_backends.boxes import RTDetrPeople

Boxes = Sequence[np.ndarray]

_MEDIAPIPE = ("mediapipe", "mediapipe-hands", "mediapipe-holistic")


class _EstimatorSettings(StageSettings):
    backend: str = option(
        "mediapipe",
        "mediapipe (33 landmarks of one person, no weights to download), mediapipe-hands (21 of each hand), "
        "mediapipe-holistic (body, face and hands), mmpose (HRNet, or any MMPose model), vitpose (through transformers), "
        "or import for existing poses.",
    )
    model: str = option(
        "",
        "For mmpose: hrnet-w32, hrnet-w48, …-384, or the name or path of a config. For vitpose: a folder, relative to "
        "the study's folder, or a hub name. Empty: the default of the backend.",
        names="code",
        known=lambda name: name == "" or name in MODELS,
    )
    checkpoint: str = option(
        "", "For mmpose: file with the weights. Empty: the published weights, downloaded if missing.", names="file"
    )
    boxes: Literal["own", "frame", "masks", "file", "rtdetr"] = option(
        "own",
        "Boxes of persons: own (the default of the backend: mediapipe follows one person, vitpose uses RT-DETR, mmpose "
        "uses the full frame), frame (the full frame), masks (the product masks), file, or rtdetr.",
    )
    boxes_file: str = option(
        "",
        "For boxes = file: csv with frame, left, top, right, bottom, [score]; may contain {recording} and {view}.",
        names="file",
    )
    detector: str = option(
        "PekingU/rtdetr_r18vd", "For RT-DETR: a folder, relative to the study's folder, or a hub name.", names="file"
    )
    person_score: float = option(0.5, "For RT-DETR: lowest confidence of a person.", ge=0, le=1)
    complexity: int = option(1, "For mediapipe: 1 is the model in its package; 0 and 2 need extra files.", ge=0, le=2)
    detection: float = option(0.5, "For mediapipe: lowest confidence of a detected person.", ge=0, le=1)
    tracking: float = option(
        0.5,
        "For mediapipe: lowest confidence to follow a person, instead of searching again.",
        ge=0,
        le=1,
    )
    environment: str = option("", "For mediapipe: folder of its environment. Empty: the user's cache.", names="code")
    flip: bool = option(False, "For mmpose: average with the mirrored crop; takes twice the time.")
    random_weights: bool = option(False, "For mmpose: a model with random weights, to test the pipeline.")
    device: str = option(
        "auto", "For mmpose and vitpose: auto, cpu, cuda or cuda:N.", pattern=r"^(auto|cpu|cuda(:\d+)?)$"
    )
    batch: int = option(16, "For mmpose and vitpose: persons per batch.", ge=1)
    files: str = option(
        "",
        "For import: the file or folder of each view's poses, a path from the study's folder with {recording} and "
        "{view} in it.",
        names="file",
    )
    format: str = option("auto", "For import: format of the files (see 'actionprep formats'); auto detects it.")
    file_skeleton: str = option(
        "",
        "Layout of the joints, a name or a TOML file: for import, if the files do not name it; for mmpose, of its model.",
        names="file",
        known=is_no_layout_file,
    )
    coordinates: str = option("", "For import of ntu: world, color or depth; of jhmdb: image or world.")
    first_number: int | None = option(
        None,
        "For import: number of the first frame in the files. Not set: 0, or 1 if the files count from 1 to the number of "
        "frames.",
        ge=0,
    )
    rescale: bool = option(False, "For import: scale poses of images of another size to the video (counted).")
    max_outside: float = option(
        0.25,
        "For import: largest share of joints outside the frame. Poses of larger images have more.",
        ge=0,
        le=1,
    )
    skeleton: str = option(
        "",
        "Convert to this layout: a name ('actionprep skeletons' lists them), or a TOML file, relative to the study's "
        "folder. Empty: keep the layout of the backend.",
        names="file",
        known=is_no_layout_file,
    )
    relink: bool = option(False, "Link persons again, even if imported poses have track ids.")


class PoseSettings(LinkingSettings, _EstimatorSettings):
    """Estimate the joints of persons in every frame."""

    persons: int | None = option(
        2,
        "Keep at most this many persons: those with the largest sum of score times box area. Not set: keep all.",
        ge=1,
    )

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, name: str) -> str:
        POSE_BACKENDS.check(name, also=("import",))
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.boxes == "file") != bool(self.boxes_file):
            raise ValueError("'boxes_file' is the table for boxes = \"file\": give both or neither")
        if self.backend == "import" and self.boxes != "own":
            raise ValueError(f'imported poses need no boxes, got boxes = "{self.boxes}"')
        # With another backend, the pattern is left from an earlier import and not used.
        if self.files and "backend" not in self.model_fields_set:
            raise ValueError("'files' is the pattern for backend = \"import\": set that backend too")
        if self.smooth == "savgol" and (self.savgol_window % 2 == 0 or self.savgol_order >= self.savgol_window):
            raise ValueError(
                f"Savitzky–Golay needs an odd window longer than its order, got savgol_window {self.savgol_window} and "
                f"savgol_order {self.savgol_order}"
            )
        if self.skeleton and not self.skeleton.endswith(".toml"):
            skeleton(self.skeleton)
        return self


@stage("pose", version=3, settings=PoseSettings)
class Pose(FrameStage, ViewStage):
    """Write the product `pose` (schema: `actionprep.datasets.products.poses`).

    Persons are numbered by the sum of score times box area over all frames, and the first ones are kept. Imported poses
    are read without decoding the video.
    """

    counted = MappingProxyType(
        {
            "num_persons_dropped": "persons left out",
            "num_filled": "frames of a person filled in",
            "num_joints_filled": "joints filled in",
            "num_frames_without_file": "frames without a pose file",
            "num_frames_renumbered": "frames numbered from 1 in the files (first_number = 0 if frame 0 is missing)",
            "num_repeated_frames": "repeated frame numbers (the first row counts)",
            "num_rescaled": "frames scaled to the video",
            "num_joints_outside": "joints outside the frame",
            "num_frames_in_corner": "frames with all joints in the upper left quarter (poses of smaller images?)",
        }
    )

    def __init__(
        self, settings: PoseSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        super().__init__(settings, source, item, done)
        self._frames: list[FramePoses] = []
        self._index: list[np.ndarray] = []
        self._estimator = _estimator(settings)
        self._estimator.reset()
        self._boxes = _boxes_of_view(settings, source, done)

    @classmethod
    def reads_frames(cls, settings: PoseSettings) -> bool:  # noqa: D102
        return settings.backend != "import"

    @classmethod
    def identity(cls, settings: PoseSettings) -> dict[str, str]:  # noqa: D102
        if settings.backend == "import":
            return {"backend": "import"}
        identity = {**_identity(settings), **POSE_BACKENDS.origin(settings.backend)}
        if settings.boxes == "rtdetr":
            identity |= _people(settings).identity()
        # The name in the settings is used, so that a study can be moved. The weights are identified by their hash.
        for name, given in (("model", settings.model), ("detector", settings.detector)):
            if given and identity.get(name) == _pretrained(settings, given):
                identity[name] = given
        return identity

    @classmethod
    def inputs(cls, settings: PoseSettings) -> tuple[Input, ...]:  # noqa: D102
        return (Input("masks", live=False),) if settings.boxes == "masks" else ()

    @classmethod
    def reads_of_source(cls, settings: PoseSettings, source: ViewSource) -> Any:  # noqa: D102
        from actionprep.pipeline.pose_backends.files import digest_of_files, origin_of_format

        if settings.backend == "import":
            origin = origin_of_format(source, settings.files, settings.format)
            return {"poses": source.poses, "files": digest_of_files(source, settings.files), **origin}
        if settings.boxes == "file":
            import hashlib

            path = _boxes_path(settings, source)
            return {"boxes": hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"}
        return None

    @classmethod
    def estimated_bytes(cls, settings: PoseSettings, source: ViewSource) -> int:  # noqa: D102
        joints = {"mediapipe": 33, "mediapipe-hands": 42, "mediapipe-holistic": 143}.get(settings.backend, 17)
        persons = 1 if settings.backend in _MEDIAPIPE and settings.boxes == "own" else settings.persons or 2
        return source.num_frames * persons * (joints * 12 + 24)

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> None:  # noqa: D102
        boxes = None if self._boxes is None else self._boxes(block)
        try:
            self._frames += self._estimator.estimate(block.rgb, boxes)
        except InputError as problem:
            # Backends count frames from the start of the block.
            at = None if problem.frame is None else int(block.index[problem.frame])
            raise InputError(problem.reason, frame=at, backend=problem.backend) from problem
        self._index.append(block.index)

    def finish(self, live: Mapping[str, Any]) -> None:  # noqa: D102
        index = np.concatenate([*self._index, np.zeros(0, np.int64)])
        poses = to_sequence(
            self._frames,
            self._estimator.skeleton,
            image_size=(self.source.height, self.source.width),
            frame_index=index,
            time=self.source.times[index],
        )
        _finish(self.settings, poses, self.item, self.source.root, estimator=self.settings.backend)

    @classmethod
    def build(
        cls, settings: PoseSettings, source: ViewSource, item: ItemWriter, done: Mapping[str, ItemReader]
    ) -> None:
        """Read existing poses."""
        from actionprep.pipeline.pose_backends.files import imported_poses

        poses, facts = imported_poses(
            source,
            files=settings.files,
            format=settings.format,
            skeleton=layout_in(settings.file_skeleton, source.root),
            coordinates=settings.coordinates,
            first_number=settings.first_number,
            rescale=settings.rescale,
            max_outside=settings.max_outside,
        )
        _finish(settings, poses, item, source.root, estimator="import", **facts)


def _finish(
    settings: PoseSettings, poses: PoseSequence, item: ItemWriter, root: str, *, estimator: str, **attributes: Any
) -> None:
    """Link, select, fill, smooth, convert and write poses."""
    linking = link(poses, settings, keep_ids=not settings.relink)
    poses = linking.poses
    if settings.skeleton:
        poses, conversion = poses.with_skeleton(layout_in(settings.skeleton, root))
        attributes["converted"] = str(conversion)
    write_pose_item(
        item,
        poses,
        estimator=estimator,
        num_persons_found=linking.num_found,
        num_persons_dropped=linking.num_dropped,
        num_filled=linking.num_filled_frames,
        num_joints_filled=linking.num_filled_joints,
        smoothed=settings.smooth,
        **attributes,
    )


_open_estimators: dict[str, PoseEstimator] = {}


def _estimator(settings: PoseSettings) -> PoseEstimator:
    """Return the estimator of these settings; the last one stays open for the next view."""
    options = _options(settings)
    known = canonical_json(
        [settings.backend, options if "settings" not in options else settings.model_dump(mode="json")]
    )
    if known not in _open_estimators:
        for estimator in _open_estimators.values():
            estimator.close()
        _open_estimators.clear()
        _open_estimators[known] = open_estimator(settings.backend, **options)
    return _open_estimators[known]


def _identity(settings: PoseSettings) -> dict[str, str]:
    """Return the identity of the estimator, without starting MediaPipe's worker."""
    if settings.backend not in _MEDIAPIPE:
        return _estimator(settings).identity()
    from actionprep.pipeline.pose_backends.mediapipe import installed_identity

    options = _options(settings)
    return installed_identity(options.pop("environment"), backend=settings.backend, **options)


def _options(settings: PoseSettings) -> dict[str, Any]:
    """Return the settings as options of the backend's class."""
    if settings.backend in _MEDIAPIPE:
        return {
            "environment": str(settings.path(settings.environment)) if settings.environment else None,
            "complexity": settings.complexity,
            "detection": settings.detection,
            "tracking": settings.tracking,
        }
    if settings.backend not in ("mmpose", "vitpose"):
        return {"settings": settings}
    common = {"device": _device(settings), "batch_size": settings.batch}
    if settings.backend == "mmpose":
        return {
            **common,
            "model": str(settings.path(settings.model))
            if settings.model.endswith(".py")
            else settings.model or "hrnet-w32",
            "checkpoint": str(settings.path(settings.checkpoint)) if settings.checkpoint else None,
            "flip": settings.flip,
            "random_weights": settings.random_weights,
            "skeleton": str(settings.path(settings.file_skeleton))
            if settings.file_skeleton.endswith(".toml")
            else settings.file_skeleton or None,
        }
    own = settings.boxes == "own"
    model = {"model": _pretrained(settings, settings.model)} if settings.model else {}
    return {
        **common,
        **model,
        "detector": _pretrained(settings, settings.detector) if own else None,
        "person_score": settings.person_score,
    }


def _pretrained(settings: PoseSettings, given: str) -> str:
    """Return the path of a folder given relative to the study; a name without such a folder is a hub name."""
    folder = settings.path(given)
    return str(folder) if folder.is_dir() else given


def _device(settings: PoseSettings) -> str:
    if settings.device != "auto":
        return settings.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


_open_detectors: dict[str, RTDetrPeople] = {}


def _people(settings: PoseSettings) -> RTDetrPeople:
    from actionprep.pipeline.pose_backends.boxes import RTDetrPeople

    detector = _pretrained(settings, settings.detector)
    known = canonical_json([detector, settings.person_score, _device(settings), settings.batch])
    if known not in _open_detectors:
        _open_detectors.clear()
        _open_detectors[known] = RTDetrPeople(
            detector, score=settings.person_score, device=_device(settings), batch_size=settings.batch
        )
    return _open_detectors[known]


def _boxes_of_view(settings: PoseSettings, source: ViewSource, done: Mapping[str, ItemReader]) -> Any:
    """Return a function from a block of frames to boxes; None if the backend finds people itself."""
    if settings.boxes == "own":
        return None
    if settings.boxes == "frame":
        full = np.array([[0, 0, source.width, source.height, 1]], np.float32)
        return lambda block: [full] * len(block)
    if settings.boxes == "rtdetr":
        return lambda block: _people(settings)(block.rgb)
    if settings.boxes == "file":
        from actionprep.pipeline.pose_backends.boxes import read_boxes

        boxes = read_boxes(_boxes_path(settings, source), source.num_frames)
        return lambda block: [boxes[index] for index in block.index]
    from actionprep.datasets.products.masks import read_masks
    from actionprep.pipeline.pose_backends.boxes import boxes_from_masks

    masks = done["masks"]

    def around_masks(block: FrameBlock) -> Boxes:
        first, last = int(block.index[0]), int(block.index[-1])
        foreground = read_masks(masks, slice(first, last + 1))
        return boxes_from_masks(foreground[block.index - first])

    return around_masks


def _boxes_path(settings: PoseSettings, source: ViewSource) -> Path:
    name = settings.boxes_file.replace("{recording}", source.recording).replace("{view}", source.view)
    return Path(source.root, name).expanduser()
