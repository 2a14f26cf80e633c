"""Group tested runs that repeat one training, and name the rows of a comparison."""

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
    """A tested run or fusion, with the runs of the models that it uses.

    Attributes:
        run: The run or fusion.
        mixture: Contents of the fusion; None for a run.
    """

    run: Run
    mixture: Mixture | None

    @classmethod
    def of(cls, run: Run) -> Entry:
        """Create the entry of a run, or of a fusion with all its runs available."""
        return cls(run, fused_runs(run.folder))

    def read(self) -> Entry:
        """Read everything that a comparison needs.

        Raises:
            UserError: If a file is missing or damaged.
        """
        _ = (self.identity, self.test_rows, self.arrays)
        return self

    @property
    def members(self) -> tuple[Run, ...]:
        """Runs of the models that this entry uses."""
        return (self.run,) if self.mixture is None else self.mixture.runs

    @property
    def recipe(self) -> str:
        """Name of the recipe, or of the fused recipes."""
        names = [run.recipe.name for run in self.members]
        return names[0] if self.mixture is None else f"fusion of {' + '.join(names)}"

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the members."""
        return tuple(int(run.facts["seed"]) for run in self.members)

    @cached_property
    def stored_split(self) -> str | None:
        """Name of the stored split, if any."""
        name: str | None = self.members[0].facts["split"].get("stored")
        return name

    @cached_property
    def test_rows(self) -> frozenset[int]:
        """Rows of the test snippets in their table."""
        return frozenset(self.members[0].facts["split"]["rows"]["test"])

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays that the test saved; see `saved_arrays`."""
        return saved_arrays(self.run, *ANSWERS)

    @property
    def train_seconds(self) -> float:
        """Training time of all members together, in seconds."""
        return sum(float(run.facts.get("train_seconds") or 0.0) for run in self.members)

    @cached_property
    def trainings(self) -> tuple[tuple[str, int], ...]:
        """Identity and seed of each training that is used. Both are the same for all splits."""
        return tuple((_identity(run), seed) for run, seed in zip(self.members, self.seeds, strict=True))

    @cached_property
    def identity(self) -> str:
        """Text that is equal for entries that differ only in seed, fold or stored split."""
        return canonical_json([[training for training, _ in self.trainings], self.weighting, self.split_kind])

    @property
    def weighting(self) -> str | None:
        """Weights of a fusion: "val", "equal" or the values; None for a run."""
        if self.mixture is None:
            return None
        if self.mixture.by_val:
            return "val"
        weights = [f"{weight:.6g}" for weight in self.mixture.weights]
        return "equal" if len(set(weights)) == 1 else "/".join(weights)

    @property
    def split_kind(self) -> str:
        """What the entry is one test of: folds of a cross-validation, stored splits, or a single split."""
        split = self.members[0].facts["split"]
        if self.stored_split is not None:
            return "stored"
        if split.get("folds") is not None:
            return f"{split['folds']} folds by {split['by']}"
        # Older runs do not record the number of folds, but their explanation names the fold.
        return f"folds by {split['by']}" if split["why"].startswith("testing on ") else "single"

    @property
    def start(self) -> str:
        """Initial weights of the members: "fresh", or "weights" with the start of their hash."""
        return "+".join(dict.fromkeys(_start(run) for run in self.members))


def rows_of(entries: Sequence[Entry]) -> tuple[list[list[Entry]], list[str]]:
    """Group entries into rows. A row holds the repetitions, folds or stored splits of one training.

    Equal answers of one seed on the same snippets count as one run, however often they are given. Different answers of
    that seed, and fusions that share a run, are not repetitions and get separate rows.

    Args:
        entries: Tested runs and fusions.

    Returns:
        Rows, and notes on entries that were left out or separated.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.identity, []).append(entry)
    rows, notes = [], []
    for group in groups.values():
        separate: list[list[Entry]] = []
        for entry in group:
            original = next((other for row in separate for other in row if _is_copy(entry, other)), None)
            if original is not None:
                first, second = endings([original.run.folder, entry.run.folder])
                notes.append(f"{second} has exactly the same answers as {first}, with the same seed. It counts once.")
                continue
            matching = next((row for row in separate if all(_belongs_with(entry, other) for other in row)), None)
            if matching is None:
                separate.append([entry])
            else:
                matching.append(entry)
        if len(separate) > 1:
            names = endings([row[0].run.folder for row in separate])
            notes.append(
                f"{', '.join(names)} share a recipe and a seed, but their answers differ. They are not repetitions of each "
                "other, so each has its own row."
            )
        rows += separate
    return rows, notes


def repeated(row: Sequence[Entry]) -> list[tuple[int, str | None, list[Entry]]]:
    """Group the entries of a row by seed and stored split. Entries of one group are folds of one test."""
    groups: dict[tuple[tuple[int, ...], str | None], list[Entry]] = {}
    for entry in row:
        groups.setdefault((entry.seeds, entry.stored_split), []).append(entry)
    return [(seeds[0], split, entries) for (seeds, split), entries in groups.items()]


def row_names(entries: Sequence[Entry]) -> list[str]:
    """Name rows by the recipe of their first entry, and by what distinguishes it from other rows of that recipe."""
    names = []
    for entry in entries:
        same_recipe = [other for other in entries if other.recipe == entry.recipe]
        differences: dict[str, str] = {}
        if entry.mixture is None:
            differences = _different_settings(entry.run.recipe, [other.run.recipe for other in same_recipe])
        for fact in ("views", "snippets"):
            if len({canonical_json([run.facts[fact] for run in other.members]) for other in same_recipe}) > 1:
                value = entry.members[0].facts[fact]
                differences[fact] = value if isinstance(value, str) else " ".join(value)
        for name, values in (
            ("weights", [other.weighting or "" for other in same_recipe]),
            ("start", [other.start for other in same_recipe]),
        ):
            if len(set(values)) > 1:
                differences[name] = values[same_recipe.index(entry)]
        names.append(" ".join([entry.recipe, *(f"{name}={value}" for name, value in differences.items())]))
    for positions in _repeated_positions(names):
        if len({entries[position].split_kind for position in positions}) > 1:
            for position in positions:
                names[position] += f" split={entries[position].split_kind}"
    for positions in _repeated_positions(names):
        suffixes = endings([entries[position].run.folder for position in positions])
        for position, ending in zip(positions, suffixes, strict=True):
            names[position] += f" ({ending})"
    return names


def _different_settings(recipe: Recipe, others: Sequence[Recipe]) -> dict[str, str]:
    """Settings in which a recipe differs from others, sorted by name; without the implied min_steps."""
    differences = {}
    for other in others:
        for setting, value, _ in differing_settings(recipe, other):
            differences[setting] = "none" if value is None else setting_text(value)
    differences.pop("seed", None)
    if "epochs" in differences and differences.get("min_steps") == "0":
        del differences["min_steps"]
    return dict(sorted(differences.items()))


def endings(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that distinguish the folders."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        suffixes = ["/".join(folder_parts[-depth:]) for folder_parts in parts]
        if len(set(suffixes)) == len(suffixes):
            break
    return suffixes


def _repeated_positions(names: Sequence[str]) -> list[list[int]]:
    """Positions of each name that occurs more than once."""
    return [
        [position for position, other in enumerate(names) if other == name]
        for name in set(names)
        if names.count(name) > 1
    ]


def _identity(run: Run) -> str:
    """Text that is equal for runs that differ only in seed or split."""
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


def _is_copy(first: Entry, second: Entry) -> bool:
    """Whether both are the same run, or have the same seed and exactly the same answers."""
    return (first.seeds, first.stored_split, first.test_rows) == (
        second.seeds,
        second.stored_split,
        second.test_rows,
    ) and (np.array_equal(first.arrays["probabilities"], second.arrays["probabilities"], equal_nan=True))


def _belongs_with(first: Entry, second: Entry) -> bool:
    """Whether entries of equal identity may share a row: other stored splits, other seeds, or folds of one seed."""
    if first.stored_split != second.stored_split or not set(first.trainings) & set(second.trainings):
        return True
    return first.stored_split is None and first.seeds == second.seeds and not first.test_rows & second.test_rows
