"""Resolution of recording names in tables."""

from __future__ import annotations

import pytest
from study_fakes import view

from actionprep.datasets.recording_names import RecordingNames


@pytest.fixture
def site_a() -> RecordingNames:
    """Names of a study with one site of a larger data set."""
    views = (view("siteA/take_1", path="videos/siteA/take_1.mp4"), view("siteA/P01", path="videos/siteA/P01.mp4"))
    return RecordingNames.of(["siteA/take_1", "siteA/P01"], views)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("siteA/take_1", ("siteA/take_1", None)),
        ("./siteA/take_1", ("siteA/take_1", None)),
        ("siteA/take_1.mp4", ("siteA/take_1", "0")),
        ("siteA/take_1.AVI", ("siteA/take_1", None)),
        ("videos\\siteA\\take_1.mp4", ("siteA/take_1", "0")),
        ("take_1", ("siteA/take_1", None)),
        ("take_1.mp4", ("siteA/take_1", "0")),
        ("/data/anna/siteA/take_1.mp4", ("siteA/take_1", "0")),
        ("C:\\data\\siteA\\take_1.mp4", ("siteA/take_1", "0")),
        ("file:///data/siteA/take_1.mp4", ("siteA/take_1", "0")),
        ("../../siteA/take_1.mp4", ("siteA/take_1", "0")),
        ("siteB/take_1", None),
        ("siteC/take_1.mp4", None),
        ("copy/videos/siteA/take_1.mp4", None),
        ("/data/siteB/take_1.mp4", None),
        ("C:\\data\\siteB\\take_1.mp4", None),
        ("../siteB/take_1", None),
        ("siteA/P01.2", None),
        ("P01.2", None),
        ("siteA/P01.txt", None),
        ("iteA/P01", None),
        ("", None),
    ],
)
def test_find_drops_folders_of_foreign_paths_only(site_a, name, found):
    assert site_a.find(name) == found


def test_find_needs_one_recording():
    views = (view("x/a", path="v/x/a.take1.mp4"), view("y/b", path="v/y/b.mp4"), view("z/b", path="v/z/b.mp4"))
    names = RecordingNames.of(["x/a", "y/b", "z/b"], views)
    assert names.find("C:\\data\\x\\a.take1.mp4") == ("x/a", "0")
    assert names.find("a.take1") == ("x/a", "0")
    assert names.find("y/b") == ("y/b", None)
    assert names.find("b.mp4") is None
    assert names.find("c") is None


def test_find_takes_full_ids_before_ends():
    names = RecordingNames.of(["a", "x/a"], (view("a", path="a.mp4"), view("x/a", path="x/a.mp4")))
    assert names.find("a") == ("a", None)
    assert names.find("x/a") == ("x/a", None)


def test_find_needs_the_folder_that_names_the_recording():
    names = RecordingNames.of(["take_1"], (view("take_1", "0", path="videos/take_1/cam0.mp4"),))
    assert names.find("/data/take_1/cam0.mp4") == ("take_1", "0")
    assert names.find("/data/take_2/cam0.mp4") is None


@pytest.mark.parametrize("name", ["C:/Users/x/cam01.mp4", "\\\\server\\share\\cam01.mp4", "C:\\x\\cam01.AVI", "cam01"])
def test_find_needs_no_folder_for_files_directly_in_videos(name):
    views = [view("videos", id, path=f"videos/cam{id}.mp4") for id in ("01", "02")]
    names = RecordingNames.of(["videos"], views, videos="videos")
    recording, _ = names.find(name) or ("", "")
    assert recording == "videos"
    assert names.find("C:/Users/x/cam03.mp4") is None


def test_problem_names_the_recording_that_only_the_file_name_fits(site_a):
    assert site_a.problem("D:\\data\\siteB\\take_1.mp4") == (
        "which is no recording of this study; only its file name fits 'siteA/take_1'. If that is meant, write this id "
        "instead of the path"
    )
    assert site_a.problem("siteB/take_1.mp4") == "which is no recording of this study"


def test_find_ignores_the_unicode_form():
    names = RecordingNames.of(["cafe\u0301/1"], (view("cafe\u0301/1", path="videos/cafe\u0301/1.mp4"),))
    assert names.find("caf\u00e9/1") == ("cafe\u0301/1", None)


def test_resolve_keeps_the_exact_name(site_a):
    resolved = site_a.resolve(["take_1", "siteA/take_1", "siteB/take_1", "siteA/P01"])
    assert set(resolved.found) == {"siteA/take_1", "siteA/P01"}
    assert resolved.problems == {
        "take_1": "which could mean recording 'siteA/take_1', as 'siteA/take_1' in the same table does",
        "siteB/take_1": "which is no recording of this study",
    }


def test_resolve_uses_no_name_where_two_are_alike():
    names = RecordingNames.of(["a"], (view("a", path="videos/a.mp4"),))
    resolved = names.resolve(["/data/siteA/a.mp4", "/data/siteB/a.mp4"])
    assert resolved.found == {}
    assert resolved.problems["/data/siteA/a.mp4"] == (
        "which could mean recording 'a', as '/data/siteB/a.mp4' in the same table does"
    )
    assert names.resolve(["/data/siteA/a.mp4"]).found == {"/data/siteA/a.mp4": ("a", "0")}


def test_resolve_keeps_views_of_one_recording():
    views = (view("a", "0", path="videos/a/cam0.mp4"), view("a", "1", path="videos/a/left.mp4"))
    resolved = RecordingNames.of(["a"], views).resolve(["a", "left.mp4", "cam0.mp4"])
    assert resolved.found == {"a": ("a", None), "left.mp4": ("a", "1"), "cam0.mp4": ("a", "0")}
