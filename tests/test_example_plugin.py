"""The example package adds a tracker, a model with its recipe and an annotation format to actionprep."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actionprep.api import open_study, settings_models
from actionprep.datasets.study import StudySettings, init_study
from actionprep.sample import make_sample_study

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples/actionprep-example-plugin"
RUN = """
import sys
import typer
from actionprep.cli import prep, train
from actionprep.cli.prep import app as prep_app
from actionprep.cli.train import app as train_app

for line in sys.argv[1:]:
    program, *words = line.split()
    print(">", line, flush=True)
    app = {"actionprep": prep_app, "actiontrain": train_app}[program]
    try:
        typer.main.get_command(app).main(words, prog_name=program)
    except SystemExit as end:
        if end.code:
            raise
"""


def install(site: Path, project: Mapping[str, Any]) -> None:
    """Write package metadata as pip does. The modules are imported through the path."""
    folder = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    groups = project["entry-points"].items()
    text = "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups)
    (folder / "entry_points.txt").write_text(text, encoding="utf-8")


def run(*lines: str, path: tuple[Path, ...], folder: Path, fails: bool = False) -> str:
    """Run commands in a process with these folders on its path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *lines], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def action_of(label: str) -> str:
    """Return the first word of a label. This leaves two classes with several samples each."""
    return label.partition("_")[0]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample study before the scan, with segments as JSON lines."""
    folder = tmp_path_factory.mktemp("example") / "study"
    make_sample_study(folder, recordings=8, views=1, workers=0)
    with open(folder / "segments.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        {"video": row["recording"], "start": row["onset"], "stop": row["offset"], "action": action_of(row["label"])}
        for row in rows
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "segments.jsonl").write_text(f'{text}\n{{"video": "take_000", "action": "wave"}}\n', encoding="utf-8")
    settings = StudySettings(
        layout="views",
        pattern="{recording}/cam{view}.mp4",
        recordings="recordings.csv",
        segments=("segments.jsonl",),
    )
    init_study(folder, settings, chosen={"tracks": {"tracker": "lk", "grid": 8}}, models=settings_models())
    return folder


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """The folders that make the example package importable and installed."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    site = tmp_path_factory.mktemp("site")
    install(site, project)
    return site, EXAMPLE / "src"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """A package that declares a part of each kind and cannot be imported."""
    groups = ("stages", "trackers", "annotation_formats", "pose_formats", "models", "recipes")
    points = {f"actionprep.{group}": {"gone": "no_such_package:Gone"} for group in groups}
    site = tmp_path_factory.mktemp("broken")
    install(site, {"name": "broken-plugin", "version": "2.0", "entry-points": points})
    return (site,)


@pytest.fixture(scope="module")
def built(study: Path, example: tuple[Path, ...]) -> str:
    """Run commands that use every part of the example package and return their output."""
    return run(
        "actionprep scan",
        "actionprep track --tracker shift --grid 4 --workers 0",
        "actionprep snippets",
        "actionprep split --val 0.25 --test 0.25",
        "actiontrain fit --recipe point-speed --epochs 2 --run ours --split default",
        "actiontrain recipes point-speed",
        "actionprep formats",
        "actionprep doctor",
        path=example,
        folder=study,
    )


def test_example_parts_are_listed(built: str) -> None:
    assert "json-lines" in built
    assert "learning_rate = 0.01" in built
    assert built.count("from the package actionprep-example-plugin 0.1.0") == 4


def test_example_format_reads_all_segments(built: str, study: Path) -> None:
    with open(study / "segments.csv", encoding="utf-8", newline="") as file:
        wanted = sorted((row["recording"], action_of(row["label"])) for row in csv.DictReader(file))
    catalog = open_study(study).catalog
    read = [
        (recording.id, segment.label)
        for recording in catalog.recordings
        for segment in catalog.segments_of(recording.id)
    ]
    assert sorted(read) == wanted
    assert "segments.jsonl:9" in built
    assert "expected an object with video, start, stop and action: KeyError('start')" in built


def test_example_tracker_states_its_package(built: str, study: Path) -> None:
    store = open_study(study).store
    provenance = [(store.metadata(key) or {})["provenance"] for key in store.items("tracks")]
    identity = {
        "tracker": "shift",
        "numpy": np.__version__,
        "point tracker package": "actionprep-example-plugin 0.1.0",
    }
    assert [made["identity"] for made in provenance] == [identity] * 8


def test_example_model_is_trained(built: str, study: Path) -> None:
    with open(study / "runs/ours/metrics.csv", encoding="utf-8", newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    facts = json.loads((study / "runs/ours/run.json").read_text(encoding="utf-8"))
    assert facts["versions"]["actionprep-example-plugin"] == "0.1.0"
    assert "actionprep-example-plugin 0.1.0" in (study / "runs/ours/report.html").read_text(encoding="utf-8")


def test_new_version_of_a_package_rebuilds(built: str, study: Path, example: tuple[Path, ...], tmp_path: Path) -> None:
    folder, newer = tmp_path / "study", tmp_path / "newer"
    shutil.copytree(study, folder)
    shutil.copytree(example[0], newer)
    [metadata] = newer.glob("*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("0.1.0", "0.2.0"), encoding="utf-8")
    settings = folder / "actionprep.toml"
    text = settings.read_text("utf-8").replace('tracker = "lk"', 'tracker = "shift"')
    settings.write_text(text.replace("grid = 8", "grid = 4"), encoding="utf-8")
    plans = [
        json.loads(run("actionprep plan tracks --json", path=path, folder=folder).partition("\n")[2])
        for path in (example, (newer, example[1]))
    ]
    assert [plan["stages"]["tracks"]["build"] for plan in plans] == [0, 8]


def test_shift_tracker_follows_a_rolled_frame(example: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(example[1])
    from actionprep_example_plugin.tracker import ShiftTracker

    from actionprep.pipeline.trackers.settings import TracksSettings

    first = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    frames = [np.roll(first, (-2 * t, 3 * t), axis=(0, 1)) for t in range(4)]
    queries = np.array([[1, 20.0, 30.0], [0, 5.5, 40.0]])
    tracks = ShiftTracker(TracksSettings()).track(frames, queries, both_ways=False)
    expected = [[20 + 3 * (t - 1), 30 - 2 * (t - 1)] for t in range(1, 4)]
    assert tracks.xy[1:, 0].tolist() == expected
    assert tracks.xy[0, 0].tolist() == [20, 30]
    assert tracks.visibility[:, 0].tolist() == [0, 1, 1, 1]
    assert tracks.xy[3, 1].tolist() == [14.5, 34.0]


def test_broken_package_disturbs_nobody_else(study: Path, broken: tuple[Path, ...], tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    shutil.copy(folder / "segments.csv", folder / "annotations.csv")
    settings = folder / "actionprep.toml"
    text = settings.read_text(encoding="utf-8").replace("segments.jsonl", "annotations.csv")
    settings.write_text(f"{text}\n[gone]\nlevel = 3\n", encoding="utf-8")
    text = run(
        "actionprep scan",
        "actionprep --help",
        "actionprep plan tracks",
        "actionprep status",
        "actionprep formats",
        "actiontrain recipes",
        "actionprep doctor",
        path=broken,
        folder=folder,
    )
    flat = " ".join(text.split())
    assert "The annotation format 'gone' of the package broken-plugin 2.0 cannot be used." in flat
    assert "The recipe 'gone' of the package broken-plugin 2.0 cannot be used." in flat
    assert "A stage of the package broken-plugin 2.0" in flat


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("actionprep gone", "stage"),
        ("actionprep track --tracker gone", "point tracker"),
        ("actiontrain fit --recipe gone", "recipe"),
    ],
)
def test_use_of_a_broken_part_is_one_error(
    line: str, kind: str, study: Path, broken: tuple[Path, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    (folder / "segments.jsonl").unlink()
    settings = folder / "actionprep.toml"
    settings.write_text(settings.read_text("utf-8").replace("segments.jsonl", "segments.csv"), encoding="utf-8")
    text = run("actionprep scan", line, path=broken, folder=folder, fails=True)
    flat = " ".join(text.split())
    assert f"The {kind} 'gone' of the package broken-plugin 2.0 cannot be used." in flat
    assert "ModuleNotFoundError: No module named 'no_such_package'" in flat
    assert "Traceback" not in text
