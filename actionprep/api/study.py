"""Open a study, plan and build its products, and read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.api.repair import repair
from actionprep.api.rescan import current_catalog
from actionprep.api.status import events, joints_outside, keyframe_summary, status, track_summary
from actionprep.datasets.products.tracks import Tracks, read_tracks
from actionprep.datasets.study import StudyFolder, find_study
from actionprep.errors import UserError, nearest
from actionprep.pipeline.index import STAGES, known_stage, load_stages, stage_index
from actionprep.settings import Settings, StageSettings

if TYPE_CHECKING:
    import pandas as pd

    from actionprep.datasets.catalog import Catalog, ViewSelection
    from actionprep.datasets.poses.sequence import PoseSequence
    from actionprep.datasets.scan import ScanProgress, ScanReport
    from actionprep.datasets.store.keys import Damage, ItemKey
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.pipeline.engine import BuildReport, Progress
    from actionprep.pipeline.plan import Plan
    from actionprep.pipeline.quarantine import Quarantine
    from actionprep.pipeline.stage import ResultTable
    from actionprep.pipeline.view_tasks import Workers


def open_study(folder: str | Path | None = None, *, log: Callable[[str], None] | None = None) -> Study:
    """Open a study.

    Args:
        folder: Folder of the study; None: the nearest study above the current folder.
        log: Receives a message if the study is scanned automatically, or if it ignores settings that data record.

    Returns:
        The study.

    Raises:
        UserError: If there is no study, or if its settings are invalid.
    """
    return Study(find_study(study=folder), log=log)


class Study:
    """A study folder with its settings, catalog and store."""

    def __init__(
        self, folder: StudyFolder, *, paths_from: Path | None = None, log: Callable[[str], None] | None = None
    ) -> None:
        """Create the study.

        Args:
            folder: Folder of the study with its settings.
            paths_from: Folder to which paths in the settings of stages are relative. None: the folder of the study.
            log: Receives a message if the study is scanned automatically, or if it ignores settings that data record.
        """
        self.folder = folder
        self.paths_from = paths_from or folder.root
        self._log = log
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return f"Study({str(self.folder.root)!r})"

    @property
    def root(self) -> Path:
        """The study's folder."""
        return self.folder.root

    @cached_property
    def settings(self) -> dict[str, Settings]:
        """All settings of the file, with defaults, by table name.

        Raises:
            UserError: If a table, key or value is invalid.
        """
        return self.folder.resolved(settings_models(), unread=STAGES.broken())

    @cached_property
    def catalog(self) -> Catalog:
        """Recordings, views and segments of the last scan.

        The study is scanned on first use, and again if settings, tables, annotations or videos have changed. New files are
        found by `scan` only.
        """
        from actionprep.datasets.catalog import Catalog

        current = current_catalog(self.folder)
        if not isinstance(current, str):
            return current
        if self._log is not None:
            self._log(f"{current}: scanning.")
        self.scan()
        return Catalog.read(self.folder.catalog)

    @cached_property
    def store(self) -> Store:
        """The study's store, which is created if it does not exist."""
        from actionprep.datasets.store.opening import open_zarr_store

        return open_zarr_store(self.folder.store, create=True)

    def store_to_verify(self) -> Store:
        """Open the study's store even if the metadata of its root is damaged, for `Store.verify`."""
        from actionprep.datasets.store.opening import open_zarr_store

        return open_zarr_store(self.folder.store, create=True, check_root=False)

    @cached_property
    def quarantine(self) -> Quarantine:
        """Items that could not be built, with the reasons."""
        from actionprep.pipeline.quarantine import Quarantine

        return Quarantine(self.folder.quarantine)

    def scan(
        self, *, workers: int = 4, again: bool = False, progress: Callable[[ScanProgress], None] | None = None
    ) -> ScanReport:
        """Read the packets of every video and all annotations, and write the catalog.

        Args:
            workers: Number of files to read at the same time.
            again: Also read files that have not changed since the last scan.
            progress: Called with the progress.

        Returns:
            What was found.
        """
        from actionprep.datasets.scan import scan
        from actionprep.pipeline.probe import probe

        report = scan(self.folder, self.folder.study, probe=probe, workers=workers, again=again, progress=progress)
        self.__dict__.pop("catalog", None)
        return report

    def select(self, views: Sequence[str | int] = (), *, skip_incomplete: bool | None = None) -> ViewSelection:
        """Select views: the given ones, else those of the settings, else all."""
        study = self.folder.study
        skip = study.skip_incomplete if skip_incomplete is None else skip_incomplete
        return self.catalog.select_views(views or study.views, skip_incomplete=skip)

    def stage_settings(self, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Mapping[str, StageSettings]:
        """Settings of the stages: defaults, then the file, then the overrides.

        Returns:
            Settings by name of the stage. They are read on first access.

        Raises:
            UserError: If the file has an unknown table; on first access, if a setting or value is invalid.
        """
        self.folder.check_tables([*STAGES, "train"])
        return _StageSettings(self.folder, overrides or {}, self.paths_from.resolve())

    def plan(
        self,
        *stages: str,
        views: Sequence[str | int] = (),
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        enforce: bool | None = None,
        retry: bool = False,
        skip_incomplete: bool | None = None,
        recordings: Sequence[str] = (),
        reset: bool = False,
        store: Store | None = None,
    ) -> Plan:
        """Compare the items of stages with the store, to determine what a build would do and why.

        Args:
            stages: Stages to plan. Default: those of the settings.
            recordings: Plan only the views of these recordings. Empty: all.
            views: Views by id or number; those of the settings, else all.
            overrides: Settings for this build only, such as {"tracks": {"grid": 10}}. Items of other stages keep the
                command-line options that they were built with.
            enforce: Whether to rebuild inputs that were built with other settings than the file's. Default: only if no
                stage is given.
            retry: Whether to retry quarantined items.
            skip_incomplete: Whether to skip recordings with a missing view; None uses the setting.
            reset: Whether to rebuild items that were built with command-line options, with the settings of the file.
            store: Snapshot of the study's store to compare with; None takes one.

        Returns:
            The plan.
        """
        from actionprep.datasets.alignment import require_aligned
        from actionprep.pipeline.plan import make_plan

        wanted = [self._product(name) for name in stages] or list(self.folder.study.stages)
        settings = self.stage_settings(overrides)
        selection = self.select(views, skip_incomplete=skip_incomplete)
        if recordings:
            selection = selection.restricted_to(self.catalog.recording(name).id for name in recordings)
        if not self.folder.study.allow_misaligned and any(map(_needs_aligned_views, wanted)):
            require_aligned(
                self.catalog,
                selection.recordings,
                tolerance=self.folder.study.tolerance,
                views=sorted({view.id for view in selection.views}),
            )
        return make_plan(
            self.catalog,
            self.store if store is None else store,
            wanted=wanted,
            settings=settings,
            views=(*selection.views, *selection.unreadable),
            quarantine=self.quarantine,
            root=str(self.root.resolve()),
            enforce=not stages if enforce is None else enforce,
            retry=retry,
            skipped=selection.skipped,
            warn=self.warn,
            explicit=list(STAGES) if reset else list(overrides or {}),
        )

    def save_options(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        """Write settings into actionprep.toml. Comments and other content are kept.

        Args:
            options: Values by table and setting.
        """
        for table, values in options.items():
            for name, value in values.items():
                self.folder.change(table, name, value)
        self.__dict__.pop("settings", None)

    def warn(self, sentence: str) -> None:
        """Log a message, once."""
        if self._log is not None and sentence not in self._warned:
            self._warned.add(sentence)
            self._log(sentence)

    def build(
        self,
        *stages: str,
        views: Sequence[str | int] = (),
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        workers: int | Workers = 0,
        retry: bool = False,
        skip_incomplete: bool | None = None,
        reset: bool = False,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Build the missing items of stages and their inputs; see `plan` for the other arguments.

        `workers` is the number of processes; 0 builds in this process. With processes, a script needs the usual
        `__main__` guard.
        """
        plan = self.plan(
            *stages, views=views, overrides=overrides, retry=retry, skip_incomplete=skip_incomplete, reset=reset
        )
        return self.carry_out(plan, workers=workers, progress=progress)

    def carry_out(self, plan: Plan, *, workers: int | Workers = 0, progress: Progress | None = None) -> BuildReport:
        """Build a plan; see `actionprep.pipeline.engine.build` for the errors."""
        from actionprep.pipeline.engine import build
        from actionprep.pipeline.view_tasks import Workers

        try:
            return build(
                plan,
                self.catalog,
                self.store,
                self.quarantine,
                workers=workers if isinstance(workers, Workers) else Workers(workers),
                failure_budget=self.folder.study.failure_budget,
                item_timeout=self.folder.study.item_timeout,
                log_folder=self.root / "logs",
                progress=progress,
            )
        finally:
            # Other processes, or other store objects, may have replaced items.
            self.store.forget_readers()

    def repair(self, damage: Iterable[Damage], *, workers: int | Workers = 0) -> BuildReport:
        """Rebuild only damaged items, with the settings that they were built with.

        An item with damaged metadata gets the settings of the intact items of its product if they agree, else those of
        actionprep.toml. A damaged item is kept until its replacement is committed. Items that no stage builds any more are
        reported as blocked.
        """
        return repair(self, damage, workers=workers)

    def results(self, keys: Iterable[ItemKey]) -> dict[ItemKey, ResultTable]:
        """Return tables about items of the full study, such as the number of windows of each label."""
        from actionprep.pipeline.stage import ArrayStage

        tables = {}
        for key in keys:
            # Only products of the full study have tables.
            stage = None if key.view else known_stage(key.product)
            if stage is not None and issubclass(stage, ArrayStage) and self.store.metadata(key) is not None:
                table = stage.results(self.store.item(key.product, key.recording), self.catalog)
                if table is not None:
                    tables[key] = table
        return tables

    def events(self, keys: Iterable[ItemKey], *, store: Store | None = None) -> dict[str, dict[str, int]]:
        """Count what these items dropped, filled in or converted, by product and description; zero counts are left out.

        Args:
            keys: The items.
            store: Snapshot of the study's store to read; None takes one.
        """
        return events(self.store if store is None else store, keys)

    def track_summary(self, keys: Iterable[ItemKey], *, store: Store | None = None) -> dict[str, Any] | None:
        """Count views, windows and points of these tracks, and the share that is visible; None without tracks.

        Args:
            keys: Items of any product.
            store: Snapshot of the study's store to read; None takes one.
        """
        return track_summary(self.store if store is None else store, keys)

    def keyframe_summary(self, keys: Iterable[ItemKey], *, store: Store | None = None) -> dict[str, Any] | None:
        """Count views and keyframes, with the range per view; None without keyframes.

        Args:
            keys: Items of any product.
            store: Snapshot of the study's store to read; None takes one.
        """
        return keyframe_summary(self.store if store is None else store, keys)

    def joints_outside(self, keys: Iterable[ItemKey], *, store: Store | None = None) -> list[tuple[ItemKey, int, int]]:
        """List imported poses with joints outside of the frame: item, number of such joints, and number of all joints.

        Args:
            keys: Items of any product.
            store: Snapshot of the study's store to read; None takes one.
        """
        return joints_outside(self.store if store is None else store, keys)

    def item(self, product: str, recording: str, view: str | int = "") -> ItemReader:
        """Open a stored item by product, recording and view (name or number)."""
        name = self.catalog.view(recording, view).id if view != "" else ""
        return self.store.item(product, recording, name)

    def tracks(self, recording: str, *, view: str | int) -> Tracks:
        """Read the point tracks of one view into memory."""
        return read_tracks(self.item("tracks", recording, view))

    def poses(self, recording: str, *, view: str | int) -> PoseSequence:
        """Read the poses of one view into memory."""
        from actionprep.datasets.products.poses import read_pose_item

        return read_pose_item(self.item("pose", recording, view))

    @property
    def snippets(self) -> pd.DataFrame:
        """The default table of snippets as a data frame; `snippet_table(name)` reads others."""
        return self.snippet_table()

    def snippet_table(self, name: str = "default") -> pd.DataFrame:
        """Read a table of snippets. Each row has recording, onset and offset (s), label, subject, session and overlaps."""
        from actionprep.datasets.products.snippets import SnippetTable

        return SnippetTable.read(self.store.item("snippets", name)).to_frame()

    def status(self) -> dict[str, Any]:
        """Return the products of the store, whether they match the settings, and the quarantine, as plain values."""
        return status(self)

    def stray_items(self) -> list[ItemKey]:
        """List items whose recording or view is no longer in the catalog, except items with damaged metadata."""
        views = {(view.recording, view.id) for view in self.catalog.views}
        store = self.store.snapshot()
        return store.intact(key for key in store.items() if key.view and (key.recording, key.view) not in views)

    def remove_items(self, keys: Iterable[ItemKey]) -> None:
        """Delete items from the store while holding its lock."""
        from actionprep.datasets.store.lock import hold

        with hold(self.store.lock()):
            for key in keys:
                self.store.remove(key)
            self.store.clear_partial()
            self.store.snapshot()  # writes the index

    def _product(self, name: str) -> str:
        """Return the name of a product from the name of its stage or command."""
        for entry in stage_index().values():
            if name in (entry.name, entry.command):
                return entry.name
        known = [entry.name for entry in stage_index().values()]
        raise UserError(f"No stage '{name}'.{nearest(name, known)} Stages: {', '.join(known)}.")


def _needs_aligned_views(product: str) -> bool:
    from actionprep.pipeline.index import find_stage
    from actionprep.pipeline.stage import ArrayStage

    stage = find_stage(product)
    return not issubclass(stage, ArrayStage) or stage.needs_aligned_views


class _StageSettings(Mapping[str, StageSettings]):
    """Settings of all stages of a study, read on first access."""

    def __init__(self, folder: StudyFolder, overrides: Mapping[str, Mapping[str, Any]], root: Path) -> None:
        self._folder = folder
        self._overrides = overrides
        self._root = root
        self._read: dict[str, StageSettings] = {}

    def __getitem__(self, name: str) -> StageSettings:
        if name not in self._read:
            model, overrides = STAGES[name].Settings, self._overrides.get(name)
            settings = self._folder.settings_for(name, model, overrides)
            if overrides:
                own = self._folder.settings_for(name, model).model_dump(mode="json")
                given = settings.model_dump(mode="json")
                settings = settings.with_command_line({key: own[key] for key in own if own[key] != given[key]})
            self._read[name] = settings.at(self._root)
        return self._read[name]

    @cached_property
    def _names(self) -> list[str]:
        broken = STAGES.broken()
        return [name for name in STAGES if name not in broken]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def settings_models() -> dict[str, type[Settings]]:
    """Return all tables that actionprep.toml may have besides [study], with their models."""
    from actionprep.training.train_settings import TrainSettings

    return {**{name: stage.Settings for name, stage in load_stages().items()}, "train": TrainSettings}
