"""Point tracks of several cameras: accuracy with all views and with each view alone, on the rendered sample study."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from actionprep.api import make_demo
from actionprep.training.fit import fit
from actionprep.training.recipes import find_recipe
from actionprep.training.test import run_test


def main(folder: Path, *, recordings: int = 66, epochs: int = 40) -> dict[str, float]:
    """Track points in two views, train on both, and test both and each alone."""
    study = make_demo(folder, recordings=recordings)
    study.build("tracks", views=[0, 3], overrides={"tracks": {"grid": 12}})
    study.build("snippets", overrides={"snippets": {"length": 1000, "iou": 0.5}})
    recipe = find_recipe("view-transformer").changed({"epochs": epochs})
    run = fit(study.store, recipe, folder / "runs/two-views")
    return {row["views"]: row["accuracy"] for row in run_test(run)["views"]}


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else Path(tempfile.mkdtemp()) / "sample"
    for views, accuracy in main(target).items():
        print(f"views {views:5}  accuracy {accuracy:.1%}")
