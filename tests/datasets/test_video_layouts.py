"""Finding videos by class folders, by a pattern and by a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_fakes import fake_video, new_study

from actionprep.datasets.annotations import AnnotatedRow
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.discovery import Discovery
from actionprep.datasets.recordings import Recording
from actionprep.datasets.video_layouts import discover, holds_text, propose_pattern
from actionprep.errors import UserError


def discovered(root: Path, **settings: object) -> Discovery:
    folder = new_study(root, **settings)
    return discover(folder, folder.study)


def locations(discovery: Discovery) -> list[tuple[str, str, str]]:
    return [(view.recording, view.id, view.path) for view in discovery.views]


def test_clips_in_class_folders(tmp_path):
    for name in ("wave/clip10.mp4", "wave/clip2.v2.MP4", "clap/x.webm", "wave/.hidden.mp4", "wave/notes.txt"):
        fake_video(tmp_path / "videos" / name)
    discovery = discovered(tmp_path)
    assert discovery.recordings == [
        Recording("clap/x", label="clap"),
        Recording("wave/clip2.v2", label="wave"),
        Recording("wave/clip10", label="wave"),
    ]
    assert locations(discovery)[1] == ("wave/clip2.v2", "0", "videos/wave/clip2.v2.MP4")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "is_text"),
    [
        (b"", True),
        (POINTER, True),
        ("é".encode() * 300, True),  # the first 512 bytes end between letters
        (b"x" + "é".encode() * 300, True),  # and here within a letter
        (b"\x00\x00\x00\x20ftypisom", False),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81", False),
        (b"RIFF\x10\x02\x00\x00AVI LIST", False),
        (b"G@\x00\x10" + b"\xff" * 184, False),
        (POINTER * 2000, False),  # too large to be inspected
    ],
)
def test_text_that_is_named_like_a_video_is_known_by_its_first_bytes(tmp_path, content, is_text):
    (tmp_path / "a.mp4").write_bytes(content)
    assert holds_text(tmp_path / "a.mp4") == is_text


def test_folders_of_splits_above_the_classes(tmp_path):
    fake_video(tmp_path / "videos/train/wave/a.mp4")
    fake_video(tmp_path / "videos/Validation/wave/b.mp4")
    assert {entry.id: (entry.label, entry.split) for entry in discovered(tmp_path).recordings} == {
        "train/wave/a": ("wave", "train"),
        "Validation/wave/b": ("wave", "val"),
    }


def test_a_stray_folder_beside_split_folders_is_refused(tmp_path):
    for name in ("train/walk/1.mp4", "test/run/2.mp4", "unlabeled/x.mp4"):
        fake_video(tmp_path / "videos" / name)
    with pytest.raises(UserError) as error:
        discovered(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/videos has the folders 'test', 'train' of a split, with a folder per class in each, and beside them "
        "'unlabeled', which is no split. Move that elsewhere, so that the folders in these are the classes. If all of "
        'them are classes, set layout = "views" and pattern = "{label}/{recording}.*" under [study] in actionprep.toml.'
    )
    discovery = discovered(tmp_path, layout="views", pattern="{label}/{recording}.*")
    assert {recording.label for recording in discovery.recordings} == {"train", "test", "unlabeled"}


def test_classes_may_be_named_like_splits(tmp_path):
    for name in ("train/1.mp4", "car/2.mp4"):
        fake_video(tmp_path / "videos" / name)
    assert {recording.label for recording in discovered(tmp_path).recordings} == {"train", "car"}


@pytest.mark.parametrize("layout", ["folder-per-class", "views"])
def test_files_that_may_be_videos_are_counted(tmp_path, layout):
    for name in ("walk/1.mp4", "walk/2.MOV"):
        fake_video(tmp_path / "videos" / name)
    names = ["jump/a.braw", "jump/b.braw", "sit/1.gif", "clap/seq/img_1.jpg", "clap/seq/img_2.jpg", "walk/notes.txt"]
    for name in names:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    discovery = discovered(tmp_path, layout=layout, pattern="{label}/{recording}.m*")
    reported = {finding.where: finding.message for finding in discovery.findings if ".m*" not in finding.message}
    convert = (
        "which is not read as a video; convert such files, or name them in a table (layout csv) or a pattern (layout "
        "views)"
    )
    assert reported == {
        "videos/jump/a.braw": f"2 files with the suffix .braw, {convert}",
        "videos/sit/1.gif": (
            "1 file with the suffix .gif and a single image: animations are read as videos, still images are not"
        ),
        "videos/clap/seq/img_1.jpg": (
            "2 files with the suffix .jpg in 1 folder: images are not read as videos; set image_rate under [study] to read "
            "each folder of numbered images as one video"
        ),
    }


@pytest.mark.parametrize(
    ("files", "pattern"),
    [
        ("cam01.mp4 cam02.mp4 cam03.mp4", "cam{view}.mp4"),
        ("a/cam0.mp4 a/cam1.mp4 b/cam0.mp4 b/cam1.mp4", "{recording}/cam{view}.mp4"),
        ("cam0/take 1.mp4 cam1/take 1.mp4", "cam{view}/{recording}.mp4"),
        ("t_1_Camera2.mp4 t_1_Camera3.avi", "{recording}_Camera{view}.*"),
        ("c1-a.mp4 c2-a.mp4", "c{view}-{recording}.mp4"),
        ("clip1.mp4 clip2.mp4", None),
        ("wave/a.mp4 clap/b.mp4", None),
        ("a/cam0.mp4 b/cam0.mp4", None),
        ("cam0.mp4", None),
    ],
)
def test_propose_pattern_for_names_of_cameras(tmp_path, files, pattern):
    names = files.replace("take 1", "take-1").split()
    for name in names:
        fake_video(tmp_path / "videos" / name)
    folder = new_study(tmp_path)
    assert propose_pattern(folder, folder.study) == pattern


def test_a_text_in_a_folder_of_annotations_is_reported(tmp_path):
    fake_video(tmp_path / "videos/wave/a.mp4")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/README.txt").write_text("Made by hand, in May.\n")
    with pytest.raises(UserError, match=r"README.txt has no column for onset and offset, label"):
        discovered(tmp_path, segments=("notes",))
    (tmp_path / "notes/a.csv").write_text("onset,offset,label\n1,2,wave\n")
    discovery = discovered(tmp_path, segments=("notes",))
    assert list(discovery.rows) == ["notes/a.csv"]
    assert [str(finding) for finding in discovery.findings] == [
        "file not used: notes/README.txt: is in a folder of annotations and of no annotation format"
    ]
    (tmp_path / "notes/b.csv").write_text("from,to,what\n1,2,wave\n")
    with pytest.raises(UserError, match=r"b.csv has no column for onset and offset, label"):
        discovered(tmp_path, segments=("notes",))


def test_a_video_outside_of_class_folders_has_no_label(tmp_path):
    fake_video(tmp_path / "videos/a.mp4")
    fake_video(tmp_path / "videos/wave/b.mp4")
    assert [entry.label for entry in discovered(tmp_path).recordings] == [None, "wave"]


def test_what_we_made_is_not_taken_for_a_recording(tmp_path):
    fake_video(tmp_path / "wave/a.mp4")
    fake_video(tmp_path / "runs/one/prediction.mp4")
    fake_video(tmp_path / "store/x/y.mp4")
    assert [entry.id for entry in discovered(tmp_path, videos=".").recordings] == ["wave/a"]


def test_a_link_to_a_folder_above_ends(tmp_path):
    fake_video(tmp_path / "videos/wave/a.mp4")
    (tmp_path / "videos/wave/again").symlink_to(tmp_path / "videos")
    assert [entry.id for entry in discovered(tmp_path).recordings] == ["wave/a"]


def test_discovery_without_videos_names_the_pattern_and_folder(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/readme.txt").write_text("x")
    with pytest.raises(UserError) as error:
        discovered(tmp_path)
    assert str(error.value) == (
        f"No videos in {tmp_path}/videos: looked there and below for <class>/<clip> with .3gp, .asf, .avi, .flv, "
        ".h264, .h265, .hevc, .m2ts, .m4v, .mjpeg, .mjpg, "
        ".mkv, .mov, .mp4, .mpeg, .mpg, .mts, .mxf, .ogv, .ts, .vob, .webm, .wmv, found 1 other file (readme.txt). Set "
        "study.videos in "
        f"{tmp_path}/actionprep.toml to the folder of your videos."
    )
    with pytest.raises(UserError, match=r"No videos: the folder .*/absent does not exist. Put your videos there"):
        discovered(tmp_path, videos="absent")


def test_two_files_that_differ_in_their_extension_get_one_id(tmp_path):
    fake_video(tmp_path / "videos/wave/a.mp4")
    fake_video(tmp_path / "videos/wave/a.avi")
    discovery = discovered(tmp_path)
    with pytest.raises(
        UserError, match=r"Two recordings have the id 'wave/a' \(videos/wave/a.avi, videos/wave/a.mp4\)"
    ):
        Catalog(tuple(discovery.recordings), tuple(discovery.views))


def test_views_by_the_usual_pattern(tmp_path):
    for name in ("day1/seq/cam0.mp4", "day1/seq/cam10.mp4", "day1/seq/cam2.mp4", "other/cam0.mp4", "other/left.mp4"):
        fake_video(tmp_path / "videos" / name)
    discovery = discovered(tmp_path, layout="views")
    assert locations(discovery) == [
        ("day1/seq", "0", "videos/day1/seq/cam0.mp4"),
        ("day1/seq", "2", "videos/day1/seq/cam2.mp4"),
        ("day1/seq", "10", "videos/day1/seq/cam10.mp4"),
        ("other", "0", "videos/other/cam0.mp4"),
    ]
    assert [str(finding) for finding in discovery.findings] == [
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
    assert locations(discovered(tmp_path, layout="views", pattern=pattern)) == [(recording, view, f"videos/{file}")]


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
        f"No videos match the pattern '{{recording}}/cam{{view}}.mp4' below {tmp_path}/videos. There is 1 video "
        f"that does not match, such as 'a/left.mp4'. Set study.pattern and study.videos in {tmp_path}/actionprep.toml."
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
    discovery = discovered(
        tmp_path, layout="csv", videos="data", csv="labels.csv", path_column="file", label_column="action"
    )
    assert discovery.recordings == [
        Recording("clips/a1_s1", "1", label="swipe", extra={"action_id": "1"}),
        Recording("clips/a2_s1", "1", label="wave", extra={"action_id": "2"}),
    ]
    assert [str(finding) for finding in discovery.findings] == [
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
    discovery = discovered(tmp_path, layout="csv", csv="t.csv")
    assert locations(discovery) == [("a", "left", "videos/a0.mp4"), ("a", "right", "videos/a1.mp4")]
    assert discovery.recordings == [Recording("a", split="train")]
    assert discovery.rows == {
        "t.csv": [AnnotatedRow("a", 0.5, 1.5, "wave", line=2), AnnotatedRow("a", 2.0, 3.0, "clap", line=4)]
    }


@pytest.mark.parametrize("layout", ["csv", "folder-per-class"])
def test_rows_that_contradict_each_other_are_refused(tmp_path, layout):
    fake_video(tmp_path / "videos/a.mp4")
    fake_video(tmp_path / "videos/b.mp4")
    (tmp_path / "t.csv").write_text("path,subject,label\na.mp4,anna,wave\nb.mp4,ben,wave\na.mp4,,clap\n")
    table = {"csv": "t.csv"} if layout == "csv" else {"recordings": "t.csv"}
    with pytest.raises(UserError) as error:
        discovered(tmp_path, layout=layout, **table)
    assert str(error.value) == (
        f"Lines 2 and 4 of {tmp_path}/t.csv contradict each other: recording 'a' has label 'wave' and 'clap'. Correct "
        "one of them, or give the rows different recordings."
    )


def test_rows_of_one_recording_complete_each_other(tmp_path):
    fake_video(tmp_path / "videos/a.mp4")
    (tmp_path / "t.csv").write_text("path,subject,label,age,camera\na.mp4,anna,,31,x\na.mp4,,wave,31,y\n")
    discovery = discovered(tmp_path, recordings="t.csv")
    assert discovery.recordings == [Recording("a", subject="anna", label="wave", extra={"age": "31"})]
    assert [str(finding) for finding in discovery.findings] == [
        "column not used: t.csv: column 'camera' has several values for recording 'a'; it is left out there"
    ]


def test_clocks_that_contradict_each_other_are_refused(tmp_path):
    fake_video(tmp_path / "videos/a/cam0.mp4")
    (tmp_path / "clocks.csv").write_text("recording,view,offset\na,0,1\nvideos/a/cam0,0,2\n")
    with pytest.raises(UserError, match=r"Lines 2 and 3 of .* view '0' of recording 'a' has two clocks"):
        discovered(tmp_path, layout="views", offsets="clocks.csv")


def test_table_rows_of_other_recordings_are_reported(tmp_path):
    fake_video(tmp_path / "videos/siteA/take_1.mp4")
    (tmp_path / "rec.csv").write_text("recording,subject,split\nsiteA/take_1,anna,train\nsiteB/take_1,ben,test\n")
    (tmp_path / "off.csv").write_text("view,offset,recording\n0,0.5,siteA/take_1\n0,7.5,siteB/take_1\n")
    discovery = discovered(tmp_path, layout="views", pattern="{recording}.mp4", recordings="rec.csv", offsets="off.csv")
    assert discovery.recordings == [Recording("siteA/take_1", "anna", split="train")]
    assert [view.offset for view in discovery.views] == [0.5]
    assert [str(finding) for finding in discovery.findings] == [
        f"labels for an absent video: {table}:3: 'siteB/take_1', which is no recording of this study"
        for table in ("rec.csv", "off.csv")
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("clips\\a b.mp4", "clips\\C.MP4", "clips\\sub\\d.mp4"),
        ("/data/anna/clips/a b.mp4", "/data/anna/clips/C.MP4", "/data/anna/clips/sub/d.mp4"),
        ("D:\\anna\\clips\\a b.mp4", "D:\\anna\\clips\\C.MP4", "D:\\anna\\clips\\sub\\d.mp4"),
        ("clips/a b", "clips/C", "clips/sub/d"),
        ("./clips/a b", "clips//C.MP4", "clips/x/../sub/d.mp4"),
    ],
)
def test_table_paths_of_other_machines(tmp_path, names):
    files = ("clips/a b.mp4", "clips/C.MP4", "clips/sub/d.mp4")
    for file in (*files, "clips/x/e.mp4"):
        fake_video(tmp_path / file)
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{name},x\n" for name in names))
    discovery = discovered(tmp_path, layout="csv", videos=".", csv="t.csv")
    assert {(entry.recording, Path(entry.path).name) for entry in discovery.views} == {
        (file.rsplit(".", 1)[0], Path(file).name) for file in files
    }
    assert not discovery.findings


def test_table_paths_that_shorten_to_one_file(tmp_path):
    fake_video(tmp_path / "videos/a.mp4")
    fake_video(tmp_path / "videos/b.mp4")
    (tmp_path / "t.csv").write_text("path,label\n/d/siteA/a.mp4,x\n/d/siteB/a.mp4,y\n/d/siteA/b.mp4,x\n")
    discovery = discovered(tmp_path, layout="csv", csv="t.csv")
    assert [recording.id for recording in discovery.recordings] == ["b"]
    assert [finding.where for finding in discovery.findings] == ["t.csv:2", "t.csv:3"]
    assert discovery.findings[0].message == (
        f"'/d/siteA/a.mp4' and '/d/siteB/a.mp4' both look like {tmp_path}/videos/a.mp4; a path that is exact is used"
    )
    (tmp_path / "t.csv").write_text("path,label\nsiteB/a.mp4,y\nb.mp4,x\n")
    assert [entry.id for entry in discovered(tmp_path, layout="csv", csv="t.csv").recordings] == ["b"]


def test_names_in_other_unicode_forms(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    fake_video(tmp_path / f"videos/train/{composed}/1.mp4")
    fake_video(tmp_path / f"videos/test/{decomposed}/2.mp4")
    assert {recording.label for recording in discovered(tmp_path).recordings} == {composed}
    (tmp_path / "t.csv").write_text(f"path,label\nvideos/train/{decomposed}/1.mp4,{decomposed}\n", encoding="utf-8")
    [recording] = discovered(tmp_path, layout="csv", videos=".", csv="t.csv").recordings
    assert recording.label == composed


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


def test_unusable_video_tables_raise_clear_errors(tmp_path):
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
    with pytest.raises(UserError, match=r"No videos: none of the 1 files that .* names in its column 'file' exists"):
        discovered(tmp_path, layout="csv", csv="t.csv", path_column="file")


def test_scan_reads_subjects_from_a_separate_table(tmp_path):
    fake_video(tmp_path / "videos/wave/a.mp4")
    fake_video(tmp_path / "videos/wave/b.mp4")
    (tmp_path / "who.csv").write_text(
        "recording,subject,split,camera\na,anna,test,x\nwave/b.mp4,ben,train,\nc,cid,train,\n"
    )
    discovery = discovered(tmp_path, recordings="who.csv")
    assert discovery.recordings == [
        Recording("wave/a", "anna", label="wave", split="test", extra={"camera": "x"}),
        Recording("wave/b", "ben", label="wave", split="train"),
    ]
    assert [str(finding) for finding in discovery.findings] == [
        "labels for an absent video: who.csv:4: 'c', which is no recording of this study"
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
    discovery = discovered(tmp_path, layout="views", offsets="clocks.csv")
    assert [(view.offset, view.drift) for view in discovery.views] == [(0, 0), (0.25, 0), (0, 0), (-0.5, 40)]
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
