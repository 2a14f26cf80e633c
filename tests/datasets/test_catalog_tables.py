"""The files of a catalog: what is written reads back, what is damaged is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from actionprep.datasets.catalog import Catalog
from actionprep.errors import SetupError, UserError


def test_an_empty_catalog_reads_back(tmp_path):
    Catalog((), ()).write(tmp_path)
    assert Catalog.read(tmp_path) == Catalog((), ())


def test_a_catalog_reads_back_what_it_writes(tmp_path, full):
    full.write(tmp_path)
    found = Catalog.read(tmp_path)
    assert found == full
    for before, after in zip(full.views, found.views, strict=True):
        np.testing.assert_array_equal(before.frame_times, after.frame_times)


def test_writing_leaves_only_the_tables(tmp_path, full):
    full.write(tmp_path)
    full.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "findings.parquet",
        "recordings.parquet",
        "segments.parquet",
        "views.parquet",
    ]


def test_a_catalog_of_a_newer_schema_is_refused(tmp_path, full):
    full.write(tmp_path)
    path = tmp_path / "views.parquet"
    written = pq.ParquetFile(path).read()
    pq.write_table(written.replace_schema_metadata({**written.schema.metadata, b"actionprep_schema": b"7"}), path)
    with pytest.raises(UserError) as error:
        Catalog.read(tmp_path)
    assert str(error.value) == (
        f"{path} was written by a newer actionprep: it has schema 7, this version reads up to 2. "
        "Upgrade actionprep, or run 'actionprep scan' to make the catalog anew with this version."
    )


def test_tables_of_two_scans_are_not_mixed(tmp_path, full):
    full.write(tmp_path / "a")
    replace(full, segments={}).write(tmp_path / "b")
    (tmp_path / "b" / "segments.parquet").replace(tmp_path / "a" / "segments.parquet")
    with pytest.raises(
        UserError, match=r"are not of one scan: writing them was interrupted. Run 'actionprep scan' again"
    ):
        Catalog.read(tmp_path / "a")


def test_no_catalog_says_to_scan(tmp_path):
    with pytest.raises(UserError, match=r"No catalog in .* Run 'actionprep scan' first"):
        Catalog.read(tmp_path)


def test_a_damaged_table_is_named(tmp_path, full):
    full.write(tmp_path)
    (tmp_path / "views.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(UserError, match=r"Cannot read the catalog's .*views\.parquet.*Run 'actionprep scan'"):
        Catalog.read(tmp_path)


def test_a_disk_that_refuses_is_the_environments_fault(tmp_path, full):
    (tmp_path / "catalog").write_text("a file is in the way")
    with pytest.raises(SetupError, match=r"Cannot write the catalog in .*make the folder writable"):
        full.write(tmp_path / "catalog")
