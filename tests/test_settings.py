"""Errors of settings state the wrong key, the value and the most similar key."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import model_validator

from actionprep.errors import UserError
from actionprep.settings import Settings, option, read_recorded, references


class Example(Settings):
    """An example."""

    stride: int = option(8, "Frames from one window to the next.", ge=1)
    grid: int = option(20, "Points along each side.", ge=1, le=200)


def test_an_unknown_key_is_named_with_the_nearest_right_one() -> None:
    with pytest.raises(UserError) as error:
        Example.read({"strid": 4}, where="[tracks] in actionprep.toml")
    assert str(error.value) == (
        "Unknown setting 'strid' in [tracks] in actionprep.toml. Did you mean 'stride'? Known settings: stride, grid."
    )


def test_settings_report_all_wrong_values_at_once() -> None:
    with pytest.raises(UserError) as error:
        Example.read({"stride": 0, "grid": "many"}, where="the command line")
    lines = str(error.value).splitlines()
    assert lines == [
        "Wrong value for --stride: got 0. Give 1 or more. (Frames from one window to the next.)",
        "Wrong value for --grid: got 'many'. Give a whole number. (Points along each side.)",
    ]


class Kinds(Settings):
    """A setting for each kind of bound."""

    share: float = option(0.5, "A share.", ge=0, lt=1)
    rate: float = option(1.0, "A rate.", gt=0, le=10)
    sizes: tuple[int, ...] = option((1,), "Sizes.", min_length=1, max_length=2)
    grid: tuple[int, int] = option((1, 1), "A grid.")
    filter: Literal["area", "cubic"] = option("area", "How to shrink.")
    name: str = option("a", "A name.", pattern="^[a-z]+$")
    keep: bool = option(True, "Whether to keep it.")
    table: dict[str, int] = option({}, "A table.")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("share", 1, "Give less than 1."),
        ("share", -0.5, "Give 0 or more."),
        ("share", "x", "Give a number."),
        ("rate", 0.0, "Give more than 0."),
        ("rate", 11.0, "Give 10 or less."),
        ("sizes", [], "Give a list of 1 or more values."),
        ("sizes", [1, 2, 3], "Give a list of 2 or fewer values."),
        ("sizes", 3, "Give a list."),
        ("grid", [3], "Give 2 values."),
        ("grid", [3, 4, 5], "Give a list of 2 or fewer values."),
        ("sizes", [1.5], "Give a whole number."),
        ("filter", "cubik", "Give 'area' or 'cubic'. Did you mean 'cubic'?"),
        ("name", "A1", "It must have the form ^[a-z]+$."),
        ("name", 3, "Give a text in quotes."),
        ("keep", "perhaps", "Give true or false."),
        ("table", 1, "Give a table."),
    ],
)
def test_settings_errors_state_the_expected_value(key: str, value: object, expected: str) -> None:
    with pytest.raises(UserError) as error:
        Kinds.read({key: value}, where="[kinds] in actionprep.toml")
    first, _, meaning = str(error.value).rpartition(" (")
    assert first.startswith(f"Wrong value for '{key}")
    assert (
        f" in [kinds] in actionprep.toml: got {(value[0] if expected.endswith('whole number.') else value)!r}. "
        in first
    )
    assert first.endswith(expected)
    assert meaning == f"{Kinds.model_fields[key].description})"


def test_changes_leave_what_is_not_given_and_validate_the_rest() -> None:
    settings = Example(grid=10).with_changes({"stride": 4, "grid": None}, where="test")
    assert (settings.stride, settings.grid) == (4, 10)
    with pytest.raises(UserError, match="Wrong value for 'stride'"):
        settings.with_changes({"stride": -1}, where="test")


def test_equal_settings_have_equal_digests() -> None:
    assert Example(grid=10).digest() == Example(grid=10, stride=8).digest() != Example(grid=11).digest()


class Inner(Settings):
    """Settings in a separate table."""

    low: int = option(0, "Lowest.", ge=0)
    high: int = option(1, "Highest.")

    @model_validator(mode="after")
    def _in_order(self):
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not lie above high ({self.high})")
        return self


class Outer(Settings):
    """Nested settings."""

    name: str = option(..., "Name of it.")
    inner: Inner = option(Inner(), "Bounds.")


def test_rule_between_settings_names_only_these_settings() -> None:
    with pytest.raises(UserError) as error:
        Inner.read({"low": 3}, where="[bounds] in actionprep.toml")
    assert str(error.value) == "Wrong settings in [bounds] in actionprep.toml: low (3) must not lie above high (1)."


def test_nested_settings_report_wrong_keys_and_values() -> None:
    with pytest.raises(UserError) as error:
        Outer.read({"inner": {"lo": 1}}, where="the recipe")
    lines = str(error.value).splitlines()
    assert lines[0] == "Missing setting 'name' in the recipe (Name of it.)."
    assert lines[1] == "Unknown setting 'inner.lo' in the recipe. Did you mean 'low'? Known settings: low, high."
    with pytest.raises(UserError, match=r"Wrong value for 'inner\.low' in the recipe: got -1\. .* \(Lowest\.\)"):
        Outer.read({"name": "a", "inner": {"low": -1}}, where="the recipe")
    with pytest.raises(UserError, match=r"Wrong settings in \[inner\] of the recipe: low \(2\) must not lie above"):
        Outer.read({"name": "a", "inner": {"low": 2}}, where="the recipe")


def test_setting_paths_resolve_at_the_study_and_keep_the_digest(tmp_path):
    from actionprep.pipeline.pose import PoseSettings, _options

    settings = PoseSettings(backend="mmpose", model="my/config.py", checkpoint="weights/w.pth")
    placed = settings.at(tmp_path)
    options = _options(placed)
    assert options["model"] == str(tmp_path / "my/config.py")
    assert options["checkpoint"] == str(tmp_path / "weights/w.pth")
    assert placed.path("/else/w.pth") == Path("/else/w.pth")
    assert placed.digest() == settings.digest()
    assert pickle.loads(pickle.dumps(placed)).path("a") == tmp_path / "a"
    assert _options(PoseSettings(backend="mmpose", model="hrnet-w48").at(tmp_path))["model"] == "hrnet-w48"


def recorded_models() -> dict[str, type[Settings]]:
    """Return every settings model that is recorded in a store, a run or a checkpoint, and those of the settings file."""
    from actionprep.api import settings_models
    from actionprep.datasets.study import StudySettings
    from actionprep.training.inputs.base import find_input, products
    from actionprep.training.recipes import LossSettings, OptimizerSettings, Recipe, ScheduleSettings

    inputs = {f"input of {name}": find_input(name).Settings for name in products()}
    parts = {"loss": LossSettings, "optimizer": OptimizerSettings, "schedule": ScheduleSettings}
    return {"study": StudySettings, **settings_models(), "recipe": Recipe, **inputs, **parts}


TEXTS = {
    *(
        "key",
        "format",
        "coordinates",
        "name",
        "model",
        "product",
        "doc",
        "prompt",
    ),  # names that the program or the data define
    *("sampler", "source", "tracker", "backend"),  # entries of registries
    *("background", "layers", "exclude_layers", "labels", "flip_labels", "freeze", "views", "stages", "up"),
    *("column", "val_column", "train_groups", "val_groups", "test_groups", "snippets", "split"),
    *("path_column", "recording_column", "view_column", "label_column", "subject_column", "session_column"),
    *("split_column", "encoding", "segment_format", "segment_columns", "pose_format", "pose_coordinates"),
    *("wandb_project", "wandb_entity", "wandb_tags"),
    *("device", "changes", "sizes", "parts", "crops", "chapters", "input", "loss", "optimizer", "schedule"),
}
"""Text settings that are no paths. Add a new one here, or mark it with `option(..., names=...)`."""


def holds_text(annotation: object) -> bool:
    """Return whether a setting of this type accepts any text, unlike choices and numbers."""
    if get_origin(annotation) is Literal:
        return False
    if annotation in (str, Any, Path):
        return True
    return any(holds_text(part) for part in get_args(annotation))


@pytest.mark.parametrize("table", recorded_models())
def test_every_setting_with_text_is_decided(table: str) -> None:
    model = recorded_models()[table]
    marked = set(references(model))
    texts = {name for name, field in model.model_fields.items() if holds_text(field.annotation)}
    assert marked <= texts
    assert texts - marked <= TEXTS


@pytest.mark.parametrize("table", recorded_models())
def test_names_of_places_are_marked(table: str) -> None:
    words = (
        "repo|environment|checkpoint|weights|files?|path|folder|dir|config|module|script|command|program|python|preload"
    )
    words += "|prologue|executable|url|detector|skeleton|csv|store|videos|recordings"
    model = recorded_models()[table]
    texts = [name for name, field in model.model_fields.items() if holds_text(field.annotation)]
    named = {name for name in texts if re.search(rf"(^|_)({words})(_|$)", name)}
    assert named - set(references(model)) <= {"path_column", "recording_column"}


class Tool(Settings):
    """Settings with paths outside the study."""

    grid: int = option(4, "A number.")
    repo: str = option("", "Code.", names="code")
    model: str = option(
        "small", "Code, or a model of ours.", names="code", known=lambda name: name in ("small", "large")
    )
    boxes: str = option("own", "Where boxes come from.")
    table: str = option("", "A file.", names="file")

    @model_validator(mode="after")
    def _together(self) -> Tool:
        if (self.boxes == "file") != bool(self.table):
            raise ValueError("'table' goes with boxes = \"file\"")
        return self


def test_recorded_code_is_replaced_by_the_users_own() -> None:
    result = read_recorded(Tool(repo="mine", grid=9), {"repo": "theirs", "grid": 5}, table="tool", where="the run")
    assert (result.require().repo, result.settings.grid) == ("mine", 5)
    assert result.as_written["repo"] == "theirs"
    assert result.can_compare
    assert [str(entry) for entry in result.ignored] == [
        "Ignored tool.repo = 'theirs', recorded in the run: data must not name code. Only your own actionprep.toml or the "
        "command line sets it. Used instead: 'mine', as you set it."
    ]


def test_recorded_code_without_own_is_the_default() -> None:
    result = read_recorded(Tool(), {"repo": "theirs"}, table="tool", where="the run")
    assert result.require() == Tool()
    assert not result.can_compare
    assert str(result.ignored[0]).endswith("Used instead: the default, ''.")


@pytest.mark.parametrize(
    ("own", "recorded", "used"),
    [
        ({}, {"model": "large"}, {"model": "large"}),
        ({"model": "mine.py"}, {"model": "large"}, {"model": "large"}),
        ({"repo": "same"}, {"repo": "same"}, {"repo": "same"}),
        ({"repo": "mine"}, {}, {}),
    ],
)
def test_recorded_names_of_ours_count(own: dict[str, str], recorded: dict[str, str], used: dict[str, str]) -> None:
    result = read_recorded(Tool(**own), recorded, table="tool", where="the run")  # type: ignore[arg-type]
    assert result.settings == Tool(**used)  # type: ignore[arg-type]
    assert result.ignored == ()


def test_a_recorded_file_that_is_needed_is_asked_for() -> None:
    result = read_recorded(Tool(), {"boxes": "file", "table": "a.csv"}, table="tool", where="the run")
    with pytest.raises(UserError) as error:
        result.require()
    assert str(error.value) == (
        "Ignored tool.table = 'a.csv', recorded in the run: data must not name a file. Only your own actionprep.toml or the "
        "command line sets it. Used instead: the default, ''.\n"
        "Without it: 'table' goes with boxes = \"file\". Set it and run again."
    )
