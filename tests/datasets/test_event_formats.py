"""Annotation files of event coders: generated ones, damaged ones, and real ones with values that were read by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from actionprep.datasets.annotations import AnnotatedRow, RowError, check_segments, read_annotations
from actionprep.datasets.recording_names import RecordingNames
from actionprep.datasets.recordings import View
from actionprep.errors import UserError


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def short(rows: list[AnnotatedRow | RowError]) -> list[tuple]:
    """Recording, onset, offset, label and layer of each row; the text of an error."""
    return [
        str(row)
        if isinstance(row, RowError)
        else (row.recording, round(row.onset, 6), round(row.offset, 6), row.label, row.layer)
        for row in rows
    ]


# BORIS

PROJECT = {
    "project_format_version": "7.0",
    "behaviors_conf": {
        "0": {"type": "State event", "code": "run"},
        "1": {"type": "Point event", "code": "poke"},
        "2": {"type": "State event with coding map", "code": "dig"},
    },
    "subjects_conf": {},
    "observations": {
        "one": {
            "file": {"1": ["a.mp4", "b.mp4"], "2": ["top.mp4"], "3": []},
            "media_info": {"length": {"a.mp4": 10.0, "b.mp4": 20.0}, "offset": {"1": 0.0, "2": 2.0}},
            "events": [
                [1.0, "rat", "run", "", ""],
                [2.0, "", "run", "", ""],
                [3.0, "rat", "run", "", ""],
                [4.5, "", "run", "", "comment"],
                [5.0, "", "poke", "", ""],
                [12.0, "", "dig", "fast|None", ""],
                [14.0, "", "dig", "fast|None", ""],
                [9.0, "", "dig", "", ""],
                [11.0, "", "dig", "", ""],
                [25.0, "", "run", "", ""],
                [26.0, "", "jump", "", ""],
            ],
        },
        "live": {"type": "LIVE", "file": [], "events": [[1.0, "", "run", "", ""], [2.0, "", "run", "", ""]]},
    },
}


def test_boris_project(tmp_path: Path) -> None:
    rows = read_annotations(write(tmp_path, "study.boris", PROJECT))
    assert short(rows) == [
        ("a.mp4", 1.0, 3.0, "run", "rat"),
        ("a.mp4", 2.0, 4.5, "run", ""),
        ("a.mp4", 5.0, 5.0, "poke", ""),
        "'dig' from 9 to 11 s of observation 'one' continues from the media file 'a.mp4' into the next one at 10 s. Split it "
        "there in BORIS",
        ("b.mp4", 2.0, 4.0, "dig", ""),
        "observation 'one' has 'jump' at 26 s, which the project does not define",
        "'run' starts at 25 s of observation 'one' and has no stop",
        ("live", 1.0, 2.0, "run", ""),
    ]
    point = rows[2]
    assert isinstance(point, AnnotatedRow)
    assert point.is_point
    # The second player begins 2 s after the first one: what is at 5 s there is at 3 s in its file.
    assert point.alternatives == (("top.mp4", -2.0),)


def test_boris_modifiers_are_reported_or_used(tmp_path: Path) -> None:
    path = write(tmp_path, "study.boris", PROJECT)
    plain = [row for row in read_annotations(path) if isinstance(row, AnnotatedRow) and row.label == "dig"]
    assert plain[0].not_used.startswith("modifiers")
    used = read_annotations(path, format="boris-modifiers")
    assert ("b.mp4", 2.0, 4.0, "dig: fast", "") in short(used)


def test_boris_project_without_observations_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "study.boris", {"behaviors_conf": {}, "observations": []})
    with pytest.raises(
        UserError, match=r"is not a valid 'boris' annotation file: it has no 'observations', as projects"
    ):
        read_annotations(path)


NEW_TABULAR = """Observation id,Observation type,Source,Media duration (s),FPS,Subject,Behavior,Behavioral category,\
Modifier #1,Behavior type,Time,Media file name,Comment
o,Media file(s),player #1:a.mp4;b.mp4|player #2:c.mp4,10.000;20.000|30.000,25;25|25,rat,run,,fast,START,12.000,b.mp4,
o,Media file(s),player #1:a.mp4;b.mp4|player #2:c.mp4,10.000;20.000|30.000,25;25|25,No focal subject,poke,,,POINT,13.000,b.mp4,
o,Media file(s),player #1:a.mp4;b.mp4|player #2:c.mp4,10.000;20.000|30.000,25;25|25,rat,run,,fast,STOP,15.500,b.mp4,
o,Media file(s),player #1:a.mp4;b.mp4|player #2:c.mp4,10.000;20.000|30.000,25;25|25,rat,run,,fast,STOP,16.000,b.mp4,
"""


def test_boris_tabular_events_of_newer_versions(tmp_path: Path) -> None:
    rows = read_annotations(write(tmp_path, "events.csv", NEW_TABULAR))
    assert short(rows) == [
        ("b.mp4", 3.0, 3.0, "poke", ""),
        ("b.mp4", 2.0, 5.5, "run", "rat"),
        "'run' stops at 16 s and was not started",
    ]


def test_boris_aggregated_events_of_joined_files_need_lengths(tmp_path: Path) -> None:
    """Times run on over the files; the length of the first one comes from the study's video."""
    header = (
        "Observation id\tMedia file\tTotal length\tSubject\tBehavior\tModifiers\tBehavior type\tStart (s)\tStop (s)\n"
    )
    rows = "o\ta.mp4\t30.0\t\trun\t\tSTATE\t1.0\t2.0\no\tb.mp4\t30.0\t\trun\t\tSTATE\t12.0\t13.5\n"
    path = write(tmp_path, "events.tsv", header + rows)
    a = View("a", "0", "a.mp4", num_frames=100, fps=10.0, frame_times=np.arange(100) / 10)
    b = View("b", "0", "b.mp4", num_frames=200, fps=10.0, frame_times=np.arange(200) / 10)
    views = {"a": (a,), "b": (b,)}
    names = RecordingNames.of(views, (a, b))
    checked = check_segments(read_annotations(path), source="t", names=names, views=views)
    assert [(segment.onset, segment.offset) for segment in checked.segments["a"]] == [(1.0, 2.0)]
    assert [(segment.onset, segment.offset) for segment in checked.segments["b"]] == [(2.0, 3.5)]
    only_b = RecordingNames.of(["b"], [b])
    checked = check_segments(read_annotations(path), source="t", names=only_b, views={"b": (b,)})
    assert not checked.segments
    assert any("the length of 'a.mp4' is not known" in str(finding) for finding in checked.findings)
    short_file = write(tmp_path, "other.tsv", (header + rows).replace("\t30.0\t", "\t45.0\t"))
    checked = check_segments(read_annotations(short_file), source="t", names=names, views=views)
    assert any("so a file without events is missing" in str(finding) for finding in checked.findings)


def test_point_events_get_a_length_or_are_counted(tmp_path: Path) -> None:
    a = View("a", "0", "a.mp4", num_frames=100, fps=10.0, frame_times=np.arange(100) / 10)
    rows = read_annotations(write(tmp_path, "study.boris", PROJECT))
    names = RecordingNames.of(["a"], [a])
    checked = check_segments(rows, source="study.boris", names=names, views={"a": (a,)})
    assert "1 point event without length (poke 1) left out; study.point_length = 500" in "".join(
        map(str, checked.findings)
    )
    checked = check_segments(rows, source="study.boris", names=names, views={"a": (a,)}, point_length_s=0.5)
    assert [(segment.onset, segment.offset) for segment in checked.segments["a"] if segment.label == "poke"] == [
        (5.0, 5.5)
    ]


def test_boris_workbook(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for line in NEW_TABULAR.replace("\\\n", "").splitlines():
        book.active.append(line.split(","))
    book.save(tmp_path / "events.xlsx")
    assert ("b.mp4", 2.0, 5.5, "run", "rat") in short(read_annotations(tmp_path / "events.xlsx"))


# CVAT

CVAT = """<?xml version="1.0"?><annotations><version>1.1</version>
<meta><task><id>5</id><name>task</name><frame_filter>step=3</frame_filter><source>a.mp4</source></task></meta>
<track id="0" label="person">
 <box frame="0" outside="0" keyframe="1"><attribute name="doing">sit</attribute></box>
 <box frame="6" outside="0" keyframe="1"><attribute name="doing">walk</attribute></box>
 <box frame="9" outside="1" keyframe="1"/>
 <box frame="15" outside="0" keyframe="1"/>
</track>
<track id="1" label="dog"><box frame="x" outside="0"/></track></annotations>"""


def test_cvat_tracks_are_segments(tmp_path: Path) -> None:
    rows = read_annotations(write(tmp_path, "annotations.xml", CVAT))
    assert short(rows) == [
        ("a.mp4", 0, 9, "person", ""),
        ("a.mp4", 15, 18, "person", ""),
        ("a.mp4", 0, 6, "sit", "doing"),
        ("a.mp4", 6, 9, "walk", "doing"),
        ("a.mp4", 15, 18, "walk", "doing"),
        "track 1 is damaged: invalid literal for int() with base 10: 'x'",
    ]
    assert all(row.unit == "frame" for row in rows if isinstance(row, AnnotatedRow))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CVAT[:300], "its XML is broken"),
        ('<annotations><task></task><image id="0"/></annotations>', "export 'CVAT for video 1.1' instead"),
    ],
)
def test_cvat_names_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_annotations(write(tmp_path, "annotations.xml", text), format="cvat")


# Label Studio


def timeline(start: int, end: int, label: str) -> dict:
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}
    return {"type": "timelinelabels", "from_name": "tricks", "to_name": "video", "value": value}


def test_label_studio_timelines(tmp_path: Path) -> None:
    task = {
        "data": {"video": "/data/upload/3/0a1b2c3d-walk.mp4"},
        "annotations": [
            {"completed_by": {"id": 1, "email": "a@b.c"}, "result": [timeline(1, 10, "run")]},
            {"was_cancelled": True, "result": [timeline(1, 10, "hop")]},
        ],
    }
    (row,) = read_annotations(write(tmp_path, "tasks.json", [task]))
    assert short([row]) == [("/data/upload/3/walk.mp4", 0, 10, "run", "tricks")]
    assert (row.annotator, row.unit) == ("a@b.c", "frame")
    minimal = [
        {"video": "s3://bucket/walk.mp4", "tricks": [{"ranges": [{"start": 3, "end": 3}], "timelinelabels": ["x"]}]}
    ]
    assert short(read_annotations(write(tmp_path, "min.json", minimal))) == [("/walk.mp4", 2, 3, "x", "tricks")]


def test_label_studio_without_timelines_is_refused(tmp_path: Path) -> None:
    box = {"type": "videorectangle", "to_name": "video", "value": {"labels": ["cat"], "sequence": []}}
    path = write(tmp_path, "tasks.json", [{"data": {"video": "a.mp4"}, "annotations": [{"result": [box]}]}])
    with pytest.raises(UserError, match="it has no timeline labels; it has videorectangle"):
        read_annotations(path)


# VIA, Datavyu, Bento, Praat, JABS, V-TRACE


def test_via_project(tmp_path: Path) -> None:
    project = {
        "project": {"vid_list": ["1"]},
        "attribute": {"1": {"aname": "act", "type": 4, "options": {"0": "run"}}},
        "file": {"1": {"fname": "a.mp4", "src": "file:///x/a.mp4"}},
        "view": {"1": {"fid_list": [1]}},
        "metadata": {
            "x": {"vid": "1", "z": [1.5, 2.5], "xy": [], "av": {"1": "0"}},
            "y": {"vid": "1", "z": [1.5], "xy": [2, 3, 4], "av": {"1": "0"}},
            "z": {"vid": "7", "z": [1.5, 2.5], "xy": [], "av": {"1": "0"}},
            "w": {"vid": "1", "z": [1.5, 2.5], "xy": [], "av": {"1": "8"}},
        },
    }
    assert short(read_annotations(write(tmp_path, "project.json", project))) == [
        ("a.mp4", 1.5, 2.5, "run", "act"),
        "segment 'z' is damaged: KeyError('7')",
        "attribute 'act' has no option '8'",
    ]
    with pytest.raises(UserError, match="it has no 'attribute' and 'file' and 'view' and 'metadata'"):
        read_annotations(write(tmp_path, "half.json", {"vid_list": []}), format="via-project")


def test_datavyu_long_and_wide(tmp_path: Path) -> None:
    long = write(
        tmp_path,
        "long.csv",
        "file,column,ordinal,onset,offset,hand,look\nd1,reach,1,1000,2500,left,\nd1,reach,2,3,3,,\n",
    )
    rows = read_annotations(long)
    assert short(rows) == [("d1", 1.0, 2.5, "left", "reach.hand"), ("d1", 0.003, 0.003, "reach", "reach")]
    assert [row.is_point for row in rows if isinstance(row, AnnotatedRow)] == [False, True]
    wide = write(
        tmp_path,
        "wide.csv",
        "a.ordinal,a.onset,a.offset,a.code01,b.ordinal,b.onset,b.offset\n1,0,500,x,1,200,900\n,,,,2,y,1000\n",
    )
    assert short(read_annotations(wide)) == [
        (None, 0.0, 0.5, "x", "a.code01"),
        (None, 0.2, 0.9, "b", "b"),
        "its times 'y' and '1000' are not milliseconds",
    ]


@pytest.mark.parametrize(
    ("row", "times"),
    [
        ("4 6 3", (3 / 30, 6 / 30)),  # frames from 1, the last one included
        ("0.133333 0.2 0.1", (3 / 30, 6 / 30)),  # the same, divided by the frame rate
        ("0.1 0.2 0.1", (0.1, 0.2)),  # plain seconds
    ],
)
def test_bento_times(tmp_path: Path, row: str, times: tuple[float, float]) -> None:
    text = f"Bento annotation file\nMovie file(s): C:\\my data\\a.mp4 b.seq\nAnnotation framerate: 30.0\n\nCh1-----\n>dig\nStart Stop Duration\n{row}\n"
    (result,) = read_annotations(write(tmp_path, "x.annot", text))
    assert isinstance(result, AnnotatedRow)
    assert (result.onset, result.offset) == pytest.approx(times, abs=1e-5)
    assert (result.recording, result.label, result.layer) == ("C:\\my data\\a.mp4", "dig", "Ch1")
    assert [name for name, _ in result.alternatives] == ["b.seq", "x"]


def test_bento_without_a_frame_rate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it has no line 'Annotation framerate: 30'"):
        read_annotations(write(tmp_path, "x.annot", "Bento annotation file\n>dig\n"))


SHORT_GRID = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n5\n<exists>\n2\n"IntervalTier"\n"w"\n0\n5\n2\n0\n2.5\n"say ""hi"""\n2.5\n5\n""\n"TextTier"\n"p"\n0\n5\n1\n1.25\n"tap"\n'
LONG_GRID = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "w"
        xmin = 0
        xmax = 5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 2.5
            text = "say ""hi"""
        intervals [2]:
            xmin = 2.5
            xmax = 5
            text = ""
    item [2]:
        class = "TextTier"
        name = "p"
        xmin = 0
        xmax = 5
        points: size = 1
        points [1]:
            number = 1.25
            mark = "tap"
'''


@pytest.mark.parametrize("text", [SHORT_GRID, LONG_GRID], ids=["short", "long"])
def test_praat_grids(tmp_path: Path, text: str) -> None:
    rows = read_annotations(write(tmp_path, "a.TextGrid", text))
    assert short(rows) == [("a", 0.0, 2.5, 'say "hi"', "w"), ("a", 1.25, 1.25, "tap", "p")]
    assert "ends before its last tier" in short(read_annotations(write(tmp_path, "b.TextGrid", text[:-30])))[-1]


ELAN_ROWS = [
    [
        "hands",
        "anna",
        "00:00:00.780",
        "0.78",
        "780",
        "00:00:01.340",
        "1.34",
        "1340",
        "00:00:00.560",
        "0.56",
        "560",
        "wave",
    ],
    ["hands", "", "00:00:02.000", "2.0", "2000", "00:00:03.500", "3.5", "3500", "00:00:01.500", "1.5", "1500", "7"],
]


@pytest.mark.parametrize("forms", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("duration", [True, False])
def test_elan_export_without_header(tmp_path: Path, forms: tuple[int, ...], duration: bool) -> None:
    edges = (2, 5, 8) if duration else (2, 5)
    rows = [[*row[:2], *(row[edge + form] for edge in edges for form in forms), row[-1]] for row in ELAN_ROWS]
    if not duration and forms == (2,):
        rows[1][-1] = "nod"  # 7 would be a third time
    path = write(tmp_path, "a.txt", "".join("\t".join(row) + "\n" for row in rows))
    assert short(read_annotations(path)) == [
        ("a", 0.78, 1.34, "wave", "hands"),
        ("a", 2.0, 3.5, rows[1][-1], "hands"),
    ]


def test_elan_export_without_header_names_its_file(tmp_path: Path) -> None:
    row = "hands\t\t780\t1340\t560\t\tfile:///C:/day/take_7.eaf\n"
    [read] = read_annotations(write(tmp_path, "a.txt", row))
    assert (read.recording, read.label, read.label_from_layer) == ("/C:/day/take_7", "hands", True)
    [_, wrong] = read_annotations(write(tmp_path, "b.txt", row + "hands\t\t780\t1340\t999\t\n"), format="elan-export")
    assert (wrong.line, str(wrong)) == (
        2, "expected tier, participant, begin, end, duration and value, separated by tabs"
    )  # fmt: skip


def test_jabs_labels(tmp_path: Path) -> None:
    document = {
        "file": "a.avi",
        "num_frames": 90,
        "labels": {
            "0": {"groom": [{"start": 3, "end": 5, "present": True}, {"start": 8, "end": 9, "present": False}]},
            "1": {"groom": [{"start": 3, "present": True}]},
        },
    }
    assert short(read_annotations(write(tmp_path, "a.json", document))) == [
        ("a.avi", 3, 6, "groom", "0"),
        ("a.avi", 8, 10, "not groom", "0"),
        "labels of animal '1' are damaged: KeyError('end')",
    ]


def test_vtrace_names_the_video_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "take").mkdir()
    rows = read_annotations(
        write(tmp_path, "take/cam0.csv", "labelId,timestamp,endTimestamp\nrun,0.033,12.2\nrun,x,1\n")
    )
    assert short(rows) == [
        ("take/cam0", 0.033, 12.2, "run", ""),
        "'x' is not a time. Give seconds or HH:MM:SS.mmm",
    ]


# Real files


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("boris/test.boris", 92, ("video_test_25fps_360s.mp4", 22.425, 22.425, "p", ""), None),
        (
            "boris/test_export_events_tabular.csv",
            4,
            ("video_test_25fps_360s.mp4", 3.3, 7.75, "s", "subject1"),
            ("video_test_25fps_360s.mp4", 38.425, 46.1, "s", "subject2"),
        ),
        (
            "boris/test_export_aggregated_events_test_full_1.tsv",
            18,
            ("video_test_25fps_180s.mp4", 1.8, 8.125, "s", ""),
            ("video_test_25fps_360s.mp4", 317.39, 320.365, "s", "subject2"),
        ),
        ("cvat/for_video_annotations.xml", None, ("t.mp4", 10, 13, "II", ""), None),
        (
            "label_studio/test_timeline_labels_1.json",
            2,
            ("tests/opossum_snow_short.mp4", 0.0, 0.4, "Car", "videoLabels"),
            ("tests/opossum_snow_short.mp4", 0.16, 0.6, "croquet_ball", "videoLabels"),
        ),
        ("via/via3_project_video.json", 8, ("Alioli.ogv.480p.vp9.webm", 2.0, 6.5, "1. break egg", "Activity"), None),
        ("datavyu/parenthands__dyad1.csv", None, ("dyad1", 96.019, 148.073, "parenthands", "parenthands"), None),
        (
            "bento/Together_1_head.annot",
            6,
            ("D:\\ANNOTATION_CHALLENGE\\Mouse06_Front.seq", 3.0, 5.233333, "Attack", "Ch1"),
            ("D:\\ANNOTATION_CHALLENGE\\Mouse06_Front.seq", 8.933333, 9.366667, "Sniffing", "Ch1"),
        ),
    ],
)
def test_real_files(shared_data: Path, name: str, count: int | None, first: tuple, last: tuple | None) -> None:
    rows = short(read_annotations(shared_data / "foreign" / name))
    assert count is None or len(rows) == count
    assert rows[0] == first
    assert last is None or rows[-1] == last


def test_real_boris_workbook_equals_its_csv(shared_data: Path) -> None:
    pytest.importorskip("openpyxl")
    table = shared_data / "foreign/boris/test_export_events_tabular.csv"
    assert short(read_annotations(table.with_suffix(".xlsx"))) == short(read_annotations(table))


# Damage

SAMPLES = {
    "boris": ("s.boris", json.dumps(PROJECT)),
    "boris-table": ("s.csv", NEW_TABULAR),
    "cvat": ("s.xml", CVAT),
    "label-studio": (
        "s.json",
        json.dumps([{"data": {"video": "a.mp4"}, "annotations": [{"result": [timeline(1, 2, "x")]}]}]),
    ),
    "via-project": (
        "s.json",
        '{"vid_list":[],"attribute":{"1":{"aname":"a","type":4,"options":{"0":"x"}}},"file":{"1":{"fname":"a"}},'
        '"view":{"1":{"fid_list":[1]}},"metadata":{"x":{"vid":"1","z":[1,2],"av":{"1":"0"}}}}',
    ),
    "datavyu": ("s.csv", "file,column,ordinal,onset,offset,hand\nd1,reach,1,1000,2500,left\n"),
    "bento": (
        "s.annot",
        "Bento annotation file\nAnnotation framerate: 30\nCh1-----\n>dig\nStart Stop Duration\n4 6 3\n",
    ),
    "praat": ("s.TextGrid", LONG_GRID),
    "jabs": ("s.json", '{"num_frames": 9, "labels": {"0": {"groom": [{"start": 3, "end": 5, "present": true}]}}}'),
    "vtrace": ("s.csv", "labelId,timestamp,endTimestamp\nrun,0.033,12.2\n"),
}


@pytest.mark.parametrize("format", SAMPLES)
def test_mutated_files_give_our_errors_only(tmp_path: Path, format: str) -> None:
    name, text = SAMPLES[format]
    generator = np.random.default_rng(7)
    data = np.frombuffer(text.encode(), np.uint8)
    assert read_annotations(write(tmp_path, name, text), format=format)
    for _ in range(50):
        mutated = data.copy()
        at = generator.integers(0, len(data), 3)
        mutated[at] = generator.integers(0, 256, 3)
        start = int(generator.integers(0, len(data)))
        mutated = np.concatenate([mutated[:start], mutated[start + int(generator.integers(0, 12)) :]])
        (tmp_path / name).write_bytes(mutated.tobytes())
        try:
            rows = read_annotations(tmp_path / name, format=format)
        except UserError:
            continue
        assert all(isinstance(row, (AnnotatedRow, RowError)) for row in rows)


def test_boris_time_offset_is_taken_away(tmp_path: Path) -> None:
    project = json.loads(json.dumps(PROJECT))
    project["observations"]["live"]["time offset"] = 0.75
    assert ("live", 0.25, 1.25, "run", "") in short(read_annotations(write(tmp_path, "s.boris", project)))
    table = "Observation id,Time offset (s),Subject,Behavior,Behavior type,Start (s),Stop (s),Media file name\n"
    rows = read_annotations(write(tmp_path, "s.csv", f"{table}o,0.5,,run,STATE,1.5,2.5,a.mp4\n"))
    assert short(rows) == [("a.mp4", 1.0, 2.0, "run", "")]


@pytest.mark.parametrize("name", ["s.xml", "s.eaf"])
def test_xml_entities_are_refused(tmp_path: Path, name: str) -> None:
    kind = "cvat" if name == "s.xml" else "elan"
    text = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e "boom">]><annotations><track label="&e;"/></annotations>'
    with pytest.raises(UserError, match="it declares a document type"):
        read_annotations(write(tmp_path, name, text), format=kind)


def test_cvat_source_beside_the_task(tmp_path: Path) -> None:
    text = CVAT.replace("<source>a.mp4</source></task>", "</task><source>b.mp4</source>")
    assert short(read_annotations(write(tmp_path, "s.xml", text)))[0] == ("b.mp4", 0, 9, "person", "")
