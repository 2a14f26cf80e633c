"""Where a training finds its store and its runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.training.run import Run
    from actionprep.training.train_settings import TrainSettings


class Place:
    """The store to train on, with the settings and the folder of runs that belong to it."""

    def __init__(self, store: Store, settings: TrainSettings, runs: Path) -> None:
        self.store, self.settings, self.runs = store, settings, runs

    @classmethod
    def find(cls, store: str | None, study: Path | None) -> Place:
        """Those of a study, of a store without one, or of a study with another store."""
        from actionprep.api import open_study
        from actionprep.training.train_settings import TrainSettings

        if store is not None and study is None:
            # A store without a study: the runs go beside the shell.
            return cls(open_store(store), TrainSettings(), Path("runs"))
        opened = open_study(study)
        settings = opened.folder.settings_for("train", TrainSettings)
        return cls(opened.store if store is None else open_store(store), settings, opened.folder.runs)

    def begun(self, run: str | None, *, folds: bool) -> Path:
        """The folder of the run to go on with, which may not be there yet when it is named."""
        return self.runs / run if run is not None else last_run(self.runs, folds=folds)


def open_store(text: str) -> Store:
    """Open a store by its folder or URL, or that of a study by the study's folder."""
    from actionprep.api import open_study
    from actionprep.datasets.store.zarr_store import Store

    if (Path(text) / "actionprep.toml").is_file() and not (Path(text) / "zarr.json").is_file():
        return open_study(Path(text)).store
    return Store(text)


def store_of_study(run: Run, study: Path | None) -> Store | None:
    """Open the store of a study that --study names, if the run was trained on it; None otherwise."""
    import os

    from actionprep.api import open_study

    if study is None:
        return None
    store = str(open_study(study).folder.store)
    return open_store(store) if os.path.realpath(store) == os.path.realpath(run.recorded_store) else None


def runs_folder(study: Path | None) -> Path:
    """The folder of runs of the study, or runs here, where stores without a study were trained on."""
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
    """A run, by its folder or its name in the study; the last one without a name."""
    from actionprep.training.run import Run

    if name is not None and Path(name).is_dir():
        return Run.open(name)
    runs = runs_folder(study)
    return Run.open(last_run(runs) if name is None else runs / name)


def last_run(runs: Path, *, folds: bool = False) -> Path:
    """The folder of the youngest run, or cross-validation."""
    from actionprep.errors import UserError

    found = sorted((path.stat().st_mtime, path) for path in runs.glob("*/fold-*/run.json" if folds else "*/run.json"))
    if not found:
        raise UserError(
            f"No {'cross-validation' if folds else 'runs'} in {runs}. Train one with 'actiontrain "
            f"fit{' --folds subject' if folds else ''}'."
        )
    return found[-1][1].parents[1] if folds else found[-1][1].parent


def new_folder(runs: Path, kind: str, named: Path | None) -> AbstractContextManager[Path]:
    """The folder that was named, or one of this kind and time which nobody else has."""
    import time

    from actionprep.training.loop.processes import is_first_process
    from actionprep.training.run import claimed_folder

    if named is not None:
        return nullcontext(named)
    stamped = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    # The other processes of a training take the folder of the first.
    return claimed_folder(runs, stamped) if is_first_process() else nullcontext(runs / stamped)
