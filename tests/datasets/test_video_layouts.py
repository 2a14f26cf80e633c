"""Finding videos by class folders, by a pattern and by a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_fakes import fake_video

from actionprep.datasets.annotations import AnnotatedRow
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.recordings import Recording
from actionprep.datasets.study import StudyFolder, StudySettings, init_study
from actionprep.datasets.video_layouts import Discovery, discover, holds_text
from actionprep.errors import UserError


def study(root: Path, **settings: object) -> StudyFolder:
    return init_study(root, StudySettings(**settings), force=True)  # type: ignore[arg-type]


def discovered(root: Path, **settings: object) -> Discovery:
    folder = study(root, **settings)
    return discover(folder, folder.study)


def places(found: Discovery) -> list[tuple[str, str, str]]:
    return [(view.recording, view.id, view.path) for view in found.views]


def test_clips_in_class_folders(tmp_path):
    for name in ("wave/clip10.mp4", "wave/clip2.v2.MP4", "clap/x.webm", "wave/.hidden.mp4", "wave/notes.txt"):
        fake_video(tmp_path / "videos" / name)
    found = discovered(tmp_path)
    assert found.recordings == [
        Recording("clap/x", label="clap"),
        Recording("wave/clip2.v2", label="wave"),
        Recording("wave/clip10", label="wave"),
    ]
    assert places(found)[1] == ("wave/clip2.v2", "0", "videos/wave/clip2.v2.MP4")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "is_text"),
    [
        (b"", True),
        (POINTER, True),
        ("é".encode() * 300, True),  # the first 512 bytes end between letters
        (b"x" + "é".encode() * 300, True),  # and here within one
        (b"\x00\x00\x00\x20ftypisom", False),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81", False),
        (b"RIFF\x10\x02\x00\x00AVI LIST", False),
        (b"G@\x00\x10" + b"\xff" * 184, False),
        (POINTER * 2000, False),  # too large to be looked into
    ],
)
def test_text_that_is_named_like_a_video_is_known_by_its_first_bytes(tmp_path, content, is_text):
    (tmp_path / "a.mp4").write_bytes(content)
    assert holds_text(tmp_path / "a.mp4") == is_text


def test_folders_of_splits_above_the_classes(tmp_path):
    fake_video(tmp_path / "videos/train/wave/a.mp4")
    fake_video(tmp_path / "videos/Validation/wave/b.mp4")
    assert {one.id: (one.label, one.split) for one in discovered(tmp_path).recordings} == {
        "train/wave/a": ("wave", "train"),
        "Validation/wave/b": ("wave", "val"),
    }


def test_a_video_outside_of_class_folders_has_no_label(tmp_path):
    fake_video(tmp_path / "videos/a.mp4")
    fake_video(tmp_path / "videos/wave/b.mp4")
    assert [one.label for one in discovered(tmp_path).recordings] == [None, "wave"]


def test_what_we_made_is_not_taken_for_a_recording(tmp_path):
    fake_video(tmp_path / "wave/a.mp4")
    fake_video(tmp_path / "runs/one/prediction.mp4")
    fake_video(tmp_path / "store/x/y.mp4")
    assert [one.id for one in discovered(tmp_path, videos=".").recordings] == ["wave/a"]


def test_a_link_to_a_folder_above_ends(tmp_path):
    fake_video(tmp_path / "videos/wave/a.mp4")
    (tmp_path / "videos/wave/again").symlink_to(tmp_path / "videos")
    assert [one.id for one in discovered(tmp_path).recordings] == ["wave/a"]


def test_no_videos_says_what_was_looked_for_and_where(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/readme.txt").write_text("x")
    with pytest.raises(UserError) as error:
        discovered(tmp_path)
    assert str(error.value) == (
        f"No videos in {tmp_path}/videos: looked there and below for <class>/<clip> with .3gp, .avi, .flv, .m2ts, "
        ".m4v, "
        ".mkv, .mov, .mp4, .mpeg, .mpg, .mts, .ogv, .ts, .webm, .wmv, found 1 other files (readme.txt). Set "
        "study.videos in "
        f"{tmp_path}/actionprep.toml to the folder of your videos."
    )
    with pytest.raises(UserError, match=r"No videos: there is no folder .*/absent. Put your videos there"):
        discovered(tmp_path, videos="absent")


def test_two_files_that_differ_in_their_extension_get_one_id(tmp_path):
    fake_video(tmp_path / "videos/wave/a.mp4")
    fake_video(tmp_path / "videos/wave/a.avi")
    found = discovered(tmp_path)
    with pytest.raises(
        UserError, match=r"Two recordings have the id 'wave/a' \(videos/wave/a.avi, videos/wave/a.mp4\)"
    ):
        Catalog(tuple(found.recordings), tuple(found.views))


def test_views_by_the_usual_pattern(tmp_path):
    for name in ("day1/seq/cam0.mp4", "day1/seq/cam10.mp4", "day1/seq/cam2.mp4", "other/cam0.mp4", "other/left.mp4"):
        fake_video(tmp_path / "videos" / name)
    found = discovered(tmp_path, layout="views")
    assert places(found) == [
        ("day1/seq", "0", "videos/day1/seq/cam0.mp4"),
        ("day1/seq", "2", "videos/day1/seq/cam2.mp4"),
        ("day1/seq", "10", "videos/day1/seq/cam10.mp4"),
        ("other", "0", "videos/other/cam0.mp4"),
    ]
    assert [str(finding) for finding in found.findings] == [
        "file not used: videos/other/left.mp4: does not match the pattern '{recording}/cam{view}.mp4'"
    ]


@pytest.mark.parametrize(
    ("pattern", "file", "recording", "view"),
    [
        ("cam{view}/{recording}.mp4", "cam3/day/a.mp4", "day/a", "3"),
        ("{recording}_view_{view}.*", "seq_1_take_view_5.webm", "seq_1_take", "5"),
        ("{view}.mp4", "left.mp4", "videos", "left"),
        ("{recording}.mp4", "x/y.mp4", "x/y", "0"),
        ("**/{recording}-{view}.mp4", "deep/er/a-b.mp4", "a", "b"),
        ("{recording}/{recording}_{view}.mp4", "a/a_1.mp4", "a", "1"),
    ],
)
def test_patterns_place_recording_and_view_anywhere(tmp_path, pattern, file, recording, view):
    fake_video(tmp_path / "videos" / file)
    assert places(discovered(tmp_path, layout="views", pattern=pattern)) == [(recording, view, f"videos/{file}")]


def test_patterns_give_labels_subjects_and_splits(tmp_path):
    fake_video(tmp_path / "videos/train/wave/anna_1_c0.mp4")
    fake_video(tmp_path / "videos/train/wave/anna_1_c1.mp4")
    pattern = "{split}/{label}/{subject}_{recording}_c{view}.mp4"
    [recording] = discovered(tmp_path, layout="views", pattern=pattern).recordings
    assert recording == Recording("1", subject="anna", label="wave", split="train")


def test_a_pattern_that_nothing_matches_shows_what_is_there(tmp_path):
    fake_video(tmp_path / "videos/a/left.mp4")
    with pytest.raises(UserError) as error:
        discovered(tmp_path, layout="views")
    assert str(error.value) == (
        f"No videos match the pattern '{{recording}}/cam{{view}}.mp4' below {tmp_path}/videos. There are 1 videos "
        "that do "
        f"not match, such as 'a/left.mp4'. Set study.pattern and study.videos in {tmp_path}/actionprep.toml."
    )


def test_a_pattern_with_an_unknown_field_names_the_nearest(tmp_path):
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError, match=r"Unknown field '\{recoding\}' in the pattern .* Did you mean 'recording'\?"):
        discovered(tmp_path, layout="views", pattern="{recoding}/{view}.mp4")


def test_a_table_with_its_own_column_names(tmp_path):
    fake_video(tmp_path / "data/clips/a1_s1.mp4")
    fake_video(tmp_path / "data/clips/a2_s1.mp4")
    (tmp_path / "data/labels.csv").write_text(
        "file,action_id,action,subject\nclips/a1_s1.mp4,1,swipe,1\nclips/a2_s1.mp4,2,wave,1\nclips/a3_s1.mp4,3,clap,1\n"
    )
    found = discovered(
        tmp_path, layout="csv", videos="data", csv="labels.csv", path_column="file", label_column="action"
    )
    assert found.recordings == [
        Recording("clips/a1_s1", "1", label="swipe", extra={"action_id": "1"}),
        Recording("clips/a2_s1", "1", label="wave", extra={"action_id": "2"}),
    ]
    assert [str(finding) for finding in found.findings] == [
        f"labels for an absent video: data/labels.csv:4: no file 'clips/a3_s1.mp4' (looked in {tmp_path}/data, "
        f"{tmp_path})"
    ]


def test_a_table_of_views_and_segments(tmp_path):
    for name in ("a0.mp4", "a1.mp4"):
        fake_video(tmp_path / "videos" / name)
    (tmp_path / "t.csv").write_text(
        "path,recording,view,label,onset_ms,offset_ms,split\n"
        "a0.mp4,a,left,wave,500,1500,training\na1.mp4,a,right,wave,500,1500,training\na0.mp4,a,left,clap,2000,3000,\n"
    )
    found = discovered(tmp_path, layout="csv", csv="t.csv")
    assert places(found) == [("a", "left", "videos/a0.mp4"), ("a", "right", "videos/a1.mp4")]
    assert found.recordings == [Recording("a", split="train")]
    assert found.rows == {
        "t.csv": [AnnotatedRow("a", 0.5, 1.5, "wave", line=2), AnnotatedRow("a", 2.0, 3.0, "clap", line=4)]
    }


def test_a_table_whose_rows_disagree_is_reported(tmp_path):
    fake_video(tmp_path / "videos/a.mp4")
    (tmp_path / "t.csv").write_text("path,label\na.mp4,wave\na.mp4,clap\n")
    found = discovered(tmp_path, layout="csv", csv="t.csv")
    assert found.recordings == [Recording("a", label="wave")]
    assert [str(finding) for finding in found.findings] == [
        "conflicting labels: t.csv:3: recording 'a' has label 'wave' and 'clap'; the first is used"
    ]


def test_a_table_that_gives_two_files_one_id_is_refused(tmp_path):
    fake_video(tmp_path / "videos/a.mp4")
    fake_video(tmp_path / "videos/a.avi")
    (tmp_path / "t.csv").write_text("path\na.mp4\na.avi\n")
    with pytest.raises(UserError) as error:
        discovered(tmp_path, layout="csv", csv="t.csv")
    assert str(error.value) == (
        "Two recordings have the id 'a': videos/a.avi, videos/a.mp4 (t.csv, lines 3, 2). Give them ids in a column "
        "'recording', or views in a column 'view'."
    )


def test_tables_that_cannot_be_used_say_why(tmp_path):
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError, match=r"Layout csv needs a table: set study.csv in .* or name it with --csv"):
        discovered(tmp_path, layout="csv")
    with pytest.raises(UserError, match=r"No table 't.csv': looked for .*/t.csv and .*/videos/t.csv"):
        discovered(tmp_path, layout="csv", csv="t.csv")
    (tmp_path / "t.csv").write_text("file,label\na.mp4,wave\n")
    with pytest.raises(
        UserError, match=r"No column 'path' in .*It has 'file', 'label'.*study.path_column \(--path-column"
    ):
        discovered(tmp_path, layout="csv", csv="t.csv")
    with pytest.raises(UserError, match=r"No column 'class' in .*--label-column"):
        discovered(tmp_path, layout="csv", csv="t.csv", path_column="file", label_column="class")
    with pytest.raises(UserError, match=r"No videos: none of the 1 files that .* names in its column 'file' is there"):
        discovered(tmp_path, layout="csv", csv="t.csv", path_column="file")


def test_recordings_get_subjects_from_a_table_of_their_own(tmp_path):
    fake_video(tmp_path / "videos/wave/a.mp4")
    fake_video(tmp_path / "videos/wave/b.mp4")
    (tmp_path / "who.csv").write_text(
        "recording,subject,split,camera\na,anna,test,x\nwave/b.mp4,ben,train,\nc,cid,train,\n"
    )
    found = discovered(tmp_path, recordings="who.csv")
    assert found.recordings == [
        Recording("wave/a", "anna", label="wave", split="test", extra={"camera": "x"}),
        Recording("wave/b", "ben", label="wave", split="train"),
    ]
    assert [str(finding) for finding in found.findings] == [
        "labels for an absent video: who.csv:4: no one recording of this study is meant by 'c'"
    ]


def test_an_unknown_split_is_refused(tmp_path):
    fake_video(tmp_path / "videos/wave/a.mp4")
    (tmp_path / "who.csv").write_text("recording,split\na,trian\n")
    with pytest.raises(
        UserError, match=r"Unknown split 'trian' \(who.csv:2\). Did you mean 'train'\? Use train, val or test"
    ):
        discovered(tmp_path, recordings="who.csv")


def test_offsets_of_one_recording_or_of_a_view_everywhere(tmp_path):
    for name in ("a/cam0.mp4", "a/cam1.mp4", "b/cam0.mp4", "b/cam1.mp4"):
        fake_video(tmp_path / "videos" / name)
    (tmp_path / "clocks.csv").write_text("recording,view,offset,drift\n,1,0.25,\nb,1,-0.5,40\n")
    found = discovered(tmp_path, layout="views", offsets="clocks.csv")
    assert [(view.offset, view.drift) for view in found.views] == [(0, 0), (0.25, 0), (0, 0), (-0.5, 40)]
    (tmp_path / "clocks.csv").write_text("view,offset\n7,0.25\n")
    with pytest.raises(UserError, match=r"Line 2 of .* names view '7', which no recording has. Views: 0, 1"):
        discovered(tmp_path, layout="views", offsets="clocks.csv")


def test_annotation_files_by_path_folder_and_pattern(tmp_path):
    fake_video(tmp_path / "videos/wave/a.mp4")
    (tmp_path / "notes").mkdir()
    for name in ("one.csv", "two.csv"):
        (tmp_path / "notes" / name).write_text("recording,onset,offset,label\na,1,2,wave\n")
    for wanted in ("notes", "notes/*.csv", str(tmp_path / "notes" / "*.csv")):
        assert list(discovered(tmp_path, segments=(wanted,)).rows) == ["notes/one.csv", "notes/two.csv"]
    with pytest.raises(UserError, match=r"No annotation files at .*/nots, which study.segments names"):
        discovered(tmp_path, segments=("nots",))
