from __future__ import annotations

import csv
from pathlib import Path

import pytest

from actionprep.datasets.label_colors import label_colors
from actionprep.training.evaluation.report_recordings import css, timelines_section, wrong_clips_section

COLORS = label_colors(["hop", "sway"])


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def frame(recording: str, time: float, actual: str, predicted: str) -> dict[str, object]:
    return {"recording": recording, "time": time, "actual": actual, "predicted": predicted, "probability": 0.5}


def test_timelines_have_bars_per_run_and_gap(tmp_path):
    frames = [frame("a", i / 10, "hop" if i < 4 else "sway", "hop") for i in (0, 1, 2, 3, 4, 7, 8, 9)]
    frames += [frame("b", i / 10, "hop", "sway") for i in range(4)]
    section = timelines_section(table(tmp_path / "frames.csv", frames), COLORS)
    assert [row["name"] for row in section["rows"]] == ["b", "a"]
    b, a = section["rows"]
    assert b["correct"] == 0
    assert a["correct"] == pytest.approx(4 / 8)
    assert [(bar["label"], round(bar["left"]), round(bar["width"])) for bar in a["actual"]] == [
        ("hop", 0, 40),
        ("sway", 40, 10),
        ("sway", 70, 30),
    ]
    assert [bar["hint"] for bar in a["predicted"]] == ["hop, 0.00 to 0.50 s", "hop, 0.70 to 1.00 s"]
    assert a["actual"][0]["color"] == css(COLORS["hop"])
    assert [label["name"] for label in section["labels"]] == ["hop", "sway"]


def test_timelines_keep_worst_recordings(tmp_path):
    frames = [
        frame(f"r{number}", i / 10, "hop", "hop" if i < number else "sway") for number in range(14) for i in range(14)
    ]
    section = timelines_section(table(tmp_path / "frames.csv", frames), COLORS)
    assert [row["name"] for row in section["rows"]] == [f"r{number}" for number in range(12)]
    assert section["sentence"].startswith("The 12 of 14 with the most wrong frames first")


def sample(number: int, actual: str, predicted: str, probability: float, evidence: int = 1) -> dict[str, object]:
    return {
        "recording": f"r{number}", "onset": float(number), "offset": number + 1.0, "actual": actual,
        "predicted": predicted, "probability": probability, "evidence": evidence,
    }  # fmt: skip


def test_wrong_clips_are_sorted_by_probability(tmp_path):
    rows = [
        sample(0, "hop", "hop", 0.99),
        sample(1, "hop", "sway", 0.6),
        sample(2, "sway", "hop", 0.9),
        sample(3, "sway", "", 0.9, evidence=0),
    ]
    asked = []

    def thumbnails(recording: str, onset: float, offset: float) -> list[bytes]:
        asked.append((recording, onset, offset))
        return [b"jpeg"] if recording == "r2" else []

    section = wrong_clips_section(table(tmp_path / "samples.csv", rows), COLORS, thumbnails)
    assert section["sentence"] == "2 of 3 snippets are wrong."
    assert asked == [("r2", 2.0, 3.0), ("r1", 1.0, 2.0)]
    first, second = section["clips"]
    assert first["images"] == ["data:image/jpeg;base64,anBlZw=="]
    assert second["images"] == []
    assert (first["actual"]["name"], first["predicted"]["name"], first["span"]) == ("sway", "hop", "2.00 to 3.00 s")
    assert first["predicted"]["color"] == css(COLORS["hop"])


def test_no_wrong_clips_without_mistakes(tmp_path):
    assert wrong_clips_section(table(tmp_path / "samples.csv", [sample(0, "hop", "hop", 0.9)]), COLORS) is None
    assert wrong_clips_section(tmp_path / "missing.csv", COLORS) is None
    assert timelines_section(tmp_path / "missing.csv", COLORS) is None
