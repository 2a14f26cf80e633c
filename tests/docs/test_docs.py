"""The documentation is correct: blocks run, commands and link targets exist, tables match the program."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from doc_pages import PAGES, ROOT, Block, anchors, blocks, commands, links, rows_under

from actionprep.api import Study, import_poses, open_study, settings_models
from actionprep.datasets.store.zarr_store import Store
from actionprep.datasets.study import StudySettings, init_study
from actionprep.errors import UserError
from actionprep.pipeline.index import load_stages, stage_index
from actionprep.sample import make_sample_study
from actionprep.settings import references
from actionprep.training.inputs.base import find_input, products

MISSION = (
    "actionprep track --grid 20 --views 0 1 3 6",
    "actionprep snippets --length 1000 --iou 0.5",
    "actiontrain fit",
)
STORE, STAGES, CONTRIBUTING = ROOT / "docs/store.md", ROOT / "docs/stages.md", ROOT / "CONTRIBUTING.md"


def run_blocks(page: Path, folder: Path, *, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the Python blocks of a page in order, in one namespace and in a folder."""
    names: dict[str, Any] = {"__name__": page.stem, **(before or {})}
    with contextlib.chdir(folder):
        for block in blocks(page, "python"):
            # Blank lines before the block, so that a traceback shows the line of the page.
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            if block.why_parsed is None and block.title is None:
                exec(code, names)
    return names


def sample_study(folder: Path, *, recordings: int, views: int) -> Study:
    make_sample_study(folder, recordings=recordings, views=views, workers=0)
    study = StudySettings(
        layout="views",
        pattern="{recording}/cam{view}.mp4",
        recordings="recordings.csv",
        segments=("segments.csv",),
        offsets="views.csv",
    )
    init_study(folder, study, chosen={"tracks": {"tracker": "lk"}}, models=settings_models())
    return open_study(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of two recordings from one camera, with every product that needs nothing else."""
    study = sample_study(tmp_path_factory.mktemp("tiny") / "tiny", recordings=2, views=1)
    import_poses(study.root, [study.root / "truth/openpose/{recording}/cam{view}"])
    study = open_study(study.root)
    study.build("frames", "keyframes", "tracks", "heatmaps", "lowres", "snippets")
    study.build("split", overrides={"split": {"val": 0.0, "test": 0.0, "allow_single": True}})
    return study


@pytest.fixture(scope="session")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study after the page for notebooks was run in it."""
    folder = tmp_path_factory.mktemp("notebook") / "my-study"
    sample_study(folder, recordings=16, views=2)
    names = run_blocks(ROOT / "docs/python.md", folder)
    assert (folder / "runs/from-python/report.html").is_file()
    assert names["report"].ok
    return folder


def test_the_table_of_what_data_may_set_is_that_of_the_program() -> None:
    expected = {}
    for table, model in {"study": StudySettings, **settings_models()}.items():
        expected |= {f"{table}.{name}": (model, name, mark) for name, mark in references(model).items()}
    for product in products():
        model = find_input(product).Settings
        expected |= {f"input.{name}": (model, name, mark) for name, mark in references(model).items()}
    rows = {row[0]: row[1:] for row in rows_under(ROOT / "docs/failures.md", "## What data may set")}
    assert rows.keys() == expected.keys()
    for setting, (model, name, mark) in expected.items():
        lists = mark.known(model.model_fields[name].get_default(call_default_factory=True))
        answer = "yes, read as a layout" if mark.names == "layout" else "the program's own names" if lists else "no"
        assert rows[setting] == [mark.names, answer], setting


def test_the_page_for_notebooks_runs(notebook: Path) -> None:
    assert len(open_study(notebook).snippets) > 16


@pytest.mark.parametrize("page", ["store.md", "formats.md", "poses.md", "exports.md", "views.md"])
def test_the_blocks_of_a_page_run(page: str, tiny: Study) -> None:
    run_blocks(ROOT / "docs" / page, tiny.root)


def test_every_page_with_python_blocks_is_run() -> None:
    run = {"python.md", "store.md", "formats.md", "poses.md", "exports.md", "views.md", "CONTRIBUTING.md"}
    others = [
        block.name
        for page in PAGES
        if page.name not in run
        for block in blocks(page, "python")
        if block.why_parsed is None
    ]
    assert others == [], "run these blocks in a test, or mark them `<!-- only parsed: why -->`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    for place, (program, *words) in commands(page):
        if page == CONTRIBUTING and words[0] == "brightness":
            continue  # a command of the page's example, which is run below
        try:
            parse(program, words)
        except Exception as error:
            pytest.fail(f"{place}: {program} {' '.join(words)}: {getattr(error, 'message', error)}")


def parse(program: str, words: list[str]) -> None:
    """Parse a command and its settings as the program does, without running it."""
    if program == "actionprep":
        from actionprep.cli.prep import app
    else:
        from actionprep.cli.train import app
    group: Any = typer.main.get_command(app)
    if words in ([], ["--help"]):
        return
    context = group.context_class(group, info_name=program)
    name, command, rest = group.resolve_command(context, words)
    if rest == ["--help"]:
        return
    if hasattr(command, "list_commands"):
        context = command.context_class(command, info_name=name, parent=context)
        name, command, rest = command.resolve_command(context, rest)
    given = command.make_context(name, rest, parent=context).params
    by_command = {entry.command: entry.name for entry in stage_index().values()}
    if program == "actionprep" and name in by_command:
        model = load_stages()[by_command[name]].Settings
        chosen = {
            key: value for key, value in given.items() if key in model.model_fields and value not in (None, [], ())
        }
        model.read(chosen, where=name)


def test_a_wrong_option_a_wrong_command_and_a_wrong_value_do_not_parse() -> None:
    wrong = {
        "has no option --gird": ["track", "--gird", "5"],
        "has no command 'trak'": ["trak"],
        "Wrong value for --grid: got 'many'": ["track", "--grid", "many"],
    }
    for message, words in wrong.items():
        with pytest.raises(UserError, match=message):
            parse("actionprep", words)
    with pytest.raises(UserError, match="grid"):
        parse("actionprep", ["track", "--grid", "0"])


def test_the_three_lines_of_the_mission_stand_in_the_readme_word_for_word() -> None:
    lines = [line for block in blocks(ROOT / "README.md", "sh") for line in block.text.splitlines()]
    assert [line for line in lines if line in MISSION] == list(MISSION)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        file, _, anchor = target.partition("#")
        result = (page.parent / file) if file else page
        assert result.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(result), f"{page.name} links to {target}"


def test_tables_made_from_the_program_are_current() -> None:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs/tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    stale = [page.name for page in PAGES if tables.current(page.read_text("utf-8")) != page.read_text("utf-8")]
    assert stale == [], "run: python docs/tables.py"


def test_docs_have_settings_and_arrays_of_every_stage() -> None:
    stages, store = STAGES.read_text("utf-8"), STORE.read_text("utf-8")
    for name in stage_index():
        assert f"\n## {name}\n" in stages
        assert f"<!-- table: settings {name} -->" in stages
        assert f"\n### {name}\n" in store


@pytest.mark.parametrize(
    "product", ["frames", "keyframes", "masks", "tracks", "pose", "heatmaps", "lowres", "snippets", "split"]
)
def test_the_specification_of_the_store_is_what_is_written(product: str, tiny: Study) -> None:
    check_arrays(tiny.store, product, instead={"jpeg", "jpeg_end"})


def test_the_specification_of_jpeg_frames_is_what_is_written(tiny: Study, tmp_path: Path) -> None:
    shutil.copytree(tiny.root, tmp_path / "study", ignore=shutil.ignore_patterns("store", "truth"))
    study = open_study(tmp_path / "study")
    study.build("frames", overrides={"frames": {"storage": "jpeg"}})
    check_arrays(study.store, "frames", instead={"rgb"})


def check_arrays(store: Store, product: str, *, instead: set[str]) -> None:
    """Compare the arrays of a product's first item with their table. `instead` are those of another storage."""
    import zarr

    rows = {row[0]: row for row in rows_under(STORE, f"### {product}") if row[0] not in instead}
    item = zarr.open_group(store.url, mode="r")[store.items(product)[0].path]
    result = {re.sub(r"_\d+$", "_<size>", name): array for name, array in item.arrays()}
    assert set(result) == set(rows)
    for name, array in result.items():
        _, axes, kind, unit, chunk, _ = rows[name]
        assert ", ".join(array.metadata.dimension_names) == axes, name
        assert str(array.dtype) == kind, name
        assert array.attrs.get("unit", "") == unit, name
        assert (array.shards is None) if chunk == "whole" else (array.chunks[0] == int(chunk)), name
    described = STORE.read_text("utf-8").partition(f"\n### {product}\n")[2].partition("\n### ")[0]
    for attribute in item.attrs["stage"]:
        assert f"`{attribute}`" in described, f"{product} has '{attribute}', which is missing in docs/store.md"


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run Python with a copy of the package that contains the examples of CONTRIBUTING, file by file."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "actionprep", root / "actionprep", ignore=shutil.ignore_patterns("__pycache__"))
    for block in [*blocks(CONTRIBUTING, "python"), *blocks(CONTRIBUTING, "toml")]:
        if block.title is not None:
            assert not (root / block.title).exists()
            (root / block.title).write_text(block.text, encoding="utf-8")
    for block in blocks(CONTRIBUTING, "diff"):
        assert block.title is not None
        before = "".join(f"{line[1:]}\n" for line in block.text.splitlines() if not line.startswith("+"))
        after = "".join(f"{line[1:]}\n" for line in block.text.splitlines())
        text = (root / block.title).read_text(encoding="utf-8")
        assert text.count(before) == 1
        (root / block.title).write_text(text.replace(before, after), encoding="utf-8")

    def run(*args: str, folder: Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, *args], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_examples_of_contributing_work(extended: Callable[..., str], notebook: Path) -> None:
    checks: list[Block] = [block for block in blocks(CONTRIBUTING, "python") if block.title is None]
    assert len(checks) == 4
    script = notebook / "checks.py"
    script.write_text("\n\n".join(block.text for block in checks), encoding="utf-8")
    extended(str(script), folder=notebook)


@pytest.mark.parametrize(
    "words",
    [words for _, words in commands(CONTRIBUTING)],
    ids=lambda words: " ".join(words[:2]),
)
def test_the_commands_of_contributing_run(words: list[str], extended: Callable[..., str], notebook: Path) -> None:
    program = {"actionprep": "prep", "actiontrain": "train"}[words[0]]
    extended("-c", f"from actionprep.cli import {program}; {program}()", *words[1:], folder=notebook)
    if words[1] == "brightness":
        mean = open_study(notebook).store.item("brightness", "take_000", "0")["mean"][:]
        assert np.isfinite(mean).all()
