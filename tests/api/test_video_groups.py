"""Which videos are one recording, and what it is called."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from actionprep.api import group_videos, recording_name
from actionprep.api.view_names import StudyNames, name_videos, names_of_study
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.recordings import Recording, View
from actionprep.errors import UserError
from actionprep.training.checkpoints import Checkpoint
from actionprep.training.predict import Asked


def video(path: Path) -> Path:
    """A file that is there: grouping looks at names alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["clips/wave.mp4"], "wave"),
        (["take_000/cam0.mp4", "take_000/cam1.mp4"], "take_000"),
        (["cam0/take 3.mp4", "cam1/take 3.mp4"], "take 3"),
        (["all/take_01_cam0.mp4", "all/take_01_cam1.mp4"], "take_01"),
        (["a/left.mp4", "b/right.mp4"], "left"),
        (["clips/.hidden.mp4"], "hidden"),
        (["clips/__x.mp4"], "x"),
    ],
)
def test_videos_of_one_recording_are_called_by_what_they_share(paths, name):
    assert recording_name([Path(path) for path in paths]) == name


def test_folders_are_recordings_of_a_run_of_several_views(tmp_path, monkeypatch):
    asked = Asked(Checkpoint(tmp_path / "best.ckpt", {"views": ["0", "1"]}, torch.nn.Identity()), 1.0)
    monkeypatch.setattr("actionprep.training.predict.open_models", lambda run, device: [asked])
    given = [[video(tmp_path / f"{take}/cam{view}.avi") for view in (1, 0)] for take in ("one", "two")]
    found = group_videos("run", [tmp_path / "one", tmp_path / "two"])
    assert found == {take: [str(tmp_path / take / f"cam{view}.avi") for view in (0, 1)] for take in ("one", "two")}
    assert group_videos("run", given[0]) == {"one": [str(path) for path in given[0]]}
    with pytest.raises(UserError, match="This model looks at 2 views, and got files and folders"):
        group_videos("run", [tmp_path / "one", given[1][0]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"No videos in .*empty: looked there for \.3gp"):
        group_videos("run", [tmp_path / "empty"])


def named(
    *videos: str, views: tuple[str, ...] = ("0", "1", "3", "6"), names: StudyNames | None = None
) -> dict[str, str]:
    return {view: str(path) for view, path in name_videos(videos, views, names).videos.items()}


@pytest.mark.parametrize(
    ("files", "views"),
    [
        (["cam0.mp4", "cam3.mp4", "cam6.mp4"], "0 3 6"),
        (["cam1.mp4", "cam0.mp4"], "1 0"),
        (["cam6.mp4"], "6"),
        (["take_0_camera_03.mp4", "take_0_camera_06.mp4"], "3 6"),
        (["take_3.mp4"], "0"),
        (["gopro6.mp4", "gopro3.mp4"], "6 3"),
        (["cam6/take 3.mp4", "cam1/take 3.mp4"], "6 1"),
        (["front.mp4", "back.mp4"], "0 1"),
        (["2.mp4", "4.mp4", "5.mp4", "7.mp4"], "0 1 3 6"),
        (["S1C3P1.mp4", "S1C1P1.mp4"], "3 1"),
        (["cam3/take.mp4"], "3"),
        (["3/take.mp4"], "0"),
        (["6=cam0.mp4", "cam1.mp4"], "6 1"),
        (["1=a.mp4", "b.mp4"], "1 0"),
        (["b.mp4", "0=a.mp4"], "1 0"),
    ],
)
def test_names_of_files_tell_their_views_and_names_that_tell_nothing_leave_the_order(files, views):
    paths = [file.partition("=")[2] or file for file in files]
    assert named(*files) == dict(sorted(zip(views.split(), paths, strict=True)))


def test_views_with_names_are_found_as_words_of_the_files_names():
    assert named("take_Right.mp4", "take_left.mp4", views=("left", "right")) == {
        "left": "take_left.mp4",
        "right": "take_Right.mp4",
    }
    assert named("new_right.mp4", views=("left", "right")) == {"right": "new_right.mp4"}
    assert named("upright.mp4", views=("left", "right")) == {"left": "upright.mp4"}


@pytest.mark.parametrize(
    ("views", "files", "shown"),
    [
        ("front front-left", "front-left.mp4 front.mp4", "front-left front"),
        ("front front-left", "new_front_left.mp4", "front-left"),
        ("front left front-left", "a_front-left.mp4 a_left.mp4 a_front.mp4", "front-left left front"),
        ("cam1 cam2", "cam2.mp4 cam3.mp4", "cam2"),
        ("cam1 cam2", "camera2.mp4 camera1.mp4", "cam2 cam1"),
        ("cam1 cam2", "cam02.mp4 cam01.mp4", "cam2 cam1"),
        ("cam1 cam12", "new_cam12.mp4", "cam12"),
    ],
)
def test_the_longest_word_and_the_number_of_a_camera_tell_views_whose_ids_have_words(views, files, shown):
    assert named(*files.split(), views=tuple(views.split())) == dict(zip(shown.split(), files.split(), strict=False))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("cam1.mp4 roof.mp4", "cam1.mp4 is of view 1; roof.mp4 cannot be placed. The run has view 0, 1, 3, 6."),
        ("cam7.mp4 roof.mp4", "cam7.mp4 is of a camera that the run never saw; roof.mp4 cannot be placed"),
        ("1.mp4 2.mp4 3.mp4 4.mp4", "1.mp4 is of view 1, 3.mp4 is of view 3; 2.mp4, 4.mp4 cannot be placed"),
    ],
)
def test_names_of_which_some_tell_a_view_are_not_taken_by_their_order(files, message):
    with pytest.raises(UserError, match=f"^By the files' names {message}.* Say which view each shows, as VIEW=PATH"):
        named(*files.split())
    with pytest.raises(UserError, match=r"Two videos for view '1': x.mp4 and cam1.mp4"):
        named("1=x.mp4", "cam1.mp4")


def test_a_name_with_the_words_of_two_views_is_asked_for():
    with pytest.raises(
        UserError, match=r"names from_left_to_right.mp4 is of view left or right. The run has view a, left"
    ):
        named("from_left_to_right.mp4", views=("a", "left", "right"))
    files = ["left/left_right.mp4", "right/left_right.mp4"]
    assert named(*files, views=("right", "left")) == {"right": files[1], "left": files[0]}


def test_the_sentence_says_of_each_view_how_it_was_found():
    found = name_videos(["0=take/cam2.mp4", "take/cam1.mp4"], ("0", "1"))
    assert found.sentences == ["view 0 ← cam2.mp4 (as given); view 1 ← cam1.mp4 (by the files' names)"]
    assert found.by == {"0": "given", "1": "names"}
    found = name_videos(["1=a.mp4", "b.mp4"], ("0", "1"))
    assert found.sentences == ["view 1 ← a.mp4 (as given); view 0 ← b.mp4 (in the order of the run's views)"]


def test_cameras_that_the_run_never_saw_are_left_out_and_missing_views_are_named():
    found = name_videos([f"take/cam{view}.mp4" for view in (0, 2, 3, 4)], ("0", "1", "3", "6"))
    assert found.sentences == [
        "view 0 ← cam0.mp4, view 3 ← cam3.mp4 (by the files' names)",
        "Left out: cam2.mp4, cam4.mp4, of cameras that the run never saw.",
        "No video of view 1, 6: the answer is from 2 of the run's 4 views.",
    ]
    with pytest.raises(
        UserError,
        match=r"none of these videos is of a camera that the run saw: cam7.mp4. It saw view 0, 1. .*for: 0=cam7.mp4",
    ):
        named("cam7.mp4", views=("0", "1"))


def test_a_run_of_one_view_takes_a_video_whatever_its_name():
    found = name_videos(["cam7.mp4"], ("0",))
    assert found.videos == {"0": Path("cam7.mp4")}
    assert found.sentences == []


def test_two_videos_of_one_view_and_more_videos_than_views_are_refused():
    with pytest.raises(UserError, match=r"Two videos for view '3': a/cam3.mp4 and b/cam3.mp4. Give one for each"):
        named("a/cam3.mp4", "b/cam3.mp4")
    with pytest.raises(
        UserError, match="looks at 2 views, 0, 1, and got 3 videos whose names do not tell which is which"
    ):
        named("a.mp4", "b.mp4", "c.mp4", views=("0", "1"))


def trained_in(study: Path, views: tuple[str, ...], settings: str) -> Checkpoint:
    """A checkpoint of a run in a study with these settings."""
    study.mkdir()
    (study / "actionprep.toml").write_text(f"[study]\n{settings}\n", encoding="utf-8")
    return Checkpoint(study / "runs/one/best.ckpt", {"views": list(views)}, torch.nn.Identity())


def test_the_pattern_of_the_runs_study_tells_the_views(tmp_path):
    checkpoint = trained_in(tmp_path / "study", ("1", "2"), 'layout = "views"\npattern = "{recording}/a{view}_b3.mp4"')
    names = names_of_study(checkpoint)
    assert named("new/a2_b3.mp4", "new/a1_b3.mp4", views=("1", "2"), names=names) == {
        "1": "new/a1_b3.mp4",
        "2": "new/a2_b3.mp4",
    }
    assert named("new/a2_b3.mp4", views=("1", "2"), names=names) == {"2": "new/a2_b3.mp4"}


def study_of_files(study: Path, views: tuple[str, ...], files: dict[str, dict[str, str]]) -> StudyNames:
    """How names tell views in a study whose table has these files: recording → view → path."""
    checkpoint = trained_in(study, views, 'layout = "csv"\ncsv = "table.csv"')
    rows = tuple(View(recording, view, file) for recording, own in files.items() for view, file in own.items())
    Catalog(tuple(map(Recording, files)), rows).write(study / "catalog")
    return names_of_study(checkpoint)


def test_names_that_the_runs_own_study_numbers_otherwise_tell_the_views_that_they_have_there(tmp_path):
    views = ("0", "1", "2")
    files = {take: {view: f"{take}/cam{int(view) + 1}.mp4" for view in views} for take in ("a", "b")}
    names = study_of_files(tmp_path / "study", views, files)
    assert named("cam2.mp4", views=views, names=names) == {"1": "cam2.mp4"}
    assert named("new_cam3.mp4", "new_cam1.mp4", views=views, names=names) == {"0": "new_cam1.mp4", "2": "new_cam3.mp4"}
    assert named("cam2.mp4", "cam3.mp4", views=("0", "1"), names=names) == {"1": "cam2.mp4"}
    assert named("cam1.mp4", views=views) == {"1": "cam1.mp4"}


def test_names_that_tell_otherwise_and_are_not_the_studys_leave_the_order_of_all_views_alone(tmp_path):
    views = ("0", "1")
    names = study_of_files(tmp_path / "study", views, {"a": {"0": "rig_1.mp4", "1": "rig_2.mp4"}})
    assert named("rig_1.mp4", "rig_2.mp4", views=views, names=names) == {"0": "rig_1.mp4", "1": "rig_2.mp4"}
    assert named("cam1.mp4", "cam2.mp4", views=views, names=names) == {"0": "cam1.mp4", "1": "cam2.mp4"}
    with pytest.raises(UserError, match=r"the view of cam1.mp4 is not clear: .* as VIEW=PATH: 0=cam1.mp4"):
        named("cam1.mp4", views=views, names=names)
    assert named("0=x.mp4", "cam1.mp4", views=views, names=names) == {"0": "x.mp4", "1": "cam1.mp4"}


def test_one_odd_recording_of_a_study_does_not_undo_what_the_names_of_all_others_tell(tmp_path):
    views = ("left", "right")
    files = {f"take_{at}": {view: f"take_{at}/{view}.mp4" for view in views} for at in range(5)}
    files["odd"] = {"left": "odd/right.mp4", "right": "odd/left.mp4"}
    names = study_of_files(tmp_path / "study", views, files)
    assert named("n/right.mp4", views=views, names=names) == {"right": "n/right.mp4"}


def test_words_of_the_studys_files_tell_views_and_other_cameras(tmp_path):
    files = {take: {view: f"{take}/{word}.mp4" for view, word in zip("012", ("roof", "door", "sink"), strict=True)}
             for take in ("a", "b")}  # fmt: skip
    names = study_of_files(tmp_path / "study", ("0", "1"), files)
    found = name_videos(["n/door.mp4", "n/roof.mp4", "n/sink.mp4"], ("0", "1"), names)
    assert found.videos == {"0": Path("n/roof.mp4"), "1": Path("n/door.mp4")}
    assert found.left_out == (Path("n/sink.mp4"),)


def test_damaged_settings_of_the_runs_study_are_told(tmp_path):
    with pytest.raises(UserError, match="'patern'"):
        names_of_study(trained_in(tmp_path / "key", ("0", "1"), 'patern = "x"'))
    with pytest.raises(UserError, match=r"Unknown field '\{veiw\}' .* Mend it in .*field/actionprep.toml"):
        names_of_study(trained_in(tmp_path / "field", ("0", "1"), 'layout = "views"\npattern = "{veiw}/{view}.mp4"'))
    with pytest.raises(UserError, match="is not valid TOML"):
        names_of_study(trained_in(tmp_path / "toml", ("0", "1"), "bogus = ["))
    assert names_of_study(trained_in(tmp_path / "unscanned", ("0", "1"), "")) == StudyNames()
    outside = Checkpoint(tmp_path / "runs/one/best.ckpt", {"views": ["0", "1"]}, torch.nn.Identity())
    assert names_of_study(outside) == StudyNames()
