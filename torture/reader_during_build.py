"""A store is read while builds replace its items."""

from __future__ import annotations

from pathlib import Path

from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import ActionprepError
from torture.common import Part, Trials, small_study, start

GRIDS = (4, 5)


def read_during_builds(trials: Trials, folder: Path) -> None:
    """Rebuild tracks with one of two grids in turn, and read items: each is of one grid in all of its arrays."""
    study = small_study(folder, recordings=4)
    study.build("tracks")
    url = str(study.store.require_local())
    keys = study.store.items("tracks")
    for number in trials:
        grid, workers = str(GRIDS[(number + 1) % 2]), str(number % 3)
        process = start("prep", study.root, "track", "--grid", grid, "--workers", workers)
        while process.poll() is None:
            _read(trials, Store(url), trials.random.choice(keys))
        errors = process.communicate()[1]
        trials.check(process.returncode == 0, f"a build ended with {process.returncode}: {errors[-300:]}")
        for key in keys:
            trials.check(_read(trials, Store(url), key) == int(grid) ** 2, f"{key} is not of the last build")


def _read(trials: Trials, store: Store, key: ItemKey) -> int:
    """Read an item and return its number of points; 0 if reading was refused."""
    try:
        item = store.item(key.product, key.recording, key.view)
        xy, visibility, valid = (item[name][:] for name in ("xy", "visibility", "valid"))
    except ActionprepError as error:
        # Refusing is right if the item is replaced between two reads, but it must not be called damaged.
        trials.facts["refused"] += 1
        trials.check("hecksum" not in str(error), f"a committed item does not match its checksum: {error}")
        return 0
    points = {xy.shape[2], visibility.shape[2], valid.shape[1]}
    whole = len(points) == 1 and points <= {grid * grid for grid in GRIDS}
    trials.check(whole, f"an item has arrays of {sorted(points)} points")
    trials.facts[f"items read with {max(points)} points"] += 1
    return max(points)


PART = Part(
    "a store is read while builds replace its items: each item is of one version in all arrays",
    "builds",
    200,
    read_during_builds,
)
