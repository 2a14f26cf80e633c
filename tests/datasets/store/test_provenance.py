"""Items of a product with different provenance are detected at any position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actionprep.datasets.store.provenance import difference, made_alike, provenance_of
from actionprep.datasets.store.zarr_store import Store
from actionprep.training.run import mixed_inputs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Ten tracks. The two of recording c have other settings; the first and last are equal."""
    store = Store(tmp_path / "store", create=True)
    for recording in "abcde":
        for view in "01":
            settings = {"grid": 8 if recording == "c" else 20, "window": 16}
            made = {"version": 1, "settings": settings, "identity": {"weights": "w"}, "inputs": {"masks": recording}}
            with store.write("tracks", recording, view, fingerprint=recording, provenance=made) as item:
                item.write("xy", np.zeros(2), axes=("t",))
    return store


def test_those_in_the_middle_are_found_too(store: Store) -> None:
    groups = made_alike(provenance_of(store, store.items("tracks")))
    assert [len(group.keys) for group in groups] == [8, 2]
    assert difference(groups) == "grid 20 (8 items); grid 8 (2 items: c/0, c/1)"


def test_items_that_were_made_alike_differ_in_nothing(store: Store) -> None:
    alike = [key for key in store.items("tracks") if key.recording != "c"]
    assert difference(made_alike(provenance_of(store, alike))) == ""
    assert difference([]) == ""


def test_provenance_differences_cover_only_the_views_in_use(store: Store) -> None:
    assert mixed_inputs(store, "tracks", ["1"]) == [
        "Items of 'tracks' were made with different settings: grid 20 (4 items); grid 8 (1 item: c/1). See 'actionprep status'."
    ]
    assert mixed_inputs(store, "tracks", []) == []
