"""Which tested runs are repetitions of one training, and how the rows of a comparison are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from actionprep.settings import canonical_json
from actionprep.training.evaluation.result_files import ANSWERS, saved_arrays
from actionprep.training.fusion import Mixture, fused_runs
from actionprep.training.recipes import Recipe, differing_settings, setting_text
from actionprep.training.run import Run


@dataclass(frozen=True)
class Entry:
    """Something tested, and the runs whose models it asks: itself, or those of a fusion."""

    run: Run
    mixture: Mixture | None

    @classmethod
    def of(cls, run: Run) -> Entry:
        """The entry of a run, or of a fusion whose runs are all there."""
        return cls(run, fused_runs(run.folder))

    def read(self) -> Entry:
        """Read now what a comparison needs; raises UserError that names what is missing or damaged."""
        _ = (self.identity, self.test_rows, self.arrays)
        return self

    @property
    def members(self) -> tuple[Run, ...]:
        """The runs whose models it asks."""
        return (self.run,) if self.mixture is None else self.mixture.runs

    @property
    def recipe(self) -> str:
        """The name of its recipe, or of those that are fused."""
        names = [one.recipe.name for one in self.members]
        return names[0] if self.mixture is None else f"fusion of {' + '.join(names)}"

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Of its members."""
        return tuple(int(one.facts["seed"]) for one in self.members)

    @cached_property
    def stored_split(self) -> str | None:
        """Name of the stored split, if it is one."""
        found: str | None = self.members[0].facts["split"].get("stored")
        return found

    @cached_property
    def test_rows(self) -> frozenset[int]:
        """Rows of the test snippets in their table."""
        return frozenset(self.members[0].facts["split"]["rows"]["test"])

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """What its test left; see `saved_arrays`."""
        return saved_arrays(self.run, *ANSWERS)

    @property
    def train_seconds(self) -> float:
        """Of all members together."""
        return sum(float(one.facts.get("train_seconds") or 0.0) for one in self.members)

    @cached_property
    def asked(self) -> tuple[tuple[str, int], ...]:
        """The trainings that it asks, each with its seed; what differs between splits is no part of it."""
        return tuple((_identity(run), seed) for run, seed in zip(self.members, self.seeds, strict=True))

    @cached_property
    def identity(self) -> str:
        """Equal for entries that differ in seeds, or in which fold or stored split they are of, alone."""
        return canonical_json([[training for training, _ in self.asked], self.weighting, self.split_kind])

    @property
    def weighting(self) -> str | None:
        """How a fusion weighs its runs: "val", "equal" or the weights; None of a run."""
        if self.mixture is None:
            return None
        if self.mixture.by_val:
            return "val"
        weights = [f"{one:.6g}" for one in self.mixture.weights]
        return "equal" if len(set(weights)) == 1 else "/".join(weights)

    @property
    def split_kind(self) -> str:
        """What it is one test of: the folds of a cross-validation, stored splits, or one split."""
        given = self.members[0].facts["split"]
        if self.stored_split is not None:
            return "stored"
        if given.get("folds") is not None:
            return f"{given['folds']} folds by {given['by']}"
        # Earlier runs do not keep how many folds there are, but say so of each.
        return f"folds by {given['by']}" if given["why"].startswith("testing on ") else "single"

    @property
    def start(self) -> str:
        """What its members began from: "fresh", or "weights" and the hash of what was put into the model."""
        return "+".join(dict.fromkeys(_start(run) for run in self.members))


def rows_of(entries: Sequence[Entry]) -> tuple[list[list[Entry]], list[str]]:
    """Entries by row, each with those that are repetitions, folds or stored splits of one training; and notes.

    Equal answers of one seed on the same snippets are one run, however often it is given. Other answers of that seed, or
    fusions that share a run, are no repetitions: they are rows of their own.
    """
    alike: dict[str, list[Entry]] = {}
    for entry in entries:
        alike.setdefault(entry.identity, []).append(entry)
    rows, notes = [], []
    for group in alike.values():
        apart: list[list[Entry]] = []
        for entry in group:
            copied = next((other for row in apart for other in row if _is_copy(entry, other)), None)
            if copied is not None:
                first, second = endings([copied.run.folder, entry.run.folder])
                notes.append(f"{second} gives the very answers of {first}, with the same seed: it counts once.")
                continue
            fitting = next((row for row in apart if all(_goes_with(entry, other) for other in row)), None)
            if fitting is None:
                apart.append([entry])
            else:
                fitting.append(entry)
        if len(apart) > 1:
            named = endings([row[0].run.folder for row in apart])
            notes.append(
                f"{', '.join(named)} share a recipe and a seed, and their answers differ: they are no repetitions of each "
                "other, so each has a row of its own."
            )
        rows += apart
    return rows, notes


def repeated(row: Sequence[Entry]) -> list[tuple[int, str | None, list[Entry]]]:
    """A row's entries by seed and stored split: of one seed, those that test on other snippets are folds of one test."""
    found: dict[tuple[tuple[int, ...], str | None], list[Entry]] = {}
    for entry in row:
        found.setdefault((entry.seeds, entry.stored_split), []).append(entry)
    return [(seeds[0], split, entries) for (seeds, split), entries in found.items()]


def row_names(entries: Sequence[Entry]) -> list[str]:
    """Names of rows, of their first entries: the recipe's, and what sets it apart from others of that name."""
    found = []
    for entry in entries:
        same = [other for other in entries if other.recipe == entry.recipe]
        apart = _settings_apart(entry.run.recipe, [one.run.recipe for one in same]) if entry.mixture is None else {}
        for fact in ("views", "snippets"):
            if len({canonical_json([one.facts[fact] for one in other.members]) for other in same}) > 1:
                value = entry.members[0].facts[fact]
                apart[fact] = value if isinstance(value, str) else " ".join(value)
        for name, values in (
            ("weights", [other.weighting or "" for other in same]),
            ("start", [other.start for other in same]),
        ):
            if len(set(values)) > 1:
                apart[name] = values[same.index(entry)]
        found.append(" ".join([entry.recipe, *(f"{name}={value}" for name, value in apart.items())]))
    for at in _equal(found):
        if len({entries[number].split_kind for number in at}) > 1:
            for number in at:
                found[number] += f" split={entries[number].split_kind}"
    for at in _equal(found):
        for number, ending in zip(at, endings([entries[number].run.folder for number in at]), strict=True):
            found[number] += f" ({ending})"
    return found


def _settings_apart(recipe: Recipe, others: Sequence[Recipe]) -> dict[str, str]:
    """Settings in which a recipe differs from others, sorted by name; not the min_steps that asking for epochs implies."""
    found = {}
    for other in others:
        for setting, value, _ in differing_settings(recipe, other):
            found[setting] = "none" if value is None else setting_text(value)
    found.pop("seed", None)
    if "epochs" in found and found.get("min_steps") == "0":
        del found["min_steps"]
    return dict(sorted(found.items()))


def endings(folders: Sequence[Path]) -> list[str]:
    """As much of the ends of different folders' paths as tells them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        found = ["/".join(one[-depth:]) for one in parts]
        if len(set(found)) == len(found):
            break
    return found


def _equal(names: Sequence[str]) -> list[list[int]]:
    """Where the names stand that occur more than once."""
    return [[at for at, other in enumerate(names) if other == name] for name in set(names) if names.count(name) > 1]


def _identity(run: Run) -> str:
    """Equal for runs that differ in seed or split alone."""
    tables = run.recipe.to_tables()
    for key in ("seed", "doc"):
        tables["recipe"].pop(key)
    facts = run.facts
    return canonical_json(
        [tables, facts["snippets"], facts["views"], facts["labels"], facts["input_digest"], _start(run)]
    )


def _start(run: Run) -> str:
    facts = run.facts
    if not facts.get("published_weights"):
        return "fresh"
    return f"weights-{(facts.get('weights_digest') or 'unknown')[:8]}"


def _is_copy(one: Entry, other: Entry) -> bool:
    """Whether two are one run, or of one seed and not to be told apart by what they say."""
    return (one.seeds, one.stored_split, one.test_rows) == (other.seeds, other.stored_split, other.test_rows) and (
        np.array_equal(one.arrays["probabilities"], other.arrays["probabilities"], equal_nan=True)
    )


def _goes_with(one: Entry, other: Entry) -> bool:
    """Whether two of equal identity may stand in one row: other stored splits, other seeds, or folds of one seed."""
    if one.stored_split != other.stored_split or not set(one.asked) & set(other.asked):
        return True
    return one.stored_split is None and one.seeds == other.seeds and not one.test_rows & other.test_rows
