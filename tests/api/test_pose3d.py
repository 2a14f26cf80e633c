"""Joints in space from the poses of a sample study, against its truth."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from prep_commands import document

from actionprep.api import Study, import_poses, open_study
from actionprep.api.new_study import make_study
from actionprep.api.pose3d import pose3d
from actionprep.errors import UserError
from actionprep.sample import make_sample_study
from actionprep.sample.truth import SampleTruth


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("sample")
    make_sample_study(folder, recordings=1, views=4, workers=0)
    for name in ("cam2.mp4",):  # a view without OpenPose files
        (folder / "videos/take_000" / name).unlink()
    rows = [row for row in csv.DictReader((folder / "views.csv").read_text().splitlines()) if row["view"] != "2"]
    with (folder / "clocks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["recording", "view", "offset"])
        writer.writeheader()
        writer.writerows(rows)
    make_study(
        folder, {"videos": "videos", "pattern": "{recording}/cam{view}.mp4", "offsets": "clocks.csv", "tolerance": 0.1}
    )
    import_poses(folder, [folder / "truth/openpose/{recording}/cam{view}"])
    return open_study(folder)


def test_pose3d_of_a_sample_study(study: Study):
    result = pose3d(study, "take_000", study.root / "calibration.toml")
    time, joints = SampleTruth(study.root).joints_3d("take_000")
    truth = np.stack(
        [[np.interp(result.time, time, joints[:, joint, axis]) for axis in range(3)] for joint in range(25)]
    ).transpose(2, 0, 1)
    assert result.views == ("0", "1", "3")
    assert result.unit == "m"
    assert np.nanmedian(np.linalg.norm(result.xyz - truth, axis=-1)) < 0.01
    assert max(result.view_error.values()) < 1
    assert result.warnings == ()


def test_pose3d_writes_and_prints(study: Study, tmp_path: Path):
    [row] = document(study, "pose3d", str(study.root / "calibration.toml"), "--out", str(tmp_path))["recordings"]
    with np.load(row["file"]) as arrays:
        assert arrays["xyz"].shape == (*arrays["error"].shape, 3)
        assert int(np.isfinite(arrays["error"]).sum()) == row["triangulated"]
    assert set(row["view_error_px"]) == {"0", "1", "3"}


def test_pose3d_reports_exchanged_cameras(study: Study, tmp_path: Path):
    parts = (study.root / "calibration.toml").read_text(encoding="utf-8").removeprefix("[").split("\n[")
    first, second = (next(part for part in parts if part.startswith(f"cam_{view}]")) for view in (0, 1))
    exchanged = {first: _with_pose_of(first, second), second: _with_pose_of(second, first)}
    (tmp_path / "exchanged.toml").write_text(
        "[" + "\n[".join(exchanged.get(part, part) for part in parts), encoding="utf-8"
    )
    result = pose3d(study, "take_000", tmp_path / "exchanged.toml", max_error=1e6)
    assert any("views '0' and '1' fit better with each other's camera" in warning for warning in result.warnings)


def test_pose3d_reports_a_wrong_clock(study: Study):
    clocks = study.root / "clocks.csv"
    before = clocks.read_text(encoding="utf-8")
    try:
        clocks.write_text(before.replace("take_000,1,0.0", "take_000,1,0.3"), encoding="utf-8")
        [warning] = pose3d(open_study(study.root), "take_000", study.root / "calibration.toml").warnings
    finally:
        clocks.write_text(before, encoding="utf-8")
    assert "view '1' fits the others better if its times are changed by -0.3" in warning


def _with_pose_of(part: str, other: str) -> str:
    """A camera's text with the rotation and translation of another."""
    lines = {line.partition(" ")[0]: line for line in other.splitlines()}
    return "\n".join(
        lines[line.partition(" ")[0]] if line.startswith(("rotation", "translation")) else line
        for line in part.split("\n")
    )


def test_pose3d_without_poses(study: Study, tmp_path: Path):
    with pytest.raises(UserError, match=r"has 1 views with poses and a camera .* 'pose3d' needs two"):
        pose3d(study, "take_000", study.root / "calibration.toml", views=["0"])
