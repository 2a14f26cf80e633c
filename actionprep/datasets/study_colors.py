"""Colors of the labels of a store and of the study that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.datasets.label_colors import Color, label_colors
from actionprep.errors import ActionprepError

if TYPE_CHECKING:
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.store.zarr_store import Store


def colors_of_store(store: Store, catalog: Catalog) -> dict[str, Color]:
    """Colors of the labels of a study, the same in all of its images, videos and pages.

    Args:
        store: Store of the study. Labels and backgrounds of its snippet tables count too.
        catalog: Catalog of the study.
    """
    from actionprep.datasets.products.snippets import SnippetTable

    tables = [SnippetTable.read(store.item("snippets", key.recording)) for key in store.items("snippets")]
    nothing = [table.background for table in tables if table.background is not None]
    others = [label for table in tables for label in table.labels]
    return label_colors(catalog.labels, nothing=nothing, others=others)


def colors_near(place: Path, labels: Iterable[str]) -> dict[str, Color]:
    """Colors of labels in the study that a store or run lies in.

    Args:
        place: Path of the store or run.
        labels: Labels to color.

    Returns:
        The colors of the study; those of the labels alone if there is no study, if it cannot be read, or if it does not
        have all of the labels.
    """
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.store.opening import open_store
    from actionprep.datasets.study import find_study

    labels = list(labels)
    try:
        folder = find_study(place.resolve())
        # Use the last catalog: a drawing must not start a scan of the study.
        of_study = colors_of_store(open_store(folder.store), Catalog.read(folder.catalog))
    except ActionprepError:
        # Drawing must not fail because the study was moved or changed after training.
        of_study = {}
    return of_study if set(labels) <= set(of_study) else label_colors(labels)
