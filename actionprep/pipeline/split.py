"""Split recordings into train, val and test, so that no source crosses: split/<name>."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from actionprep.errors import UserError, nearest
from actionprep.pipeline.stage import ArrayStage, ResultTable, stage
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.splits import SplitAssignment
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter
    from actionprep.datasets.store.zarr_store import Store


_MAX_COLUMNS = 8


class SplitSettings(StageSettings):
    """Split recordings into train, val and test; no subject, session, recording or video file crosses."""

    name: str = option("default", "Name of the product: split/<name>.", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    by: Literal["subject", "session", "recording", "column"] = option(
        "recording", "What stays together; column uses the part that was given for each recording."
    )
    column: str = option(
        "split",
        "For by = column: the column of the table of recordings with the part; imported data sets have one per official "
        "split. Recordings without a part in such a column are left out.",
    )
    val_column: str | None = option(
        None,
        "For by = column: val is the part of train that this other column tests. Each of several official splits keeps the "
        "clips of one source together, also where no name shows the source.",
    )
    train: float = option(0.7, "Fraction of the labeled samples for train.", gt=0)
    val: float = option(0.15, "Fraction for val; 0 for none.", ge=0)
    test: float = option(0.15, "Fraction for test; 0 for none.", ge=0)
    train_groups: tuple[str, ...] = option((), "Subjects (sessions, recordings) for train, instead of fractions.")
    val_groups: tuple[str, ...] = option((), "Subjects (sessions, recordings) for val.")
    test_groups: tuple[str, ...] = option((), "Subjects (sessions, recordings) for test.")
    val_by: Literal["subject", "session", "recording"] | None = option(
        None, "What stays together when val is taken from train; not set: the same as by."
    )
    folds: int | None = option(None, "Number of folds for cross-validation instead of one split.", ge=2)
    leave_one_out: bool = option(False, "One fold per subject (session, recording).")
    seed: int = option(0, "Seed of the order in which groups are distributed.", ge=0)
    allow_single: bool = option(False, "Accept classes with a single sample.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        named = bool(self.train_groups or self.val_groups or self.test_groups)
        if (self.folds is not None) + self.leave_one_out + named > 1:
            raise ValueError("give either folds, leave_one_out, or named groups")
        if self.val_column is not None and self.by != "column":
            raise ValueError("val_column can only be used with by = column")
        if self.val_column is not None and self.val == 0:
            raise ValueError("val_column selects the part for val, but val = 0 means no val: remove one of them")
        if self.by == "column" and named:
            raise ValueError(
                "by = column reads the part of each recording from a column; train_groups, val_groups and test_groups set "
                "parts too: use only one of them"
            )
        return self


@stage("split", version=1, settings=SplitSettings)
class Split(ArrayStage):
    """Make split/<name>: the part of every recording, 0 none, 1 train, 2 val, 3 test.

    Classes are balanced over labels of recordings and segments, so that one split serves snippets of any length.
    """

    needs_aligned_views = False

    @classmethod
    def build(cls, settings: SplitSettings, catalog: Catalog, store: Store, item: ItemWriter) -> None:
        """Split the recordings and write the parts."""
        from actionprep.datasets.products.split import write_split

        table, assignments = split_recordings(settings, catalog)
        write_split(item, table, assignments, by=settings.by, seed=settings.seed)

    @classmethod
    def results(cls, item: ItemReader, catalog: Catalog) -> ResultTable:
        """Return the number of labels and segments of each class in each part, or in the test part of each fold."""
        from actionprep.datasets.products.split import stored_parts
        from actionprep.datasets.snippets import make_snippets

        folds = stored_parts(item)
        table = make_snippets(catalog)
        if len(folds) > 1:
            columns = [(f"fold {fold}", parts, "test") for fold, parts in enumerate(folds, start=1)]
            title = f"Test parts of {len(folds)} folds"
        else:
            columns = [(part, folds[0], part) for part in ("train", "val", "test")]
            title = "Samples in each part"
        codes = [
            [code for code, id in enumerate(table.recordings) if parts.get(id) == part] for _, parts, part in columns
        ]
        counts = [
            table.target[table.used & np.isin(table.recording, of_part)].sum(axis=0, dtype=int) for of_part in codes
        ]
        rows: list[tuple[str | int, ...]] = [
            (label, *(int(of_part[row]) for of_part in counts)) for row, label in enumerate(table.labels)
        ]
        rows.append(("(recordings)", *(len(of_part) for of_part in codes)))
        if len(folds) > _MAX_COLUMNS:  # one row per fold
            header, *cells = [("class", *(name for name, _, _ in columns)), *rows]
            turned = tuple(zip(header, *cells, strict=True))
            return ResultTable(title, tuple(str(name) for name in turned[0]), turned[1:])
        return ResultTable(title, ("class", *(name for name, _, _ in columns)), tuple(rows))

    @classmethod
    def depends_on(cls, settings: SplitSettings, catalog: Catalog) -> dict[str, Any]:
        """Recordings, their segments and the hashes of their files."""
        from actionprep.pipeline.snippets import Snippets, SnippetSettings

        inputs = Snippets.depends_on(SnippetSettings(), catalog)
        if settings.by == "column":
            for key, column in (("column", settings.column), ("val_column", settings.val_column)):
                if column not in ("split", None):
                    inputs[key] = [recording.extra.get(column, "") for recording in catalog.recordings]
        return inputs


def split_recordings(settings: SplitSettings, catalog: Catalog) -> tuple[SnippetTable, list[SplitAssignment]]:
    """Make the splits of these settings, one or one per fold, and the table of labels that they balance."""
    from actionprep.datasets.snippets import make_snippets
    from actionprep.datasets.splits import assign, folds

    table = make_snippets(catalog)
    if settings.by == "column":
        table = _with_columns(table, catalog, settings.column, settings.val_column)
    if settings.folds is not None or settings.leave_one_out:
        rest = settings.train + settings.val
        return table, folds(
            table,
            by=settings.by,
            num_folds=settings.folds,
            val_fraction=settings.val / rest,
            val_by=settings.val_by,
            seed=settings.seed,
            allow_single=settings.allow_single,
        )
    split = assign(
        table,
        by=settings.by,
        fractions=(settings.train, settings.val, settings.test),
        seed=settings.seed,
        train=settings.train_groups,
        val=settings.val_groups,
        test=settings.test_groups,
        val_by=settings.val_by,
        allow_single=settings.allow_single,
    )
    return table, [split]


def _with_columns(table: SnippetTable, catalog: Catalog, column: str, val_column: str | None) -> SnippetTable:
    """Return the table with the parts of a column, without recordings that have none; val is what val_column tests."""
    if column != "split":
        parts = _column(catalog, column)
        splits = tuple(parts[recording] for recording in table.recordings)
        kept = np.array([bool(part) for part in splits])[table.recording]
        rows = ("recording", "onset", "offset", "label", "target", "coverage", "iou", "segment_share")
        table = replace(table, splits=splits, **{name: getattr(table, name)[kept] for name in rows})
    if val_column is None:
        return table
    other = _column(catalog, val_column)
    splits = tuple(
        "val" if _part(own) == "train" and _part(other[recording]) == "test" else own
        for recording, own in zip(table.recordings, table.splits, strict=True)
    )
    if "val" not in map(_part, splits):
        raise UserError(
            f"Val would be what column '{val_column}' tests of the train part of '{column}', and that is nothing. Name "
            "another column, or leave val_column out: val is then a fraction of train."
        )
    return replace(table, splits=splits)


def _column(catalog: Catalog, column: str) -> dict[str, str]:
    """Return the value of each recording in a column; raises UserError if no recording has one."""
    if column == "split":
        return {recording.id: recording.split or "" for recording in catalog.recordings}
    parts = {recording.id: recording.extra.get(column, "") for recording in catalog.recordings}
    if not any(parts.values()):
        known = sorted({name for recording in catalog.recordings for name in recording.extra})
        raise UserError(
            f"No recording has a column '{column}' to split by.{nearest(column, known)} Columns: split"
            f"{''.join(f', {name}' for name in known)}."
        )
    return parts


def _part(given: str) -> str:
    """Return train, val or test for the names that tables use for them, and other names unchanged."""
    from actionprep.datasets.discovery import SPLIT_NAMES

    return SPLIT_NAMES.get(given.lower(), given)
