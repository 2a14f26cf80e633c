"""Grouping of videos into recordings, and the names of these."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from actionprep.api import group_videos, recording_name
from actionprep.api.view_names import ViewPattern, name_videos, pattern_of_study, refuse_crops
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.recordings import Recording, View
from actionprep.errors import UserError
from actionprep.training.checkpoints import Checkpoint
from actionprep.training.predict import PooledModel


def video(path: Path) -> Path:
    """Create an empty file: grouping uses only the names."""
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


def trained_in(study: Path, views: tuple[str, ...], settings: str) -> Checkpoint:
    """A checkpoint of a run in a study with these settings."""
    study.mkdir()
    (study / "actionprep.toml").write_text(f"[study]\n{settings}\n", encoding="utf-8")
    return Checkpoint(study / "runs/one/best.ckpt", {"views": list(views)}, torch.nn.Identity())


def of_pattern(tmp_path: Path, pattern: str) -> ViewPattern:
    groups = pattern_of_study(trained_in(tmp_path / "study", (), f'layout = "views"\npattern = "{pattern}"'))
    assert groups is not None
    return groups


@pytest.fixture
def two_views(tmp_path, monkeypatch) -> Path:
    """A folder beside a run of two views in a study whose pattern is {recording}/cam{view}.avi."""
    checkpoint = trained_in(tmp_path / "study", ("0", "1"), 'layout = "views"\npattern = "{recording}/cam{view}.avi"')
    monkeypatch.setattr("actionprep.training.predict.open_models", lambda run, device: [PooledModel(checkpoint, 1.0)])
    return tmp_path


def test_folders_are_recordings_of_a_run_of_several_views(two_views):
    given = [[video(two_views / f"{take}/cam{view}.avi") for view in (1, 0)] for take in ("one", "two")]
    groups = group_videos("run", [two_views / "one", two_views / "two"])
    assert groups == {take: [str(two_views / take / f"cam{view}.avi") for view in (0, 1)] for take in ("one", "two")}
    assert group_videos("run", given[0]) == {"one": [str(path) for path in given[0]]}
    with pytest.raises(UserError, match="This model has 2 views, and got files and folders"):
        group_videos("run", [two_views / "one", given[1][0]])
    (two_views / "empty").mkdir()
    with pytest.raises(UserError, match=r"No videos in .*empty: looked there for \.3gp"):
        group_videos("run", [two_views / "empty"])


def test_group_videos_refuses_files_of_unknown_views(two_views):
    for name in ("one/left.avi", "one/right.avi"):
        video(two_views / name)
    with pytest.raises(UserError, match=r"do not match the pattern '\{recording\}/cam\{view\}.avi' of the run's study"):
        group_videos("run", [two_views / "one"])


def test_recording_name_is_that_of_the_pattern(tmp_path):
    pattern = of_pattern(tmp_path, "day_{recording}_c{view}.mp4")
    paths = [Path("day_take_7_c0.mp4"), Path("day_take_7_c1.mp4")]
    assert recording_name(paths, pattern) == "take_7"
    assert recording_name(paths) == "day_take_7"
    assert recording_name([Path("other_0.mp4"), Path("other_1.mp4")], pattern) == "other"


def test_name_videos_reads_the_pattern_of_the_study(tmp_path):
    pattern = of_pattern(tmp_path, "{recording}/a{view}_b3.mp4")
    groups = name_videos(["new/a2_b3.mp4", "new/a1_b3.mp4"], ("1", "2"), pattern)
    assert groups.videos == {"1": Path("new/a1_b3.mp4"), "2": Path("new/a2_b3.mp4")}
    assert groups.by == {"1": "pattern", "2": "pattern"}
    assert name_videos(["/else/where/a02_b3.mp4"], ("1", "2"), pattern).videos == {"2": Path("/else/where/a02_b3.mp4")}


def test_name_videos_takes_view_equals_path(tmp_path):
    pattern = of_pattern(tmp_path, "{recording}/cam{view}.mp4")
    groups = name_videos(["3=x/roof.mp4", "x/cam1.mp4"], ("01", "cam3"), pattern)
    assert groups.videos == {"01": Path("x/cam1.mp4"), "cam3": Path("x/roof.mp4")}
    assert groups.sentences == ["view cam3 ← roof.mp4 (as given); view 01 ← cam1.mp4 (by the pattern of the study)"]


@pytest.mark.parametrize("files", [["cam0.mp4", "cam1.mp4"], ["left.mp4"], ["0.mp4", "1=x.mp4"]])
def test_name_videos_never_guesses(files):
    with pytest.raises(UserError) as error:
        name_videos(files, ("0", "1"))
    unknown = [file for file in files if "=" not in file]
    views = ["0"] if "1=x.mp4" in files else ["0", "1"]
    assigned = " ".join(f"{view}={file}" for view, file in zip(views, unknown, strict=False))
    assert str(error.value) == (
        f"The view of {', '.join(unknown)} is not known: the run is in no study with a pattern for the paths of videos. "
        "The run has view 0, 1.\nViews are known by the study's pattern under [study] in actionprep.toml, such as "
        'layout = "views", pattern = "cam{view}.mp4";\n'
        f"or assign each video with VIEW=PATH, for example: {assigned}"
    )


def test_name_videos_needs_paths_of_the_pattern(tmp_path):
    pattern = of_pattern(tmp_path, "{recording}/cam{view}.mp4")
    with pytest.raises(UserError) as error:
        name_videos(["x/cam0.mp4", "x/left.mp4"], ("0", "1"), pattern)
    assert str(error.value) == (
        "The view of x/left.mp4 is not known: the paths do not match the pattern '{recording}/cam{view}.mp4' of the "
        "run's study. The run has view 0, 1.\nViews are known by paths that match '{recording}/cam{view}.mp4';\n"
        "or assign each video with VIEW=PATH, for example: 1=x/left.mp4"
    )


def test_views_that_the_run_was_not_trained_on_are_left_out(tmp_path):
    pattern = of_pattern(tmp_path, "{recording}/cam{view}.mp4")
    groups = name_videos([f"take/cam{view}.mp4" for view in (0, 2, 3, 4)], ("0", "1", "3", "6"), pattern)
    assert groups.sentences == [
        "view 0 ← cam0.mp4, view 3 ← cam3.mp4 (by the pattern of the study)",
        "Ignored: cam2.mp4, cam4.mp4. The run was not trained on these views.",
        "No video of view 1, 6: the prediction uses 2 of the run's 4 views.",
    ]
    with pytest.raises(
        UserError, match=r"None of these videos shows a view of the run: a/cam7.mp4. It has view 0, 1. .*: 0=a/cam7.mp4"
    ):
        name_videos(["a/cam7.mp4"], ("0", "1"), pattern)


def test_a_run_of_one_view_takes_a_video_whatever_its_name():
    groups = name_videos(["cam7.mp4"], ("0",))
    assert (groups.videos, groups.by) == ({"0": Path("cam7.mp4")}, {"0": "only view"})
    assert groups.sentences == []


def test_group_videos_rejects_duplicate_and_unknown_views(tmp_path):
    pattern = of_pattern(tmp_path, "{recording}/cam{view}.mp4")
    with pytest.raises(UserError, match=r"Two videos for view '3': a/cam3.mp4 and b/cam3.mp4. Give one for each"):
        name_videos(["a/cam3.mp4", "b/cam3.mp4"], ("0", "3"), pattern)
    with pytest.raises(UserError, match=r"names view '9', and this run has view 0, 1"):
        name_videos([f"9={video(tmp_path / 'a.mp4')}"], ("0", "1"))


def test_damaged_settings_of_the_runs_study_are_reported(tmp_path):
    with pytest.raises(UserError, match="'patern'"):
        pattern_of_study(trained_in(tmp_path / "key", ("0", "1"), 'patern = "x"'))
    with pytest.raises(UserError, match=r"Unknown field '\{veiw\}' .* Correct it in .*field/actionprep.toml"):
        pattern_of_study(trained_in(tmp_path / "field", ("0", "1"), 'layout = "views"\npattern = "{veiw}/{view}.mp4"'))
    with pytest.raises(UserError, match="is not valid TOML"):
        pattern_of_study(trained_in(tmp_path / "toml", ("0", "1"), "bogus = ["))
    assert pattern_of_study(trained_in(tmp_path / "table", ("0", "1"), 'layout = "csv"\ncsv = "t.csv"')) is None
    outside = Checkpoint(tmp_path / "runs/one/best.ckpt", {"views": ["0", "1"]}, torch.nn.Identity())
    assert pattern_of_study(outside) is None


def test_group_videos_of_a_folder_by_the_pattern(tmp_path, monkeypatch):
    checkpoint = trained_in(tmp_path / "study", ("0",), 'layout = "views"\npattern = "{recording}/video/cam{view}.mp4"')
    monkeypatch.setattr("actionprep.training.predict.open_models", lambda *_, **__: [PooledModel(checkpoint, 1.0)])
    for take, view in (("a", 0), ("a", 1), ("b", 0)):
        path = tmp_path / f"new/{take}/video/cam{view}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    first = str(tmp_path / "new/a/video/cam0.mp4")
    assert group_videos("run", [tmp_path / "new/a"]) == {"a": [first]}
    assert group_videos("run", [tmp_path / "new"]) == {"a": [first], "b": [str(tmp_path / "new/b/video/cam0.mp4")]}
    (tmp_path / "new/b/video/cam0.mp4").rename(tmp_path / "new/b/video/cam7.mp4")
    with pytest.raises(
        UserError, match=r"None of the 1 videos in .*b/video shows view 0, which the run was trained on"
    ):
        group_videos("run", [tmp_path / "new/b"])


def test_group_videos_of_the_study_have_the_ids_of_recordings(tmp_path, monkeypatch):
    study = tmp_path / "study"
    checkpoint = trained_in(study, ("0",), 'videos = "clips"')
    monkeypatch.setattr("actionprep.training.predict.open_models", lambda *_, **__: [PooledModel(checkpoint, 1.0)])
    inside, linked = video(study / "clips/wave/take_1.mp4"), tmp_path / "link.mp4"
    other = video(tmp_path / "elsewhere/take_1.mp4")
    linked.symlink_to(inside)
    views = (View("wave/take_1", "0", "clips/wave/take_1.mp4"),)
    Catalog((Recording("wave/take_1"),), views, {}).write(study / "catalog")
    assert group_videos("run", [inside]) == {"wave/take_1": [str(inside)]}
    assert group_videos("run", [linked]) == {"wave/take_1": [str(linked)]}
    assert group_videos("run", [other]) == {"take_1": [str(other)]}


def test_videos_for_a_run_on_crops_are_refused(tmp_path):
    settings = 'layout = "views"\npattern = "{recording}.mp4"\n[study.crops]\nmirror = [0, 0, 320, 240]'
    checkpoint = trained_in(tmp_path / "study", ("mirror",), settings)
    with pytest.raises(UserError) as caught:
        refuse_crops(checkpoint, ["0", "mirror"])
    assert str(caught.value) == (
        f"View 'mirror' of this run is a rectangle of a file ([study.crops] in {tmp_path}/study/actionprep.toml), and videos "
        "given here are read in full. Add the video to the study, run 'actionprep build', and predict the recording: "
        "actiontrain predict --recording ID."
    )
    refuse_crops(checkpoint, ["0"])
