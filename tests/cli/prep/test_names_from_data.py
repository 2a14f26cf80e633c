"""Odd names in the data of a study, with every command of `actionprep` that writes or deletes."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from odd_names import ESCAPES, ODD, snapshot
from pose_items import made_poses
from prep_commands import actionprep

from actionprep.api import Study, open_study
from actionprep.datasets.catalog_tables import make_tables, write_tables
from actionprep.datasets.poses.formats.pyskl import write_pyskl
from actionprep.datasets.poses.sequence import PoseItem
from actionprep.datasets.store.metadata import group_text_with_checksum
from actionprep.datasets.store.zarr_store import Store

COMMANDS = (
    ("status",),
    ("verify",),
    ("verify", "--repair", "--workers", "0"),
    ("digest",),
    ("gc", "--yes"),
    ("lowres", "--workers", "0"),
    ("snippets", "--length", "400"),
    ("show", "lowres"),
    ("scan",),
)


@pytest.fixture(scope="module")
def filled(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with products."""
    root = tmp_path_factory.mktemp("filled") / "study"
    shutil.copytree(made, root)
    for words in (("lowres", "--workers", "0"), ("snippets", "--length", "400")):
        assert actionprep(root, *words).exit_code == 0
    return root


@pytest.fixture
def study(filled: Path, tmp_path: Path) -> Study:
    """Return a copy of the study, next to a folder that must not change."""
    shutil.copytree(filled, tmp_path / "study")
    (tmp_path / "victim/thesis").mkdir(parents=True)
    (tmp_path / "victim/thesis/chapter.txt").write_text("three years of work")
    return open_study(tmp_path / "study")


def run_all(study: Study, *commands: tuple[str, ...]) -> list[Result]:
    """Run the commands. Each must end with a result or an `actionprep` error and change nothing outside the study."""
    around = study.root.parent
    before = {name: entry for name, entry in snapshot(around).items() if not name.startswith("study/")}
    results = [actionprep(study, *words) for words in commands or COMMANDS]
    for result in results:
        assert result.exit_code in (0, 1, 2), result.output
        assert "fault in the program" not in result.output
        assert "\x1b" not in result.output
        assert "\0" not in result.output
    assert {name: entry for name, entry in snapshot(around).items() if not name.startswith("study/")} == before
    return results


def tamper(study: Study, **changes: str) -> None:
    """Rename the first recording or view in the catalog, as no scan would."""
    known = study.catalog
    first, *views = known.views
    renamed = replace(first, **{name: value for name, value in changes.items() if name in ("id", "path")})
    recordings = list(known.recordings)
    if "recording" in changes:
        recordings[0] = replace(recordings[0], id=changes["recording"])
        views = [
            replace(view, recording=changes["recording"]) if view.recording == first.recording else view
            for view in views
        ]
        renamed = replace(renamed, recording=changes["recording"])
    write_tables(make_tables(recordings, [renamed, *views], known.segments, known.findings), study.folder.catalog)


@pytest.mark.parametrize(("part", "name"), [("product", ".."), ("recording", "../victim"), ("view", ODD[0])])
def test_items_of_store(study: Study, part: str, name: str) -> None:
    path = study.store.path / "lowres/first/0/zarr.json"
    attributes = json.loads(path.read_text())["attributes"]
    attributes["item"][part] = name
    path.write_text(group_text_with_checksum(attributes))
    status, verified, repaired, *_ = run_all(study)
    assert status.exit_code == 0
    assert verified.exit_code == 1
    assert "lowres/first/0: its metadata names another item" in verified.stdout
    assert repaired.exit_code == 0
    assert all(damage is None for _, damage in Store(study.folder.store).verify())


def test_escaped_item_of_no_recording(study: Study) -> None:
    path = study.store.path / "tracks/x/0/zarr.json"
    path.parent.mkdir(parents=True)
    item = {"product": "..", "recording": "../victim", "view": "thesis"}
    facts = {"digest": "0", "fingerprint": "0", "nbytes": 0, "provenance": {}, "stage": {}, "item": item}
    path.write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": facts}))
    listed, deleted, repaired = run_all(study, ("gc",), ("gc", "--yes"), ("verify", "--repair", "--workers", "0"))
    assert listed.stdout == deleted.stdout.replace("; deleted", "")
    assert listed.stdout.splitlines()[0] == "0 items without a recording or view in the catalog."
    assert "actionprep verify" in listed.stdout
    assert listed.stderr == (
        "Not touched: Damaged item tracks/x/0: its metadata names another item, '../../victim/thesis'. Run 'actionprep "
        "verify' to check all items.\n"
    )
    assert repaired.exit_code == 1
    assert "delete its folder" in repaired.stdout.replace("\n", " ")
    assert path.exists()


@pytest.mark.parametrize(
    ("part", "name"), [*(("recording", name) for name in (*ESCAPES, *ODD)), ("id", "../victim"), ("path", ODD[0])]
)
def test_catalog(study: Study, part: str, name: str) -> None:
    tamper(study, **{part: name})
    results = run_all(study)
    # A scan reads the files of the user and rewrites the catalog.
    assert results[-1].exit_code == 0
    assert {recording.id for recording in open_study(study.root).catalog.recordings} == {"first", "second"}
    assert run_all(study, ("status",))[0].exit_code == 0


@pytest.mark.parametrize("path", ["../victim/thesis/chapter.txt", "{root}/../victim/thesis/chapter.txt"])
def test_video_outside_of_catalog(study: Study, path: str) -> None:
    tamper(study, path=path.format(root=study.root))
    [result] = run_all(study, ("show", "video"))
    assert "which is not a video of this study: scanning." in result.stderr
    assert open_study(study.root).catalog.views[0].path == "videos/first/cam0.mp4"


@pytest.mark.parametrize("name", [*ESCAPES, *ODD])
def test_recordings_of_table(study: Study, name: str) -> None:
    cell = name.replace('"', '""')
    (study.root / "list.csv").write_text(f'path,recording\nvideos/first/cam0.mp4,"{cell}"\n', encoding="utf-8")
    study.folder.change("study", "csv", "list.csv")
    study.folder.change("study", "layout", "csv")
    scanned, built, shown = run_all(study, ("scan",), ("lowres", "--workers", "0"), ("show", "lowres", name))
    if name in ESCAPES:
        assert (scanned.exit_code, built.exit_code, shown.exit_code) == (2, 2, 2)
        assert ("a NUL character" if "\0" in name else "cannot be the id of a recording") in scanned.output
    else:
        assert (scanned.exit_code, built.exit_code, shown.exit_code) == (0, 0, 0)
        [written] = [path.name for path in (study.root / "show").iterdir()]
        assert written.isprintable()
        assert not set(written) & set('<>"')


@pytest.mark.parametrize("name", [*ESCAPES, *ODD])
def test_recordings_of_pose_archive(tmp_path: Path, name: str) -> None:
    write_pyskl(tmp_path / "data.pkl", [PoseItem("clip", made_poses(10), label=0, splits=("xsub_train",))])
    content = pickle.loads((tmp_path / "data.pkl").read_bytes())
    content["annotations"][0]["frame_dir"] = name
    content["split"] = {name: [name]}
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(content))
    before = set(snapshot(tmp_path))
    result = actionprep(tmp_path / "study", "import", "pyskl", str(tmp_path / "data.pkl"))
    assert result.exit_code in (0, 1, 2)
    assert "fault in the program" not in result.output
    assert "\x1b" not in result.output
    assert {path for path in set(snapshot(tmp_path)) - before if not path.startswith("study")} == set()


@pytest.mark.parametrize("name", ESCAPES)
def test_names_of_products(study: Study, name: str) -> None:
    if "\0" in name:
        pytest.skip("a command line cannot hold it")
    for result in run_all(study, ("snippets", "--name", name), ("split", "--name", name), ("show", f"snippets/{name}")):
        assert result.exit_code == 2
    for result in run_all(study, ("show", "lowres", name)):
        assert result.exit_code == 2


def test_links_where_files_are_written(study: Study) -> None:
    victim = study.root.parent / "victim/thesis/chapter.txt"
    (study.root / "show").mkdir()
    for path in ("show/lowres-first.png", "show/video-first.png", "catalog/settings.json", "catalog/views.parquet"):
        (study.root / path).unlink(missing_ok=True)
        (study.root / path).symlink_to(victim)
    results = run_all(study, ("scan",), ("show", "lowres", "first"), ("show", "video", "first"))
    assert [result.exit_code for result in results] == [0, 0, 0]
    assert not (study.root / "show/lowres-first.png").is_symlink()
