"""Annotation files of several formats, and invalid rows."""

from __future__ import annotations

import csv
import itertools
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_fakes import view

from actionprep.datasets.annotations import (
    AnnotatedRow,
    CheckedSegments,
    RecordingNames,
    RowError,
    check_segments,
    parse_time,
    read_annotations,
)
from actionprep.datasets.recordings import View
from actionprep.datasets.segments import Segment
from actionprep.errors import UserError


def written(tmp_path: Path, text: str, name: str = "labels.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def checked(*rows: AnnotatedRow, views: tuple[View, ...] = (view("a"),)) -> CheckedSegments:
    by_recording = {
        entry.recording: [other for other in views if other.recording == entry.recording] for entry in views
    }
    return check_segments(
        rows, source="labels.csv", names=RecordingNames.of(by_recording, views), views=by_recording, only=("a", None)
    )


def test_plain_csv_has_times_in_seconds_or_clock_time(tmp_path):
    path = written(
        tmp_path,
        "recording;onset;offset;label;layer;annotator\na;1.5;2,25;wave;hands;ann\na;00:01:02.500;1:03;clap;;\n",
    )
    assert read_annotations(path) == [
        AnnotatedRow("a", 1.5, 2.25, "wave", "hands", "ann", line=2),
        AnnotatedRow("a", 62.5, 63.0, "clap", line=3),
    ]


@pytest.mark.parametrize(
    ("columns", "row", "expected"),
    [
        ("onset_ms,offset_ms", "1500,2250", AnnotatedRow(None, 1.5, 2.25, "wave", line=2)),
        ("onset_frame,offset_frame", "3,7", AnnotatedRow(None, 3, 7, "wave", unit="frame", line=2)),
    ],
)
def test_plain_csv_may_have_milliseconds_or_frames(tmp_path, columns, row, expected):
    assert read_annotations(written(tmp_path, f"{columns},label\n{row},wave\n")) == [expected]


def test_columns_may_have_other_names(tmp_path):
    path = written(tmp_path, "video,from,to,what\na,1,2,wave\n")
    columns = {"recording": "video", "onset": "from", "offset": "to", "label": "what"}
    assert read_annotations(path, columns=columns) == [AnnotatedRow("a", 1.0, 2.0, "wave", line=2)]


def test_plain_csv_of_usual_columns_beside_renamed_ones(tmp_path):
    columns = {"recording": "video", "onset": "from", "offset": "to", "label": "what"}
    path = written(tmp_path, "recording,onset,offset,label\na,1,2,wave\n")
    assert read_annotations(path, columns=columns) == [AnnotatedRow("a", 1.0, 2.0, "wave", line=2)]


def test_activitynet_subset_becomes_the_split(tmp_path):
    path = written(
        tmp_path,
        '{"database": {"a": {"subset": "validation", "annotations": [{"segment": [1, 2], "label": "wave"}]}}}',
        name="anet.json",
    )
    assert read_annotations(path) == [AnnotatedRow("a", 1.0, 2.0, "wave", split="validation")]


def test_annotation_csv_without_columns_names_the_required_ones(tmp_path):
    path = written(tmp_path, "video,from,to,what\na,1,2,wave\n")
    with pytest.raises(UserError) as error:
        read_annotations(path)
    assert str(error.value) == (
        f"{path} has no column for onset and offset, label. A csv with segments needs the columns onset and offset (or "
        "onset_ms and offset_ms, onset_frame and offset_frame) and label; it has 'video', 'from', 'to', 'what'. Name "
        "others with study.segment_columns in actionprep.toml, or with 'actionprep init --segment-columns onset=COLUMN "
        "offset=COLUMN label=COLUMN'."
    )


def test_a_row_that_is_no_time_is_kept_apart(tmp_path):
    rows = read_annotations(written(tmp_path, "onset,offset,label\nsoon,2,wave\n1,2,wave\n"))
    assert isinstance(rows[0], RowError)
    assert (str(rows[0]), rows[0].line) == ("'soon' is not a time. Give seconds or HH:MM:SS.mmm", 2)
    assert rows[1] == AnnotatedRow(None, 1.0, 2.0, "wave", line=3)


@given(milliseconds=st.integers(0, 10**8))
def test_clock_times_are_read_to_the_millisecond(milliseconds):
    seconds, rest = divmod(milliseconds, 1000)
    text = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"
    assert round(parse_time(text) * 1000) == milliseconds
    assert round(parse_time(f"-{text}") * 1000) == -milliseconds


@pytest.mark.parametrize("text", ["", "a", "1:2:3:4", "1::2", "1:b"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a time. Give seconds or HH:MM:SS"):
        parse_time(text)


VIA_OLD = (
    "Exported using VGG Image Annotator,,,\n"
    "file_list,temporal_segment_start,temporal_segment_end,metadata\n"
    '"[""seq_1_view_5.webm""]",12.5,14.25,"{""TEMPORAL-SEGMENTS"":""flip""}"\n'
    '"[""seq_1_view_5.webm""]",x,14.25,"{""TEMPORAL-SEGMENTS"":""flip""}"\n'
)
VIA_3 = (
    "# Exported using VGG Image Annotator\n"
    "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata\n"
    '"1_a","[""seq_1_view_5.webm""]",0,"[12.5,14.25]","[]","{""TEMPORAL-SEGMENTS"":""flip""}"\n'
    '"1_b","[""seq_1_view_5.webm""]",0,"[]","[2,1,1,5,5]","{}"\n'
)


@pytest.mark.parametrize(("text", "line", "extra"), [(VIA_OLD, 3, 1), (VIA_3, 3, 0)])
def test_via_csv_of_both_forms(tmp_path, text, line, extra):
    rows = read_annotations(written(tmp_path, text))
    assert rows[0] == AnnotatedRow("seq_1_view_5.webm", 12.5, 14.25, "flip", layer="TEMPORAL-SEGMENTS", line=line)
    assert [type(row) for row in rows[1:]] == [RowError] * extra


def test_activitynet_json(tmp_path):
    path = written(
        tmp_path,
        '{"database": {"v": {"annotations": [{"segment": [1, 2.5], "label": "wave"}, {"segment": [1]}]}}}',
        "labels.json",
    )
    rows = read_annotations(path)
    assert rows[0] == AnnotatedRow("v", 1.0, 2.5, "wave")
    assert isinstance(rows[1], RowError)


def test_activitynet_json_of_another_project(shared_data):
    rows = read_annotations(shared_data / "annotations" / "mmaction2" / "action_test_anno.json")
    assert rows == [
        AnnotatedRow("v_test1", 0.3, 0.6, "Rock climbing"),
        AnnotatedRow("v_test2", 1.0, 2.0, "Drinking beer"),
    ]


def test_a_real_elan_document(shared_data):
    [path] = (shared_data / "annotations" / "great_ape_gestures_elan").glob("*.eaf")
    rows = [row for row in read_annotations(path) if isinstance(row, AnnotatedRow)]
    # Counted independently: all annotations of the document, per tier.
    root = ElementTree.parse(path).getroot()
    expected = Counter({tier.get("TIER_ID"): len(tier.findall("ANNOTATION")) for tier in root.iter("TIER")})
    assert Counter(row.layer for row in rows) == +expected
    assert {row.recording for row in rows} == {"09.01.17_Example GApS coding1_Sex_KZ_KLN_R1.mp4"}
    assert all(row.offset > row.onset for row in rows)
    gesture = next(row for row in rows if row.label == "Out_arm")
    assert (gesture.onset, gesture.offset) == (0.267, 1.21)


def test_an_elan_document_with_origin_and_subdivisions(tmp_path):
    path = written(
        tmp_path,
        """<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="milliseconds">
        <MEDIA_DESCRIPTOR MEDIA_URL="file:///x/my%20clip.mp4" TIME_ORIGIN="500"/></HEADER>
        <TIME_ORDER><TIME_SLOT TIME_SLOT_ID="t1" TIME_VALUE="1000"/><TIME_SLOT TIME_SLOT_ID="t2" TIME_VALUE="3000"/>
        <TIME_SLOT TIME_SLOT_ID="t3"/></TIME_ORDER>
        <TIER TIER_ID="phrase" ANNOTATOR="ann">
        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="t1" TIME_SLOT_REF2="t2">
        <ANNOTATION_VALUE>wave </ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a9" TIME_SLOT_REF1="t2" TIME_SLOT_REF2="t3">
        <ANNOTATION_VALUE>lost</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
        <TIER TIER_ID="part" PARENT_REF="phrase">
        <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a2" ANNOTATION_REF="a1">
        <ANNOTATION_VALUE>up</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
        <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a3" ANNOTATION_REF="a1" PREVIOUS_ANNOTATION="a2">
        <ANNOTATION_VALUE>down</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION></TIER></ANNOTATION_DOCUMENT>""",
        "x.eaf",
    )
    rows = read_annotations(path)
    assert [row for row in rows if isinstance(row, AnnotatedRow)] == [
        AnnotatedRow("/x/my clip.mp4", 1.5, 3.5, "wave", "phrase", "ann"),
        AnnotatedRow("/x/my clip.mp4", 1.5, 2.5, "up", "part"),
        AnnotatedRow("/x/my clip.mp4", 2.5, 3.5, "down", "part"),
    ]
    assert [str(row) for row in rows if isinstance(row, RowError)] == [
        "annotation 'a9' (lost) of tier 'phrase' has no time"
    ]


def test_a_real_elan_export(shared_data):
    path = shared_data / "annotations" / "great_ape_gestures_elan" / "GApS_Excel_output_Example.txt"
    rows = [row for row in read_annotations(path) if isinstance(row, AnnotatedRow)]
    with open(path, newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    gestures = [line["ID_1_Gesture_R1"] for line in lines if line["ID_1_Gesture_R1"].strip()]
    assert [row.label for row in rows if row.layer == "ID_1_Gesture_R1"] == gestures
    first = next(row for row in rows if row.layer == "ID_1_Gesture_R1")
    assert (first.recording, first.onset, first.offset) == ("09.01.17_Example GApS coding1_Sex_KZ_KLN_R1", 0.267, 1.21)


def test_epic_kitchens_csv_by_naming_its_columns(shared_data):
    path = shared_data / "annotations" / "epic_kitchens_100" / "EPIC_100_validation_first3000.csv"
    columns = {"recording": "video_id", "onset": "start_timestamp", "offset": "stop_timestamp", "label": "verb"}
    rows = read_annotations(path, columns=columns)
    assert len(rows) == 3000
    assert rows[0] == AnnotatedRow("P01_11", 0.0, 1.89, "take", line=2)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"onset_frame": "onset", "offset_frame": "offset"}, AnnotatedRow("a", 100, 200, "walk", unit="frame", line=2)),
        ({"onset_ms": "onset", "offset_ms": "offset"}, AnnotatedRow("a", 0.1, 0.2, "walk", line=2)),
        ({"onset_ms": "onset"}, AnnotatedRow("a", 0.1, 0.3, "walk", line=2)),
        ({"onset_s": "late", "offset_s": "later"}, AnnotatedRow("a", 7.0, 8.0, "walk", line=2)),
        ({"onset": "from", "offset": "to"}, AnnotatedRow("a", 100.0, 200.0, "walk", line=2)),
    ],
)
def test_read_annotations_named_columns_win(tmp_path, columns, expected):
    header = "recording,onset,offset,offset_ms,late,later,label"
    path = written(tmp_path, f"{header}\na,100,200,300,7,8,walk\n")
    [row] = read_annotations(path, columns=columns)
    assert (row.recording, row.label, row.unit, row.line) == ("a", "walk", expected.unit, 2)
    assert (row.onset, row.offset) == pytest.approx((expected.onset, expected.offset))


def test_read_annotations_datavyu_milliseconds(shared_data):
    path = next((shared_data / "foreign" / "datavyu").glob("*.csv"))
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    label = next(name for name in lines[0] if name not in ("onset", "offset", "ordinal", "file", "column"))
    rows = read_annotations(path, columns={"onset_ms": "onset", "offset_ms": "offset", "label": label})
    times = [(row.onset, row.offset) for row in rows if isinstance(row, AnnotatedRow)]
    expected = [(int(line["onset"]) / 1000, int(line["offset"]) / 1000) for line in lines if line["onset"]]
    assert times == pytest.approx(np.array(expected))


def test_read_annotations_via_cleaned_in_pandas(tmp_path):
    text = "file_list,temporal_segment_start,temporal_segment_end,action\na.mp4,1.5,2.5,flip\n"
    columns = {
        "recording": "file_list",
        "onset": "temporal_segment_start",
        "offset": "temporal_segment_end",
        "label": "action",
    }
    assert read_annotations(written(tmp_path, text), columns=columns) == [
        AnnotatedRow("a.mp4", 1.5, 2.5, "flip", line=2)
    ]
    with pytest.raises(UserError, match=r"has no column for onset and offset, label.*study\.segment_columns"):
        read_annotations(written(tmp_path, text))


def test_read_annotations_via_with_added_label_column(tmp_path):
    text = VIA_OLD.replace("metadata\n", "metadata,action\n").replace('flip""}"', 'flip""}",somersault')
    columns = {"onset": "temporal_segment_start", "offset": "temporal_segment_end", "label": "action"}
    rows = read_annotations(written(tmp_path, text.split("\n", 1)[1]), columns=columns)
    assert [row.label for row in rows if isinstance(row, AnnotatedRow)] == ["somersault"]


VIA_ATTRIBUTES = (
    '# ATTRIBUTE = {"1":{"aname":"note","type":1,"options":{"default":"x"}},'
    '"4":{"aname":"kind","type":3,"options":{"0":"title","6":"other"}},'
    '"5":{"aname":"parts","type":2,"options":{"0":"arm","1":"leg"}}}\n'
)


def test_read_annotations_via_option_names(tmp_path):
    cells = '"1_c","[""v.mp4""]",0,"[1,2]","[]","{""1"":""6"",""4"":""6"",""5"":""0,1"",""7"":""0""}"\n'
    bad = '"1_d","[""v.mp4""]",0,"[3,4]","[]","{""4"":""9""}"\n'
    header = VIA_3.split("\n")[1]
    rows = read_annotations(written(tmp_path, f"# VIA\n{VIA_ATTRIBUTES}{header}\n{cells}{bad}"))
    assert [(row.layer, row.label) for row in rows[:-1]] == [
        ("note", "6"),
        ("kind", "other"),
        ("parts", "arm"),
        ("parts", "leg"),
        ("7", "0"),
    ]
    assert isinstance(rows[-1], RowError)
    assert (str(rows[-1]), rows[-1].line) == ("attribute 'kind' has no option '9'", 5)


def test_read_annotations_via_options_of_a_real_file(shared_data):
    rows = read_annotations(shared_data / "foreign" / "via" / "via3_user_rows.csv")
    labels = [(row.layer, row.label) for row in rows if isinstance(row, AnnotatedRow)]
    assert labels == [("Comment", "_DEFAULT"), ("Scene", "main title"), ("Type", "Other")]


def test_read_annotations_other_json_is_not_activitynet(tmp_path):
    path = written(tmp_path, '{"project": {"name": "x"}, "observations": {}}', "test.json")
    with pytest.raises(UserError) as error:
        read_annotations(path, format="activitynet")
    assert str(error.value) == (
        f"{path} is not a valid 'activitynet' annotation file: none of its entries has 'annotations', as the videos of "
        "ActivityNet have; its keys are 'project', 'observations'."
    )


def eaf(slots: str, tiers: str, media: str = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///x/a.mp4"/>') -> str:
    order = "".join(
        f'<TIME_SLOT TIME_SLOT_ID="t{number}"{f" TIME_VALUE={chr(34)}{value}{chr(34)}" if value != "-" else ""}/>'
        for number, value in enumerate(slots.split())
    )
    return (
        f'<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="milliseconds">{media}</HEADER>'
        f"<TIME_ORDER>{order}</TIME_ORDER>{tiers}</ANNOTATION_DOCUMENT>"
    )


def tier(name: str, *annotations: tuple[int, int, str], parent: str = "") -> str:
    inside = "".join(
        f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="{name}{number}" TIME_SLOT_REF1="t{first}" '
        f'TIME_SLOT_REF2="t{last}"><ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>'
        for number, (first, last, value) in enumerate(annotations)
    )
    return f'<TIER TIER_ID="{name}"{f" PARENT_REF={chr(34)}{parent}{chr(34)}" if parent else ""}>{inside}</TIER>'


def test_read_annotations_elan_time_subdivision(tmp_path):
    # Nested parts come before their parent in the file, and slots of other tiers are in between.
    text = eaf(
        "1000 - 1500 - - 4000 9000",
        tier("part of part", (1, 3, "x"), (3, 4, "y"), parent="part")
        + tier("part", (0, 1, "a"), (1, 4, "b"), (4, 5, "c"), parent="phrase")
        + tier("phrase", (0, 5, "whole"))
        + tier("other", (2, 6, "o")),
    )
    rows = read_annotations(written(tmp_path, text, "x.eaf"))
    assert {row.label: (row.onset, row.offset) for row in rows if isinstance(row, AnnotatedRow)} == {
        "whole": (1.0, 4.0),
        "a": (1.0, 2.0),
        "b": (2.0, 3.0),
        "c": (3.0, 4.0),
        "x": (2.0, 2.5),
        "y": (2.5, 3.0),
        "o": (1.5, 9.0),
    }


def test_read_annotations_elan_subdivision_of_a_real_file(shared_data):
    rows = read_annotations(shared_data / "foreign" / "elan" / "tla_example.eaf")
    assert not [row for row in rows if isinstance(row, RowError)]
    tokens = [row for row in rows if isinstance(row, AnnotatedRow) and row.layer == "token-ts"]
    assert len(tokens) == 19
    assert all(row.offset > row.onset for row in tokens)
    assert all(after.onset >= row.offset for row, after in itertools.pairwise(tokens))


def test_check_segments_elan_empty_values_take_the_tier(tmp_path):
    path = written(tmp_path, eaf("1000 2000 3000", tier("sign", (0, 1, ""), (1, 2, " "))), "x.eaf")
    result = checked(*read_annotations(path))
    assert [segment.label for segment in result.segments["a"]] == ["sign", "sign"]
    assert [str(finding) for finding in result.findings] == [
        "label from tier: labels.csv: 2 annotations have no value and get the name of the tier, 'sign', as label"
    ]


MEDIA = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/x/{}" MIME_TYPE="{}" TIME_ORIGIN="{}"/>'


@pytest.mark.parametrize(
    ("media", "onset"),
    [
        ((("a.wav", "audio/x-wav", 2500), ("a.mp4", "video/mp4", 0)), 1.0),
        ((("zoom.wav", "audio/x-wav", 2500), ("a.mp4", "video/mp4", 250)), 1.25),
        ((("elsewhere.mp4", "video/mp4", 2500), ("a.mp4", "video/mp4", 500)), 1.5),
        ((("a.mp4", "video/mp4", 0), ("elsewhere.mp4", "video/mp4", 500)), 1.0),
        ((("a.avi", "video/avi", 500), ("zoom.wav", "audio/x-wav", 0)), 1.5),
    ],
)
def test_check_segments_elan_takes_the_video_of_the_study(tmp_path, media, onset):
    text = eaf("1000 2000", tier("act", (0, 1, "walk")), "".join(MEDIA.format(*medium) for medium in media))
    result = checked(*read_annotations(written(tmp_path, text, "x.eaf")), views=(view("a", path="videos/a.mp4"),))
    assert result.segments["a"] == (Segment(onset, onset + 1.0, "walk", "act"),)
    assert result.findings == []


def test_check_segments_elan_links_two_recordings(tmp_path):
    media = MEDIA.format("a.mp4", "video/mp4", 0) + MEDIA.format("b.mp4", "video/mp4", 0)
    rows = read_annotations(written(tmp_path, eaf("1000 2000", tier("act", (0, 1, "walk")), media), "x.eaf"))
    result = checked(*rows, views=(view("a", path="videos/a.mp4"), view("b", path="videos/b.mp4")))
    assert list(result.segments) == ["a"]
    assert [str(finding) for finding in result.findings] == [
        "several recordings linked: labels.csv: it links files of recordings 'a' and 'b'; its segments count for 'a'. "
        "Group these files as views of one recording, or annotate each in its own file"
    ]


@pytest.mark.parametrize("rates", [(25.0, 50.0), (30.0, 30000 / 1001)])
def test_check_segments_frames_need_one_rate(rates):
    views = tuple(
        view("a", id, path=f"videos/cam{id}.mp4", fps=rate, num_frames=500, frame_times=np.arange(500) / rate)
        for id, rate in zip("01", rates, strict=True)
    )
    result = checked(
        AnnotatedRow("a", 50, 100, "walk", unit="frame", line=2),
        AnnotatedRow("cam1.mp4", 50, 100, "walk", unit="frame", line=3),
        views=views,
    )
    [segment] = result.segments["a"]
    assert (segment.onset, segment.offset) == pytest.approx((50 / rates[1], 100 / rates[1]))
    assert [str(finding) for finding in result.findings] == [
        "unusable segment: labels.csv:2: frames 50 to 100 of recording 'a' mean different times in its views (frames/s: "
        f"'0' {rates[0]:g}, '1' {rates[1]:g}). Name the file of a view in the column of the recording, or give times in "
        "seconds"
    ]


def test_check_segments_frames_of_an_unreadable_view():
    broken = view("a", "0", path="videos/a/cam0.mp4", status="unreadable", num_frames=0, fps=0.0)
    other = view("a", "1", path="videos/a/cam1.mp4")
    by_id = AnnotatedRow("a", 50, 100, "walk", unit="frame", line=2)
    by_file = AnnotatedRow("cam0.mp4", 50, 100, "walk", unit="frame", line=3)
    result = checked(by_id, by_file, views=(broken, other))
    assert [finding.message for finding in result.findings] == [
        "frames 50 to 100 of recording 'a' may count frames of videos/a/cam0.mp4, which cannot be read, so its frame rate "
        "is not known. Name the file of a view in the column of the recording, or give times in seconds",
        "its frame numbers need the video videos/a/cam0.mp4, which cannot be read",
    ]
    # If the camera has the same rate in another recording, the frame numbers are unambiguous.
    result = checked(by_id, views=(broken, other, view("b", "0", path="videos/b/cam0.mp4")))
    assert len(result.segments["a"]) == 1


def test_check_segments_point_event():
    result = checked(AnnotatedRow("a", 1.5, 1.5, "peck", line=2))
    assert [finding.message for finding in result.findings] == ["it has no length: it starts and ends at 1.5 s"]


def test_an_unknown_file_lists_the_formats(tmp_path):
    with pytest.raises(
        UserError, match=r"Cannot detect the annotation format of .*Formats: activitynet .*; via .*; csv"
    ):
        read_annotations(written(tmp_path, "<html>", "x.html"))
    with pytest.raises(UserError, match=r"No annotation format 'vai'. Did you mean 'via'\?"):
        read_annotations(written(tmp_path, ""), format="vai")
    with pytest.raises(UserError, match=r"Cannot read annotations .*absent.csv: No such file"):
        read_annotations(tmp_path / "absent.csv")


def test_a_segment_that_ends_before_it_starts_is_left_out_with_its_line():
    result = checked(AnnotatedRow("a", 2.0, 1.0, "wave", line=7), AnnotatedRow("a", 1.0, 2.0, "wave", line=8))
    assert result.segments == {"a": (Segment(1.0, 2.0, "wave"),)}
    assert result.num_unusable == 1
    assert [str(finding) for finding in result.findings] == [
        "unusable segment: labels.csv:7: it ends at 1 s, before it starts at 2 s"
    ]


def test_a_segment_after_the_video_is_left_out_with_its_line():
    result = checked(AnnotatedRow("a", 12.0, 13.0, "wave", line=3))
    assert result.segments == {}
    assert [str(finding) for finding in result.findings] == [
        "unusable segment: labels.csv:3: 12.000 to 13.000 s lies outside recording 'a', which runs from 0.000 to "
        "10.000 s"
    ]


def test_a_segment_that_goes_beyond_the_end_is_kept_and_reported():
    result = checked(AnnotatedRow("a", 9.0, 13.0, "wave", line=3))
    assert result.segments == {"a": (Segment(9.0, 13.0, "wave"),)}
    assert [str(finding) for finding in result.findings] == [
        "segment past the end: labels.csv:3: 9.000 to 13.000 s goes beyond recording 'a', which runs from 0.000 to "
        "10.000 s; it is kept as it is"
    ]


def test_rows_without_label_or_number_are_left_out():
    result = checked(AnnotatedRow("a", 1.0, 2.0, " ", line=1), AnnotatedRow("a", float("nan"), 2.0, "wave", line=2))
    assert [finding.message for finding in result.findings] == ["it has no label", "times nan to 2.0 are not finite"]
    assert result.num_unusable == 2


def test_segments_of_absent_videos_are_counted():
    result = checked(AnnotatedRow("b", 1.0, 2.0, "wave"), AnnotatedRow("b", 2.0, 3.0, "wave"))
    assert [str(finding) for finding in result.findings] == [
        "labels for an absent video: labels.csv: 2 segments of 'b', which is no recording of this study"
    ]
    assert result.num_unusable == 2


def test_times_of_a_named_video_are_brought_to_the_recordings_clock():
    views = (view("a", "0"), view("a", "1", path="videos/a/left.mp4", offset=2.0, drift=100.0))
    result = checked(AnnotatedRow("left.mp4", 1.0, 2.0, "wave"), AnnotatedRow("a", 1.0, 2.0, "wave"), views=views)
    own, moved = result.segments["a"]
    assert (own.onset, own.offset) == (1.0, 2.0)
    assert (moved.onset, moved.offset) == pytest.approx((3.0001, 4.0002))


def test_frame_numbers_become_the_times_of_those_frames():
    times = np.array([0.0, 0.1, 0.4, 0.5])
    odd = view("a", frame_times=times, num_frames=4, offset=1.0)
    result = checked(
        AnnotatedRow("a", 1, 3, "wave", unit="frame"),
        AnnotatedRow("a", 4, 5, "wave", unit="frame", line=9),
        views=(odd,),
    )
    [segment] = result.segments["a"]
    assert (segment.onset, segment.offset) == pytest.approx((1.1, 1.5))
    assert result.findings[0].message == "frames 4 to 5 lie outside videos/a/cam0.mp4, which has 4 frames"


def test_check_segments_takes_further_names_of_one_file_alike():
    own = view("a", path="videos/a.mp4")
    row = AnnotatedRow("file:///C:/rec/a.mp4", 1.0, 2.0, "wave", alternatives=(("./a.mp4", 0.0), ("a.wav", 0.0)))
    result = checked(row, AnnotatedRow("./a.mp4", 2.0, 3.0, "wave"), views=(own,))
    assert [segment.onset for segment in result.segments["a"]] == [2.0]
    assert result.findings[0].message.endswith("which could mean recording 'a', as './a.mp4' in the same table does")
    result = checked(row, row, views=(own,))
    assert len(result.segments["a"]) == 2


def test_check_segments_reports_names_of_other_recordings():
    own = view("siteA/a", path="videos/siteA/a.mp4")
    rows = [AnnotatedRow(f"{site}/a", 1.0, 2.0, site, line=line) for line, site in enumerate(("siteA", "siteB"), 2)]
    result = checked(*rows, views=(own,))
    assert [segment.label for segment in result.segments["siteA/a"]] == ["siteA"]
    assert [str(finding) for finding in result.findings] == [
        "labels for an absent video: labels.csv:3: 1 segment of 'siteB/a', which is no recording of this study"
    ]


def test_csv_columns_with_capitals_are_read(tmp_path):
    path = tmp_path / "segments.csv"
    path.write_text("Recording;Onset;Offset;Label\na;1,5;2;wave\n")
    [row] = read_annotations(path)
    assert (row.recording, row.onset, row.offset, row.label) == ("a", 1.5, 2.0, "wave")


def test_csv_columns_named_by_the_user_keep_their_names(tmp_path):
    path = tmp_path / "segments.csv"
    path.write_text("Recording,Onset Frame,Offset Frame,Label\na,3,9,wave\n")
    columns = {"recording": "Recording", "onset_ms": "Onset Frame", "offset_ms": "Offset Frame", "label": "Label"}
    [row] = read_annotations(path, columns=columns)
    assert (row.onset, row.offset, row.unit) == (pytest.approx(0.003), pytest.approx(0.009), "s")
