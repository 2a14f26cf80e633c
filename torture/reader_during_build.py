"""A store is read while builds replace its items."""

from __future__ import annotations

from pathlib import Path

from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import ActionprepError
from torture.common import Part, Trials, small_study, start

GRIDS = (4, 5)


def read_during_builds(trials: Trials, folder: Path) -> None:
    """Rebuild tracks with one of two grids in turn, and read items: each is of one grid in all of its arrays."""
    study = small_study(folder, recordings=4)
    study.build("tracks")
    url, turn = str(study.store.require_local()), 0
    keys = study.store.items("tracks")
    process = None
    while trials.go_on:
        if process is None or process.poll() is not None:
            if process is not None:
                errors = process.communicate()[1]
                trials.check(process.returncode == 0, f"a build ended with {process.returncode}: {errors[-300:]}")
                trials.facts["builds"] += 1
            turn += 1
            grid = str(GRIDS[turn % 2])
            process = start("prep", study.root, "track", "--grid", grid, "--workers", str(turn % 3))
        store, key = Store(url), trials.random.choice(keys)
        try:
            item = store.item(key.product, key.recording, key.view)
            xy, visibility, valid = (item[name][:] for name in ("xy", "visibility", "valid"))
        except ActionprepError as error:
            # Refusing is right if the item is replaced between two reads; it must not be called damaged.
            trials.facts["refused"] += 1
            trials.check("hecksum" not in str(error), f"a committed item does not match its checksum: {error}")
            continue
        trials.done += 1
        points = {xy.shape[2], visibility.shape[2], valid.shape[1]}
        whole = len(points) == 1 and points <= {grid * grid for grid in GRIDS}
        trials.check(whole, f"an item has arrays of {sorted(points)} points")
        trials.facts[f"{max(points)} points"] += 1
    if process is not None:
        process.communicate()


PART = Part(
    "a store is read while builds replace its items: each item is of one version in all arrays",
    "items read",
    20_000,
    read_during_builds,
)
