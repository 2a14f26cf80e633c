"""Split recordings into train, val and test, so that no source crosses: split/<name>."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from actionprep.errors import UserError, nearest
from actionprep.pipeline.stage import ArrayStage, stage
from actionprep.settings import StageSettings, option

if TYPE_CHECKING:
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.splits import SplitAssignment
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.pipeline.stage import ItemWriter


class SplitSettings(StageSettings):
    """Split recordings into train, val and test; no subject, session, recording or video file crosses."""

    name: str = option("default", "Name of the product: split/<name>.", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    by: Literal["subject", "session", "recording", "column"] = option(
        "recording", "What stays together; column takes the split that was given for each recording."
    )
    column: str = option(
        "split",
        "For by = column: the column of the table of recordings that holds the part; imported data sets have one for "
        "each official split. Recordings without a part in such a column are left out.",
    )
    val_column: str | None = option(
        None,
        "For by = column: val is what this other column tests of train. A data set with several official splits of one kind "
        "keeps the clips of one source together in each of them, also where no name tells which these are.",
    )
    train: float = option(0.7, "Share of the labeled samples for train.", gt=0)
    val: float = option(0.15, "Share for val; 0 for none.", ge=0)
    test: float = option(0.15, "Share for test; 0 for none.", ge=0)
    train_groups: tuple[str, ...] = option((), "Subjects (sessions, recordings) for train, instead of shares.")
    val_groups: tuple[str, ...] = option((), "Subjects (sessions, recordings) for val.")
    test_groups: tuple[str, ...] = option((), "Subjects (sessions, recordings) for test.")
    val_by: Literal["subject", "session", "recording"] | None = option(
        None, "What stays together when val is carved out of train; as by when not set."
    )
    folds: int | None = option(None, "Number of folds for cross-validation instead of one split.", ge=2)
    leave_one_out: bool = option(False, "A fold for each subject (session, recording).")
    seed: int = option(0, "Seed of the order in which groups are shared out.", ge=0)
    allow_single: bool = option(False, "Accept classes with a single sample.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        named = bool(self.train_groups or self.val_groups or self.test_groups)
        if (self.folds is not None) + self.leave_one_out + named > 1:
            raise ValueError("give either folds, leave_one_out, or named groups")
        if self.val_column is not None and self.by != "column":
            raise ValueError("val_column goes with by = column alone")
        if self.val_column is not None and self.val == 0:
            raise ValueError("val_column says what val is, and val = 0 asks for none: leave one of the two out")
        if self.by == "column" and named:
            raise ValueError(
                "by = column takes the part that was given for each recording, and train_groups, val_groups and test_groups "
                "name parts too: give one of the two"
            )
        return self


@stage("split", version=1, settings=SplitSettings)
class Split(ArrayStage):
    """Makes split/<name>: part (fold, recording), 0 none, 1 train, 2 val, 3 test.

    Classes are balanced over whole labels and segments, so that one split serves snippets of any length.
    """

    @classmethod
    def build(cls, settings: SplitSettings, catalog: Catalog, store: Store, item: ItemWriter) -> None:
        """Split the recordings and write the parts."""
        from actionprep.datasets.products.split import write_split

        table, assignments = split_recordings(settings, catalog)
        write_split(item, table, assignments, by=settings.by, seed=settings.seed)

    @classmethod
    def depends_on(cls, settings: SplitSettings, catalog: Catalog) -> dict[str, Any]:
        """Recordings, their segments and the hashes of their files."""
        from actionprep.pipeline.snippets import Snippets, SnippetSettings

        found = Snippets.depends_on(SnippetSettings(), catalog)
        if settings.by == "column":
            for key, column in (("column", settings.column), ("val_column", settings.val_column)):
                if column not in ("split", None):
                    found[key] = [one.extra.get(column, "") for one in catalog.recordings]
        return found


def split_recordings(settings: SplitSettings, catalog: Catalog) -> tuple[SnippetTable, list[SplitAssignment]]:
    """The splits that these settings give, one or one for each fold, and the table of labels that they balance."""
    from actionprep.datasets.snippets import make_snippets
    from actionprep.datasets.splits import assign, folds

    table = make_snippets(catalog)
    if settings.by == "column":
        table = _with_columns(table, catalog, settings.column, settings.val_column)
    if settings.folds is not None or settings.leave_one_out:
        others = settings.train + settings.val
        return table, folds(
            table,
            by=settings.by,
            num_folds=settings.folds,
            val_fraction=settings.val / others,
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
    """The table with the parts of a column, without the recordings that have none there; val as val_column tests it."""
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
            "another column, or leave val_column out: val is a share of train then."
        )
    return replace(table, splits=splits)


def _column(catalog: Catalog, column: str) -> dict[str, str]:
    """What each recording has in a column; raises UserError, naming the nearest one, where none has anything."""
    if column == "split":
        return {one.id: one.split or "" for one in catalog.recordings}
    parts = {one.id: one.extra.get(column, "") for one in catalog.recordings}
    if not any(parts.values()):
        known = sorted({name for one in catalog.recordings for name in one.extra})
        raise UserError(
            f"No recording has a column '{column}' to split by.{nearest(column, known)} Columns: split"
            f"{''.join(f', {name}' for name in known)}."
        )
    return parts


def _part(given: str) -> str:
    """train, val or test, as a table may call them otherwise too; what it says where that is none of them."""
    from actionprep.datasets.splits import SPLIT_NAMES

    return SPLIT_NAMES.get(given.lower(), given)
