"""Named parts of the program (stages, models, formats, …): built in, added by code, or from other packages.

Each kind of part has one `Registry`. `REGISTRIES` lists them by the entry-point group in which another package declares
parts of that kind. Nothing is imported until a part is used, so that `--help` stays light.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

from actionprep.errors import SetupError, UserError, nearest

T = TypeVar("T")
V = TypeVar("V")

REGISTRIES = MappingProxyType(
    {
        "actionprep.stages": "actionprep.pipeline.index:STAGES",
        "actionprep.trackers": "actionprep.pipeline.trackers.tracker:TRACKERS",
        "actionprep.mask_sources": "actionprep.pipeline.mask_sources.source:MASK_SOURCES",
        "actionprep.samplers": "actionprep.pipeline.keyframes:SAMPLERS",
        "actionprep.pose_backends": "actionprep.pipeline.pose_backends:POSE_BACKENDS",
        "actionprep.pose_formats": "actionprep.datasets.poses.formats:FORMATS",
        "actionprep.annotation_formats": "actionprep.datasets.annotations:SEGMENT_FORMATS",
        "actionprep.calibration_formats": "actionprep.datasets.cameras:CALIBRATION_FORMATS",
        "actionprep.annotation_writers": "actionprep.datasets.annotation_writers.index:SEGMENT_WRITERS",
        "actionprep.inputs": "actionprep.training.inputs.base:INPUTS",
        "actionprep.models": "actionprep.training.models.registry:MODELS",
        "actionprep.recipes": "actionprep.training.recipes:RECIPES",
    }
)
"""The registry of each entry-point group, as "module:attribute"."""


class PluginError(SetupError):
    """A part of another package cannot be used: its import fails, it is of the wrong type, or its name is taken."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One named part, known without importing it.

    Attributes:
        name: Name that settings and commands use.
        target: Where the object is defined: "module:attribute".
        help: One line for lists. Empty if the object describes itself.
        package: Distribution that declares the part; empty for parts of actionprep and parts added by code.
        version: Version of that distribution.
    """

    name: str
    target: str
    help: str = ""
    package: str = ""
    version: str = ""

    @property
    def origin(self) -> str:
        """Package and version, for messages and provenance."""
        return f"{self.package} {self.version}".strip() if self.package else "actionprep"


class Registry(MutableMapping[str, T], Generic[T]):
    """The parts of one kind by name: built-in entries in their order, then added ones, then those of other packages.

    `registry[name]` imports the part. Iteration, `len` and `in` import nothing. `registry[name] = part` adds a part
    until the process ends.

    Args:
        kind: What one part is called in messages, such as "point tracker".
        group: Entry-point group in which other packages declare parts of this kind.
        builtin: Entries of actionprep.
        plural: How a list of the names begins in messages, such as "Trackers".
        subclass_of: "module:attribute" of the base class, for a registry of classes.
        instance_of: "module:attribute" of the class, for a registry of objects.
        fill: Called once before the first look-up; adds the built-in parts that no table lists.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        builtin: Iterable[Entry] = (),
        *,
        plural: str,
        subclass_of: str = "",
        instance_of: str = "",
        fill: Callable[[], object] | None = None,
    ) -> None:
        self.kind = kind
        self.group = group
        self._plural = plural
        self._builtin = {entry.name: entry for entry in builtin}
        self._subclass_of, self._instance_of = subclass_of, instance_of
        self._fill = fill
        self._added: dict[str, Entry] = {}
        self._loaded: dict[str, T] = {}
        self._errors: dict[str, PluginError] = {}
        self._entries: dict[str, Entry] | None = None
        self._rivals: dict[str, list[Entry]] = {}

    def entries(self) -> dict[str, Entry]:
        """All parts by name, without importing any."""
        if self._fill is not None:
            self._fill()
            self._fill = None
        if self._entries is None:
            entries = {**self._builtin, **self._added}
            rivals: dict[str, list[Entry]] = {}
            for entry in _installed().get(self.group, ()):
                first = entries.setdefault(entry.name, entry)
                if first.target != entry.target:
                    rivals.setdefault(entry.name, [first]).append(entry)
                elif not first.package:
                    entries[entry.name] = entry  # added by its own module, while that was imported
            self._entries, self._rivals = entries, rivals
        return self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries())

    def __len__(self) -> int:
        return len(self.entries())

    def __contains__(self, name: object) -> bool:
        return name in self.entries()

    def __getitem__(self, name: str) -> T:
        entry = self.entries()[name]
        if name in self._rivals:
            raise self._ambiguous(name)
        if name not in self._loaded:
            if name in self._errors:
                raise self._errors[name]
            self._loaded[name] = self._load(entry) if entry.package else _resolve(entry.target)
        return self._loaded[name]

    def __setitem__(self, name: str, part: T) -> None:
        target = _target_of(part)
        existing = self._added.get(name) or self._builtin.get(name)
        # The same class again is the same cell of a notebook run twice, or a built-in part while it is imported.
        if existing is not None and not (target and target == existing.target):
            raise UserError(
                f"There is already a {self.kind} named '{name}'"
                + (f" ({existing.target})" if existing.target else "")
                + ". Choose another name."
            )
        if name not in self._builtin:
            self._added[name] = Entry(name, target)
        self._loaded[name] = part
        self._entries = None

    def __delitem__(self, name: str) -> None:
        del self._added[name]
        del self._loaded[name]
        self._entries = None

    def register(self, name: str) -> Callable[[V], V]:
        """Decorate a class to add it under a name: the form of `registry[name] = part` for code that defines it."""

        def add(part: V) -> V:
            self[name] = cast(T, part)
            return part

        return add

    def check(self, name: str, *, also: tuple[str, ...] = ()) -> None:
        """Raise UserError with the nearest name unless there is a part of this name; imports nothing.

        Args:
            name: Name to check.
            also: Words that a setting takes besides the names of parts, such as "auto".
        """
        known = (*also, *self)
        if name not in known:
            raise UserError(f"No {self.kind} '{name}'.{nearest(name, known)} {self._plural}: {', '.join(known)}.")

    def find(self, name: str) -> T:
        """Import the part of a name.

        Raises:
            UserError: If there is none; names the nearest one.
            PluginError: If it belongs to another package and cannot be used.
        """
        if self._entries is not None and name in self._loaded and name not in self._rivals:
            return self._loaded[name]  # a plan asks for each item
        self.check(name)
        return self[name]

    def working(self) -> dict[str, T]:
        """Import all parts; those that cannot be imported are left out, and are in `broken`."""
        return {name: self[name] for name in self if self._error(name) is None}

    def broken(self) -> dict[str, PluginError]:
        """Import all parts and return what is wrong with those that cannot be used, by name."""
        errors = {name: self._error(name) for name in self}
        return {name: error for name, error in errors.items() if error is not None}

    def help(self, name: str) -> str:
        """One line about a part: that of its entry, else its `description` or the first line of its docstring."""
        entry = self.entries()[name]
        if entry.help:
            return entry.help
        part = self[name]
        text = getattr(part, "description", None) or part.__doc__ or ""
        return str(text).strip().split("\n")[0]

    def origin(self, name: str) -> dict[str, str]:
        """Package and version of a part, as facts for a fingerprint; nothing for a part of actionprep itself."""
        entry = self.entries().get(name)
        return {f"{self.kind} package": entry.origin} if entry is not None and entry.package else {}

    def _error(self, name: str) -> PluginError | None:
        try:
            self[name]
        except PluginError as error:
            return error
        return None

    def _ambiguous(self, name: str) -> PluginError:
        owners = [f"{entry.origin} ({entry.target})" for entry in self._rivals[name]]
        packages = " or ".join(dict.fromkeys(entry.package for entry in self._rivals[name] if entry.package))
        return PluginError(
            f"{len(owners)} packages have a {self.kind} named '{name}': {', '.join(owners)}.\nUninstall {packages}."
        )

    def _load(self, entry: Entry) -> T:
        try:
            part = _resolve(entry.target)
            self._check_type(entry, part)
        except Exception as error:  # whatever another package raises must not end commands that do not use it
            self._errors[entry.name] = PluginError(
                f"The {self.kind} '{entry.name}' of the package {entry.origin} cannot be used.\n"
                f"  entry point  {self.group}: {entry.name} = {entry.target}\n"
                f"  reason       {type(error).__name__}: {error}\n"
                f"  to fix       update or uninstall {entry.package}"
            )
            raise self._errors[entry.name] from error
        return cast(T, part)

    def _check_type(self, entry: Entry, part: object) -> None:
        if self._subclass_of:
            base = _resolve(self._subclass_of)
            if not (isinstance(part, type) and issubclass(part, base)):
                raise TypeError(f"expected a subclass of {base.__name__}, got {part!r}")
        if self._instance_of and not isinstance(part, _resolve(self._instance_of)):
            raise TypeError(f"expected a {self._instance_of.partition(':')[2]}, got {part!r}")
        name = getattr(part, "name", entry.name)
        if isinstance(name, str) and name != entry.name:
            raise ValueError(f"the entry point is named '{entry.name}', and the {self.kind} itself '{name}'")


def plugins() -> list[tuple[str, Entry, PluginError | None]]:
    """Import every part that other packages declare.

    Returns:
        Kind, entry and error (None if it can be used) of each part. A group without a registry is an error too.
    """
    rows: list[tuple[str, Entry, PluginError | None]] = []
    for group, entries in _installed().items():
        if group not in REGISTRIES:
            known = f"No such group.{nearest(group, REGISTRIES)} Groups: {', '.join(REGISTRIES)}."
            rows += [(group, entry, PluginError(known)) for entry in entries]
            continue
        registry: Registry[Any] = _resolve(REGISTRIES[group])
        rows += [(registry.kind, entry, registry.broken().get(entry.name)) for entry in entries]
    return rows


@functools.cache
def _installed() -> dict[str, tuple[Entry, ...]]:
    """Entries that installed packages declare, by group, sorted by name."""
    if not _may_have_plugins():
        return {}
    from importlib.metadata import distributions

    groups: dict[str, list[Entry]] = {}
    packages: set[str] = set()
    for package in distributions():
        points = [point for point in package.entry_points if point.group.startswith("actionprep.")]
        if points and package.name not in packages:  # the first one on the path is the one that is imported
            packages.add(package.name)
            for point in points:
                target = point.value.partition("[")[0].strip()
                entry = Entry(point.name, target, package=package.name, version=package.version)
                groups.setdefault(point.group, []).append(entry)
    return {group: tuple(sorted(entries, key=lambda entry: entry.name)) for group, entries in sorted(groups.items())}


def _may_have_plugins() -> bool:
    """Whether an installed package declares parts: a look at the files, which costs less than importlib.metadata."""
    if any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path):
        return True
    for folder in sys.path:
        try:
            names = os.listdir(folder or os.curdir)
        except NotADirectoryError:
            return True  # an archive of modules
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(folder, name, "entry_points.txt"), "rb") as file:
                        if b"[actionprep." in file.read():
                            return True
                except OSError:
                    continue  # most packages have no entry points
    return False


def _resolve(target: str) -> Any:
    """Import "module:attribute"."""
    module, _, attribute = target.partition(":")
    return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))


def _target_of(part: object) -> str:
    """Where a class or function is defined, "module:attribute"; empty for other objects."""
    name = getattr(part, "__qualname__", "")
    return f"{part.__module__}:{name}" if name else ""
