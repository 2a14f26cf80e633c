"""User-made CSV tables."""

from __future__ import annotations

import pytest

from actionprep.datasets.study import StudySettings
from actionprep.datasets.tables import (
    encoding_findings,
    read_csv,
    read_list,
    require_columns,
    text_encoding,
    usual_names,
)
from actionprep.errors import UserError


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_usual_separator_and_a_byte_order_mark(tmp_path, separator):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + separator.join(["path", " label "]).encode() + b"\r\n\r\n")
    path.write_bytes(path.read_bytes() + separator.join(["a.mp4", '"x, y"']).encode() + b"\n")
    assert read_csv(path) == (["path", "label"], [(3, {"path": "a.mp4", "label": "x, y"})])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a,a\n1,2\n", "has the column 'a' twice"),
        (b"a,b\n1,2,3\n", "Line 2 of .* has 3 cells and there are 2 columns"),
        (b"\xff\xfe\x00", "is not UTF-16 text: truncated data at byte 2. Save it as csv in UTF-8"),
        (b"a,b\x81\n", "is not UTF-8 or cp1252 text"),
        (b"a,b\n1,\x00\n", "is not UTF-8 or cp1252 text: a NUL character at position 6"),
        (b"PK\x03\x04", "is a spreadsheet, not text. Save it as csv in UTF-8"),
    ],
)
def test_damaged_csv_table_raises_a_clear_error(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_csv(path)


def test_a_lacking_column_is_named_with_the_nearest(tmp_path):
    with pytest.raises(UserError) as error:
        require_columns(tmp_path, ["lable", "path"], {"label": "--label-column"})
    assert str(error.value) == (
        f"No column 'label' in {tmp_path}. Did you mean 'lable'? It has 'lable', 'path'. "
        "Name the right one with --label-column."
    )


ROWS = "recording{0}onset{0}offset{0}label\na{0}1{1}5{0}2{1}5{0}caf\u00e9\n"


@pytest.mark.parametrize(("separator", "mark"), [(",", "."), (";", ","), (";", "."), ("\t", ","), ("|", ",")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("head", ["", "\n\r\n", "sep={0}\n", "\nsep={0}\n"])
def test_read_csv_dialects(tmp_path, separator, mark, encoding, head):
    path = tmp_path / "t.csv"
    path.write_bytes((head + ROWS).format(separator, mark).encode(encoding))
    line = head.count("\n") + 2
    row = {"recording": "a", "onset": f"1{mark}5", "offset": f"2{mark}5", "label": "caf\u00e9"}
    assert read_csv(path) == (list(row), [(line, row)])
    guessed = encoding in ("cp1252", "utf-16-le", "utf-16-be")
    assert [str(finding) for finding in encoding_findings(path, "t.csv")] == [
        f"guessed encoding: t.csv: is not UTF-8 and states no encoding; it was read as {encoding}. If letters are "
        "wrong, set study.encoding"
    ] * guessed


def test_read_csv_separator_of_the_rows(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("onset,s;offset,s;label, in words\n1,5;2,5;walk\n3,5;4,5;run, then jump\n")
    columns, rows = read_csv(path)
    assert columns == ["onset,s", "offset,s", "label, in words"]
    assert rows[1] == (3, {"onset,s": "3,5", "offset,s": "4,5", "label, in words": "run, then jump"})


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("a b 1\nc d 2\n", "auto"),
        ("\n./a   b\t1\n\nc d 2\n", "space"),
        ("sep=;\na;b;1\nc;d;2\n", "auto"),
        ("a|b|1\nc|d|2\n", "bar"),
        ('a,"b",1\nc, d ,2\n', "comma"),
    ],
)
def test_read_list_separators(tmp_path, text, separator):
    path = tmp_path / "list.txt"
    path.write_text(text)
    rows = read_list(path, separator)
    assert [cells[-2:] for _, cells in rows] == [["b", "1"], ["d", "2"]]
    assert [line for line, _ in rows] == [
        number for number, row in enumerate(text.split("\n"), 1) if row[-1:].isdigit()
    ]


def test_read_list_keeps_spaces_between_commas(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("1;Swiping Left\n2;No gesture\n")
    assert read_list(path) == [(1, ["1", "Swiping Left"]), (2, ["2", "No gesture"])]


def test_text_encoding_of_the_user(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("a,b\nGrüße,2\n".encode("mac_roman"))
    with text_encoding("mac_roman"):
        assert read_csv(path)[1] == [(2, {"a": "Grüße", "b": "2"})]
        assert not encoding_findings(path, "t.csv")
    path.write_text("a,b\nGrüße,2\n", encoding="utf-16")
    with text_encoding("mac_roman"):  # the mark wins
        assert read_csv(path)[1] == [(2, {"a": "Grüße", "b": "2"})]


def test_text_encoding_that_is_wrong(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n\xe4,2\n")
    with text_encoding("utf-8"), pytest.raises(UserError) as error:
        read_csv(path)
    assert str(error.value) == (
        f"The table {path} is not utf-8 text: invalid continuation byte at byte 4. Set study.encoding to its encoding, or "
        'to "auto".'
    )


def test_study_refuses_an_unknown_encoding():
    with pytest.raises(UserError, match=r"encoding.*No text encoding 'latin-99'"):
        StudySettings.read({"encoding": "latin-99"}, where="[study]")
    with pytest.raises(UserError, match="No text encoding 'rot13'"):
        StudySettings.read({"encoding": "rot13"}, where="[study]")


def test_usual_names_ignore_case_spaces_and_marks():
    columns = ["Recording", "Onset MS", "offset-ms", "LABEL", "note"]
    names = {"Recording": "recording", "Onset MS": "onset_ms", "offset-ms": "offset_ms", "LABEL": "label"}
    assert usual_names(columns, ["recording", "onset_ms", "offset_ms", "label", "layer"]) == names


def test_usual_names_leave_exact_and_ambiguous_columns():
    assert usual_names(["label", "Label"], ["label"]) == {}
    assert usual_names(["LABEL", "Label"], ["label"]) == {}


def test_read_csv_renames_columns_to_the_usual_names(tmp_path):
    (tmp_path / "a.csv").write_text("Recording;Onset\na;1\n")
    assert read_csv(tmp_path / "a.csv", usual=["recording", "onset"]) == (
        ["recording", "onset"],
        [(2, {"recording": "a", "onset": "1"})],
    )
