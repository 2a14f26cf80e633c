"""Layouts are drawn with every joint and limb, in the colours of their sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actionprep.datasets.skeletons import skeleton, skeleton_names
from actionprep.show.layouts import draw_layout, draw_layouts


@pytest.mark.parametrize("name", skeleton_names())
def test_layouts_are_drawn_in_the_colours_of_their_sides(name: str) -> None:
    image = draw_layout(name, height=240, labels=False)
    colors = {tuple(color) for color in image.reshape(-1, 3).tolist()}
    assert set(skeleton(name).joint_colors) <= colors


def test_the_left_of_the_figure_is_on_the_right_of_the_picture() -> None:
    layout = skeleton("coco17")
    image = draw_layout(layout, height=400, labels=False)
    columns = {
        side: np.argwhere((image == layout.joint_colors[layout.index(f"{side}_wrist")]).all(axis=2))[:, 1].mean()
        for side in ("left", "right")
    }
    assert columns["left"] > columns["right"]


def test_labels_add_names_beside_the_figure_and_joints_without_a_place_stand_below(tmp_path: Path) -> None:
    path = tmp_path / "lizard.toml"
    path.write_text('joints = ["snout", "tail_tip"]\nlimbs = [["snout", "tail_tip"]]\n')
    image = draw_layout(str(path), height=300)
    assert image.shape[0] == 300
    assert image.shape[1] > draw_layout(str(path), height=300, labels=False).shape[1]
    assert (image[270:] != 255).any()


def test_several_layouts_stand_side_by_side_in_one_file(tmp_path: Path) -> None:
    path = draw_layouts(["coco17", "ntu25"], tmp_path / "two.png")
    assert path.read_bytes()[1:4] == b"PNG"
