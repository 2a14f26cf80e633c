"""Settings say which key is wrong, what came, and which key was probably meant."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import model_validator

from actionprep.errors import UserError
from actionprep.settings import Settings, option


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


def test_every_wrong_value_is_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        Example.read({"stride": 0, "grid": "many"}, where="the command line")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("Wrong value for 'stride' in the command line: got 0.")
    assert "Frames from one window to the next" in lines[0]
    assert lines[1].startswith("Wrong value for 'grid' in the command line: got 'many'.")


def test_changes_leave_what_is_not_given_and_validate_the_rest() -> None:
    settings = Example(grid=10).with_changes({"stride": 4, "grid": None}, where="test")
    assert (settings.stride, settings.grid) == (4, 10)
    with pytest.raises(UserError, match="Wrong value for 'stride'"):
        settings.with_changes({"stride": -1}, where="test")


def test_equal_settings_have_equal_digests() -> None:
    assert Example(grid=10).digest() == Example(grid=10, stride=8).digest() != Example(grid=11).digest()


class Inner(Settings):
    """Settings in a table of their own."""

    low: int = option(0, "Lowest.", ge=0)
    high: int = option(1, "Highest.")

    @model_validator(mode="after")
    def _in_order(self):
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not lie above high ({self.high})")
        return self


class Outer(Settings):
    """Settings that hold others."""

    name: str = option(..., "Name of it.")
    inner: Inner = option(Inner(), "Bounds.")


def test_a_rule_between_settings_names_them_and_not_the_whole_table() -> None:
    with pytest.raises(UserError) as error:
        Inner.read({"low": 3}, where="[bounds] in actionprep.toml")
    assert str(error.value) == "Wrong settings in [bounds] in actionprep.toml: low (3) must not lie above high (1)."


def test_wrong_keys_and_values_of_an_inner_table_are_told_by_its_own_settings() -> None:
    with pytest.raises(UserError) as error:
        Outer.read({"inner": {"lo": 1}}, where="the recipe")
    lines = str(error.value).splitlines()
    assert lines[0] == "Missing setting 'name' in the recipe (Name of it.)."
    assert lines[1] == "Unknown setting 'inner.lo' in the recipe. Did you mean 'low'? Known settings: low, high."
    with pytest.raises(UserError, match=r"Wrong value for 'inner\.low' in the recipe: got -1\. .* \(Lowest\.\)"):
        Outer.read({"name": "a", "inner": {"low": -1}}, where="the recipe")
    with pytest.raises(UserError, match=r"Wrong settings in \[inner\] of the recipe: low \(2\) must not lie above"):
        Outer.read({"name": "a", "inner": {"low": 2}}, where="the recipe")


def test_paths_in_settings_start_at_the_study_folder_and_are_no_part_of_what_items_are_made_from(tmp_path):
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
