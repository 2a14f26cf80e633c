"""From a folder of clips per class, `videos/<class>/<clip>.mp4`, to a tested model."""

from __future__ import annotations

import sys
from pathlib import Path

from actionprep.api import make_study
from actionprep.training.fit import fit
from actionprep.training.recipes import find_recipe
from actionprep.training.test import run_test


def main(folder: Path, *, epochs: int = 40) -> float:
    """Build, train and test; return the accuracy on clips that training has not seen."""
    study, _ = make_study(folder, {"layout": "folder-per-class"})
    study.scan()
    study.build("tracks", overrides={"tracks": {"grid": 12}})
    study.build("snippets")
    recipe = find_recipe("view-transformer").changed({"epochs": epochs})
    run = fit(study.store, recipe, folder / "runs/first")
    return float(run_test(run)["metrics"]["accuracy"])


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("Usage: python examples/own_data.py FOLDER, where FOLDER/videos has one folder of clips per class.")
    print(f"accuracy {main(Path(sys.argv[1])):.1%}")
