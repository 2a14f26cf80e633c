"""The files of a catalog: round trips and damaged files."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from actionprep.datasets.catalog import Catalog
from actionprep.datasets.catalog_tables import is_older, read_with_checksum, write_with_checksum
from actionprep.errors import SetupError, UserError


def test_an_empty_catalog_reads_back(tmp_path):
    Catalog((), ()).write(tmp_path)
    assert Catalog.read(tmp_path) == Catalog((), ())


def test_a_catalog_reads_back_what_it_writes(tmp_path, full):
    full.write(tmp_path)
    result = Catalog.read(tmp_path)
    assert result == full
    for before, after in zip(full.views, result.views, strict=True):
        np.testing.assert_array_equal(before.frame_times, after.frame_times)


def test_writing_leaves_only_the_tables(tmp_path, full):
    full.write(tmp_path)
    full.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "alignment.parquet",
        "cameras.parquet",
        "findings.parquet",
        "recordings.parquet",
        "segments.parquet",
        "views.parquet",
    ]


def test_a_catalog_of_a_newer_schema_is_refused(tmp_path, full, monkeypatch):
    full.write(tmp_path)
    path = tmp_path / "views.parquet"
    monkeypatch.setattr("actionprep.datasets.catalog_tables.SCHEMA", 7)
    write_with_checksum(pq.ParquetFile(path).read(), path)
    monkeypatch.undo()
    with pytest.raises(UserError) as error:
        Catalog.read(tmp_path)
    assert str(error.value) == (
        f"{path} was written by a newer actionprep: it has schema 7, this version reads up to 4. "
        "Upgrade actionprep, or run 'actionprep scan' to write the catalog again with this version."
    )


def test_tables_of_two_scans_are_not_mixed(tmp_path, full):
    full.write(tmp_path / "a")
    replace(full, segments={}).write(tmp_path / "b")
    (tmp_path / "b" / "segments.parquet").replace(tmp_path / "a" / "segments.parquet")
    with pytest.raises(
        UserError, match=r"are of different scans, because writing them was interrupted. Run 'actionprep scan' again"
    ):
        Catalog.read(tmp_path / "a")


def test_a_catalog_without_alignment_is_read(tmp_path, full):
    full.write(tmp_path)
    (tmp_path / "alignment.parquet").unlink()
    assert Catalog.read(tmp_path) == replace(full, alignment=None)


def test_missing_catalog_error_names_the_scan_command(tmp_path):
    with pytest.raises(UserError, match=r"No catalog in .* Run 'actionprep scan' first"):
        Catalog.read(tmp_path)


def test_a_damaged_table_is_named(tmp_path, full):
    full.write(tmp_path)
    (tmp_path / "views.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(UserError, match=r"Cannot read the catalog's .*views\.parquet.*Run 'actionprep scan'"):
        Catalog.read(tmp_path)


@pytest.mark.parametrize("name", ["findings", "recordings", "segments", "views"])
def test_flipped_bit_in_catalog_is_found(tmp_path, full, name):
    full.write(tmp_path)
    path = tmp_path / f"{name}.parquet"
    clean, generator = path.read_bytes(), random.Random(name)
    for at in [*range(len(clean) - 12, len(clean)), *generator.sample(range(len(clean)), 200)]:
        damaged = bytearray(clean)
        damaged[at] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(
            UserError, match=r"Cannot read the catalog's .*\.parquet: .* Run 'actionprep scan' to write"
        ):
            Catalog.read(tmp_path)


def test_checksum_of_catalog_is_plain_sha256(tmp_path, full):
    full.write(tmp_path)
    content = (tmp_path / "views.parquet").read_bytes()
    recorded = pq.ParquetFile(tmp_path / "views.parquet").metadata.metadata[b"actionprep_sha256"]
    assert hashlib.sha256(content.replace(recorded, b"0" * 64)).hexdigest().encode() == recorded


def test_catalog_of_schema_1_is_read(tmp_path, full):
    full.write(tmp_path)
    for path in tmp_path.iterdir():
        table = read_with_checksum(path)
        metadata = {**table.schema.metadata, b"actionprep_schema": b"1"}
        del metadata[b"actionprep_sha256"]
        pq.write_table(table.replace_schema_metadata(metadata), path)
    assert Catalog.read(tmp_path) == full


def test_catalog_of_schema_2_is_read(tmp_path, full, monkeypatch):
    monkeypatch.setattr("actionprep.datasets.catalog_tables.SCHEMA", 2)
    full.write(tmp_path)
    path = tmp_path / "views.parquet"
    write_with_checksum(read_with_checksum(path).drop_columns("file_start"), path)
    monkeypatch.undo()
    assert Catalog.read(tmp_path) == replace(full, views=tuple(replace(view, file_start=None) for view in full.views))


def test_is_older_compares_the_schema(tmp_path, full, monkeypatch):
    full.write(tmp_path)
    assert not is_older(tmp_path)
    monkeypatch.setattr("actionprep.datasets.catalog_tables.SCHEMA", 2)
    full.write(tmp_path)
    monkeypatch.undo()
    assert is_older(tmp_path)


def test_a_disk_that_refuses_is_the_environments_fault(tmp_path, full):
    (tmp_path / "catalog").write_text("a file is in the way")
    with pytest.raises(SetupError, match=r"catalog is a file, but must be the folder of the catalog\. Move it away"):
        full.write(tmp_path / "catalog")
