"""Reasons to scan a study again before its catalog is used."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from study_fakes import FakeProbe, fake_video

from actionprep.api.rescan import reason_to_scan
from actionprep.datasets.catalog_tables import read_with_checksum, write_with_checksum
from actionprep.datasets.scan import scan, tables_file
from actionprep.datasets.study import StudyFolder, StudySettings, init_study


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    for name in ("wave/a.mp4", "clap/b.mp4"):
        fake_video(tmp_path / "videos" / name)
    made = init_study(tmp_path, StudySettings(), force=True)
    scan(made, probe=FakeProbe())
    return made


def test_reason_to_scan_is_empty_after_a_scan(folder: StudyFolder) -> None:
    assert reason_to_scan(folder) == ""


def _rewrite(folder: StudyFolder, schema: int) -> None:
    """Rewrite the catalog as an earlier version wrote it."""
    missing = {"file_start"} if schema == 2 else {"file_start", "ctime_ns", "inode"}
    for path in folder.catalog.glob("*.parquet"):
        table = read_with_checksum(path)
        metadata = {**table.schema.metadata, b"actionprep_schema": str(schema).encode()}
        table = table.drop_columns([name for name in table.schema.names if name in missing])
        if schema == 1:
            del metadata[b"actionprep_sha256"]
            pq.write_table(table.replace_schema_metadata(metadata), path)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("actionprep.datasets.catalog_tables.SCHEMA", schema)
                write_with_checksum(table, path)
    if schema == 1:
        (folder.catalog / "alignment.parquet").unlink()
        tables_file(folder).unlink()


@pytest.mark.parametrize("schema", [1, 2])
def test_reason_to_scan_names_a_catalog_of_an_earlier_version(folder: StudyFolder, schema: int) -> None:
    _rewrite(folder, schema)
    assert reason_to_scan(folder) == "An earlier version of actionprep wrote the catalog"
    report = scan(folder, probe=FakeProbe())
    assert (report.num_probed, report.num_reused) == (2, 0)
    assert reason_to_scan(folder) == ""
