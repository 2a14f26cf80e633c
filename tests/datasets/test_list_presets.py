"""Lists of published data sets, read by presets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_fakes import FakeProbe, fake_video, new_study

from actionprep.datasets.annotation_formats.class_names import ClassNames
from actionprep.datasets.annotation_formats.lists import PRESETS, load_preset, preset_text
from actionprep.datasets.annotations import (
    AmbiguousListError,
    AnnotatedRow,
    RowError,
    read_annotations,
    resembling_formats,
)
from actionprep.datasets.scan import scan
from actionprep.datasets.segments import Segment
from actionprep.datasets.video_layouts import tables_of
from actionprep.errors import UserError


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def rows_of(path: Path, **options: object) -> list[AnnotatedRow]:
    rows = read_annotations(path, **options)  # type: ignore[arg-type]
    assert not [row for row in rows if isinstance(row, RowError)]
    return [row for row in rows if isinstance(row, AnnotatedRow)]


# Format, name of the file, its text, further files, and for each row: recording, onset, offset, label, unit, split.
# Times None mean a full clip.
SAMPLES = {
    "ipn-hand": (
        "trainlistall.txt",
        "./frames/1CM1_4_R_#229 1 1 17\n./frames/1CM1_4_R_#229 2 18 55\n",
        {"classIndAll.txt": "1 D0X\n2 B0A"},
        [("1CM1_4_R_#229", 0, 17, "D0X", "frame", "train"), ("1CM1_4_R_#229", 17, 55, "B0A", "frame", "train")],
    ),
    "egogesture": (
        "vallistall.txt",
        "Subject01/Scene1/Color/rgb1 2 178 218\n",
        {"classIndAll.txt": "1 a\n2 Scroll_hand\n"},
        [("Subject01/Scene1/Color/rgb1", 177, 218, "Scroll_hand", "frame", "val")],
    ),
    "nvgesture": (
        "nvgesture_test_correct_v2.lst",
        "path:./Video_data/class_01/subject3_r1 depth:sk_depth:60:140 color:sk_color:64:144 duo_left:duo:1:9 label:1\n",
        {},
        [("Video_data/class_01/subject3_r1", 64, 144, "1", "frame", "test")],
    ),
    "jester": (
        "jester-v1-train.csv",
        "34870;Drumming Fingers\n56557;Sliding Two Fingers Right\n",
        {},
        [
            ("34870", None, None, "Drumming Fingers", "s", "train"),
            ("56557", None, None, "Sliding Two Fingers Right", "s", "train"),
        ],
    ),
    "kinetics": (
        "val.csv",
        "label,youtube_id,time_start,time_end,split,is_cc\nabseiling,0wR5jVB-WPk,417,427,val,0\n",
        {},
        [("0wR5jVB-WPk", 417, 427, "abseiling", "s", "val")],
    ),
    "ava": (
        "ava_val_v2.1.csv",
        "".join(f"_7oWZq_s_Sk,{second},0.1,0.2,0.3,0.9,{action},7\n" for second, action in (
            (902, 80), (903, 80), (903, 80), (905, 80), (903, 1)
        )),
        {"ava_action_list_v2.2.pbtxt": 'item {\n  name: "bend/bow"\n  id: 1\n}\nitem {\n  name: "watch"\n  id: 80\n}\n'},
        [
            ("_7oWZq_s_Sk", 901.5, 903.5, "watch", "s", "val"),
            ("_7oWZq_s_Sk", 904.5, 905.5, "watch", "s", "val"),
            ("_7oWZq_s_Sk", 902.5, 903.5, "bend/bow", "s", "val"),
        ],
    ),
    "thumos": (
        "list.txt",
        "video_validation_0000681 6 44.0 50.9\n",
        {},
        [("video_validation_0000681", 44.0, 50.9, "6", "s", None)],
    ),
    "thumos-class": (
        "BaseballPitch_val.txt",
        "video_validation_0000266  72.8 76.4\n",
        {},
        [("video_validation_0000266", 72.8, 76.4, "BaseballPitch", "s", "val")],
    ),
    "ucf101": (
        "trainlist01.txt",
        "Archery/v_Archery_g08_c01.avi 3\nBowling/v_Bowling_g08_c02.avi 16\n",
        {},
        [
            ("Archery/v_Archery_g08_c01.avi", None, None, "Archery", "s", "train"),
            ("Bowling/v_Bowling_g08_c02.avi", None, None, "Bowling", "s", "train"),
        ],
    ),
    "hmdb51": (
        "brush_hair_test_split1.txt",
        "a_brush_1.avi 1 \nb_brush_2.avi 2 \nc_brush_3.avi 0 \n",
        {},
        [
            ("a_brush_1.avi", None, None, "brush_hair", "s", "train"),
            ("b_brush_2.avi", None, None, "brush_hair", "s", "test"),
        ],
    ),
    "mmaction2-video": (
        "kinetics_train_list_videos.txt",
        "a/b.mp4 0 3\nc.mp4 1\n",
        {"label_map.txt": "wave\nclap\nturn\nrun away\n"},
        [
            ("a/b.mp4", None, None, "wave", "s", "train"),
            ("a/b.mp4", None, None, "run away", "s", "train"),
            ("c.mp4", None, None, "clap", "s", "train"),
        ],
    ),
    "mmaction2-rawframes": ("list.txt", "imgs 5 127\n", {}, [("imgs", None, None, "127", "s", None)]),
    "mmaction2-rawframes-offset": ("list.txt", "imgs 2 5 127\n", {}, [("imgs", 2, 7, "127", "frame", None)]),
    "epic-kitchens": (
        "EPIC_100_train.csv",
        "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
        "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
        "P01_11_1,P01,P01_11,00:00:01.7,00:00:01.56,00:01:02.45,93,147,put down plate,put-down,1,plate,2,['plate'],[2]\n",
        {},
        [("P01_11", 1.56, 62.45, "put-down", "s", "train"), ("P01_11", 1.56, 62.45, "plate", "s", "train")],
    ),
    "muwiges": (
        "val.csv",
        "videos/video_7.avi,2\n",
        {"classes.txt": "G1\nG2\nG3\n"},
        [("videos/video_7.avi", None, None, "G3", "s", "val")],
    ),
}  # fmt: skip


def test_samples_cover_all_presets():
    assert set(SAMPLES) == {path.stem for path in PRESETS.glob("*.toml")}


@pytest.mark.parametrize("name", SAMPLES)
def test_preset_reads_its_list(tmp_path, name):
    file, text, others, expected = SAMPLES[name]
    path = written(tmp_path, file, text)
    for other, content in others.items():
        written(tmp_path, other, content)
    rows = rows_of(path, format=name)
    assert [(row.recording, row.label, row.unit, row.split) for row in rows] == [
        (recording, label, unit, split) for recording, _, _, label, unit, split in expected
    ]
    for row, (_, onset, offset, *_) in zip(rows, expected, strict=True):
        assert row.is_full_clip == (onset is None)
        if onset is not None:
            assert (row.onset, row.offset) == (pytest.approx(onset), pytest.approx(offset))


@pytest.mark.parametrize("name", SAMPLES)
def test_auto_never_guesses_a_list(tmp_path, name):
    file, text, _, _ = SAMPLES[name]
    path = written(tmp_path, file, text)
    if load_preset(PRESETS / f"{name}.toml").recognized:
        assert read_annotations(path) == read_annotations(path, format=name)
        assert resembling_formats(path) == [name]
    else:
        with pytest.raises(AmbiguousListError) as error:
            read_annotations(path)
        assert name in error.value.presets


DAMAGED = {
    "ipn-hand": ("a 1 5\n", "it has 3 cells instead of 4 (recording class onset_frame offset_frame): 'a 1 5'"),
    "egogesture": ("a 1 0 17\n", "frame 0 is before the first frame, which is 1"),
    "nvgesture": (
        "path:a label:1\n",
        r"it does not have the form path:(?P<recording>\S+) (?:.* )?color:[^: ]+:(?P<onset_frame>\d+):"
        r"(?P<offset_frame>\d+) (?:.* )?label:(?P<class>\d+)",
    ),
    "jester": ("1;wave;2\n", "it has 3 cells instead of 2 (recording label): '1 wave 2'"),
    "ava": ("_7oWZq_s_Sk,x,0,0,1,1,4\n", "'x' is not a time. Give seconds or HH:MM:SS.mmm"),
    "thumos": ("video_test_0000001 run 1 2\n", "'run' is not the number of a class"),
    "hmdb51": ("a.avi 3\n", "'3' is no split of this list. Give one of 0, 1, 2"),
    "mmaction2-video": ("a.mp4\n", "it has 1 cells instead of 2 or more (recording class*): 'a.mp4'"),
    "mmaction2-rawframes": ("imgs 5.5 1\n", "'5.5' is not the number of a frame"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_row_of_a_list(tmp_path, name):
    text, message = DAMAGED[name]
    [row] = read_annotations(written(tmp_path, "a_test_split1.txt", text), format=name)
    assert isinstance(row, RowError)
    assert (str(row), row.line) == (message, 1)


def test_class_that_the_names_lack(tmp_path):
    written(tmp_path, "classIndAll.txt", "1 D0X\n2 B0A\n")
    [row] = read_annotations(written(tmp_path, "list.txt", "a 3 1 5\n"), format="ipn-hand")
    assert str(row) == "class 3 is not in classIndAll.txt, which has 1 to 2"


def test_class_names_of_the_user(tmp_path):
    names = written(tmp_path, "other/names.csv", "id,name\n0,wave\n1,clap\n")
    path = written(tmp_path, "list.txt", "a.mp4 1\n")
    assert [row.label for row in rows_of(path, format="mmaction2-video", classes=names)] == ["clap"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wave\nclap hands\n", {0: "wave", 1: "clap hands"}),
        ("1 wave\n2 clap hands\n", {1: "wave", 2: "clap hands"}),
        ("wave 4\nclap hands 7", {4: "wave", 7: "clap hands"}),
        ('id,name\n0,"wave"\n1,"clap"\n', {0: "wave", 1: "clap"}),
    ],
)
def test_class_names_forms(tmp_path, text, expected):
    assert ClassNames.read(written(tmp_path, "c.txt", text)).by_number == expected


def test_class_number_with_two_names(tmp_path):
    path = written(tmp_path, "c.txt", "1 wave\n1 clap\n")
    with pytest.raises(UserError) as error:
        ClassNames.read(path)
    assert str(error.value) == f"{path} names class 1 twice: 'wave' and 'clap'."


def test_ambiguous_list_names_the_presets(tmp_path):
    path = written(tmp_path, "list.txt", "a 1 1 17\nb 2 18 55\n")
    with pytest.raises(AmbiguousListError) as error:
        read_annotations(path)
    assert str(error.value) == (
        f"{path} is a list without a header. It resembles the presets egogesture, ipn-hand, mmaction2-rawframes, "
        "mmaction2-rawframes-offset, mmaction2-video. Name the right one with study.segment_format in actionprep.toml, or "
        "with 'actionprep init --segments list.txt --segment-format egogesture'. 'actionprep formats NAME' prints a "
        "preset, to copy into a TOML file and change."
    )


def test_preset_of_the_user(tmp_path):
    text = preset_text("ipn-hand").replace("first_number = 1", "first_number = 0").replace('"inclusive"', '"exclusive"')
    preset = written(tmp_path, "mine.toml", text)
    path = written(tmp_path, "list.txt", "a 1 10 20\n")
    [row] = rows_of(path, format=str(preset))
    assert (row.onset, row.offset, row.label) == (10, 20, "1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = 1", "title"),
        ('title = "x"\ncolumns = ["onset_fram"]', "No field 'onset_fram'. Did you mean 'onset_frame'?"),
        ('title = "x"\ncolumns = ["class"]', "a preset needs the field recording"),
        ('title = "x"\npattern = "("', "is not a regular expression"),
        ('title = "x"\ncolumns = ["recording", "onset", "offset_frame"]', "times must have one unit"),
        ('title = "x"', "a preset needs one of columns, header and pattern"),
        ("title =", "is not valid TOML"),
    ],
)
def test_preset_that_is_wrong(tmp_path, text, message):
    preset = written(tmp_path, "mine.toml", text)
    with pytest.raises(UserError) as error:
        read_annotations(written(tmp_path, "list.txt", "a 1\n"), format=str(preset))
    assert message in str(error.value)
    assert str(preset) in str(error.value)


def test_kinetics_clip_that_was_cut_out(tmp_path):
    written(tmp_path, "k.csv", SAMPLES["kinetics"][1])
    fake_video(tmp_path / "videos" / "0wR5jVB-WPk_000417_000427.mp4", frames=250)
    folder = new_study(tmp_path, layout="views", pattern="{recording}.mp4", segments=("k.csv",))
    report = scan(folder, probe=FakeProbe())
    assert report.catalog.segments == {"0wR5jVB-WPk_000417_000427": (Segment(0.0, 10.0, "abseiling"),)}
    assert report.catalog.recordings[0].split == "val"


def test_split_lists_become_the_given_split(tmp_path):
    for name in ("Archery/v_Archery_g08_c01", "Archery/v_Archery_g01_c01"):
        fake_video(tmp_path / "videos" / f"{name}.avi")
    written(tmp_path, "lists/trainlist01.txt", "Archery/v_Archery_g08_c01.avi 1\n")
    written(tmp_path, "lists/testlist01.txt", "Archery/v_Archery_g01_c01.avi\n")
    report = scan(new_study(tmp_path, segments=("lists",)), probe=FakeProbe())
    assert {recording.id: (recording.label, recording.split) for recording in report.catalog.recordings} == {
        "Archery/v_Archery_g08_c01": ("Archery", "train"),
        "Archery/v_Archery_g01_c01": ("Archery", "test"),
    }
    assert report.catalog.segments == {}


def test_label_of_a_list_beside_another(tmp_path):
    for name in ("wave/a", "wave/b"):
        fake_video(tmp_path / "videos" / f"{name}.mp4")
    written(tmp_path, "list.csv", "wave/a.mp4;wave\nwave/b.mp4;clap\n")
    folder = new_study(tmp_path, segments=("list.csv",), segment_format="jester")
    report = scan(folder, probe=FakeProbe())
    assert [recording.label for recording in report.catalog.recordings] == ["wave", "wave"]
    assert [str(finding) for finding in report.findings] == [
        "conflicting labels: list.csv:2: recording 'wave/b' has label 'wave' and here 'clap'; the first is used"
    ]


def test_rows_that_give_a_clip_two_labels(tmp_path):
    fake_video(tmp_path / "videos/a.mp4")
    written(tmp_path, "list.csv", "a.mp4;wave\na.mp4;clap\n")
    settings = {"layout": "views", "pattern": "{recording}.mp4", "segment_format": "jester"}
    with pytest.raises(UserError) as error:
        scan(new_study(tmp_path, segments=("list.csv",), **settings), probe=FakeProbe())
    assert str(error.value) == (
        "list.csv:1 and list.csv:2 contradict each other: recording 'a' has label 'wave' and 'clap'. Correct one of them."
    )


def test_several_labels_of_a_clip_are_segments(tmp_path):
    tubes = [{"path": "v/0.mp4", "label": ["wave", "clap"], "dim": [50, 8, 8]}, {"path": "v/1.mp4", "label": ["wave"]}]
    written(tmp_path, "tiny_test.json", json.dumps({"tubes": tubes}))
    written(tmp_path, "classes.txt", "clap\nwave")
    for name in ("test/v/0", "test/v/1"):
        fake_video(tmp_path / "videos" / f"{name}.mp4", frames=50, fps=25)
    folder = new_study(tmp_path, layout="views", pattern="{recording}.mp4", segments=("tiny_test.json",))
    report = scan(folder, probe=FakeProbe())
    both = (Segment(0.0, 2.0, "wave"), Segment(0.0, 2.0, "clap"))
    assert set(report.catalog.segments["test/v/0"]) == set(both)
    assert [(entry.id, entry.label, entry.split) for entry in report.catalog.recordings] == [
        ("test/v/0", None, "test"),
        ("test/v/1", "wave", "test"),
    ]


def test_tinyvirat_label_that_the_classes_lack(tmp_path):
    written(tmp_path, "classes.txt", "clap\nrun\n")
    path = written(tmp_path, "tiny_train.json", '{"tubes": [{"path": "v/0.mp4", "label": ["wave"]}, {"path": 3}]}')
    assert [str(row) for row in read_annotations(path)] == [
        "tube 0 (v/0.mp4): label 'wave' is not in the file of class names",
        "tube 1 needs 'path' and 'label'",
    ]


def test_something_something_json(tmp_path):
    clips = [
        {
            "id": "78687",
            "label": "holding potato",
            "template": "Holding [something] next to [something]",
            "placeholders": [],
        },
        {"id": 3},
    ]
    path = written(tmp_path, "something-something-v2-validation.json", json.dumps(clips))
    row, damaged = read_annotations(path)
    assert row == AnnotatedRow("78687", 0.0, 0.0, "Holding something next to something", split="val", is_full_clip=True)
    assert str(damaged) == "clip 1 needs 'id' and 'template'"


def test_charades_actions(tmp_path):
    path = written(
        tmp_path,
        "Charades_v1_train.csv",
        'id,subject,scene,actions,length\nYSKX3,CP6Y,Bedroom,"c077 12.10 18.00;c001 5.40 x",31\nT5ECU,M7K8,Kitchen,,30\n',
    )
    written(tmp_path, "Charades_v1_classes.txt", "c001 Putting clothes\nc077 Putting a pillow\n")
    row, damaged = read_annotations(path)
    assert row == AnnotatedRow("YSKX3", 12.1, 18.0, "Putting a pillow", line=2, split="train")
    assert (str(damaged), damaged.line) == ("action 'c001 5.40 x': it must be a class, an onset and an offset", 2)


def test_init_tables_include_preset_and_classes(tmp_path):
    fake_video(tmp_path / "videos/a/a.mp4")
    for name in ("mine.toml", "names.txt"):
        written(tmp_path, name, "")
    folder = new_study(tmp_path, segment_format="mine.toml", segment_classes="names.txt")
    assert {path.name for path in tables_of(folder, folder.study)} == {"actionprep.toml", "mine.toml", "names.txt"}


def test_real_ipn_hand_list(shared_data):
    path = shared_data / "annotations/ipn_hand/trainlistall.txt"
    rows = rows_of(path, format="ipn-hand")
    lines = [line.split() for line in path.read_text().splitlines()]
    assert len(rows) == len(lines) == 4039
    assert (rows[1].recording, rows[1].onset, rows[1].offset, rows[1].label) == ("1CM1_4_R_#229", 17, 55, "G11")
    assert sum(row.offset - row.onset for row in rows) == sum(int(last) - int(first) + 1 for *_, first, last in lines)


def test_real_ava_list(shared_data):
    rows = rows_of(shared_data / "foreign/ava/ava_val_v2.1.csv")
    # 1941 distinct pairs of second and action in the file, one second each.
    assert sum(row.offset - row.onset for row in rows) == pytest.approx(1941)
    assert (rows[0].onset, rows[0].offset, rows[0].label) == (1635.5, 1636.5, "1")


@pytest.mark.parametrize(
    ("file", "number", "first"),
    [
        ("foreign/kinetics/kinetics-400_val.csv", 1999, ("0wR5jVB-WPk", 417.0, 427.0, "abseiling")),
        (
            "foreign/thumos/final_thumos_14_20_one_label_temporal_val.txt",
            2137,
            ("video_validation_0000681", 44, 50.9, "6"),
        ),
        (
            "foreign/ucf101_splits/testlist01.txt",
            3783,
            ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", 0, 0, "ApplyEyeMakeup"),
        ),
        ("foreign/charades/Charades_v1_test_200.csv", 1834, ("YSKX3", 12.1, 18.0, "c077")),
        ("annotations/epic_kitchens_100/EPIC_100_validation_first3000.csv", 6000, ("P01_11", 0.0, 1.89, "take")),
    ],
)
def test_real_lists_that_auto_reads(shared_data, file, number, first):
    rows = rows_of(shared_data / file)
    assert len(rows) == number
    assert (rows[0].recording, rows[0].onset, rows[0].offset, rows[0].label) == first


def test_class_names_in_a_folder_of_lists(tmp_path):
    for name in ("a", "b"):
        fake_video(tmp_path / "videos" / f"{name}.mp4", frames=50)
    written(tmp_path, "lists/trainlistall.txt", "./frames/a 2 1 25\n")
    written(tmp_path, "lists/testlistall.txt", "./frames/b 1 1 25\n")
    names = written(tmp_path, "lists/classIndAll.txt", "1 D0X\n2 B0A\n")
    settings = {"layout": "views", "pattern": "{recording}.mp4", "segments": ("lists",), "segment_format": "ipn-hand"}
    folder = new_study(tmp_path, **settings)
    report = scan(folder, probe=FakeProbe())
    assert report.catalog.segments == {"a": (Segment(0.0, 1.0, "B0A"),), "b": (Segment(0.0, 1.0, "D0X"),)}
    assert [recording.split for recording in report.catalog.recordings] == ["train", "test"]
    assert not [finding for finding in report.findings if "classIndAll" in finding.where]
    assert names in tables_of(folder, folder.study)


def test_file_names_of_data_sets(tmp_path):
    for name in ("nturgb+d_rgb/S001C001P002R001A013_rgb.avi", "nturgb+d_rgb/S001C002P002R001A013_rgb.avi"):
        fake_video(tmp_path / "ntu" / name)
    report = scan(new_study(tmp_path, layout="views", videos="ntu", pattern="ntu"), probe=FakeProbe())
    [recording] = report.catalog.recordings
    assert (recording.id, recording.label, recording.subject, recording.session) == (
        "S001P002R001A013", "A013", "P002", "S001",
    )  # fmt: skip
    assert [view.id for view in report.catalog.views] == ["C001", "C002"]
    fake_video(tmp_path / "utd/a27_s8_t4_color.avi")
    fake_video(tmp_path / "utd/other.avi")
    report = scan(new_study(tmp_path, layout="views", videos="utd", pattern="utd-mhad"), probe=FakeProbe())
    assert [(entry.id, entry.label, entry.subject) for entry in report.catalog.recordings] == [
        ("a27_s8_t4", "a27", "s8")
    ]
    assert "file not used: utd/other.avi: does not match the pattern 'utd-mhad'" in map(str, report.findings)
