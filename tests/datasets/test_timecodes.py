"""Time codes that count frames."""

from __future__ import annotations

import pytest
from study_fakes import view

from actionprep.datasets.annotations import AnnotatedRow, check_segments, read_annotations
from actionprep.datasets.recording_names import RecordingNames
from actionprep.datasets.timecodes import Timecode


@pytest.mark.parametrize(
    ("text", "fps", "number"),
    [
        ("00:00:01:00", 25, 25),
        ("00:01:02:12", 25, 62 * 25 + 12),
        ("01:00:00:00", 24, 3600 * 24),
        ("00:00:10:00", 30000 / 1001, 300),
        # SMPTE 12M: minute 1 starts with number 2, minute 10 with 0.
        ("00:00:59;29", 30000 / 1001, 1799),
        ("00:01:00;02", 30000 / 1001, 1800),
        ("00:10:00;00", 30000 / 1001, 17982),
        ("01:00:00;00", 30000 / 1001, 107892),
        ("00:01:00;04", 60000 / 1001, 3600),
    ],
)
def test_frame_number(text, fps, number):
    code = Timecode.parse(text)
    assert code is not None
    assert str(code) == text
    assert code.frame_number(fps) == number


@pytest.mark.parametrize("text", ["1.5", "00:01:02", "00:01:02.500", "00:61:00:00", "a:b:c:d"])
def test_other_times_are_no_time_codes(text):
    assert Timecode.parse(text) is None


def test_time_codes_in_a_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("onset,offset,label\n00:00:01:05,00:00:02:00,wave\n00:00:01:30,00:00:02:00,clap\n")
    rows = read_annotations(path)
    assert isinstance(rows[0], AnnotatedRow)
    assert rows[0].timecode == (Timecode(0, 1, 5), Timecode(0, 2, 0))
    views = {"a": [view("a", fps=25.0)]}
    checked = check_segments(
        rows, source="t.csv", names=RecordingNames.of(views, views["a"]), views=views, only=("a", None)
    )
    [segment] = checked.segments["a"]
    assert (segment.onset, segment.offset) == (pytest.approx(1.2), pytest.approx(2.0))
    assert [str(finding) for finding in checked.findings] == [
        "unusable segment: t.csv:3: time code 00:00:01:30 has frame 30, and the video has 25 frames/s"
    ]


def test_time_codes_need_a_video(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("onset,offset,label\n00:00:01:05,00:00:02:00,wave\n")
    unreadable = {"a": [view("a", status="unreadable", reason="it is empty")]}
    names = RecordingNames.of(unreadable, unreadable["a"])
    checked = check_segments(read_annotations(path), source="t.csv", names=names, views=unreadable, only=("a", None))
    assert [str(finding) for finding in checked.findings] == [
        "unusable segment: t.csv:2: time code 00:00:01:05 needs a readable video with a frame rate"
    ]
