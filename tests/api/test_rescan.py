"""Reasons to scan a study again before its catalog is used."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from study_fakes import FakeProbe, fake_video

from actionprep.api.rescan import reason_to_scan
from actionprep.datasets.scan import scan
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


def test_reason_to_scan_names_a_catalog_of_an_earlier_version(folder: StudyFolder) -> None:
    for path in folder.catalog.glob("*.parquet"):
        table = pq.read_table(path)
        metadata = {**table.schema.metadata, b"actionprep_schema": b"1"}
        dropped = [name for name in table.schema.names if name == "file_start"]
        pq.write_table(table.drop_columns(dropped).replace_schema_metadata(metadata), path)
    assert reason_to_scan(folder) == "An earlier version of actionprep wrote the catalog"
    report = scan(folder, probe=FakeProbe())
    assert (report.num_probed, report.num_reused) == (2, 0)
    assert reason_to_scan(folder) == ""
