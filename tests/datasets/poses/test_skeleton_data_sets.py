"""Skeleton data sets without videos: into the catalog, the store and stored splits."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from pose_items import made_poses, write_npz
from typer.testing import CliRunner

from actionprep.api import Study, import_poses, open_study, store_official_splits
from actionprep.cli.prep import app
from actionprep.datasets.poses.formats.pyskl import write_pyskl
from actionprep.datasets.poses.sequence import PoseItem
from actionprep.datasets.poses.skeleton_data_sets import official_splits
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.products.snippets import SnippetTable
from actionprep.datasets.products.split import stored_parts
from actionprep.datasets.splits import apply_parts
from actionprep.datasets.study import StudySettings, init_study
from actionprep.errors import InputError, UserError


def pyskl_file(folder, *, count=12, dimensions=2, classes=3):
    """Write a PySKL pickle with two official splits. Every third clip is in test of xsub, every fourth in test of xset."""
    items = []
    for number in range(count):
        poses = made_poses(
            10 + number, layout="ntu25" if dimensions == 3 else "coco17", dimensions=dimensions, seed=number
        )
        splits = ("xsub_val" if number % 4 == 3 else "xsub_train",)
        if number < 8:
            splits = (*splits, "xset_test" if number % 4 == 0 else "xset_train")
        items.append(PoseItem(f"S001.clip{number:02d}", poses, label=number % classes, splits=splits))
    folder.mkdir(parents=True, exist_ok=True)
    write_pyskl(folder / "data.pkl", items)
    return folder / "data.pkl"


def test_import_data_set_creates_catalog_poses_and_snippets(tmp_path):
    done = import_poses(tmp_path / "study", [pyskl_file(tmp_path)])
    study = done.study
    assert done.report.ok
    assert done.report.num_frames == 0
    assert [recording.id for recording in study.catalog.recordings][:2] == ["S001.clip00", "S001.clip01"]
    assert [recording.label for recording in study.catalog.recordings][:4] == ["0", "1", "2", "0"]
    view = study.catalog.view("S001.clip03", 0)
    assert (view.num_frames, view.width, view.height, view.has_video) == (13, 128, 96, False)
    poses = study.poses("S001.clip03", view=0)
    assert np.array_equal(poses.keypoints, made_poses(13, seed=3).keypoints)
    assert poses.time == pytest.approx(np.arange(13) / 30)
    assert study.item("pose", "S001.clip03", 0).attributes["format"] == "pyskl"
    assert study.build("snippets").ok
    table = study.snippets
    assert len(table) == 12
    assert table.offset[3] == pytest.approx(13 / 30)
    assert table.label.tolist() == [str(number % 3) for number in range(12)]


def test_official_splits_keep_their_published_test_part(tmp_path):
    study = import_poses(tmp_path / "study", [pyskl_file(tmp_path)]).study
    study.build("snippets")
    table = SnippetTable.read(study.store.item("snippets", "default"))
    [parts] = stored_parts(study.store.item("split", "xsub"))
    split = apply_parts(table, parts)
    assert split.test.tolist() == [3, 7, 11]
    assert len(split.val) > 0
    assert sorted([*split.train, *split.val]) == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    # Recordings that are missing from a split are in no part.
    [parts] = stored_parts(study.store.item("split", "xset"))
    assert set(parts) == {f"S001.clip{number:02d}" for number in range(8)}
    assert [entry for entry, part in parts.items() if part == "test"] == ["S001.clip00", "S001.clip04"]
    notes = [entry.message for entry in study.catalog.findings if entry.kind == "official split"]
    assert notes == ["split 'xsub' has a train and a val part and no test part: val is taken as test"]


def test_second_import_keeps_items_and_adds_new_files(tmp_path):
    first = pyskl_file(tmp_path)
    import_poses(tmp_path / "study", [first])
    assert import_poses(tmp_path / "study", [first]).report.done == 12
    second = write_npz(tmp_path / "more" / "extra.npz", made_poses(5), label="wave", subject="s1")
    done = import_poses(tmp_path / "study", [second])
    assert [str(key) for key in done.report.built] == ["pose/extra/0"]
    assert done.study.catalog.recording("extra").subject == "s1"
    assert open_study(tmp_path / "study").build("pose").done == 13


def test_classes_get_names_from_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("clap\nwave\nthrow\n")
    study = import_poses(tmp_path / "study", [pyskl_file(tmp_path)], labels=tmp_path / "names.txt").study
    assert study.catalog.labels == ("clap", "throw", "wave")
    assert study.catalog.recording("S001.clip01").label == "wave"
    (tmp_path / "names.txt").write_text("clap\nwave\n")
    with pytest.raises(
        UserError, match=r"'S001.clip02' in .* has the class 2, and study.pose_labels names 2 \(0 to 1\)"
    ):
        study.scan()


def test_a_folder_of_files_gives_ids_with_their_folders(tmp_path):
    for place in ("s1/a", "s1/b", "s2/a"):
        write_npz(tmp_path / "data" / f"{place}.npz", made_poses(4), label="x")
    study = import_poses(tmp_path / "study", [tmp_path / "data"], format="pose-npz").study
    assert [recording.id for recording in study.catalog.recordings] == ["s1/a", "s1/b", "s2/a"]


def test_two_recordings_of_one_id_are_an_error(tmp_path):
    for place in ("one", "two"):
        write_npz(tmp_path / place / "a.npz", made_poses(4), label="x")
    with pytest.raises(UserError, match="Two recordings have the id 'a'"):
        import_poses(tmp_path / "study", [tmp_path / "one", tmp_path / "two"], format="pose-npz")


def test_stages_that_need_frames_report_missing_videos(tmp_path):
    study = import_poses(tmp_path / "study", [pyskl_file(tmp_path)]).study
    with pytest.raises(UserError, match=r"'masks' needs frames, and recording 'S001.clip00' has no video"):
        study.build("masks")
    with pytest.raises(UserError, match=r"'pose' needs frames.*(?s:.*)backend = \"import\" under \[pose\]"):
        study.build("pose", overrides={"pose": {"backend": "mediapipe"}})


def test_import_reports_and_skips_a_recording_without_joints(tmp_path):
    write_npz(tmp_path / "data" / "a.npz", made_poses(4), label="x")
    empty = made_poses(4)
    empty.score[:] = 0
    write_npz(tmp_path / "data" / "b.npz", empty, label="x")
    done = import_poses(tmp_path / "study", [tmp_path / "data"], format="pose-npz")
    assert [str(key) for key in done.report.built] == ["pose/a/0"]
    assert "'b' has no joint in any frame" in next(iter(done.report.quarantined.values()))
    assert [entry.kind for entry in done.study.catalog.findings if "'b'" in entry.message] == ["poses without people"]


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("pyskll", {}, r"No pose format 'pyskll'\. Did you mean 'pyskl'"),
        ("pyskl", {"coordinates": "color"}, "Poses of the format 'pyskl' take no coordinates, got 'color'"),
        ("pyskl", {"skeleton": "coco16"}, r"Unknown skeleton 'coco16'\. Did you mean 'coco1"),
        ("pyskl", {"skeleton": "ntu25"}, "have 17 joints, but skeleton 'ntu25' has 25"),
    ],
)
def test_what_does_not_fit_the_format_is_refused(tmp_path, format, options, message):
    with pytest.raises((UserError, InputError), match=message):
        import_poses(tmp_path / "study", [pyskl_file(tmp_path)], format=format, **options)


def test_paths_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match=r"No pose file or folder at .*nothing.pkl"):
        import_poses(tmp_path / "study", [tmp_path / "nothing.pkl"])
    assert not (tmp_path / "study").exists()


def test_a_pattern_of_recordings_needs_a_study_of_videos(tmp_path):
    with pytest.raises(UserError, match=r"is a pattern for the recordings of a study of videos, but .* is not a study"):
        import_poses(tmp_path / "study", ["openpose/{recording}/{view}"])
    assert not (tmp_path / "study").exists()


def test_import_reports_an_invalid_official_split_and_continues(tmp_path):
    for seed, (name, split) in enumerate((("a1", "xsub_train"), ("a2", "xsub_train"), ("b1", "xsub_test"))):
        poses = made_poses(4, seed=seed)
        write_npz(tmp_path / "data" / f"{name}.npz", poses, label=name[0], splits=(split,))
    done = import_poses(tmp_path / "study", [tmp_path / "data"], format="pose-npz")
    assert len(done.report.built) == 3
    assert done.splits == ()
    assert "Train has no sample of class 'b'" in done.refused_splits["xsub"]


def test_split_by_a_missing_column_lists_available_columns(tmp_path):
    study = import_poses(tmp_path / "study", [pyskl_file(tmp_path)]).study
    with pytest.raises(UserError, match=r"No recording has a column 'xsubb' to split by\. Did you mean 'xsub'\?"):
        study.build("split", overrides={"split": {"by": "column", "column": "xsubb"}})


def test_real_msr_action3d_lands_with_its_official_split(tmp_path, shared_data):
    archive = shared_data / "msr_action3d" / "msr_action3d.npz"
    study = Study(init_study(tmp_path, StudySettings(layout="poses", poses=(str(archive),))))
    assert official_splits(study.catalog.recordings) == ("cross_subject",)
    splits, refused = store_official_splits(study)
    assert (splits, refused) == (("cross_subject",), {})
    [parts] = stored_parts(study.store.item("split", "cross_subject"))
    subjects = {recording.id: int(recording.subject[1:]) for recording in study.catalog.recordings}
    assert {subjects[recording] % 2 for recording, part in parts.items() if part == "test"} == {0}
    assert {subjects[recording] % 2 for recording, part in parts.items() if part != "test"} == {1}
    val = {subjects[recording] for recording, part in parts.items() if part == "val"}
    assert val
    assert not val & {subjects[recording] for recording, part in parts.items() if part == "train"}


def recordings_of_two_splits(folder):
    """Six recordings per class, two per source 'even', 'odd' and 'z'. split1 tests source z, split2 source even."""
    for number, name in enumerate(f"{label}{take}" for label in "ab" for take in range(6)):
        of = ("even", "odd", "z")[number % 3]
        splits = ("split1_test" if of == "z" else "split1_train", "split2_test" if of == "even" else "split2_train")
        write_npz(folder / f"{name}-{of}.npz", made_poses(4, seed=number), label=name[0], splits=splits)


def test_val_of_an_official_split_is_test_of_the_next_split(tmp_path):
    recordings_of_two_splits(tmp_path / "data")
    done = import_poses(tmp_path / "study", [tmp_path / "data"], format="pose-npz")
    assert done.splits == ("split1", "split2")
    kinds = {
        name: {
            part: {entry.split("-")[1] for entry, given in parts.items() if given == part}
            for part in ("train", "val", "test")
        }
        for name in done.splits
        for parts in stored_parts(done.study.store.item("split", name))
    }
    assert kinds["split1"] == {"train": {"odd"}, "val": {"even"}, "test": {"z"}}
    assert kinds["split2"] == {"train": {"odd"}, "val": {"z"}, "test": {"even"}}


def test_incomplete_or_other_splits_give_no_val(tmp_path):
    """xview separates the takes of a performance and xsub does not. split2 does not contain all recordings."""
    for number, name in enumerate(f"{label}{take}" for label in "ab" for take in range(6)):
        splits = ("xsub_test" if number % 3 == 2 else "xsub_train", "xview_test" if number % 3 == 0 else "xview_train")
        splits += ("split1_test" if number % 3 == 2 else "split1_train",)
        splits += () if number % 6 == 1 else ("split2_test" if number % 3 == 0 else "split2_train",)
        write_npz(tmp_path / "data" / f"{name}.npz", made_poses(4, seed=number), label=name[0], splits=splits)
    done = import_poses(tmp_path / "study", [tmp_path / "data"], format="pose-npz")
    for name in ("xsub", "split1"):
        [parts] = stored_parts(done.study.store.item("split", name))
        # Each of them tests four recordings of train; a fifth of train is two recordings.
        assert list(parts.values()).count("val") == 2


@pytest.mark.parametrize(("name", "subject"), [("S001C002P003R001A004", "P003"), ("v_Surfing_g01_c01", None)])
def test_ntu_names_in_pyskl_files_give_the_subject(tmp_path, name, subject):
    write_pyskl(tmp_path / "data.pkl", [PoseItem(name, made_poses(4), label=0)])
    study = Study(init_study(tmp_path, StudySettings(layout="poses", poses=("data.pkl",))))
    assert study.catalog.recordings[0].subject == subject


def test_val_is_a_share_of_train_without_a_suitable_split(tmp_path):
    recordings_of_two_splits(tmp_path / "data")
    (tmp_path / "data" / "b0-even.npz").unlink()
    (tmp_path / "data" / "b3-even.npz").unlink()
    done = import_poses(tmp_path / "study", [tmp_path / "data"], format="pose-npz")
    [parts] = stored_parts(done.study.store.item("split", "split1"))
    assert "val" in parts.values()
    assert "even" in {entry.split("-")[1] for entry, part in parts.items() if part == "train"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_column": "split3"}, r"No recording has a column 'split3' to split by\. Did you mean 'split2'\?"),
        (
            {"val_column": "split1"},
            r"Val would be what column 'split1' tests of the train part of 'split1', and that is no",
        ),
        ({"by": "recording", "val_column": "split2"}, "val_column can only be used with by = column"),
        ({"val": 0.0, "val_column": "split2"}, "val_column selects the part for val, but val = 0 means no val"),
    ],
)
def test_a_column_that_gives_no_val_is_refused(tmp_path, settings, message):
    recordings_of_two_splits(tmp_path / "data")
    study = import_poses(tmp_path / "study", [tmp_path / "data"], format="pose-npz").study
    with pytest.raises(UserError, match=message):
        study.build("split", overrides={"split": {"by": "column", "column": "split1", **settings}})


def test_official_splits_ignore_groups_of_the_study(tmp_path):
    recordings_of_two_splits(tmp_path / "data")
    study = import_poses(tmp_path / "study", [tmp_path / "data"], format="pose-npz").study
    study.folder.change("split", "test_groups", ["somebody"])
    assert store_official_splits(open_study(study.root)) == (("split1", "split2"), {})


def test_val_of_real_jhmdb_shares_no_source_with_train(tmp_path, shared_data):
    archives = str(shared_data / "jhmdb_gt2d")
    study = Study(init_study(tmp_path, StudySettings(layout="poses", poses=(archives,))))
    assert store_official_splits(study) == (("split1", "split2", "split3"), {})
    for name, other in (("split1", "split2"), ("split2", "split3"), ("split3", "split1")):
        [parts] = stored_parts(study.store.item("split", name))
        for recording in study.catalog.recordings:
            tested = recording.extra[other] == "test"
            assert parts[recording.id] == ("test" if recording.extra[name] == "test" else "val" if tested else "train")


class Calls:
    """Pickled as a function call, as in hostile files."""

    def __reduce__(self):
        return (print, ("this must not run",))


def test_a_pickle_that_calls_code_is_refused_unread(tmp_path, capsys):
    (tmp_path / "data.pkl").write_bytes(pickle.dumps({"annotations": [Calls()], "split": {}}))
    with pytest.raises(InputError, match=r"data\.pkl.*builtins\.print"):
        import_poses(tmp_path / "study", [tmp_path / "data.pkl"])
    assert capsys.readouterr().out == ""


def test_import_errors_name_the_array_and_the_expected_shape(tmp_path):
    np.savez(tmp_path / "a.npz", keypoints=np.ones((4, 17)), skeleton="coco17")
    with pytest.raises(InputError, match=r"must have the shape \(frames, persons, joints, 2 or 3\), got \(4, 17\)"):
        import_poses(tmp_path / "study", [tmp_path / "a.npz"])
    np.savez(tmp_path / "a.npz", keypoints=np.ones((4, 16, 2)), skeleton="coco17")
    with pytest.raises(InputError, match="have 16 joints, but skeleton 'coco17' has 17"):
        import_poses(tmp_path / "study", [tmp_path / "a.npz"])


def test_import_of_normalized_joints_requires_the_image_size(tmp_path):
    np.savez(tmp_path / "a.npz", landmarks=np.full((4, 33, 4), 0.5))
    with pytest.raises(UserError, match=r"does not contain its size\. Give image_size=\(height, width\)"):
        import_poses(tmp_path / "study", [tmp_path / "a.npz"])
    study = import_poses(tmp_path / "study", [tmp_path / "a.npz"], image_size=(100, 200)).study
    assert study.poses("a", view=0).keypoints[0, 0, 0].tolist() == [99.5, 49.5]


def test_frames_without_anybody_stay_as_frames(tmp_path):
    poses = made_poses(6, 2)
    poses.score[2:4] = 0
    study = import_poses(tmp_path / "study", [write_npz(tmp_path / "a.npz", poses)]).study
    assert study.poses("a", view=0).present.any(axis=1).tolist() == [True, True, False, False, True, True]
    assert study.item("pose", "a", 0).attributes["num_frames_with_person"] == 4


def test_import_command_prints_items_and_splits(tmp_path):
    run = CliRunner().invoke(
        app, ["import", "pyskl", str(pyskl_file(tmp_path)), "--study", str(tmp_path / "study"), "--fps", "15", "--json"]
    )
    assert run.exit_code == 0, run.output
    document = json.loads(run.stdout)
    assert (document["recordings"], document["items made"], document["splits"]) == (12, 12, ["xset", "xsub"])
    assert open_study(tmp_path / "study").poses("S001.clip00", view=0).time[1] == pytest.approx(1 / 15)
    run = CliRunner().invoke(app, ["import", "pysk", str(tmp_path), "--study", str(tmp_path / "other")])
    assert run.exit_code == 2


def test_import_prints_next_commands_that_run(tmp_path):
    folder = str(tmp_path / "my study")
    run = CliRunner().invoke(app, ["import", "pyskl", str(pyskl_file(tmp_path)), "--study", folder])
    assert run.exit_code == 0, run.output
    assert f"next  actionprep snippets --study '{folder}'   makes" in run.stdout
    run = CliRunner().invoke(app, ["snippets", "--study", folder])
    assert run.exit_code == 0, run.output
    assert f"next  actiontrain fit --study '{folder}'   trains" in run.stdout


def test_import_quarantines_a_damaged_recording(tmp_path):
    path = pyskl_file(tmp_path)
    content = pickle.loads(path.read_bytes())
    content["annotations"][2]["keypoint_score"][0, 1, 3] = -1
    path.write_bytes(pickle.dumps(content))
    done = import_poses(tmp_path / "study", [path])
    assert len(done.report.built) == 11
    [(key, reason)] = done.report.quarantined.items()
    assert str(key) == "pose/S001.clip02/0"
    assert "must be finite and at least 0; frame 1 has -1" in reason
    [finding] = [entry for entry in done.study.catalog.findings if entry.kind == "unreadable poses"]
    assert "Scores of 'S001.clip02'" in finding.message
    assert done.study.build("snippets").ok
    assert len(done.study.snippets) == 11


def test_a_folder_whose_files_are_all_damaged_is_refused(tmp_path):
    (tmp_path / "a.skeleton").write_text("3\n")
    with pytest.raises(InputError, match=r"a.skeleton ends after line 1"):
        import_poses(tmp_path / "study", [tmp_path], format="ntu")


def test_an_import_that_fails_leaves_the_settings_as_they_were(tmp_path):
    study = tmp_path / "study"
    (tmp_path / "cut.pkl").write_bytes(pyskl_file(tmp_path).read_bytes()[:300])
    with pytest.raises(InputError, match="cut short"):
        import_poses(study, [tmp_path / "cut.pkl"], format="pyskl")
    assert not (study / "actionprep.toml").exists()
    import_poses(study, [tmp_path / "data.pkl"])
    before = (study / "actionprep.toml").read_bytes()
    with pytest.raises(InputError, match="cut short"):
        import_poses(study, [tmp_path / "cut.pkl"], fps=25)
    assert (study / "actionprep.toml").read_bytes() == before
    assert open_study(study).scan().catalog.recordings


def test_custom_layout_is_found_from_any_current_folder(tmp_path, monkeypatch):
    (tmp_path / "lizard.toml").write_text('joints = ["head", "tail"]\nlimbs = [["head", "tail"]]\n')
    np.savez(tmp_path / "a.npz", keypoints=np.full((4, 1, 2, 2), 3.0), label="run")
    monkeypatch.chdir(tmp_path)
    import_poses("study", ["a.npz"], skeleton="lizard.toml")
    monkeypatch.chdir(tmp_path / "study")
    study = open_study(".")
    assert study.poses("a", view=0).skeleton == str(tmp_path / "lizard.toml")
    monkeypatch.chdir("/")
    again = open_study(tmp_path / "study")
    assert again.scan().catalog.recordings[0].id == "a"
    assert again.poses("a", view=0).with_skeleton("coco17")[1].lost == ("tail",)


def test_store_keeps_a_custom_layout_without_its_file(tmp_path):
    file = tmp_path / "lizard.toml"
    file.write_text('joints = ["left_eye", "right_eye", "tail"]\nlimbs = [["left_eye", "tail"]]\nroot = "tail"\n')
    np.savez(tmp_path / "a.npz", keypoints=np.full((4, 1, 3, 2), 3.0), label="run")
    study = import_poses(tmp_path / "study", [tmp_path / "a.npz"], skeleton=str(file)).study
    layout = skeleton(str(file))
    file.unlink()
    poses = study.poses("a", view=0)
    assert skeleton(poses.skeleton) == layout
    assert skeleton(poses.skeleton).flip_order == (1, 0, 2)
    assert poses.with_skeleton("coco17")[1].lost == ("tail",)


def test_the_command_ends_as_failed_where_something_was_left_out(tmp_path):
    path = pyskl_file(tmp_path)
    content = pickle.loads(path.read_bytes())
    content["annotations"][2]["keypoint_score"][0, 1, 3] = -1
    path.write_bytes(pickle.dumps(content))
    run = CliRunner().invoke(app, ["import", "pyskl", str(path), "--study", str(tmp_path / "study"), "--json"])
    assert run.exit_code == 1
    document = json.loads(run.stdout)
    assert (document["recordings"], document["unreadable"], document["items made"], document["quarantined"]) == (
        12,
        1,
        11,
        1,
    )


def test_import_rejects_a_file_changed_since_the_scan(tmp_path):
    path = write_npz(tmp_path / "data" / "a.npz", made_poses(4), label="x")
    write_npz(tmp_path / "data" / "b.npz", made_poses(5), label="y")
    study = import_poses(tmp_path / "study", [tmp_path / "data"], format="pose-npz").study
    write_npz(path, made_poses(9, seed=3), label="x")
    report = study.build("pose", overrides={"pose": {"fill": 1}})
    assert [str(key) for key in report.built] == ["pose/b/0"]
    [reason] = report.quarantined.values()
    assert "has other poses of 'a', unlike when it was scanned. Run 'actionprep scan'" in reason
    study.scan()
    assert study.build("pose", overrides={"pose": {"fill": 1}}, retry=True).ok
    assert study.poses("a", view=0).num_frames == 9


def test_import_does_not_search_all_files_for_every_item(tmp_path, monkeypatch):
    from actionprep.pipeline.pose_backends import files

    looked = []
    monkeypatch.setattr(files, "_newest", lambda place: looked.append(place) or 1)
    assert import_poses(tmp_path / "study", [pyskl_file(tmp_path)]).report.ok
    assert looked == []
