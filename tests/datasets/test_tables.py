"""Csv tables that people make."""

from __future__ import annotations

import pytest

from actionprep.datasets.tables import read_csv, require_columns
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
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_a_damaged_table_says_what_is_wrong(tmp_path, content, message):
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
