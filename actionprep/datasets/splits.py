"""Split snippets into train, val and test so that no subject, session, recording or video is in two parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from actionprep.datasets.discovery import SPLIT_NAMES
from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.products.snippets import SnippetTable
from actionprep.errors import UserError, name_list, nearest
from actionprep.json_values import counted

By = Literal["subject", "session", "recording", "column"]
Part = Literal["train", "val", "test"]

PARTS: tuple[Part, ...] = ("train", "val", "test")

# Greedy assignment is fast and places one group at a time, so the best of several orders is used.
_MAX_TRIES = 64
_WORK = 100_000


@dataclass(frozen=True)
class SplitAssignment:
    """Part of every snippet.

    Attributes:
        train: Rows of the table for training, ascending. Ignored snippets are in no part.
        val: Rows for validation.
        test: Rows for testing.
        by: What stays together.
        seed: Seed of the order in which groups were distributed.
        groups: Names of the groups (for example subjects) of each part, in natural order.
        notes: What the user should know, such as a class that is missing in test.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    by: str
    seed: int
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rows(self, part: Part) -> np.ndarray:
        """Return the rows of a part."""
        return {"train": self.train, "val": self.val, "test": self.test}[part]


def assign(
    table: SnippetTable,
    *,
    by: By = "recording",
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    train: Sequence[str | int] = (),
    val: Sequence[str | int] = (),
    test: Sequence[str | int] = (),
    val_by: By | None = None,
    allow_single: bool = False,
) -> SplitAssignment:
    """Make one split into train, val and test. Equal arguments give equal splits.

    Args:
        table: The snippets.
        by: What stays together: all snippets of a subject, a session or a recording; or "column" for the part that was
            given for each recording. Recordings that share a video file always stay together.
        fractions: Fractions of the snippets for train, val and test; a part with 0 stays empty. Each class is
            distributed likewise, as far as complete groups allow. For named groups and for "column" only the fraction
            of val counts: val is taken from the training groups if none was given.
        seed: Seed of the order in which groups are distributed.
        train: Names of groups for train (for example subjects 1, 3, 5), instead of fractions. Groups without a part
            are in train if no group is named for it, and left out otherwise.
        val: Names of groups for val.
        test: Names of groups for test.
        val_by: What stays together when val is taken from training groups; `by` when None. With "recording", val takes
            some recordings of training subjects, so that train keeps every subject.
        allow_single: Accept a class with a single sample, which is then in train. If everything is in train, such
            classes are always accepted.

    Raises:
        UserError: If the split cannot be made.
    """
    _check_fractions(fractions)
    all_in_train = by != "column" and fractions[1] == fractions[2] == 0 and not (val or test)
    rows = _usable(table, allow_single=allow_single or all_in_train)
    if by == "column":
        return _by_column(table, rows, fractions[1], seed=seed, val_by=val_by or "recording")
    group, names = groups_of(table, by)
    if train or val or test:
        part_of_group = _named(names, by, train, val, test)
        parts = part_of_group[group[table.recording[rows]]]
        used = np.unique(part_of_group[group[np.unique(table.recording[rows])]])
        if fractions[1] > 0 and 1 not in used:
            parts = _carve(
                table, rows, parts, fractions[1] / max(fractions[0] + fractions[1], 1e-9), val_by or by, seed
            )
    elif val_by is not None and val_by != by and fractions[1] > 0:
        parts = _share_out(table, rows, group, (fractions[0] + fractions[1], 0.0, fractions[2]), by, seed)
        parts = _carve(table, rows, parts, fractions[1] / (fractions[0] + fractions[1]), val_by, seed)
    else:
        parts = _share_out(table, rows, group, fractions, by, seed)
    return _checked(table, rows, parts, by, val_by or by, seed)


def folds(
    table: SnippetTable,
    *,
    by: By = "subject",
    num_folds: int | None = None,
    val_fraction: float = 0.0,
    val_by: By | None = None,
    seed: int = 0,
    allow_single: bool = False,
) -> list[SplitAssignment]:
    """Make splits for cross-validation: every group is in test once.

    Args:
        table: The snippets.
        by: What stays together.
        num_folds: Number of folds; None leaves one group out per fold.
        val_fraction: Fraction of the other snippets for val, taken as in `assign`.
        val_by: What stays together when val is taken from train; `by` when None.
        seed: Seed of the order in which groups are distributed.
        allow_single: Accept classes with a single sample.

    Raises:
        UserError: If there are fewer groups than folds.
    """
    if by == "column":
        raise UserError("Folds need by = subject, session or recording: a given column has one split.")
    rows = _usable(table, allow_single=allow_single)
    group, names = groups_of(table, by)
    present = np.unique(group[table.recording[rows]])
    wanted = len(present) if num_folds is None else num_folds
    if wanted < 2 or len(present) < wanted:
        if len(present) == 1:
            raise UserError(
                f"Folds by {by} need at least 2 {by}s; there is 1 ({_some([names[code] for code in present])}). "
                + (
                    "Train on everything with --val 0 --test 0 and without folds; then nothing is left to test on."
                    if by == "recording" or len(np.unique(table.recording[rows])) == 1
                    else "Fold by recording."
                )
            )
        raise UserError(
            f"{max(wanted, 2)} folds by {by} need at least {counted(max(wanted, 2), by)}; there {_is_are(len(present))} "
            f"{len(present)} ({_some([names[code] for code in present])}). "
            f"Ask for fewer folds{'' if by == 'recording' else ', or fold by recording'}."
        )
    if num_folds is None:
        fold = np.searchsorted(present, group[table.recording[rows]])
    else:
        fold = _greedy(table, rows, group, np.full(wanted, 1 / wanted), seed, all_in_first=False)
    splits = []
    for index in range(wanted):
        parts = np.where(fold == index, 2, 0)
        if val_fraction > 0:
            parts = _carve(table, rows, parts, val_fraction, val_by or by, seed)
        splits.append(_checked(table, rows, parts, by, val_by or by, seed))
    return splits


def apply_parts(table: SnippetTable, parts: Mapping[str, str], *, by: str = "recording") -> SplitAssignment:
    """Apply the part of every recording, as the split stage stores it, to a table.

    Args:
        table: The snippets.
        parts: Part by recording id. Recordings without a part are left out.
        by: What stays together, for display.

    Raises:
        UserError: If the split leaks or train has no snippets.
    """
    code = np.array([PARTS.index(parts[id]) if parts.get(id) in PARTS else -1 for id in table.recordings], np.int64)
    rows = np.flatnonzero(table.used)
    return _checked(table, rows, code[table.recording[rows]], "recording", "recording", 0, called=by)


def check_split(table: SnippetTable, split: SplitAssignment, *, by: By, val_by: By | None = None) -> None:
    """Check that no group and no video file is in two parts, and that train has every class that the others have.

    Args:
        table: The snippets.
        split: The split to check.
        by: What must stay together.
        val_by: What must stay together between train and val, if it is less than `by`.

    Raises:
        UserError: With the groups that are in two parts, or the classes that train lacks.
    """
    pairs: tuple[tuple[By, Part, Part], ...] = (
        (by, "train", "test"),
        (by, "val", "test"),
        (val_by or by, "train", "val"),
    )
    for what, part, other in pairs:
        group, names = groups_of(table, what)
        crossing = np.intersect1d(group[table.recording[split.rows(part)]], group[table.recording[split.rows(other)]])
        if len(crossing):
            raise UserError(
                f"The split leaks: {what} {_some([names[code] for code in crossing])} is in {part} and in "
                f"{other}. Put each into one part; recordings with the same video file belong together."
            )
    if not len(split.train):
        return
    has = table.target[split.train].any(axis=0)
    for part in ("val", "test"):
        lacking = table.target[split.rows(part)].any(axis=0) & ~has
        if lacking.any():
            labels = [table.labels[code] for code in np.flatnonzero(lacking)]
            raise UserError(
                f"Train has no sample of class {_some(labels)}, and {part} has. A class can be learned only from "
                "train: split by recording, give other groups, or leave the class out."
            )


def groups_of(table: SnippetTable, by: By) -> tuple[np.ndarray, list[str]]:
    """Return the group of every recording and the names of the groups.

    Recordings with the same video file are in one group, with the names of all groups that it joins.

    Raises:
        UserError: If recordings with snippets have no subject or session.
    """
    if by == "column":
        by = "recording"
    values = {"subject": table.subjects, "session": table.sessions, "recording": table.recordings}[by]
    used = np.unique(table.recording)
    without = [table.recordings[code] for code in used if not values[code]]
    if without:
        raise UserError(
            f"Cannot split by {by}: {len(without)} of {counted(len(used), 'recording')} "
            f"{_has_have(len(without))} no {by}, such as "
            f"'{without[0]}'. Give a table with a column '{by}' in study.recordings, or split by recording."
        )
    keys = [value or f"\0{recording}" for value, recording in zip(values, table.recordings, strict=True)]
    # Union-find over the names of groups: each shared file joins two.
    parent: dict[str, str] = {key: key for key in keys}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    owner: dict[str, str] = {}
    for key, sources in zip(keys, table.sources or [()] * len(keys), strict=True):
        for source in sources:
            first, second = root(owner.setdefault(source, key)), root(key)
            if first != second:
                parent[max(first, second)] = min(first, second)
    joined: dict[str, list[str]] = {}
    for key in dict.fromkeys(keys):
        joined.setdefault(root(key), []).append(key)
    roots = sorted(joined, key=natural_key)
    code = {key: index for index, key in enumerate(roots)}
    names = [" + ".join(sorted(joined[key], key=natural_key)) for key in roots]
    return np.array([code[root(key)] for key in keys], np.int64), names


def _usable(table: SnippetTable, *, allow_single: bool) -> np.ndarray:
    rows = np.flatnonzero(table.used)
    if not len(rows):
        raise UserError("No snippets to split: there are none, or all are ignored.")
    counts = table.target[rows].sum(axis=0, dtype=np.int64)
    single = np.flatnonzero(counts == 1)
    if len(single) and not allow_single:
        code = single[0]
        row = rows[table.target[rows, code].argmax()]
        others = ", ".join(repr(table.labels[other]) for other in single[1:])
        more = f" The same holds for {others}." if others else ""
        raise UserError(
            f"Class '{table.labels[code]}' has one sample only, in recording "
            f"'{table.recordings[table.recording[row]]}': it "
            f"cannot be both trained and tested.{more} Leave the class out (snippets --labels …), add samples, or put "
            "it into train with --allow-single."
        )
    return rows


def _by_column(table: SnippetTable, rows: np.ndarray, val_fraction: float, *, seed: int, val_by: By) -> SplitAssignment:
    used = np.unique(table.recording[rows])
    without = [table.recordings[code] for code in used if not table.splits[code]]
    if without:
        raise UserError(
            f"Cannot split by column: {len(without)} of {counted(len(used), 'recording')} "
            f"{_has_have(len(without))} no split, such as "
            f"'{without[0]}'. Give train, val or test for each in a column 'split', or split by subject or recording."
        )
    code = np.full(len(table.recordings), -1)
    for recording in used:
        given = table.splits[recording].lower()
        if given not in SPLIT_NAMES:
            raise UserError(
                f"Unknown split '{given}' of recording '{table.recordings[recording]}'. Use train, val or test."
            )
        code[recording] = PARTS.index(SPLIT_NAMES[given])
    parts = code[table.recording[rows]]
    if 1 not in parts and val_fraction > 0:
        parts = _carve(table, rows, parts, val_fraction, val_by, seed)
    return _checked(table, rows, parts, "column", val_by, seed)


def _named(
    names: list[str], by: str, train: Sequence[str | int], val: Sequence[str | int], test: Sequence[str | int]
) -> np.ndarray:
    """Return the part of each group, -1 for those without one."""
    by_name = {part: code for code, name in enumerate(names) for part in {name, *name.split(" + ")}}
    part_of = np.full(len(names), -1 if train else 0)
    named: set[int] = set()
    for code, given in enumerate((train, val, test)):
        for name in map(str, given):
            if name not in by_name:
                raise UserError(f"No {by} '{name}'.{nearest(name, by_name)} Available: {_some(list(names), 20)}.")
            group = by_name[name]
            if group in named and part_of[group] != code:
                raise UserError(
                    f"{by.capitalize()} '{names[group]}' is named for {PARTS[part_of[group]]} and for {PARTS[code]}."
                )
            part_of[group] = code
            named.add(group)
    return part_of


def _share_out(
    table: SnippetTable,
    rows: np.ndarray,
    group: np.ndarray,
    fractions: tuple[float, float, float],
    by: str,
    seed: int,
) -> np.ndarray:
    """Distribute groups; returns the part of each row, 0 train, 1 val, 2 test."""
    wanted = np.array(fractions) / sum(fractions)
    used = [code for code in range(3) if wanted[code] > 0]
    num_groups = len(np.unique(group[table.recording[rows]]))
    if num_groups < len(used):
        parts = ", ".join(PARTS[code] for code in used)
        raise UserError(
            f"A split by {by} into {parts} needs at least {counted(len(used), by)}; there {_is_are(num_groups)} "
            f"{num_groups}. "
            + (
                "Train on everything with --val 0 --test 0; then nothing is left to test on."
                if num_groups == 1
                else "Split by recording, or leave val out with --val 0."
                if by != "recording"
                else "Leave val out with --val 0."
            )
        )
    chosen: np.ndarray = np.array(used)[_greedy(table, rows, group, wanted[used], seed, all_in_first=used[0] == 0)]
    return chosen


def _carve(table: SnippetTable, rows: np.ndarray, parts: np.ndarray, share: float, by: By, seed: int) -> np.ndarray:
    """Move a fraction of the training rows to val, in complete groups of `by`."""
    training = np.flatnonzero(parts == 0)
    group, _ = groups_of(table, by)
    num_groups = len(np.unique(group[table.recording[rows[training]]]))
    if num_groups < 2:
        raise UserError(
            f"Val cannot be taken from train by {by}: train has {counted(num_groups, by)}. "
            + (
                "Use --val-by recording (in a training --set val_by=recording), or leave val out with --val 0."
                if by != "recording"
                else "Leave val out with --val 0."
            )
        )
    moved = _greedy(table, rows[training], group, np.array([1 - share, share]), seed, all_in_first=True)
    parts = parts.copy()
    parts[training[moved == 1]] = 1
    return parts


def _greedy(
    table: SnippetTable, rows: np.ndarray, group: np.ndarray, wanted: np.ndarray, seed: int, *, all_in_first: bool
) -> np.ndarray:
    """Assign each row to a part: groups go where each class is furthest below its share, large groups first.

    Of several orders of the groups the best result is kept. It has no empty part, then (with `all_in_first`) every
    class in the first part, then every class in every part, then the smallest deviation from the wanted fractions, of
    classes and then of samples.
    """
    present, of_row = np.unique(group[table.recording[rows]], return_inverse=True)
    classes = table.target[rows].astype(np.float64)
    # Samples without a label form an additional class.
    classes = np.concatenate([classes, 1 - classes.max(axis=1, keepdims=True, initial=0)], axis=1)
    counts = np.zeros((len(present), classes.shape[1]))
    np.add.at(counts, of_row, classes)
    totals = counts.sum(axis=0)
    weight = 1 / np.maximum(totals, 1)  # each class has the same weight, whatever its frequency
    target = wanted[:, None] * totals
    is_class = totals > 0
    random = np.random.default_rng(seed)
    weighted = counts * weight
    size = weighted.sum(axis=1)

    # All tries advance together: one step places one group in each of them.
    num_tries = int(np.clip(_WORK // max(len(present), 1), 1, _MAX_TRIES))
    orders, chances = [], []
    for _ in range(num_tries):
        order = random.permutation(len(present))
        orders.append(order[np.argsort(-size[order] * random.uniform(0.8, 1.2, len(order)), kind="stable")])
        # Equal gains are decided at random, so that the tries differ.
        chances.append(random.uniform(0, 1e-9, (len(order), len(wanted))))
    tries = np.arange(num_tries)
    part = np.empty((num_tries, len(present)), np.int64)
    deficit = np.repeat((target * weight)[None], num_tries, axis=0)  # missing samples of each class in each part
    empty = np.ones((num_tries, len(wanted)), bool)
    for position, (of_group, chance) in enumerate(
        zip(np.stack(orders, axis=1), np.stack(chances, axis=1), strict=True)
    ):
        after = deficit - weighted[of_group][:, None]
        gain = (np.abs(deficit) - np.abs(after)).sum(axis=2) + chance
        num_empty = empty.sum(axis=1)
        # The last groups must go to parts that are still empty.
        must = (num_empty > 0) & (len(present) - position <= num_empty)
        gain[must[:, None] & ~empty] = -np.inf
        chosen = gain.argmax(axis=1)
        part[tries, of_group] = chosen
        deficit[tries, chosen] = after[tries, chosen]
        empty[tries, chosen] = False
    is_in_part = (part[:, None] == np.arange(len(wanted))[:, None]).astype(np.float64)
    filled = is_in_part @ counts  # (tries, parts, classes)
    lacking = (filled[:, :, is_class] == 0).sum(axis=2)
    scores = zip(
        (filled.sum(axis=2) == 0).sum(axis=1),
        lacking[:, 0] if all_in_first else np.zeros(num_tries),
        lacking.sum(axis=1),
        (np.abs(target - filled) * weight).reshape(num_tries, -1).sum(axis=1).round(6),
        np.abs(target.sum(axis=1) - filled.sum(axis=2)).sum(axis=1),
        tries,
        strict=True,
    )
    best = min(tuple(map(float, score)) for score in scores)
    parts: np.ndarray = part[int(best[-1])][of_row]
    return parts


def _checked(
    table: SnippetTable,
    rows: np.ndarray,
    parts: np.ndarray,
    by: By,
    val_by: By,
    seed: int,
    *,
    called: str | None = None,
) -> SplitAssignment:
    train, val, test = (rows[parts == code] for code in range(3))
    if not len(train):
        raise UserError("The split leaves train empty. Give it some groups, or a larger share.")
    group, names = groups_of(table, by)
    groups: dict[str, tuple[str, ...]] = {
        part: tuple(names[code] for code in np.unique(group[table.recording[of_part]]))
        for part, of_part in zip(PARTS, (train, val, test), strict=True)
    }
    notes = []
    unused = sorted(
        set(np.unique(group[table.recording[rows]]).tolist()) - set(group[table.recording[rows[parts >= 0]]].tolist())
    )
    if unused:
        notes.append(f"not used: {by} {_some([names[code] for code in unused])}")
    for part, of_part in (("val", val), ("test", test)):
        if len(of_part):
            lacking = table.target[rows].any(axis=0) & ~table.target[of_part].any(axis=0)
            if lacking.any():
                notes.append(
                    f"{part} has no sample of {_some([table.labels[code] for code in np.flatnonzero(lacking)])}"
                )
    split = SplitAssignment(train, val, test, called or by, seed, groups, tuple(notes))
    check_split(table, split, by=by, val_by=val_by)
    return split


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if any(share < 0 for share in fractions) or fractions[0] <= 0:
        raise UserError(f"Shares of train, val and test must not be negative, and train's above 0; got {fractions}.")


def _is_are(number: int) -> str:
    return "is" if number == 1 else "are"


def _has_have(number: int) -> str:
    return "has" if number == 1 else "have"


def _some(names: Sequence[str], limit: int = 8) -> str:
    return name_list([f"'{name}'" for name in names], limit)
