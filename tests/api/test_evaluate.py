"""Scores of tracks, poses and masks against files with known truth."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stage_runs import shifted, texture
from typer.testing import CliRunner

from actionprep.api.evaluate import evaluate_masks, evaluate_poses, evaluate_tracks
from actionprep.cli.prep import app
from actionprep.datasets.track_truth import read_tapvid
from actionprep.errors import InputError, UserError
from actionprep.pipeline.mask_evaluation import boundary_accuracy, score_masks
from actionprep.pipeline.pose_evaluation import (
    DetectedPerson,
    ImagePair,
    TruePerson,
    average_precision,
    coco_similarity,
    correct_keypoints,
)
from actionprep.pipeline.track_evaluation import make_queries, measure_consistency
from actionprep.pipeline.trackers.lk import LucasKanade
from actionprep.pipeline.trackers.settings import TracksSettings


def moving(count: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, 64, 96, 3) of a texture that moves 1 px right and 0.5 px down per frame, and points (T, 4, 2) on it."""
    ground = texture(64, 96, grain=3)
    gray = np.stack([np.rint(shifted(ground, t, 0.5 * t)) for t in range(count)]).astype(np.uint8)
    start = np.array([[30.0, 20.0], [50.0, 30.0], [40.0, 40.0], [60.0, 25.0]])
    return np.repeat(gray[..., None], 3, axis=-1), start + np.arange(count)[:, None, None] * np.array([1.0, 0.5])


def tapvid(path: Path, xy: np.ndarray, frames: np.ndarray, occluded: np.ndarray) -> Path:
    """TAP-Vid measures from the corner of the first pixel, in fractions of the size."""
    points = ((xy + 0.5) / np.array([96, 64])).transpose(1, 0, 2).astype(np.float32)
    video = {"points": points, "occluded": occluded.T, "video": frames}
    if path.suffix == ".npz":
        np.savez(path, **video)
    else:
        path.write_bytes(pickle.dumps({"clip": video}))
    return path


@pytest.mark.parametrize("name", ["truth.pkl", "truth.npz"])
@pytest.mark.parametrize("mode", ["first", "strided"])
def test_evaluate_tracks_tapvid_file(tmp_path: Path, name: str, mode: str):
    frames, xy = moving()
    path = tapvid(tmp_path / name, xy, frames, np.zeros(xy.shape[:2], bool))
    [scores] = evaluate_tracks(path, mode=mode).values()
    assert scores.delta_average == 1.0
    assert scores.average_jaccard == 1.0
    assert scores.occlusion_accuracy == 1.0
    assert scores.num_points == (4 if mode == "first" else 12)


def test_read_tapvid_converts_the_pixel_convention(tmp_path: Path):
    frames, xy = moving()
    [truth] = read_tapvid(tapvid(tmp_path / "truth.pkl", xy, frames, np.zeros(xy.shape[:2], bool)))
    assert truth.name == "clip"
    assert np.allclose(truth.xy, xy, atol=1e-4)
    assert truth.visible.all()


def test_read_tapvid_jpeg_frames(tmp_path: Path):
    path = tmp_path / "kinetics.pkl"
    path.write_bytes(
        pickle.dumps([{"points": np.zeros((1, 2, 2)), "occluded": np.zeros((1, 2)), "video": [b"a", b"b"]}])
    )
    with pytest.raises(InputError, match=r"frames of video 'kinetics_0000' are not an array \(T, H, W, 3\) uint8"):
        list(read_tapvid(path))


def test_evaluate_tracks_table_of_points(tmp_path: Path, numbered_video: Path):
    table = tmp_path / "points.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["frame", "point", "x", "y", "visible"], [0, "a", 31.5, 31.5, 1], [2, "a", 31.5, 31.5, 0]])
        writer.writerow([5, "a", 31.5, 31.5, 1])
    result = CliRunner().invoke(
        app, ["evaluate", "tracks", str(table), "--video", str(numbered_video), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert json.loads(result.stdout)["mean"]["num_points"] == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("points.csv", "needs its video. Name it with --video"), ("points.txt", "No ground truth of tracks at")],
)
def test_evaluate_tracks_wrong_truth(tmp_path: Path, name: str, message: str):
    with pytest.raises(UserError, match=message):
        evaluate_tracks(tmp_path / name)


def test_make_queries_modes():
    xy = np.arange(11 * 2 * 2, dtype=float).reshape(11, 2, 2)
    visible = np.ones((11, 2), bool)
    visible[:3, 1] = visible[10, 0] = False
    labeled = np.ones((11, 2), bool)
    first, points = make_queries(xy, visible, labeled, mode="first")
    assert first[:, 0].tolist() == [0, 3]
    assert points.tolist() == [0, 1]
    assert first[1, 1:].tolist() == xy[3, 1].tolist()
    strided, points = make_queries(xy, visible, labeled, mode="strided")
    assert list(zip(strided[:, 0].tolist(), points.tolist(), strict=True)) == [(0, 0), (5, 0), (5, 1), (10, 1)]


def test_measure_consistency_of_a_moving_texture():
    frames, xy = moving()
    tracker = LucasKanade(TracksSettings())
    actual = measure_consistency(tracker, list(frames[..., 0]), np.insert(xy[2], 0, 2, axis=1))
    assert actual.survival == 1.0
    assert actual.forward_backward < 0.2


def square(left: int, *, size: int = 20) -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    mask[20 : 20 + size, left : left + size] = True
    return mask


def test_score_masks_of_a_shifted_square():
    truth = np.stack([square(20)] * 8)
    scores = score_masks(np.stack([square(20)] * 4 + [square(30)] * 4), truth)
    assert scores.j_mean == pytest.approx((4 + 4 * 200 / 600) / 8)
    assert scores.j_recall == 0.5
    # Quarters share their first frames, as in DAVIS: frames 0 to 2 and 5 to 7.
    assert scores.j_decay == pytest.approx(1 - 1 / 3)


def test_boundary_accuracy_within_the_tolerance():
    assert boundary_accuracy(square(20), square(21)) == 1.0
    assert 0 < boundary_accuracy(square(20), square(26)) < 1
    assert boundary_accuracy(square(20), np.zeros((60, 80), bool)) == 0.0
    assert boundary_accuracy(np.zeros((60, 80), bool), np.zeros((60, 80), bool)) == 1.0


def test_evaluate_masks_of_two_objects(tmp_path: Path):
    for folder, left in (("true", 20), ("made", 24)):
        (tmp_path / folder / "bear").mkdir(parents=True)
        for frame in range(3):
            values = square(20).astype(np.uint8) + 2 * square(left + 30).astype(np.uint8)
            image = Image.fromarray(values).convert("P")
            image.putdata(values.ravel().tolist())
            image.save(tmp_path / folder / "bear" / f"{frame:05d}.png")
    scores = evaluate_masks(tmp_path / "true", tmp_path / "made")
    assert scores["bear/1"].j_and_f == 1.0
    assert scores["bear/2"].j_mean == pytest.approx(16 / 24)
    (tmp_path / "made" / "bear" / "00002.png").unlink()
    with pytest.raises(UserError, match=r"has no mask 00002\.png, which .* has\. Predict every frame"):
        evaluate_masks(tmp_path / "true", tmp_path / "made")


def person(left: float, *, area: float = 10000.0, labeled: bool = True) -> TruePerson:
    x, y = np.meshgrid(np.linspace(0, 80, 17), [50.0])
    joints = np.stack([x[0] + left, y[0], np.full(17, 2.0 * labeled)], axis=1)
    return TruePerson(joints, area, (left, 0.0, 100.0, 100.0), not labeled)


def found(truth: TruePerson, *, shift: float, score: float) -> DetectedPerson:
    return DetectedPerson(truth.xyv[:, :2] + [shift, 0], score)


def test_coco_similarity_of_a_shift():
    sigmas = np.full(17, 0.05)
    truth = person(10)
    similarity = coco_similarity(truth.xyv[None, :, :2] + [5.0, 0], truth, sigmas)
    assert similarity[0] == pytest.approx(np.exp(-(5.0**2) / (2 * 10000 * 0.1**2)))


def test_average_precision_of_a_false_alarm_between_two_hits():
    a, b = person(0), person(300)
    images = [
        ImagePair([a, b], [found(a, shift=0, score=0.9), found(a, shift=900, score=0.8), found(b, shift=0, score=0.7)])
    ]
    # Precision is 1 up to recall 0.5 (51 of 101 recall steps), then 2/3.
    assert average_precision(images)["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision(images)["AR"] == 1.0


def test_average_precision_ignores_people_without_labels():
    a, unlabeled = person(0), person(300, labeled=False)
    images = [ImagePair([a, unlabeled], [found(unlabeled, shift=0, score=0.9), found(a, shift=0, score=0.5)])]
    assert average_precision(images)["AP"] == pytest.approx(1.0)


def test_average_precision_by_area():
    small = person(0, area=50.0**2)
    metrics = average_precision([ImagePair([small], [found(small, shift=0, score=0.5)])])
    assert metrics["APM"] == pytest.approx(1.0)
    assert np.isnan(metrics["APL"])


def test_correct_keypoints_counts_missing_joints_as_wrong():
    true = np.zeros((1, 4, 2))
    xy = np.array([[[0, 0], [8, 0], [12, 0], [np.nan, np.nan]]])
    labeled = np.array([[True, True, True, True]])
    assert correct_keypoints(xy, true, labeled, np.array([100.0]), thresholds=[0.1, 0.2]) == {0.1: 0.5, 0.2: 0.75}


def coco_files(folder: Path, detections: object) -> tuple[Path, Path]:
    truth = person(10)
    annotation = {
        "id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "area": truth.area, "bbox": list(truth.box),
        "keypoints": truth.xyv.ravel().tolist(),
    }  # fmt: skip
    (folder / "truth.json").write_text(json.dumps({"images": [{"id": 7}], "annotations": [annotation]}))
    (folder / "made.json").write_text(json.dumps(detections))
    return folder / "truth.json", folder / "made.json"


def test_evaluate_poses_coco_files(tmp_path: Path):
    joints = person(10).xyv
    files = coco_files(tmp_path, [{"image_id": 7, "keypoints": joints.ravel().tolist(), "score": 0.5}])
    scores = evaluate_poses(*files)
    assert scores.coco["AP"] == pytest.approx(1.0)
    assert scores.pck[0.05] == 1.0
    assert "PCK@0.1" in CliRunner().invoke(app, ["evaluate", "poses", *map(str, files)]).stdout


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        ({}, "is not a COCO result file: expected a list of detections"),
        ([{"image_id": 8, "keypoints": [0] * 51, "score": 1}], "do not fit COCO's formats or each other: KeyError: 8"),
        ([{"image_id": 7, "keypoints": [0] * 6, "score": 1}], "Both must have the same images and joints"),
    ],
)
def test_evaluate_poses_wrong_files(tmp_path: Path, detections: object, message: str):
    with pytest.raises(InputError, match=message):
        evaluate_poses(*coco_files(tmp_path, detections))


@pytest.fixture
def numbered_video(tmp_path: Path) -> Path:
    from numbered_videos import write_numbered

    return write_numbered(tmp_path / "video.mkv", "ffv1", 8, pixel_format="gray")
