"""`actionprep export` of annotations: what is written reads back equal, in every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prep_commands import actionprep, document

from actionprep.api import Study
from actionprep.api.segment_sources import segments_of_file
from actionprep.datasets.annotation_writers.index import SEGMENT_WRITERS
from actionprep.datasets.segments import Segment

ROWS = """recording,onset,offset,label,layer,annotator
first,0.0,0.6,wave & "bye",hands,anna
first,0.8,1.2,nöd,hands,anna
second,0.2,1.0,nöd,hands,anna
"""


@pytest.fixture
def annotated(study: Study) -> Study:
    """Segments that begin and end with frames of 30 frames/s."""
    (study.root / "segments.csv").write_text(ROWS, encoding="utf-8")
    study.scan()
    return study


def read_back(study: Study, out: Path) -> dict[str, list[Segment]]:
    segments: dict[str, list[Segment]] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else [out]:
        for recording, own in segments_of_file(study, path).items():
            segments.setdefault(recording, []).extend(own)
    return segments


@pytest.mark.parametrize("format", list(SEGMENT_WRITERS))
def test_written_segments_read_back_equal(annotated: Study, tmp_path: Path, format: str) -> None:
    out = tmp_path / ("annotations" + SEGMENT_WRITERS[format].suffix * SEGMENT_WRITERS[format].one_file)
    result = actionprep(annotated, "export", format, str(out))
    assert result.exit_code == 0, result.output
    assert "Wrote 3 segments of 2 recordings with 2 labels" in result.stdout
    segments = read_back(annotated, out)
    assert set(segments) == {"first", "second"}
    for recording, own in segments.items():
        expected = annotated.catalog.segments_of(recording)
        assert [one.label for one in sorted(own, key=lambda one: one.onset)] == [one.label for one in expected]
        for one, other in zip(sorted(own, key=lambda one: one.onset), expected, strict=True):
            assert (one.onset, one.offset) == pytest.approx((other.onset, other.offset), abs=2e-3)


@pytest.mark.parametrize("format", ["boris", "csv", "eaf", "via"])
def test_layers_read_back_equal(annotated: Study, tmp_path: Path, format: str) -> None:
    out = tmp_path / ("annotations" + SEGMENT_WRITERS[format].suffix * SEGMENT_WRITERS[format].one_file)
    assert actionprep(annotated, "export", format, str(out)).exit_code == 0
    assert {each.layer for own in read_back(annotated, out).values() for each in own} == {"hands"}


def test_elan_documents_open_with_pympi(annotated: Study, tmp_path: Path) -> None:
    elan = pytest.importorskip("pympi.Elan")
    actionprep(annotated, "export", "eaf", str(tmp_path / "eaf"))
    opened = elan.Eaf(str(tmp_path / "eaf/first.eaf"))
    assert sorted(opened.get_annotation_data_for_tier("hands"))[0][:3] == (0, 600, 'wave & "bye"')


def test_export_keeps_existing_files(annotated: Study, tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    out.write_text("mine")
    result = actionprep(annotated, "export", "csv", str(out))
    assert result.exit_code == 2
    assert f"{out} exists. Replace it with --overwrite" in result.stderr
    assert out.read_text() == "mine"
    assert actionprep(annotated, "export", "csv", str(out), "--overwrite").exit_code == 0
    assert out.read_text().startswith("recording,onset,offset,label")


def test_export_of_predictions(annotated: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = actionprep(annotated, "export", "csv", "out.csv", "--run", "one")
    assert result.exit_code == 2
    assert "actiontrain predict --run one --recording" in result.stderr
    (tmp_path / "prediction/one").mkdir(parents=True)
    table = "recording,onset,offset,label,probability\nfirst,0.100,0.500,wave,0.9000\n"
    (tmp_path / "prediction/one/timeline.csv").write_text(table)
    made = document(annotated, "export", "activitynet", "out.json", "--run", "one")
    assert (made["segments"], made["labels"]) == (1, ["wave"])
    entry = json.loads((tmp_path / "out.json").read_text())["database"]["first"]
    assert entry["annotations"] == [{"segment": [0.1, 0.5], "label": "wave"}]


def test_overlap_that_boris_cannot_express_is_refused(study: Study, tmp_path: Path) -> None:
    rows = "recording,onset,offset,label\nfirst,0,0.6,wave\nfirst,0.5,0.9,wave\n"
    (study.root / "segments.csv").write_text(rows)
    study.scan()
    result = actionprep(study, "export", "boris", str(tmp_path / "x.boris"))
    assert result.exit_code == 2
    assert (
        "BORIS cannot express segments that overlap and have the same label: 'wave' 0.000 to 0.600 s" in result.stderr
    )
    assert not (tmp_path / "x.boris").exists()


def test_segments_without_a_frame_are_counted(study: Study, tmp_path: Path) -> None:
    (study.root / "segments.csv").write_text("recording,onset,offset,label\nfirst,0,0.6,wave\nfirst,0.81,0.83,nod\n")
    study.scan()
    result = actionprep(study, "export", "labelstudio", str(tmp_path / "x.json"))
    assert "1 segment without a frame left out." in result.stderr
    assert "Wrote 1 segment of 1 recording" in result.stdout


def test_a_file_for_many_files_is_refused(annotated: Study, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    result = actionprep(annotated, "export", "eaf", str(tmp_path / "x"))
    assert "is a file. Name a folder: eaf has a file per recording." in result.stderr
    result = actionprep(annotated, "export", "csv", str(tmp_path))
    assert "is a folder. Name a file" in result.stderr
