"""Choose and check which snippets are for train, val and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from actionprep.errors import UserError, name_list, nearest
from actionprep.json_values import counted

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.splits import By, SplitAssignment
    from actionprep.datasets.store.zarr_store import Store


@dataclass(frozen=True)
class SplitChoice:
    """How to split a table of snippets.

    The shares are those of `actiontrain fit`. The stage `split` has its own defaults (0.70, 0.15, 0.15); changing them
    would change stored splits.

    Attributes:
        by: Kind of group that no two parts share. "auto" uses the given split if every labeled recording has one
            ("column"), otherwise subject if all subjects are known and there are enough of them, otherwise session,
            otherwise recording.
        val_share: Share of the snippets for val.
        test_share: Share of the snippets for test.
        train: Names of groups (subjects, for example) for train, instead of shares.
        val: Names of groups for val.
        test: Names of groups for test.
        val_by: "group": val consists of groups of `by`; "recording": of some recordings of training groups.
        stored: Name of a stored split (split/<name>). None: split/default if it exists and nothing else is requested.
        allow_single: Accept a class with a single sample, which is assigned to train.
        seed: Seed of the split.
    """

    by: Literal["auto", "subject", "session", "recording", "column"] = "auto"
    val_share: float = 0.15
    test_share: float = 0.2
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    val_by: Literal["group", "recording"] = "group"
    stored: str | None = None
    allow_single: bool = False
    seed: int = 0

    @property
    def is_default(self) -> bool:
        """Whether a stored split can serve this choice."""
        return self.by == "auto" and not (self.train or self.val or self.test)


@dataclass(frozen=True)
class Parts:
    """A split and how it was made.

    Attributes:
        split: The rows of each part.
        by: Kind of group that no two parts share.
        why: How the split was made, for messages.
        stored: Name of the stored split (split/<name>); None for other splits.
        folds: Number of folds, for a fold of a cross-validation.
    """

    split: SplitAssignment
    by: str
    why: str
    stored: str | None = None
    folds: int | None = None


def choose_parts(store: Store, table: SnippetTable, choice: SplitChoice) -> Parts:
    """Split a table and check the split.

    Args:
        store: Store with the stored splits.
        table: Table of snippets.
        choice: How to split.

    Returns:
        The split.

    Raises:
        PartlyGivenSplitError: If some labeled recordings have a given split and others do not, and the choice requests
            neither a kind of group nor groups.
        UserError: If the split is not possible as requested.
    """
    from actionprep.datasets.splits import apply_parts, assign

    check_classes(table)
    name = stored_name(store, choice)
    if name is not None:
        _check_unchanged(choice, name)
        parts, by = stored_split(store, name)
        return Parts(apply_parts(table, parts, by=by), by, f"the stored split '{name}'", name)
    val_share = choice.val_share
    if val_share + choice.test_share > 1 - 1e-9:
        raise UserError(
            f"The shares of val ({val_share:g}) and of test ({choice.test_share:g}) leave nothing for train: together they "
            "must be less than 1. Lower --val or --test (val or test under [train])."
        )
    by, why = _kind(table, choice)
    if choice.by == "auto":
        if by == "column":
            _check_test_share(choice)
        else:
            _check_named(table, choice, by, why)
    split = assign(
        table,
        by=by,
        fractions=(max(1 - val_share - choice.test_share, 1e-9), val_share, choice.test_share),
        seed=choice.seed,
        train=choice.train,
        val=choice.val,
        test=choice.test,
        val_by=_val_by(choice, by),
        allow_single=choice.allow_single,
    )
    return Parts(split, by, why)


def stored_name(store: Store, choice: SplitChoice) -> str | None:
    """Return the name of the stored split that a choice uses; None if it makes a new split."""
    return choice.stored or ("default" if choice.is_default and store.has("split", "default") else None)


def stored_split(store: Store, name: str) -> tuple[dict[str, str], str]:
    """Read a stored split.

    Args:
        store: Store with the split.
        name: Name of the split (split/<name>).

    Returns:
        Part by recording, and the kind of group that no two parts share.

    Raises:
        UserError: If the split does not exist, or has several folds.
    """
    from actionprep.datasets.products.split import stored_parts

    if not store.has("split", name):
        known = [key.recording for key in store.items("split")]
        raise UserError(
            f"No stored split '{name}' in {store.url}.{nearest(name, known)} "
            + (f"Stored splits: {', '.join(known)}." if known else f"Make it with 'actionprep split --name {name}'.")
        )
    item = store.item("split", name)
    parts = stored_parts(item)
    if len(parts) > 1:
        raise UserError(
            f"split/{name} has {len(parts)} folds, but a training needs a single split. Train all folds with --folds, or "
            "name another split."
        )
    return parts[0], item.attributes["by"]


def choose_folds(table: SnippetTable, choice: SplitChoice, *, by: By, num_folds: int | None = None) -> list[Parts]:
    """Split a table for cross-validation: every group is in test once.

    Args:
        table: Table of snippets.
        choice: Share of val, seed and related options.
        by: Kind of group that no two parts share.
        num_folds: Number of folds; None leaves one group out at a time.

    Returns:
        One split per fold.

    Raises:
        UserError: If the split is not possible as requested.
    """
    from actionprep.datasets.splits import folds

    check_classes(table)
    fold_splits = folds(
        table,
        by=by,
        num_folds=num_folds,
        val_fraction=choice.val_share,
        val_by=_val_by(choice, by),
        allow_single=choice.allow_single,
        seed=choice.seed,
    )
    return [
        Parts(split, by, f"testing on {by} {' + '.join(split.groups['test'])}", folds=len(fold_splits))
        for split in fold_splits
    ]


def check_classes(table: SnippetTable) -> None:
    """Raise UserError if the snippets have fewer than two classes."""
    counts = table.counts()
    present = [label for label, count in counts.items() if count]
    several = is_multi_label(table)
    if not present or (len(present) < 2 and not several):
        what = f"only the class '{present[0]}'" if present else "no class"
        rare = [label for label, count in counts.items() if not count]
        asides = [f"{counted(int(table.used.sum()), 'snippet')} in use", f"{int((~table.used).sum())} ignored"]
        asides += [f"none of {name_list(rare)}"] if rare else []
        lost = [f"{count} {reason}" for reason, count in table.left_out.items() if count]
        asides += [f"left out when they were cut: {', '.join(lost)}"] if lost else []
        raise UserError(
            f"A classifier needs at least two classes, but these snippets have {what} ({'; '.join(asides)}).\nAnnotate "
            "another class, or make snippets with a background class, here called 'nothing': actionprep snippets "
            "--background nothing. Recordings with one label for their full length have no background."
        )


def check_train(table: SnippetTable, split: SplitAssignment) -> None:
    """Raise UserError if train is empty or has a single class; the message lists where the other classes are."""
    if not len(split.train):
        raise UserError("The train part of the split is empty. Give it some groups, or a larger share.")
    present = [table.labels[code] for code in np.flatnonzero(table.target[split.train].any(axis=0))]
    if len(present) >= 2 or is_multi_label(table):
        return
    unused = np.setdiff1d(np.flatnonzero(table.used), np.concatenate([split.train, split.val, split.test]))
    elsewhere = []
    for part, rows in (("val", split.val), ("test", split.test), ("no part", unused)):
        others = [table.labels[code] for code in np.flatnonzero(table.target[rows].any(axis=0))]
        others = [label for label in others if label not in present]
        if others:
            elsewhere.append(f"{part} has {name_list(others)}")
    what = f"only the class '{present[0]}'" if present else "no class"
    raise UserError(
        f"A classifier needs at least two classes to train on, but the train part has {what} "
        f"({counted(len(split.train), 'snippet')}); "
        f"{'; '.join(elsewhere)}.\nSplit so that train has some of each: by another kind of group (--by), with other groups "
        "(--train-groups), or with another stored split (--split)."
    )


def is_multi_label(table: SnippetTable) -> bool:
    """Whether a snippet may have several labels, or none."""
    used = table.used
    return bool(table.settings.get("multi_label", False) or (table.target[used].sum(axis=1) != 1).any())


def describe(parts: Parts, table: SnippetTable) -> list[str]:
    """Describe the parts for the user: one line per part with its number of snippets and its groups, then notes."""
    lines = []
    for part, (kind, names) in groups_of(parts, table).items():
        rows = getattr(parts.split, part)
        lines.append(f"{part}: {counted(len(rows), 'snippet')}" + (f", {kind} {name_list(names)}" if names else ""))
    return [*lines, *parts.split.notes]


def groups_of(parts: Parts, table: SnippetTable) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the kind and the names of the groups of each part.

    A split given by a column of the data set only knows recordings; the subjects are returned instead if all are known.
    """
    from actionprep.datasets.natural_order import natural_key

    by_part = {}
    for part in ("train", "val", "test"):
        kind, names = parts.by, parts.split.groups.get(part, ())
        subjects = {table.subjects[code] for code in table.recording[parts.split.rows(part)]}
        if kind == "column":
            kind = "recording"
            if subjects and all(subjects):
                kind, names = "subject", tuple(sorted(subjects, key=natural_key))
        by_part[part] = (kind, tuple(names))
    return by_part


def joined(split: SplitAssignment) -> np.ndarray:
    """Rows of train and val together, ascending."""
    return np.union1d(split.train, split.val)


def _check_unchanged(choice: SplitChoice, name: str) -> None:
    """Raise UserError if a choice uses a stored split and also sets options of a new split."""
    fresh = SplitChoice()
    changed = [
        option
        for option in ("by", "val_share", "test_share", "train", "val", "test")
        if getattr(choice, option) != getattr(fresh, option)
    ]
    if changed:
        why, advice = ("as requested", "Leave out either stored or these options.")
        if not choice.stored:
            why, advice = ("because it exists", "Leave these options out, or set by to make a new split.")
        raise UserError(
            f"The stored split split/{name} is used unchanged ({why}), so {', '.join(changed)} of the SplitChoice "
            f"cannot be used. {advice}"
        )


class PartlyGivenSplitError(UserError):
    """Some labeled recordings have a given split and others do not, so the user must choose how to split."""


def given_split(table: SnippetTable) -> dict[str, int]:
    """Count the labeled recordings of each given part.

    The parts come with the data: folders such as train/ and test/, a column `split`, or the subset of an annotation file.

    Returns:
        Number of recordings by part, largest first; empty if no recording has a part, or if all have the same one.

    Raises:
        PartlyGivenSplitError: If some labeled recordings have a part and others do not.
    """
    used = np.unique(table.recording[table.used]).tolist()
    parts = Counter(table.splits[code] for code in used if table.splits[code])
    missing = [table.recordings[code] for code in used if not table.splits[code]]
    if parts and missing:
        have, lack = len(used) - len(missing), len(missing)
        raise PartlyGivenSplitError(
            f"{have} of {len(used)} labeled recordings {'has' if have == 1 else 'have'} a given split, and {lack} "
            f"{'has' if lack == 1 else 'have'} none, such as '{missing[0]}'.\nGive each recording a split (column 'split' "
            "of the table of recordings), or ignore the given ones with --by subject, session or recording."
        )
    return dict(parts.most_common()) if len(parts) > 1 else {}


def _check_test_share(choice: SplitChoice) -> None:
    """Raise UserError if a share for test is requested although a given split determines test."""
    if choice.test_share != SplitChoice().test_share:
        raise UserError(
            f"Every labeled recording has a given split, which determines test, so the share of test "
            f"({choice.test_share:g}) cannot be used. Leave out --test, or ignore the given split with --by subject, "
            "session or recording."
        )


def _kind(table: SnippetTable, choice: SplitChoice) -> tuple[By, str]:
    if choice.by != "auto":
        return choice.by, f"split by {choice.by}, as requested"
    if not (choice.train or choice.val or choice.test):
        given = given_split(table)
        if given:
            counts = ", ".join(f"{part} {count}" for part, count in given.items())
            return "column", f"the given split of the recordings ({counts}); ignore it with --by recording"
    used = np.unique(table.recording[table.used])
    wanted = sum(bool(share) for share in (choice.val_share, choice.test_share)) + 1
    named = bool(choice.train or choice.val or choice.test)
    asides: list[str] = []
    kinds: Sequence[tuple[By, tuple[str, ...]]] = (("subject", table.subjects), ("session", table.sessions))
    for kind, values in kinds:
        known = [values[code] for code in used]
        if not all(known):
            missing = sum(not value for value in known)
            asides.append(
                f"{kind}s are not known"
                if missing == len(known)
                else f"{counted(missing, 'recording')} {'has' if missing == 1 else 'have'} no {kind}"
            )
        elif len(set(known)) < (2 if named else wanted):
            asides.append(f"there {'is' if len(set(known)) == 1 else 'are'} only {counted(len(set(known)), kind)}")
        else:
            return kind, f"split by {kind}" + (f", since {asides[0]}" if asides else "")
    return "recording", "split by recording, since " + " and ".join(asides)


def _check_named(table: SnippetTable, choice: SplitChoice, by: By, why: str) -> None:
    """Raise UserError if a requested group does not exist: groups can be sessions or recordings instead of subjects."""
    from actionprep.datasets.natural_order import natural_key

    if by == "subject":
        return
    known = sorted(
        {value for value in (table.recordings if by == "recording" else table.sessions) if value}, key=natural_key
    )
    for name in (*choice.train, *choice.val, *choice.test):
        if name not in known and not set(name.split(" + ")) <= set(known):
            examples = name_list([f"'{group}'" for group in known], 3)
            raise UserError(
                f"No {by} '{name}'.{nearest(name, known)} Groups are {by}s here ({why}): {examples}. "
                "Subjects and sessions can be given in a table of recordings "
                "(recordings under [study]; then scan and make the snippets again)."
            )


def _val_by(choice: SplitChoice, by: By) -> By | None:
    return "recording" if choice.val_by == "recording" else None
