"""Registries: names, lazy imports, and plugins with their errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actionprep import registry as registry_module
from actionprep.errors import UserError
from actionprep.registry import REGISTRIES, Entry, PluginError, Registry, plugins

GROUP = "actionprep.trackers"


def make_registry() -> Registry[type]:
    """A registry of two built-in parts. The module of one does not exist, so importing it would fail."""
    entries = (Entry("fraction", "fractions:Fraction", "A ratio"), Entry("absent", "no_such_module:Thing"))
    return Registry("quantity", GROUP, entries, plural="Numbers", subclass_of="numbers:Number")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that installs a package with these entry points and a module for the test."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry_module, "_installed", registry_module._installed.__wrapped__)

    def add(package: str, points: str, *, group: str = GROUP, module: str = "") -> None:
        folder = tmp_path / f"{package}-1.5.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        (folder / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
        if module:
            (tmp_path / f"{package}.py").write_text(module)

    return add


def test_names_import_nothing() -> None:
    registry = make_registry()
    assert list(registry) == ["fraction", "absent"]
    assert "absent" in registry
    assert len(registry) == 2
    assert registry.help("fraction") == "A ratio"
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        registry["absent"]


def test_find_names_the_nearest() -> None:
    import fractions

    registry = make_registry()
    assert registry.find("fraction") is fractions.Fraction
    with pytest.raises(
        UserError, match=r"^No quantity 'frction'\. Did you mean 'fraction'\? Numbers: fraction, absent\.$"
    ):
        registry.find("frction")
    with pytest.raises(UserError, match="Did you mean 'auto'"):
        registry.check("auo", also=("auto",))
    assert registry.get("frction") is None


def test_added_part_follows_the_builtin_ones() -> None:
    registry = make_registry()
    registry["whole"] = int
    assert list(registry) == ["fraction", "absent", "whole"]
    assert registry["whole"] is int
    registry["whole"] = int  # the same class again, as in a notebook
    with pytest.raises(UserError, match=r"already a quantity named 'whole' \(builtins:int\)\. Choose another name"):
        registry["whole"] = float
    with pytest.raises(UserError, match=r"already a quantity named 'fraction' \(fractions:Fraction\)"):
        registry["fraction"] = float
    del registry["whole"]
    assert list(registry) == ["fraction", "absent"]


def test_register_decorates() -> None:
    registry = make_registry()

    @registry.register("own")
    class Own(int):
        """A number of our own.

        More about it.
        """

    assert registry["own"] is Own
    assert registry.help("own") == "A number of our own."
    assert registry.origin("own") == {}


def test_part_of_a_package(install: Callable[..., None]) -> None:
    install("numbers_plugin", "big = numbers_plugin:Big", module="class Big(int):\n    '''A big number.'''\n")
    registry = make_registry()
    assert list(registry) == ["fraction", "absent", "big"]  # and nothing is imported yet
    assert "numbers_plugin" not in sys.modules
    assert registry["big"](3) == 3
    assert registry.help("big") == "A big number."
    assert registry.origin("big") == {"quantity package": "numbers_plugin 1.5"}
    assert registry.origin("fraction") == {}


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise RuntimeError('needs a GPU')", "RuntimeError: needs a GPU"),
        ("class Other:\n    pass", "AttributeError: module 'bad_plugin' has no attribute 'Bad'"),
        ("Bad = 5", "TypeError: expected a subclass of Number, got 5"),
        (
            "class Bad(int):\n    name = 'worse'",
            "ValueError: the entry point is named 'bad', and the quantity itself 'worse'",
        ),
    ],
)
def test_broken_part_names_package_and_reason(module: str, reason: str, install: Callable[..., None]) -> None:
    sys.modules.pop("bad_plugin", None)
    install("bad_plugin", "bad = bad_plugin:Bad", module=module)
    registry = Registry[type](
        "quantity", GROUP, (Entry("whole", "builtins:int"),), plural="Numbers", subclass_of="numbers:Number"
    )
    assert list(registry) == ["whole", "bad"]
    assert registry.working() == {"whole": int}
    [(name, error)] = registry.broken().items()
    assert name == "bad"
    assert str(error) == (
        "The quantity 'bad' of the package bad_plugin 1.5 cannot be used.\n"
        f"  entry point  {GROUP}: bad = bad_plugin:Bad\n"
        f"  reason       {reason}\n"
        "  to fix       update or uninstall bad_plugin"
    )
    with pytest.raises(PluginError, match="cannot be used"):
        registry.find("bad")


def test_name_of_two_packages_is_refused_on_use(install: Callable[..., None]) -> None:
    install("first_plugin", "twin = builtins:int\nfraction = builtins:float")
    install("second_plugin", "twin = builtins:complex")
    registry = make_registry()
    assert list(registry) == ["fraction", "absent", "twin"]
    with pytest.raises(PluginError) as error:
        registry["twin"]
    owners = {"first_plugin 1.5 (builtins:int)", "second_plugin 1.5 (builtins:complex)"}
    assert all(owner in str(error.value) for owner in owners)
    assert "2 packages have a quantity named 'twin'" in str(error.value)
    with pytest.raises(PluginError, match=r"actionprep \(fractions:Fraction\), first_plugin 1\.5 \(builtins:float\)"):
        registry["fraction"]


def test_plugins_reports_an_unknown_group(install: Callable[..., None]) -> None:
    install("typo_plugin", "thing = builtins:int", group="actionprep.tracker")
    [(kind, entry, error)] = [row for row in plugins() if row[1].package == "typo_plugin"]
    assert (kind, entry.name) == ("actionprep.tracker", "thing")
    assert "No such group. Did you mean 'actionprep.trackers'?" in str(error)


@pytest.mark.parametrize("group", REGISTRIES)
def test_every_group_has_a_registry(group: str) -> None:
    registry = registry_module._resolve(REGISTRIES[group])
    assert isinstance(registry, Registry)
    assert registry.group == group
    assert {name: error for name, error in registry.broken().items() if not registry.entries()[name].package} == {}
    assert registry.working()
    assert all(registry.help(name) for name in registry)


def test_scan_of_packages_is_light() -> None:
    """Without packages that declare parts, not even importlib.metadata is imported."""
    code = (
        "import sys; from actionprep.pipeline.index import stage_index; stage_index(); "
        "print(*sorted({'importlib.metadata', 'numpy', 'torch', 'zarr', 'dask', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
