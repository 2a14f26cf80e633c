"""The product `split`: the part of every recording, its array on disk, its writer and its reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.products.schema import Array, Product

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.splits import SplitAssignment
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import ItemWriter

_PARTS = ("", "train", "val", "test")  # by the value in the array

SPLIT = Product(
    "split",
    (Array("part", "uint8", ("fold", "recording"), description="0 none, 1 train, 2 val, 3 test, of each recording"),),
    {
        "recordings": "ids of all recordings of the study",
        "by": "what stays together",
        "seed": "seed of the order in which groups were distributed",
        "groups": "names of the groups by part, for each fold",
        "notes": "what the user should know, for each fold",
    },
)


def write_split(
    item: ItemWriter, table: SnippetTable, assignments: Sequence[SplitAssignment], *, by: str, seed: int
) -> None:
    """Write the parts of all recordings.

    Args:
        item: The item to write to.
        table: The table that was split.
        assignments: One split, or one per fold.
        by: What stays together, for display.
        seed: Seed of the order in which groups were distributed.
    """
    parts = np.zeros((len(assignments), len(table.recordings)), np.uint8)
    for fold, assignment in enumerate(assignments):
        for code, part in enumerate(_PARTS[1:], start=1):
            parts[fold, np.unique(table.recording[assignment.rows(part)])] = code  # type: ignore[arg-type]
    SPLIT["part"].write(item, parts)
    attributes = SPLIT.attributes_of(
        recordings=list(table.recordings),
        by=by,
        seed=seed,
        groups=[{part: list(names) for part, names in assignment.groups.items()} for assignment in assignments],
        notes=[list(assignment.notes) for assignment in assignments],
    )
    item.attributes.update(attributes)


def stored_parts(item: ItemReader) -> list[dict[str, str]]:
    """Read the part of every recording that has one, per fold; `splits.apply_parts` applies them to a table."""
    recordings = item.attributes["recordings"]
    return [
        {recording: _PARTS[code] for recording, code in zip(recordings, row.tolist(), strict=True) if code}
        for row in item["part"][:]
    ]
