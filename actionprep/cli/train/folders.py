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
    def find(cls, store: Path | None, study: Path | None) -> Place:
        """Locate the store of a study, a store without a study, or another store with the settings of a study."""
        from actionprep.api import open_study
        from actionprep.datasets.store.opening import open_store
        from actionprep.training.train_settings import TrainSettings

        if store is not None and study is None:
            # Runs of a store without a study are written to the current folder.
            return cls(open_store(store), TrainSettings(), Path("runs"))
        opened = open_study(study)
        settings = opened.folder.settings_for("train", TrainSettings)
        return cls(opened.store if store is None else open_store(store), settings, opened.folder.runs)

    def begun(self, run: str | None, *, folds: bool) -> Path:
        """The folder of the run to resume. A named one may not exist yet."""
        return self.runs / run if run is not None else last_run(self.runs, folds=folds)


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
