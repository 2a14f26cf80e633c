"""The scripts in examples/ work."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_poses_without_video(tmp_path: Path) -> None:
    accuracy = load("poses_without_video").main(tmp_path / "study", clips=20, epochs=2)
    assert 0 <= accuracy <= 1
    assert (tmp_path / "study/runs/first/report.html").is_file()


def test_readme_lists_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = [path.name for path in EXAMPLES.iterdir() if path.name not in ("README.md", "__pycache__")]
    assert [name for name in names if f"`{name}" not in text] == []
