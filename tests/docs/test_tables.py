"""The script that writes the tables of the documentation."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from doc_pages import ROOT


@pytest.fixture
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("actionprep_docs_tables", ROOT / "docs/tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_chosen_benchmarks_show_values_of_results(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(tmp_path, {"what is fast": 1234.4, "something else": 1.0})
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "CHOSEN_BENCHMARKS", (("read", "what is fast", "Reading", "{:,.0f} times faster"),))
    assert tables.chosen_benchmarks_table("").splitlines()[-1] == (
        "| Reading | 1,234 times faster | `benchmarks/read.py` |"
    )


def test_chosen_benchmarks_missing_mark_is_an_error(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(tmp_path, {"renamed": 2.0})
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "CHOSEN_BENCHMARKS", (("read", "what is fast", "Reading", "{:.0f}"),))
    with pytest.raises(ValueError, match=r"read.json has no mark 'what is fast'; .* Marks: renamed\."):
        tables.chosen_benchmarks_table("")


def write_results(root: Path, values: dict[str, float]) -> None:
    folder = root / "benchmarks" / "results"
    folder.mkdir(parents=True)
    marks = [{"what": what, "value": value} for what, value in values.items()]
    (folder / "read.json").write_text(json.dumps({"marks": marks}), encoding="utf-8")
