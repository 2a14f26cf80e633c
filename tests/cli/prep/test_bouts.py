"""The commands `actionprep bouts` and `actionprep agreement`."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from prep_commands import actionprep, document

from actionprep.api import Study


@pytest.fixture
def annotated(study: Study) -> Study:
    """Two recordings with two annotators."""
    rows = [
        "recording,onset,offset,label,annotator",
        "first,0.0,0.2,wave,anna",
        "first,0.3,0.4,wave,anna",
        "first,0.0,0.25,wave,bert",
        "second,0.1,0.5,nod,anna",
        "second,0.1,0.4,nod,bert",
    ]
    (study.root / "segments.csv").write_text("\n".join(rows) + "\n")
    study.scan()
    return study


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_bouts_writes_tables_figure_and_page(annotated: Study, tmp_path: Path) -> None:
    out = tmp_path / "bouts"
    result = actionprep(annotated, "bouts", "--annotators", "anna", "--bin", "0.25", "--xlsx", "-o", str(out))
    assert result.exit_code == 0, result.output
    assert "Bouts in 2 recordings" in result.stdout
    assert {path.name for path in out.iterdir()} == {
        "bouts.csv", "statistics.csv", "groups.csv", "transitions.csv", "bins.csv", "ethogram.png", "bouts.html",
        "bouts.xlsx",
    }  # fmt: skip
    wave = next(
        row for row in rows_of(out / "statistics.csv") if row["recording"] == "first" and row["label"] == "wave"
    )
    assert (wave["count"], wave["total_s"], wave["latency_s"]) == ("2", "0.3", "0.0")
    never = next(
        row for row in rows_of(out / "statistics.csv") if row["recording"] == "second" and row["label"] == "wave"
    )
    assert (never["count"], never["mean_s"], never["share"]) == ("0", "", "0.0")
    page = (out / "bouts.html").read_text(encoding="utf-8")
    assert "3 bouts in 2" in page
    pandas = pytest.importorskip("pandas")
    assert len(pandas.read_excel(out / "bouts.xlsx", sheet_name="bouts")) == 3


def test_bouts_joins_gaps_on_request(annotated: Study, tmp_path: Path) -> None:
    result = document(annotated, "bouts", "--annotators", "anna", "--max-gap", "100", "-o", str(tmp_path / "bouts"))
    assert [row["length_s"] for row in result["bouts"]] == [0.4, 0.4]
    assert result["rules"]["max_gap_s"] == 0.1


def test_bouts_names_unknown_annotators_and_columns(annotated: Study) -> None:
    result = actionprep(annotated, "bouts", "--annotators", "ana")
    assert result.exit_code == 2
    assert "No segment has the annotator 'ana'. Did you mean 'anna'? Available: anna, bert." in result.stderr
    result = actionprep(annotated, "bouts", "--group", "treatment")
    assert "No recording has a value in the column 'treatment'." in result.stderr


def test_bouts_escapes_labels_in_the_page(study: Study, tmp_path: Path) -> None:
    (study.root / "segments.csv").write_text("recording,onset,offset,label\nfirst,0,0.2,<script>x</script>\n")
    study.scan()
    assert actionprep(study, "bouts", "-o", str(tmp_path / "out")).exit_code == 0
    page = (tmp_path / "out" / "bouts.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_bouts_without_segments_says_what_to_do(study: Study) -> None:
    (study.root / "segments.csv").write_text("recording,onset,offset,label\n")
    study.scan()
    result = actionprep(study, "bouts")
    assert result.exit_code == 2
    assert "has no segments" in result.stderr


def test_agreement_of_annotators(annotated: Study, tmp_path: Path) -> None:
    out = tmp_path / "agreement"
    result = actionprep(annotated, "agreement", "-o", str(out))
    assert result.exit_code == 0, result.output
    assert "anna / bert" in result.stdout
    rows = {row["label"]: row for row in rows_of(out / "agreement.csv")}
    assert set(rows) == {"(all)", "nod", "wave"}
    assert (rows["wave"]["bouts"], rows["wave"]["other_bouts"]) == ("2", "1")
    assert float(rows["nod"]["first_s"]) == pytest.approx(0.4)


def test_agreement_with_another_table(annotated: Study, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("recording,onset,offset,label\nfirst,0.0,0.2,wave\n")
    result = document(annotated, "agreement", "--table", f"model={other}", "-o", str(tmp_path / "out"))
    assert {(pair["first"], pair["second"]) for pair in result["pairs"]} == {("annotations", "model")}


def test_agreement_of_one_annotator_names_the_ways_out(study: Study) -> None:
    (study.root / "segments.csv").write_text("recording,onset,offset,label\nfirst,0,0.2,wave\n")
    study.scan()
    result = actionprep(study, "agreement")
    assert result.exit_code == 2
    assert "Agreement compares at least two annotators" in result.stderr
    result = actionprep(study, "agreement", "--run", "nothing")
    assert "actiontrain predict --run nothing" in result.stderr
