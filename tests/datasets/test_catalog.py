"""The tables of recordings, views and segments."""

from __future__ import annotations

from dataclasses import replace

import pytest
from study_fakes import view

from actionprep.datasets.catalog import Catalog
from actionprep.datasets.recordings import Recording
from actionprep.errors import UserError


def recordings_with_views(**views: str) -> Catalog:
    """Recordings with views named by single characters: a="01" has views 0 and 1."""
    recordings = tuple(Recording(id) for id in views)
    return Catalog(recordings, tuple(view(id, name) for id, names in views.items() for name in names))


def test_pandas_opens_the_tables(full):
    frames = full.to_frames()
    assert frames["recordings"]["extra_trial"].tolist()[0] == "3"
    assert frames["views"]["frame_times"].map(len).tolist() == [250, 75, 0]
    assert frames["segments"]["label"].tolist() == ["wave", "clap"]


def test_a_recordings_span_is_what_all_its_views_cover(full):
    assert full.span("day1/seq_04") == pytest.approx((1.5, 3.0))
    assert full.span("day1/seq_04", views=["left"]) == pytest.approx((0.0, 3.0))
    assert full.span("day1/seq_05.take2") is None


def test_two_recordings_with_one_id_are_refused():
    with pytest.raises(UserError) as error:
        Catalog((Recording("a"), Recording("a")), (view("a", path="v/a.mp4"), view("a", path="v/a.avi")))
    assert str(error.value) == (
        "Two recordings have the id 'a' (v/a.avi, v/a.mp4). An id names one recording: rename a file, or give a "
        "recording column."
    )


def test_two_files_for_one_view_are_refused():
    with pytest.raises(
        UserError, match=r"Two files for view '0' of recording 'a': x.mp4 and y.mp4. They would get the same id"
    ):
        Catalog((Recording("a"),), (view("a", path="x.mp4"), view("a", path="y.mp4")))


def test_a_recording_named_like_a_folder_of_another_is_refused():
    with pytest.raises(
        UserError, match=r"Recording 'day' .* has the name of a folder that recording 'day/one' .* is in"
    ):
        Catalog((Recording("day"), Recording("day/one")), ())
    Catalog((Recording("day"), Recording("days/one")), ())


@pytest.mark.parametrize("id", ["", "a//b", "../a", "a/.b", "__a", "a\\b", "a/zarr.json"])
def test_ids_that_cannot_name_a_place_in_the_store_are_refused(id):
    with pytest.raises(UserError, match=r"cannot be the id of a recording"):
        Catalog((Recording(id),), ())


def test_a_view_that_one_recording_lacks_is_named_with_those_it_has():
    views = [view("assembly/seq_04", name, path=f"videos/cam{name}.mp4") for name in "01236"]
    catalog = Catalog((Recording("assembly/seq_04"), Recording("z")), (*views, view("z", "9")))
    with pytest.raises(UserError) as error:
        catalog.select_views(["9"])
    assert str(error.value) == (
        "No view '9' in recording 'assembly/seq_04'. Available views: 0, 1, 2, 3, 6 (cam0.mp4, cam1.mp4, cam2.mp4, "
        "cam3.mp4, cam6.mp4).\nSelect views with --views, or skip recordings that lack one with --skip-incomplete."
    )


def test_a_view_that_no_recording_has_is_an_error_even_when_skipping():
    with pytest.raises(UserError) as error:
        recordings_with_views(a="01", b="0123").select_views(["9"], skip_incomplete=True)
    assert str(error.value) == (
        "No view '9' in recording 'a' or any other. Available views: 0, 1, 2, 3 (cam0.mp4, cam1.mp4, cam2.mp4, "
        "cam3.mp4).\nSelect views with --views."
    )


def test_incomplete_recordings_are_skipped_and_listed_on_request():
    result = recordings_with_views(a="01", b="0123", c="23").select_views([1, "0"], skip_incomplete=True)
    assert [(entry.recording, entry.id) for entry in result.views] == [("a", "1"), ("a", "0"), ("b", "1"), ("b", "0")]
    assert result.skipped == ("c",)
    assert result.recordings == ("a", "b")


def views_named(*names: str) -> Catalog:
    return Catalog((Recording("a"),), tuple(view("a", name) for name in names))


@pytest.mark.parametrize(
    ("names", "given", "selected"),
    [
        ("0 1 2 3 6", "0 1 3 6", "0 1 3 6"),
        ("1 2 3", "1", "1"),
        ("01 02 03 04", "1 3", "01 03"),
        ("cam01 cam02 cam03 cam04", "1 3", "cam01 cam03"),
        ("01 02 03", "001 2", "01 02"),
        ("1 01", "01 1", "01 1"),
        ("cam3 left", "3 left", "cam3 left"),
        ("left right", "1 0", "right left"),
        ("left right", "left 1", "left right"),
    ],
)
def test_select_views_by_name_number_or_index(names, given, selected):
    result = views_named(*names.split()).select_views(given.split())
    assert [entry.id for entry in result.views] == selected.split()


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        ("1 2 3", "0", "No view '0' in recording 'a'. Available views: 1, 2, 3 (cam1.mp4, cam2.mp4, cam3.mp4)"),
        ("cam01 left", "0", "No view '0' in recording 'a'. Available views: cam01, left"),
        ("1 01", "001", "'001' may be"),
        ("a1 b1", "1", "'1' may be view a1 or b1 in recording 'a'. Available views: a1, b1 (cama1.mp4, camb1.mp4)"),
        ("day1_cam2 day2_cam3", "3", "No view '3'"),
        ("left right", "2", "No view '2'"),
        ("left right", "-1", "No view '-1'"),
        ("left right", "up", "No view 'up'"),
    ],
)
def test_select_views_refuses_what_is_unclear(names, given, message):
    with pytest.raises(UserError) as error:
        views_named(*names.split()).select_views(given.split())
    assert str(error.value).startswith(message)
    assert str(error.value).endswith("Select views with --views.")


def test_an_index_means_the_same_camera_in_every_recording():
    catalog = recordings_with_views(a="lr", b="r")
    assert catalog.view("a", 1).id == "r"
    with pytest.raises(UserError, match=r"No view '0' in recording 'b'. Available views: r"):
        catalog.select_views([0])


def test_a_view_given_twice_is_refused():
    with pytest.raises(
        UserError, match=r"View '2' is given twice: 2 1 2\. Give each view once\. Available views: 1, 2, 3\."
    ):
        recordings_with_views(a="123").select_views(["2", "1", 2])


def test_unreadable_views_are_listed_apart():
    broken = replace(view("a", "1"), status="unreadable", reason="it is empty")
    catalog = Catalog((Recording("a"),), (view("a", "0"), broken))
    assert catalog.select_views().unreadable == (broken,)
    assert catalog.select_views(["0"]).unreadable == ()
    assert catalog.select_views(["0", "1"], skip_incomplete=True).skipped == ("a",)


def test_an_absent_recording_is_named_with_the_nearest(full):
    with pytest.raises(UserError, match=r"No recording 'day1/seq_4'. Did you mean 'day1/seq_04'\?"):
        full.recording("day1/seq_4")
