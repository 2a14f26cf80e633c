"""Score tracks, poses and masks against ground truth files, or tracks without truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.errors import InputError, UserError

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.track_truth import TrackTruth
    from actionprep.pipeline.mask_evaluation import MaskScores
    from actionprep.pipeline.pose_evaluation import ImagePair
    from actionprep.pipeline.track_evaluation import QueryMode, TrackConsistency, TrackScores
    from actionprep.pipeline.trackers.settings import TracksSettings
    from actionprep.sample.truth import SampleTruth

_WINDOWS = 5
_SAMPLE_POINTS = 100


@dataclass(frozen=True, slots=True)
class PoseScores:
    """Accuracy of poses.

    Attributes:
        pck: For each threshold, fraction of the labeled joints within that share of the longer side of the person's box.
        coco: COCO's keypoint metrics, such as "AP"; empty if the truth is not a COCO file.
        num_people: Number of annotated people.
    """

    pck: Mapping[float, float]
    coco: Mapping[str, float]
    num_people: int


def evaluate_tracks(
    truth: str | Path,
    *,
    settings: TracksSettings | None = None,
    video: str | Path | None = None,
    mode: QueryMode = "first",
    views: Sequence[str | int] = (),
) -> dict[str, TrackScores]:
    """Run a tracker on the queries of a ground truth and score it as TAP-Vid does.

    Frames are shrunk to `settings.short_side` first. Errors are measured at 256x256.

    Args:
        truth: A TAP-Vid file (.pkl or .npz), a table of points (.csv) with a video, or the folder of a sample study.
        settings: Settings of the tracker; the defaults if None.
        video: The video of a table of points.
        mode: TAP-Vid's query mode, "first" or "strided".
        views: Views of a sample study; all if empty.

    Returns:
        The scores of each video.

    Raises:
        UserError: If the truth is none of these, or the video is missing.
        InputError: If a file is damaged.
    """
    from actionprep.pipeline.track_evaluation import score_tracker
    from actionprep.pipeline.trackers.settings import TracksSettings
    from actionprep.pipeline.trackers.tracker import TRACKERS

    settings = settings or TracksSettings()
    tracker = TRACKERS[settings.tracker](settings)
    scores = {}
    for case in _track_truths(Path(truth), video, views):
        assert case.frames is not None
        frames, scale = _prepared(case.frames, settings.short_side, needs=tracker.needs)
        xy = (case.xy + 0.5) * scale - 0.5
        try:
            scores[case.name] = score_tracker(tracker, frames, xy, case.visible, case.labeled, mode=mode)
        except ValueError as error:
            raise UserError(f"{truth}, video '{case.name}': {error}") from None
    return scores


def check_tracks(
    study: Study, *, recordings: Sequence[str] = (), views: Sequence[str | int] = ()
) -> dict[str, TrackConsistency]:
    """Measure stored tracks without ground truth: survival, and forward-backward error.

    Points that are visible in the first frame of a window are tracked to its end and back, with the tracker and the
    settings of actionprep.toml, in up to five windows per view.

    Args:
        study: The study.
        recordings: Recordings; all if empty.
        views: Views; those of the settings if empty.

    Returns:
        The result of each view, by "recording/view".

    Raises:
        UserError: If no selected view has stored tracks.
    """
    from actionprep.datasets.store.keys import ItemKey
    from actionprep.pipeline.track_evaluation import measure_consistency
    from actionprep.pipeline.trackers.tracker import TRACKERS
    from actionprep.pipeline.video import VideoReader

    settings: Any = study.stage_settings()["tracks"]
    tracker = TRACKERS[settings.tracker](settings)
    wanted = {study.catalog.recording(name).id for name in recordings}
    results = {}
    for view in study.select(views).views:
        key = ItemKey("tracks", view.recording, view.id)
        if (wanted and view.recording not in wanted) or study.store.metadata(key) is None:
            continue
        tracks = study.tracks(view.recording, view=view.id)
        usable = np.flatnonzero((tracks.valid[:, None] & tracks.visible)[:, 0].any(axis=1))
        measured = []
        with VideoReader(study.folder.resolve(view.path)) as reader:
            for window in (
                usable[np.unique(np.linspace(0, len(usable) - 1, _WINDOWS).astype(int))] if len(usable) else ()
            ):
                numbers = tracks.frame[window][tracks.frame_valid[window]]
                frames, scale = _prepared(reader.frames_at(numbers), settings.short_side, needs=tracker.needs)
                points = tracks.valid[window] & tracks.visible[window, 0]
                xy = (tracks.xy[window, 0][points] + 0.5) * scale - 0.5
                measured.append(measure_consistency(tracker, frames, np.insert(xy, 0, 0, axis=1)))
        if measured:
            results[f"{view.recording}/{view.id}"] = _mean_consistency(measured)
    if not results:
        raise UserError(
            "No selected view has stored tracks with visible points. Run 'actionprep track' first, or name a ground truth."
        )
    return results


def evaluate_masks(truth: str | Path, predicted: str | Path | None = None) -> dict[str, MaskScores]:
    """Score masks with DAVIS's J and F.

    Without `predicted`, the truth is the folder of a sample study, and its stored masks are scored. Otherwise both folders
    contain one folder of .png files per video, or the files of one video. Files with the same name are
    compared. In an image with a palette the indices are objects; other images are one object, where they are not 0.

    Args:
        truth: Folder of the true masks, or of a sample study.
        predicted: Folder of the predicted masks; None for the stored masks of a sample study.

    Returns:
        The scores of each object, by "video/object"; of a sample study by "recording/view".

    Raises:
        UserError: If a folder has no masks, or the predictions lack one.
        InputError: If a file is damaged, or sizes differ.
    """
    from actionprep.pipeline.mask_evaluation import score_masks

    scores = {}
    if predicted is None:
        from actionprep.datasets.products.masks import read_masks

        for sample, study, recording, view in _stored_of_sample(Path(truth), "masks"):
            true = sample.masks(recording, view)
            scores[f"{recording}/{view}"] = score_masks(read_masks(study.item("masks", recording, str(view))), true)
        return scores
    for video, files in _mask_files(Path(truth)).items():
        ours = Path(predicted) / video if (Path(predicted) / video).is_dir() else Path(predicted)
        pairs = []
        for file in files:
            if not (ours / file.name).is_file():
                raise UserError(f"{ours} has no mask {file.name}, which {file.parent} has. Predict every frame.")
            true, made = _objects(file), _objects(ours / file.name)
            if true.shape != made.shape:
                raise InputError(
                    f"Mask {ours / file.name} has size {made.shape[::-1]}, but {file} has {true.shape[::-1]}."
                )
            pairs.append((true, made))
        numbers = sorted({int(number) for true, _ in pairs for number in np.unique(true) if number})
        for number in numbers:
            made, true = (np.stack([pair[side] == number for pair in pairs]) for side in (1, 0))
            scores[f"{video}/{number}" if video else str(number)] = score_masks(made, true)
    if not scores:
        raise UserError(f"The masks of {truth} are empty: there is no object to score.")
    return scores


def evaluate_poses(
    truth: str | Path, predicted: str | Path | None = None, *, thresholds: Sequence[float] = (0.05, 0.1, 0.2)
) -> PoseScores:
    """Score poses with COCO's average precision and PCK.

    Without `predicted`, the truth is the folder of a sample study, and its stored poses are scored, on the visible joints
    that their layout has. The area of a person is that of its true mask.

    PCK compares each annotated person with the detection of highest similarity in its image.

    Args:
        truth: COCO annotation file with `images` and `annotations`, or the folder of a sample study.
        predicted: COCO result file: a list of `image_id`, `keypoints` (x, y, v per joint) and `score`. None for the stored
            poses of a sample study.
        thresholds: Thresholds of PCK, as shares of the longer side of the box.

    Raises:
        UserError: If a file is missing.
        InputError: If a file has other contents.
    """
    if predicted is None:
        return _score_poses(*_poses_of_sample(Path(truth)), thresholds, truth)
    return _score_poses(*_poses_of_coco(truth, predicted), thresholds, truth)


def _poses_of_coco(truth: str | Path, predicted: str | Path) -> tuple[list[ImagePair], np.ndarray]:
    """Images of COCO files, and the standard deviation per joint."""
    from actionprep.pipeline.pose_evaluation import COCO_SIGMAS, DetectedPerson, ImagePair, TruePerson

    document, detections = _json(Path(truth)), _json(Path(predicted))
    if not isinstance(document, dict) or "annotations" not in document or "images" not in document:
        raise InputError(f"{truth} is not a COCO annotation file: it has no 'images' and 'annotations'.")
    if not isinstance(detections, list):
        raise InputError(f"{predicted} is not a COCO result file: expected a list of detections.")
    try:
        people: dict[Any, tuple[list[TruePerson], list[DetectedPerson]]] = {
            image: ([], []) for image in sorted(image["id"] for image in document["images"])
        }
        num_joints = 0
        for row in document["annotations"]:
            joints = np.array(row["keypoints"], np.float64).reshape(-1, 3)
            num_joints = len(joints)
            crowd = bool(row.get("iscrowd", 0))
            ignore = crowd or not (joints[:, 2] > 0).any()
            box = (*map(float, row["bbox"]),)
            people[row["image_id"]][0].append(TruePerson(joints, float(row["area"]), box, ignore, crowd))  # type: ignore[arg-type]
        for row in detections:
            joints = np.array(row["keypoints"], np.float64).reshape(num_joints, 3)
            people[row["image_id"]][1].append(DetectedPerson(joints[:, :2], float(row["score"])))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{truth} and {predicted} do not fit COCO's formats or each other: {type(error).__name__}: {error}. Both must "
            "have the same images and joints."
        ) from None
    sigmas = COCO_SIGMAS if num_joints == len(COCO_SIGMAS) else np.full(num_joints, float(COCO_SIGMAS.mean()))
    return [ImagePair(*both) for both in people.values()], sigmas


def _poses_of_sample(folder: Path) -> tuple[list[ImagePair], np.ndarray]:
    """Frames of the stored poses of a sample study, and the standard deviation per joint."""
    from actionprep.datasets.poses.skeletons import convert
    from actionprep.pipeline.linking import joint_sigmas
    from actionprep.pipeline.pose_evaluation import DetectedPerson, ImagePair, TruePerson

    images = []
    sigmas = np.empty(0)
    for sample, study, recording, view in _stored_of_sample(folder, "pose"):
        joints, masks = sample.joints_2d(recording, view), sample.masks(recording, view)
        poses = study.poses(recording, view=str(view))
        xy, score, _ = convert(poses.keypoints[..., :2], poses.score, poses.skeleton, "body25")
        known = convert(
            np.ones_like(poses.keypoints[:1, :1, :, :2]), np.ones_like(poses.score[:1, :1]), poses.skeleton, "body25"
        )
        has_joint = known[1][0, 0] > 0
        sigmas = joint_sigmas(replace(poses, skeleton="body25"))
        for row, frame in enumerate(poses.frame_index):
            shown = joints.visibility[frame] & has_joint
            if not shown.any():
                continue
            corners = joints.xy[frame][shown]
            low, extent = corners.min(axis=0), np.ptp(corners, axis=0)
            person = TruePerson(
                np.concatenate([joints.xy[frame], 2.0 * shown[:, None]], axis=1),
                float(masks[frame].sum()),
                (float(low[0]), float(low[1]), float(extent[0]), float(extent[1])),
            )
            detected = [
                DetectedPerson(np.where(certain[:, None] > 0, place, -1e6), float(certain[certain > 0].mean()))
                for place, certain in zip(xy[row], score[row], strict=True)
                if (certain > 0).any()
            ]
            images.append(ImagePair([person], detected))
    return images, sigmas


def _score_poses(
    images: Sequence[ImagePair], sigmas: np.ndarray, thresholds: Sequence[float], truth: str | Path
) -> PoseScores:
    from actionprep.pipeline.pose_evaluation import average_precision, coco_similarity, correct_keypoints

    num_joints = len(sigmas)
    estimated, true, labeled, size = [], [], [], []
    for image in images:
        candidates = np.array([person.xy for person in image.detected]).reshape(-1, num_joints, 2)
        for person in image.truth:
            if person.ignore:
                continue
            nothing = np.full((num_joints, 2), np.nan)
            best = candidates[coco_similarity(candidates, person, sigmas).argmax()] if len(candidates) else nothing
            estimated.append(best)
            true.append(person.xyv[:, :2])
            labeled.append(person.xyv[:, 2] > 0)
            size.append(max(person.box[2:]))
    if not estimated:
        raise UserError(f"{truth} has no person with labeled joints: there is nothing to score.")
    pck = correct_keypoints(
        np.array(estimated), np.array(true), np.array(labeled), np.array(size), thresholds=thresholds
    )  # fmt: skip
    return PoseScores(pck, average_precision(images, sigmas=sigmas), len(estimated))


def _stored_of_sample(folder: Path, product: str) -> Iterator[tuple[SampleTruth, Study, str, int]]:
    """Views of a sample study that have an item of a product, with the truth and the study."""
    from actionprep.api.study import open_study
    from actionprep.datasets.store.keys import ItemKey
    from actionprep.sample.truth import SampleTruth

    sample, any_stored = SampleTruth(folder), False
    if not sample.recordings_csv.is_file() or not sample.calibration_toml.is_file():
        raise UserError(
            f"{folder} is not a sample study. Name the predictions too, or make one with 'actionprep demo'."
        )
    study = open_study(folder)
    for recording in sample.recordings:
        for view in sample.views:
            if study.store.metadata(ItemKey(product, recording, str(view))) is not None:
                any_stored = True
                yield sample, study, recording, view
    if not any_stored:
        raise UserError(f"{folder} has no stored {product}. Run 'actionprep {product}' in it first.")


def _track_truths(
    path: Path, video: str | Path | None, views: Sequence[str | int]
) -> Iterator[TrackTruth]:  # fmt: skip
    from actionprep.datasets.track_truth import read_point_table, read_tapvid
    from actionprep.sample.truth import SampleTruth

    if path.is_dir():
        yield from _sample_truths(SampleTruth(path), views)
    elif path.suffix in (".pkl", ".pickle", ".npz"):
        yield from read_tapvid(path)
    elif path.suffix == ".csv":
        if video is None:
            raise UserError(f"A table of points such as {path} needs its video. Name it with --video.")
        frames = _all_frames(Path(video))
        yield replace(read_point_table(path, num_frames=len(frames), name=Path(video).stem), frames=frames)
    else:
        raise UserError(
            f"No ground truth of tracks at {path}. Expected a TAP-Vid file (.pkl, .npz), a table (.csv) with a video, or "
            "the folder of a sample study."
        )


def _sample_truths(truth: SampleTruth, views: Sequence[str | int]) -> Iterator[TrackTruth]:
    from actionprep.datasets.track_truth import TrackTruth

    if not truth.recordings_csv.is_file():
        raise UserError(f"{truth.folder} is not a sample study: it has no recordings.csv. 'actionprep demo' makes one.")
    for recording in truth.recordings:
        for view in [int(view) for view in views] or truth.views:
            tracks = truth.tracks(recording, view)
            frames = _all_frames(truth.video(recording, view))
            points = np.linspace(0, tracks.xy.shape[1] - 1, min(_SAMPLE_POINTS, tracks.xy.shape[1])).astype(int)
            visible = tracks.visibility[:, points]
            yield TrackTruth(
                f"{recording}/{view}", tracks.xy[:, points], visible, np.ones_like(visible), frames
            )  # fmt: skip


def _all_frames(path: Path) -> np.ndarray:
    from actionprep.pipeline.video import VideoReader

    with VideoReader(path) as reader:
        return np.concatenate([block.rgb for block in reader.blocks()])


def _prepared(frames: np.ndarray, short_side: int, *, needs: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames as a tracker needs them, shrunk to a short side, and the factors of x and y."""
    import cv2

    from actionprep.pipeline.shrink import shrink

    height, width = frames.shape[1:3]
    factor = min(1.0, short_side / min(height, width)) if short_side else 1.0
    size = (round(width * factor), round(height * factor))
    made = []
    for frame in frames:
        shrunk = shrink(frame, size)
        made.append(cv2.cvtColor(shrunk, cv2.COLOR_RGB2GRAY) if needs == "gray" else shrunk)
    return made, np.array([size[0] / width, size[1] / height])


def _mean_consistency(measured: Sequence[TrackConsistency]) -> TrackConsistency:
    from actionprep.pipeline.track_evaluation import TrackConsistency

    weights = [view.num_points for view in measured]
    errors = [view.forward_backward for view in measured if np.isfinite(view.forward_backward)]
    return TrackConsistency(
        survival=float(np.average([view.survival for view in measured], weights=weights)),
        visible=float(np.average([view.visible for view in measured], weights=weights)),
        forward_backward=float(np.median(errors)) if errors else float("nan"),
        num_points=sum(weights),
    )


def _mask_files(folder: Path) -> dict[str, list[Path]]:
    """Mask files of each video, by its name; "" if the folder has the files of one video."""
    videos = {path.name: sorted(path.glob("*.png")) for path in sorted(folder.glob("*")) if path.is_dir()}
    videos_of_masks = {name: files for name, files in {"": sorted(folder.glob("*.png")), **videos}.items() if files}
    if not videos_of_masks:
        raise UserError(f"No masks in {folder}. Expected .png files, or one folder of them per video.")
    return videos_of_masks


def _objects(file: Path) -> np.ndarray:
    """Object numbers (H, W) of a mask file."""
    from PIL import Image

    from actionprep.pipeline.mask_sources.files import read_mask_png

    values = read_mask_png(file)
    with Image.open(file) as image:
        has_palette = image.mode == "P"
    return values if has_palette else (values > 0).astype(np.uint8)


def _json(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"No file {path}.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}.") from None
