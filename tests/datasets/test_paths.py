"""Paths made from names in data stay below their root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_names import ESCAPES

from actionprep.datasets.paths import below, name_problem, no_link, safe_name, walk
from actionprep.errors import SetupError, UserError


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "it is empty"),
        ("..", "its parts must not be empty, '.' or '..'"),
        ("a/../../b", "its parts must not be empty, '.' or '..'"),
        ("a//b", "its parts must not be empty, '.' or '..'"),
        ("/etc/passwd", "it is an absolute path"),
        ("C:\\x", "it has a backslash"),
        ("a\0b", "it has a NUL character"),
        ("x" * 300, "it has a part of 300 bytes, and at most 255 are possible"),
        ("/".join(["x" * 200] * 30), "it has 6029 bytes, and at most 2048 are possible"),
        ("ä" * 200, "it has a part of 400 bytes, and at most 255 are possible"),
    ],
)
def test_below_refuses_name(tmp_path: Path, name: str, problem: str) -> None:
    assert name_problem(name) == problem
    with pytest.raises(UserError, match="Correct the name where it comes from") as caught:
        below(tmp_path, name)
    assert problem in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_below_escapes_control_characters(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        below(tmp_path, "\x1b[2J/..")
    assert "\x1b" not in str(caught.value)
    assert "'\\x1b[2J/..'" in str(caught.value)


def test_below_bounds_whole_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"at most 4095 are possible. Shorten the names"):
        below(tmp_path.joinpath(*["y" * 200] * 12), *["/".join(["x" * 200] * 9)])


def test_below_keeps_good_names(tmp_path: Path) -> None:
    assert below(tmp_path, "P01/take 2…", "cam0.npz") == tmp_path / "P01" / "take 2…" / "cam0.npz"


def test_below_refuses_links_that_lead_out(tmp_path: Path) -> None:
    (tmp_path / "root/inner").mkdir(parents=True)
    (tmp_path / "root/out").symlink_to(tmp_path)
    (tmp_path / "root/in").symlink_to(tmp_path / "root/inner")
    with pytest.raises(UserError, match=r"leads through a symbolic link to .*/x, which is not in .*/root\. Nothing"):
        below(tmp_path / "root", "out/x")
    assert below(tmp_path / "root", "in/x") == tmp_path / "root/in/x"
    assert below(tmp_path / "root", "out/x", follow_links=True) == tmp_path / "root/out/x"
    # The root itself is the user's.
    assert below(tmp_path / "root/out", "x") == tmp_path / "root/out/x"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400))
def test_safe_name_is_one_name(text: str) -> None:
    name = safe_name(text)
    assert name_problem(name) == ""
    assert "/" not in name
    assert name.isprintable() or not text.isprintable()
    assert len(os.fsencode(name)) <= 150
    assert Path("folder", name).name == name


@pytest.mark.parametrize("text", ESCAPES)
def test_safe_name_of_escapes(text: str) -> None:
    name = safe_name(text)
    assert name_problem(name) == ""
    assert not set(name) & set("/\\<>\x1b\0")


def test_safe_name_distinguishes_long_names() -> None:
    assert safe_name("x" * 300) != safe_name("x" * 301)
    assert safe_name("tracks-P01/cam 2") == "tracks-P01_cam 2"


def test_no_link_keeps_the_target(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    no_link(tmp_path / "link").write_text("new")
    assert (tmp_path / "kept").read_text() == "kept"
    assert not (tmp_path / "link").is_symlink()
    assert no_link(tmp_path / "kept").read_text() == "kept"


def walked(root: Path) -> list[str]:
    return [folder.relative_to(root).as_posix() for folder, _, _ in walk(root)]


def test_walk_visits_each_folder_once(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root / "b/c", other / "inner"):
        folder.mkdir(parents=True)
    (root / "a").symlink_to(root / "b")  # an exact name wins in any order
    (root / "b/out").symlink_to(other)
    (root / "z").symlink_to(other)
    (other / "inner/loop").symlink_to(other)
    (other / "inner/back").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    assert walked(root) == [".", "b", "b/c", "b/out", "b/out/inner"]


def test_walk_refuses_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "tracks").symlink_to(tmp_path / "unmounted")
    with pytest.raises(SetupError, match=r"tracks is a symbolic link to .*/unmounted, which does not exist") as caught:
        walked(tmp_path)
    assert "Mount the disk" in str(caught.value)
