"""Layouts are drawn with every joint and limb, in the colors of their sides."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from actionprep.cli.prep import app
from actionprep.datasets.poses.skeletons import skeleton, skeleton_names
from actionprep.show.skeletons import _joint_xy, _number_positions, draw_layout, draw_layouts


@pytest.mark.parametrize("name", skeleton_names())
def test_layouts_are_drawn_in_the_colors_of_their_sides(name: str) -> None:
    image = draw_layout(name, height=240, labels=False)
    colors = {tuple(color) for color in image.reshape(-1, 3).tolist()}
    assert set(skeleton(name).joint_colors) <= colors


def test_left_joints_are_drawn_on_the_right_of_the_image() -> None:
    layout = skeleton("coco17")
    image = draw_layout(layout, height=400, labels=False)
    columns = {
        side: np.argwhere((image == layout.joint_colors[layout.index(f"{side}_wrist")]).all(axis=2))[:, 1].mean()
        for side in ("left", "right")
    }
    assert columns["left"] > columns["right"]


def test_skeleton_labels_add_names_and_unplaced_joints(tmp_path: Path) -> None:
    path = tmp_path / "lizard.toml"
    path.write_text('joints = ["snout", "tail_tip"]\nlimbs = [["snout", "tail_tip"]]\n')
    image = draw_layout(str(path), height=300)
    assert image.shape[0] == 300
    assert image.shape[1] > draw_layout(str(path), height=300, labels=False).shape[1]
    assert (image[270:] != 255).any()


def test_several_layouts_stand_side_by_side_in_one_file(tmp_path: Path) -> None:
    path = draw_layouts(["coco17", "ntu25"], tmp_path / "two.png")
    assert path.read_bytes()[1:4] == b"PNG"


def test_numbers_of_joints_cover_neither_each_other_nor_joints(tmp_path: Path) -> None:
    for name in ("coco17", "mediapipe33", "ntu25"):
        points = _joint_xy(skeleton(name), 720, 562)
        widths = [9 if index < 10 else 18 for index in range(len(points))]
        places, _ = _number_positions(points, widths, 14)
        away = np.abs(places[:, None] - places[None])
        apart = (away[..., 0] >= np.add.outer(widths, widths) / 2) | (away[..., 1] >= 14)
        assert apart[~np.eye(len(points), dtype=bool)].all(), name


def test_many_layouts_stand_in_rows_of_four(tmp_path: Path) -> None:
    entry = draw_layout("coco17")
    path = draw_layouts(["coco17"] * 5, tmp_path / "five.png")
    assert cv2.imread(str(path)).shape == (2 * entry.shape[0], 4 * entry.shape[1], 3)


def test_skeletons_command_draws_and_reports_replaced_files(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(app, ["skeletons", *words, "--out", str(tmp_path / "out.png")])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    assert "Wrote" in run("coco17")
    alone = cv2.imread(str(tmp_path / "out.png")).shape
    assert "Replaced" in run("coco17", "--to", "jhmdb15")
    assert cv2.imread(str(tmp_path / "out.png")).shape[1] > 1.5 * alone[1]
    run()
    assert cv2.imread(str(tmp_path / "out.png")).shape[0] == 4 * alone[0]
