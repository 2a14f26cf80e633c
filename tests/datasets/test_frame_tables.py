"""Annotations with one label, or one row, per frame."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from actionprep.datasets.annotations import AmbiguousListError, AnnotatedRow, RowError, read_annotations
from actionprep.datasets.frame_runs import runs_of_columns, runs_of_labels
from actionprep.errors import UserError

FERAL = {
    "class_names": {"0": "other", "1": "eat", "2": "sleep"},
    "is_multilabel": False,
    "labels": {"a.mp4": [0, 2, 2, 1, 0], "b.mp4": [[0, 1, 1], [0, 0, 1]]},
    "splits": {"train": ["a.mp4"], "inference": ["b.mp4"]},
}


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def columns_of_runs(runs, num_frames: int, num_columns: int) -> np.ndarray:
    active = np.zeros((num_frames, num_columns), bool)
    for start, end, column in runs:
        active[start:end, column] = True
    return active


@given(labels=st.lists(st.sampled_from(["", "wave", "clap"])))
def test_runs_of_labels_and_back(labels):
    runs = runs_of_labels(labels)
    assert [label for start, end, label in runs for _ in range(start, end)] == labels
    assert all(first[2] != second[2] and first[1] == second[0] for first, second in itertools.pairwise(runs))


@given(active=arrays(bool, st.tuples(st.integers(0, 12), st.integers(1, 4))))
def test_runs_of_columns_and_back(active):
    runs = runs_of_columns(active)
    np.testing.assert_array_equal(columns_of_runs(runs, *active.shape), active)
    assert sum(end - start for start, end, _ in runs) == active.sum()


@given(active=arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 4))))
def test_one_hot_table_and_back(tmp_path_factory, active):
    names = ["wave", "clap", "run", "sit"][: active.shape[1]]
    lines = [",".join(["", *names]), *(",".join([str(i), *map(str, row.astype(int))]) for i, row in enumerate(active))]
    path = written(tmp_path_factory.mktemp("t"), "a_labels.csv", "\n".join(lines))
    rows = read_annotations(path, format="one-hot")
    assert {row.recording for row in rows if isinstance(row, AnnotatedRow)} <= {"a"}
    runs = [(int(row.onset), int(row.offset), names.index(row.label)) for row in rows if isinstance(row, AnnotatedRow)]
    np.testing.assert_array_equal(columns_of_runs(runs, *active.shape), active)


def test_one_hot_table(tmp_path):
    path = written(tmp_path, "take1.csv", ",background,Attack,Sniff\n0,1,0,0\n1,0,1,0\n2,0,1,1\n3,-1,-1,-1\n")
    *rows, unknown = read_annotations(path)
    assert rows == [AnnotatedRow(None, 1, 3, "Attack", unit="frame"), AnnotatedRow(None, 2, 3, "Sniff", unit="frame")]
    assert isinstance(unknown, RowError)
    assert (str(unknown), unknown.line) == ("frames 3 to 3 are not annotated (-1)", 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",a\n0,1\n2,0\n", "line 3 has frame 2 where 1 should follow"),
        (",a\n0,1\n1,2\n", "line 3 has a value other than 0, 1 and -1"),
        (",a\n0,1\n1\n", "line 3 has 1 cells, and there are 2 columns"),
        ("frame,a\n0,1\n", "its first column, which numbers the frames, must have no name; it is 'frame'"),
    ],
)
def test_damaged_one_hot_table(tmp_path, text, message):
    path = written(tmp_path, "a.csv", text)
    with pytest.raises(UserError) as error:
        read_annotations(path, format="one-hot")
    assert str(error.value) == f"{path} is not a valid 'one-hot' annotation file: {message}."


def test_solomon_table(tmp_path):
    text = "Time;Light;Behavior\n0;;\n0,04;On;Sniff\n0,08;On;Run\n0,12;;Run\n"
    rows = read_annotations(written(tmp_path, "a.csv", text))
    assert [(row.layer, row.label, row.line) for row in rows if isinstance(row, AnnotatedRow)] == [
        ("Light", "On", 3), ("Behavior", "Sniff", 3), ("Behavior", "Run", 4),
    ]  # fmt: skip
    times = [(row.onset, row.offset) for row in rows if isinstance(row, AnnotatedRow)]
    np.testing.assert_allclose(times, [(0.04, 0.12), (0.04, 0.08), (0.08, 0.16)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Time,A\n0,\n0,x\n", "line 3 has time 0, which does not follow 0"),
        ("Time,A\n0,\nsoon,x\n", "line 3: 'soon' is not a time. Give seconds or HH:MM:SS.mmm"),
        ("T,A\n0,\n", "its first column must be 'Time'; it is 'T'"),
        ("Time,A\n0,x\n", "it needs two rows, which give the length of a time step"),
    ],
)
def test_damaged_solomon_table(tmp_path, text, message):
    path = written(tmp_path, "a.csv", text)
    with pytest.raises(UserError) as error:
        read_annotations(path, format="solomon")
    assert str(error.value) == f"{path} is not a valid 'solomon' annotation file: {message}."


def test_feral_json(tmp_path):
    assert read_annotations(written(tmp_path, "l.json", json.dumps(FERAL))) == [
        AnnotatedRow("a.mp4", 3, 4, "eat", unit="frame", split="train"),
        AnnotatedRow("a.mp4", 1, 3, "sleep", unit="frame", split="train"),
        AnnotatedRow("b.mp4", 0, 1, "eat", unit="frame"),
        AnnotatedRow("b.mp4", 0, 2, "sleep", unit="frame"),
    ]


def test_damaged_feral_json(tmp_path):
    damaged = {**FERAL, "labels": {"a.mp4": [0, 9], "b.mp4": [[0, 1]], "c.mp4": ["x"]}}
    rows = read_annotations(written(tmp_path, "l.json", json.dumps(damaged)))
    assert [str(row) for row in rows] == [
        "labels of 'a.mp4': frame 1 has class 9, which 'class_names' lacks",
        "labels of 'b.mp4': each frame must have one number, or 3 numbers of 0 and 1",
        "labels of 'c.mp4': they are not numbers, or lists of equal length",
    ]


def test_ms_tcn_text(tmp_path):
    path = written(tmp_path, "groundTruth/rgb-01-1.txt", "background\npour\npour\nbackground\n")
    assert read_annotations(path) == [
        AnnotatedRow(None, 0, 1, "background", unit="frame", line=1),
        AnnotatedRow(None, 1, 3, "pour", unit="frame", line=2),
        AnnotatedRow(None, 3, 4, "background", unit="frame", line=4),
    ]
    damaged = written(tmp_path, "groundTruth/b.txt", "pour\n\npour\n")
    with pytest.raises(UserError) as error:
        read_annotations(damaged)
    assert str(error.value) == (
        f"{damaged} is not a valid 'ms-tcn' annotation file: line 2 is blank, and each line is the label of a frame."
    )


def test_ms_tcn_text_in_another_folder(tmp_path):
    path = written(tmp_path, "labels/a.txt", "SIL\n" * 20 + "pour\n" * 20)
    with pytest.raises(AmbiguousListError) as error:
        read_annotations(path)
    assert error.value.presets == ("ms-tcn",)
    assert len(read_annotations(path, format="ms-tcn")) == 2


def test_simba_targets(tmp_path):
    text = (
        ",Nose_x,Nose_y,Nose_p,Low_prob_detections_0.1,Low_prob_detections_0.75,Attack,Sniff\n"
        "0,10.5,3,0.9,0,1,0,1\n1,10.5,3,0.9,0,1,1,1\n2,10.5,3,0.9,0,1,1,0\n"
    )
    assert read_annotations(written(tmp_path, "Together_1.csv", text)) == [
        AnnotatedRow(None, 1, 3, "Attack", unit="frame"),
        AnnotatedRow(None, 0, 2, "Sniff", unit="frame"),
    ]
    damaged = written(tmp_path, "b.csv", text.replace("1,1,0\n", "1,2,0\n"))
    with pytest.raises(UserError) as error:
        read_annotations(damaged)
    assert str(error.value) == (
        f"{damaged} is not a valid 'simba-targets' annotation file: line 4 has a value other than 0 and 1 for a "
        "classifier."
    )


def test_real_frame_tables(shared_data):
    foreign = shared_data / "foreign"
    rows = [
        row for row in read_annotations(foreign / "deepethogram/Together_1_head.csv") if isinstance(row, AnnotatedRow)
    ]
    assert [(row.label, row.onset, row.offset) for row in rows][:2] == [("Attack", 0, 4), ("Attack", 5, 71)]
    assert len(rows) == 7
    rows = [row for row in read_annotations(foreign / "solomon/Together_1_head.csv") if isinstance(row, AnnotatedRow)]
    assert len(rows) == 9
    assert (rows[0].layer, rows[0].label, rows[0].onset) == ("Light", "Off", 10.88)
    assert rows[0].offset == pytest.approx(27.76)
    rows = [row for row in read_annotations(foreign / "feral/labels_singlelabel.json") if isinstance(row, AnnotatedRow)]
    assert len(rows) == 76
    assert sum(row.offset - row.onset for row in rows) == 14910
