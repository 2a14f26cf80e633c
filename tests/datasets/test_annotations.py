"""Annotation files of several formats, and what becomes of rows that make no sense."""

from __future__ import annotations

import csv
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
    by_recording = {one.recording: [other for other in views if other.recording == one.recording] for one in views}
    return check_segments(
        rows, source="labels.csv", names=RecordingNames.of(by_recording, views), views=by_recording, only="a"
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


def test_a_csv_without_the_columns_says_which_it_needs(tmp_path):
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
    assert (str(rows[0]), rows[0].line) == ("'soon' is no time: give seconds or HH:MM:SS.mmm", 2)
    assert rows[1] == AnnotatedRow(None, 1.0, 2.0, "wave", line=3)


@given(milliseconds=st.integers(0, 10**8))
def test_clock_times_are_read_to_the_millisecond(milliseconds):
    seconds, rest = divmod(milliseconds, 1000)
    text = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"
    assert round(parse_time(text) * 1000) == milliseconds
    assert round(parse_time(f"-{text}") * 1000) == -milliseconds


@pytest.mark.parametrize("text", ["", "a", "1:2:3:4", "1::2", "1:b"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"is no time: give seconds or HH:MM:SS"):
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
    # Counted another way: every annotation of the document, by tier.
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
    found = checked(AnnotatedRow("a", 2.0, 1.0, "wave", line=7), AnnotatedRow("a", 1.0, 2.0, "wave", line=8))
    assert found.segments == {"a": (Segment(1.0, 2.0, "wave"),)}
    assert found.num_unusable == 1
    assert [str(finding) for finding in found.findings] == [
        "unusable segment: labels.csv:7: it ends at 1 s before it starts, or as it starts, at 2 s"
    ]


def test_a_segment_after_the_video_is_left_out_with_its_line():
    found = checked(AnnotatedRow("a", 12.0, 13.0, "wave", line=3))
    assert found.segments == {}
    assert [str(finding) for finding in found.findings] == [
        "unusable segment: labels.csv:3: 12.000 to 13.000 s lies outside of recording 'a', which runs from 0.000 to "
        "10.000 s"
    ]


def test_a_segment_that_goes_beyond_the_end_is_kept_and_reported():
    found = checked(AnnotatedRow("a", 9.0, 13.0, "wave", line=3))
    assert found.segments == {"a": (Segment(9.0, 13.0, "wave"),)}
    assert [str(finding) for finding in found.findings] == [
        "segment past the end: labels.csv:3: 9.000 to 13.000 s goes beyond recording 'a', which runs from 0.000 to "
        "10.000 s; it is kept as it is"
    ]


def test_rows_without_label_or_number_are_left_out():
    found = checked(AnnotatedRow("a", 1.0, 2.0, " ", line=1), AnnotatedRow("a", float("nan"), 2.0, "wave", line=2))
    assert [finding.message for finding in found.findings] == ["it has no label", "times nan to 2.0 are no numbers"]
    assert found.num_unusable == 2


def test_segments_of_absent_videos_are_counted():
    found = checked(AnnotatedRow("b", 1.0, 2.0, "wave"), AnnotatedRow("b", 2.0, 3.0, "wave"))
    assert [str(finding) for finding in found.findings] == [
        "labels for an absent video: labels.csv: 2 segments of 'b', which is no recording of this study"
    ]
    assert found.num_unusable == 2


def test_times_of_a_named_video_are_brought_to_the_recordings_clock():
    views = (view("a", "0"), view("a", "1", path="videos/a/left.mp4", offset=2.0, drift=100.0))
    found = checked(AnnotatedRow("left.mp4", 1.0, 2.0, "wave"), AnnotatedRow("a", 1.0, 2.0, "wave"), views=views)
    own, moved = found.segments["a"]
    assert (own.onset, own.offset) == (1.0, 2.0)
    assert (moved.onset, moved.offset) == pytest.approx((3.0001, 4.0002))


def test_frame_numbers_become_the_times_of_those_frames():
    times = np.array([0.0, 0.1, 0.4, 0.5])
    odd = view("a", frame_times=times, num_frames=4, offset=1.0)
    found = checked(
        AnnotatedRow("a", 1, 3, "wave", unit="frame"),
        AnnotatedRow("a", 4, 5, "wave", unit="frame", line=9),
        views=(odd,),
    )
    [segment] = found.segments["a"]
    assert (segment.onset, segment.offset) == pytest.approx((1.1, 1.5))
    assert found.findings[0].message == "frames 4 to 5 lie outside of videos/a/cam0.mp4, which has 4 frames"
