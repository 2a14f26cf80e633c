"""Printed output is correct for all characters."""

from __future__ import annotations

import io
import json
import math
from contextlib import contextmanager

import numpy as np
import pytest

from actionprep.api import format_example, list_formats
from actionprep.cli import output
from actionprep.cli.output import (
    note,
    print_error,
    print_json,
    print_next,
    print_table,
    print_text,
    progress_of_steps,
    warn,
)
from actionprep.cli.prep.study import formats
from actionprep.datasets.annotations import SEGMENT_FORMATS
from actionprep.datasets.poses.formats import FORMATS


def test_square_brackets_in_a_cell_are_printed_as_they_stand(capsys):
    print_table("Findings [1]", ("what", "remedy"), [("extra hf", "pip install 'actionprep[hf]'")])
    printed = capsys.readouterr().out
    assert "pip install 'actionprep[hf]'" in printed
    assert "Findings [1]" in printed


def test_formats_list_all_kinds():
    kinds = {kind for kind, _, _ in list_formats()}
    assert kinds == {"layout", "pattern", "videos", "segments", "poses", "masks", "cameras"}


def test_formats_have_examples():
    rows = list_formats()
    assert {(kind, name) for kind, name, _ in rows} >= {("poses", name) for name in FORMATS.working()}
    assert {(kind, name) for kind, name, _ in rows} >= {("segments", name) for name in SEGMENT_FORMATS.working()}
    assert not [(kind, name) for kind, name, _ in rows if not format_example(kind, name)]


def test_formats_command_fits_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    formats()
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    titles = [line.strip() for line in printed.splitlines() if line[:1].isalpha()]
    assert titles == [
        "Layouts of videos",
        "File names of data sets",
        "Videos",
        "Annotations",
        "Poses",
        "Masks",
        "Cameras",
        "Exports",
    ]
    for example in ("actionprep export hdf5 TARGET", "[study] image_rate = 30", "actionprep import coco FILE"):
        assert example in printed


COLUMNS = ("recipe", "accuracy %", "runs", "latency", "note")
ROWS = [("view-transformer epochs=40 frames=32", "93.3 (88.1 to 97.2)", "3 seeds", "12.3 ms", "a" * 30)]


def printed_at(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    out = print_table("", COLUMNS, ROWS, importance=("recipe", "accuracy %", "latency", "runs", "note"))
    return out, capsys.readouterr().out


def test_a_narrow_terminal_shows_the_most_important_columns_unfolded(capsys, monkeypatch):
    out, printed = printed_at(60, capsys, monkeypatch)
    assert out == ["runs", "note"]
    assert "93.3 (88.1 to 97.2)" in printed
    assert "12.3 ms" in printed
    assert max(map(len, printed.splitlines())) <= 60
    assert [line[:28].strip() for line in printed.splitlines()[1:]] == ["view-transformer epochs=40", "frames=32"]


def test_table_breaks_the_first_column_only_at_spaces(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    name = "tiny optimizer.learning_rate=0.00123456 batch=4"
    out = print_table("", COLUMNS, [(name, *ROWS[0][1:])], importance=("recipe", "accuracy %", "latency", "runs"))
    printed = capsys.readouterr().out
    assert out == ["runs", "latency", "note"]
    assert "optimizer.learning_rate=0.00123456" in printed
    assert max(map(len, printed.splitlines())) <= 60


def test_columns_that_are_to_stay_whole_do_not_break_for_long_ones(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    name = "a-name-of-thirty-six-letters-in-all"
    print_table("", ("name", "what"), [(name, "word " * 40)], whole=("name",))
    printed = capsys.readouterr().out
    assert name in printed
    assert max(map(len, printed.splitlines())) <= 60


def test_table_column_wider_than_the_terminal_is_cut_with_a_mark(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert print_table("", ("name", "what"), [("a" * 36, "word")], whole=("name",)) == ["what"]
    assert capsys.readouterr().out.split() == ["name", "a" * 17 + "…"]


def test_a_wide_terminal_shows_all_columns(capsys, monkeypatch):
    out, printed = printed_at(140, capsys, monkeypatch)
    assert out == []
    assert printed.splitlines()[0].split() == " ".join(COLUMNS).split()
    assert len(printed.splitlines()) == 2


def test_json_has_null_where_a_number_is_none(capsys):
    print_json({"a": float("nan"), "b": [np.float32("inf"), np.int64(3)], "c": {"d": (1.5, -math.inf)}, "e": None})
    printed = capsys.readouterr().out
    assert json.loads(printed, parse_constant=pytest.fail) == {
        "a": None, "b": [None, 3], "c": {"d": [1.5, None]}, "e": None,
    }  # fmt: skip


def test_step_bar_appears_with_the_first_step_and_its_total(monkeypatch):
    begun = []
    advanced = []

    @contextmanager
    def bar(what, total, unit, *, quiet):
        begun.append((what, total, unit, quiet))
        yield lambda amount, failures: advanced.append((amount, failures))

    monkeypatch.setattr(output, "progress_bar", bar)
    with progress_of_steps("scanning", "videos", quiet=True) as step:
        assert begun == []
        step(3)
        step(3, failures=1)
    assert begun == [("scanning", 3, "videos", True)]
    assert advanced == [(1, 0), (1, 1)]


NAME = "x\x1b[2K\x1b[1Aall sound\x1b[8m\r\x08\x07\x9b\u202elat\udce9in.mp4"
ESCAPED = r"x\x1b[2K\x1b[1Aall sound\x1b[8m\x0d\x08\x07\x9b\u202elat\xe9in.mp4"


@pytest.mark.parametrize(
    "show",
    [
        lambda: print_error(ValueError(NAME)),
        lambda: print_table(NAME, ("what", NAME), [(NAME, 1)], caption=NAME),
        lambda: print_table("", ("what", "where"), [(NAME, NAME)], whole=("where",)),
        lambda: print_next(NAME, NAME),
        lambda: note(NAME),
        lambda: warn(NAME),
        lambda: print_text(NAME),
        lambda: output.console.print(NAME, markup=False),
        lambda: output.error_console.print(NAME, markup=False),
    ],
)
def test_control_characters_are_escaped(show, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    show()
    printed = "".join(capsys.readouterr())
    assert ESCAPED in printed or r"x\x1b[2K\x1b[1Aall sound\x1b[8m" in printed
    assert all(letter.isprintable() or letter == "\n" for letter in printed)
    printed.encode()


def test_progress_is_printed_as_lines_in_a_log(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 40.0, 50.0, 80.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    with output.progress_bar("decoding", 40, "videos") as advance:
        for _ in range(3):
            advance(10)
        advance(5, failures=1)
    assert capsys.readouterr().err.splitlines() == [
        "decoding: 20 of 40 videos (50%), 0.5 videos/s",
        "decoding: 35 of 40 videos (88%), 0.4 videos/s, 1 failed",
    ]


def test_control_characters_in_a_progress_bar(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(output, "error_console", output.SafeConsole(file=terminal, force_terminal=True, width=200))
    with output.progress_bar(NAME, 2, "views") as advance:
        advance(2)
    assert r"x\x1b[2K\x1b[1Aall sound\x1b[8m" in terminal.getvalue()
    assert "x\x1b[2K" not in terminal.getvalue()


def test_other_scripts_are_printed_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_table("", ("where", "what"), [("Übung/行動/الحركة/👩\u200d🔬.mp4", "a\ttab")])
    assert "Übung/行動/الحركة/👩\u200d🔬.mp4" in capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 60, 80])
def test_table_keeps_all_columns_beside_long_paths(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    path = "videos/" + "/".join(f"a_folder_with_a_long_name_{number}" for number in range(6)) + "/take_1.mp4"
    message = "the header states 100 frames and the file contains 98"
    print_table("", ("kind", "count", "where", "what"), [("video warning", 3, path, message)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    cells = [[line[start:stop] for line in lines] for start, stop in _column_edges(lines[0])]
    kind, count, where, what = ("".join(column) for column in cells)
    assert "".join(kind.split()) == "kindvideowarning"
    assert count.split() == ["count", "3"]
    assert "".join(where.split()) == "where" + path
    assert what.split() == ["what", *message.split()]


def _column_edges(head: str) -> list[tuple[int, int | None]]:
    starts = [head.index(name) for name in ("kind", "count", "where", "what")]
    return list(zip(starts, [*starts[1:], None], strict=True))


def test_table_breaks_long_paths_after_a_separator(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    print_table("", ("where", "what"), [("first/second/third/fourth.mp4", "unreadable")])
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == ["first/second/", "third/fourth.mp4"]
