"""Locate the store and the runs of a command."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.training.run import Run
    from actionprep.training.train_settings import TrainSettings


class Place:
    """The store to train on, with its settings and the folder of its runs."""

    def __init__(self, store: Store, settings: TrainSettings, runs: Path) -> None:
        self.store, self.settings, self.runs = store.snapshot(), settings, runs

    @classmethod
    def find(cls, store: str | None, study: Path | None) -> Place:
        """Locate the store of a study, a store without a study, or another store with the settings of a study."""
        from actionprep.api import open_study
        from actionprep.training.train_settings import TrainSettings

        if store is not None and study is None:
            # Runs of a store without a study are written to the current folder.
            return cls(store_or_study(store), TrainSettings(), Path("runs"))
        opened = open_study(study)
        settings = opened.folder.settings_for("train", TrainSettings)
        return cls(opened.store if store is None else store_or_study(store), settings, opened.folder.runs)

    def begun(self, run: str | None, *, folds: bool) -> Path:
        """The folder of the run to resume. A named one may not exist yet."""
        return self.runs / run if run is not None else last_run(self.runs, folds=folds)


def store_or_study(text: str) -> Store:
    """Open a store by its path or URL, or the store of a study by the folder of the study."""
    from actionprep.api import open_study
    from actionprep.datasets.store.opening import open_store

    if (Path(text) / "actionprep.toml").is_file() and not (Path(text) / "zarr.json").is_file():
        return open_study(Path(text)).store
    return open_store(text)


def store_of_study(run: Run, study: Path | None) -> Store | None:
    """Open the store of a study that --study names, if the run was trained on it; None otherwise."""
    import os

    from actionprep.api import open_study

    if study is None:
        return None
    store = str(open_study(study).folder.store)
    return store_or_study(store) if os.path.realpath(store) == os.path.realpath(run.recorded_store) else None


def runs_folder(study: Path | None) -> Path:
    """The folder of runs of the study, or `runs` in the current folder for stores without a study."""
    from actionprep.api import open_study
    from actionprep.errors import UserError

    try:
        return open_study(study).folder.runs
    except UserError:
        if study is not None or not Path("runs").is_dir():
            raise
        return Path("runs")


def run_folder(name: str, study: Path | None) -> Path:
    """The folder of a run, or of a cross-validation, by its path or its name in the study."""
    return Path(name) if Path(name).is_dir() else runs_folder(study) / name


def cross_validation(name: str | None, study: Path | None) -> Path | None:
    """Return the folder of a cross-validation, by its path or name; without a name, the last one if it is the last run."""
    if name is not None:
        folder = run_folder(name, study)
        return folder if (folder / "folds.json").is_file() and not (folder / "run.json").is_file() else None
    runs = runs_folder(study)
    candidates = [*runs.glob("*/folds.json"), *runs.glob("*/run.json"), *runs.glob("*/fusion.json")]
    newest = max(candidates, key=lambda path: path.stat().st_mtime, default=None)
    return newest.parent if newest is not None and newest.name == "folds.json" else None


def find_run(name: str | None, study: Path | None) -> Run:
    """Open a run by its folder or its name in the study. Default: the last run."""
    from actionprep.training.run import Run

    if name is not None and Path(name).is_dir():
        return Run.open(name)
    runs = runs_folder(study)
    return Run.open(last_run(runs) if name is None else runs / name)


def last_run(runs: Path, *, folds: bool = False) -> Path:
    """The folder of the latest run or cross-validation."""
    from actionprep.errors import UserError

    runs_by_age = sorted(
        (path.stat().st_mtime, path) for path in runs.glob("*/fold-*/run.json" if folds else "*/run.json")
    )
    if not runs_by_age:
        raise UserError(
            f"No {'cross-validation' if folds else 'runs'} in {runs}. Train one with 'actiontrain "
            f"fit{' --folds subject' if folds else ''}'."
        )
    return runs_by_age[-1][1].parents[1] if folds else runs_by_age[-1][1].parent


def new_folder(runs: Path, kind: str, named: Path | None) -> AbstractContextManager[Path]:
    """The named folder, or a new unique one named after this kind and the time."""
    import time

    from actionprep.training.loop.processes import is_first_process
    from actionprep.training.run import claimed_folder

    if named is not None:
        return nullcontext(named)
    stamped = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    # The other processes of a run use the folder of the first one.
    return claimed_folder(runs, stamped) if is_first_process() else nullcontext(runs / stamped)
