"""A study: its settings, catalog and store, its plan and build, its products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.api.repair import repair
from actionprep.api.rescan import reason_to_scan
from actionprep.api.status import events, joints_outside, status, track_summary
from actionprep.datasets.products.tracks import Tracks, read_tracks
from actionprep.datasets.study import StudyFolder, find_study
from actionprep.errors import UserError, nearest
from actionprep.pipeline.index import STAGES, load_stages, stage_index
from actionprep.settings import Settings, StageSettings

if TYPE_CHECKING:
    import pandas as pd

    from actionprep.datasets.catalog import Catalog, ViewSelection
    from actionprep.datasets.poses.sequence import PoseSequence
    from actionprep.datasets.scan import ScanProgress, ScanReport
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.zarr_store import Damage, ItemKey, Store
    from actionprep.pipeline.engine import BuildReport, Progress
    from actionprep.pipeline.plan import Plan
    from actionprep.pipeline.quarantine import Quarantine
    from actionprep.pipeline.stage import ResultTable
    from actionprep.pipeline.tasks import Workers


def open_study(folder: str | Path | None = None, *, tell: Callable[[str], None] | None = None) -> Study:
    """The study in `folder`, or the nearest one above the current folder.

    tell: is told, in a sentence, when the study scans by itself or ignores settings that data record.

    Raises UserError when there is none, or when its settings are wrong.
    """
    return Study(find_study(study=folder), tell=tell)


class Study:
    """A study folder with its settings, catalog and store."""

    def __init__(
        self, folder: StudyFolder, *, paths_from: Path | None = None, tell: Callable[[str], None] | None = None
    ) -> None:
        """paths_from: the folder that relative paths in the settings of stages start from; the study's own when None.

        tell: is told, in a sentence, when the study scans by itself or ignores settings that data record.
        """
        self.folder = folder
        self.paths_from = paths_from or folder.root
        self._tell = tell
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return f"Study({str(self.folder.root)!r})"

    @property
    def root(self) -> Path:
        """The study's folder."""
        return self.folder.root

    @cached_property
    def settings(self) -> dict[str, Settings]:
        """All settings as the file and the defaults give them, by table name.

        Raises UserError for unknown tables, unknown keys and wrong values.
        """
        return self.folder.resolved(settings_models(), unread=STAGES.broken())

    @cached_property
    def catalog(self) -> Catalog:
        """Recordings, views and segments as the last scan found them.

        The first use scans, and so does one after settings, tables, annotations or videos have changed: what a scan
        found is never used for something else. Files that are new are found by `scan`.
        """
        from actionprep.datasets.catalog import Catalog

        why = reason_to_scan(self.folder)
        if why:
            if self._tell is not None:
                self._tell(f"{why}: scanning.")
            self.scan()
        return Catalog.read(self.folder.catalog)

    @cached_property
    def store(self) -> Store:
        """The study's store; made when it is not there."""
        from actionprep.datasets.store.zarr_store import Store

        return Store(self.folder.store, create=True)

    def store_to_verify(self) -> Store:
        """The study's store, opened even when the metadata of its root is damaged, for `Store.verify`."""
        from actionprep.datasets.store.zarr_store import Store

        return Store(self.folder.store, create=True, check_root=False)

    @cached_property
    def quarantine(self) -> Quarantine:
        """What could not be made, and why."""
        from actionprep.pipeline.quarantine import Quarantine

        return Quarantine(self.folder.quarantine)

    def scan(
        self, *, workers: int = 4, again: bool = False, progress: Callable[[ScanProgress], None] | None = None
    ) -> ScanReport:
        """Read every video once by packets and every annotation, and write the catalog.

        again: also read files that have not changed since the last scan.
        """
        from actionprep.datasets.scan import scan
        from actionprep.pipeline.probe import probe

        report = scan(self.folder, self.folder.study, probe=probe, workers=workers, again=again, progress=progress)
        self.__dict__.pop("catalog", None)
        return report

    def select(self, views: Sequence[str | int] = (), *, skip_incomplete: bool | None = None) -> ViewSelection:
        """The views that a command works on: those named, else those of the settings, else all."""
        study = self.folder.study
        skip = study.skip_incomplete if skip_incomplete is None else skip_incomplete
        return self.catalog.select_views(views or study.views, skip_incomplete=skip)

    def stage_settings(self, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Mapping[str, StageSettings]:
        """Settings of the stages: defaults, then the file, then the overrides.

        Returns:
            Settings by name of the stage. Those of a stage are read when they are asked for first.

        Raises:
            UserError: For a table that nothing reads; on the first look-up, for unknown settings and wrong values.
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
        """Compare the items of stages with the store: what a build would do, and why.

        Args:
            stages: Stages to plan; those of the settings when none is named.
            recordings: Plan only the views of these recordings; all when empty.
            views: Views by id or number; those of the settings, else all.
            overrides: Settings for this build only, such as {"tracks": {"grid": 10}}. Items of stages that are not in it
                keep the options of the command line that made them.
            enforce: Whether to rebuild inputs that were made with other settings than the file's. The default does so
                only when no stage is named.
            retry: Whether quarantined items are tried again.
            skip_incomplete: Whether recordings that lack a view are left out; None uses the setting.
            reset: Whether items that options of a command line made are rebuilt with the settings of the file.
            store: A snapshot of the study's store to compare with; taken when None.
        """
        from actionprep.datasets.alignment import require_aligned
        from actionprep.pipeline.plan import make_plan

        wanted = [self._product(name) for name in stages] or list(self.folder.study.stages)
        settings = self.stage_settings(overrides)
        selection = self.select(views, skip_incomplete=skip_incomplete)
        if recordings:
            selection = selection.restricted_to(self.catalog.recording(name).id for name in recordings)
        if not self.folder.study.allow_misaligned:
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
        """Write settings into actionprep.toml. Comments and everything else in it stay.

        Args:
            options: Values by table and setting.
        """
        for table, values in options.items():
            for name, value in values.items():
                self.folder.change(table, name, value)
        self.__dict__.pop("settings", None)

    def warn(self, sentence: str) -> None:
        """Pass a sentence on to whoever listens, once."""
        if self._tell is not None and sentence not in self._warned:
            self._warned.add(sentence)
            self._tell(sentence)

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
        """Build what these stages lack, and their inputs; see `plan` for the other arguments.

        With workers = 0 it works in this process; more use processes, for which a script needs the usual `__main__`
        guard.
        """
        plan = self.plan(
            *stages, views=views, overrides=overrides, retry=retry, skip_incomplete=skip_incomplete, reset=reset
        )
        return self.carry_out(plan, workers=workers, progress=progress)

    def carry_out(self, plan: Plan, *, workers: int | Workers = 0, progress: Progress | None = None) -> BuildReport:
        """Build a plan; see `actionprep.pipeline.engine.build` for the errors."""
        from actionprep.pipeline.engine import build
        from actionprep.pipeline.tasks import Workers

        try:
            return build(
                plan,
                self.catalog,
                self.store,
                self.quarantine,
                workers=workers if isinstance(workers, Workers) else Workers(workers),
                failure_budget=self.folder.study.failure_budget,
                log_folder=self.root / "logs",
                progress=progress,
            )
        finally:
            # Items were replaced by other processes or other objects than this store.
            self.store.forget_readers()

    def repair(self, damage: Iterable[Damage], *, workers: int | Workers = 0) -> BuildReport:
        """Rebuild damaged items, with the settings that they were made with; nothing else is touched.

        Settings that an item with damaged metadata records are not used: it gets those of the intact items of its
        product where they agree, else those of actionprep.toml. A damaged item stays in its place until its replacement
        is committed; one that nothing makes any more is reported as blocked.
        """
        return repair(self, damage, workers=workers)

    def results(self, keys: Iterable[ItemKey]) -> dict[ItemKey, ResultTable]:
        """Return tables about items of the full study, such as the number of windows of each label."""
        from actionprep.pipeline.stage import ArrayStage

        stages = load_stages()
        tables = {}
        for key in keys:
            stage = stages.get(key.product)
            if stage is not None and issubclass(stage, ArrayStage) and self.store.metadata(key) is not None:
                table = stage.results(self.store.item(key.product, key.recording), self.catalog)
                if table is not None:
                    tables[key] = table
        return tables

    def events(self, keys: Iterable[ItemKey]) -> dict[str, dict[str, int]]:
        """What these items left out, filled in or converted: for each product sums by what it was; only what there was."""
        return events(self.store, keys)

    def track_summary(self, keys: Iterable[ItemKey]) -> dict[str, Any] | None:
        """Numbers of views, windows and points of these tracks, and the fraction visible; None without tracks."""
        return track_summary(self.store, keys)

    def joints_outside(self, keys: Iterable[ItemKey]) -> list[tuple[ItemKey, int, int]]:
        """Imported poses with joints outside of the picture: the item, how many they are, and of how many joints."""
        return joints_outside(self.store, keys)

    def item(self, product: str, recording: str, view: str | int = "") -> ItemReader:
        """Any stored item, by product, recording and view (name or index)."""
        name = self.catalog.view(recording, view).id if view != "" else ""
        return self.store.item(product, recording, name)

    def tracks(self, recording: str, *, view: str | int) -> Tracks:
        """The point tracks of one view, read into memory."""
        return read_tracks(self.item("tracks", recording, view))

    def poses(self, recording: str, *, view: str | int) -> PoseSequence:
        """The poses of one view, read into memory."""
        from actionprep.datasets.products.poses import read_pose_item

        return read_pose_item(self.item("pose", recording, view))

    @property
    def snippets(self) -> pd.DataFrame:
        """The default table of snippets as a data frame; `snippet_table(name)` reads others."""
        return self.snippet_table()

    def snippet_table(self, name: str = "default") -> pd.DataFrame:
        """One row a snippet: recording, onset and offset (s), label, subject, session, overlap figures."""
        from actionprep.datasets.products.snippets import SnippetTable

        return SnippetTable.read(self.store.item("snippets", name)).to_frame()

    def status(self) -> dict[str, Any]:
        """What the store holds, how that stands to the settings, and what is quarantined, as plain values."""
        return status(self)

    def stray_items(self) -> list[ItemKey]:
        """Items whose recording or view is no longer in the catalog; without those whose metadata is damaged."""
        views = {(view.recording, view.id) for view in self.catalog.views}
        store = self.store.snapshot()
        return store.intact(key for key in store.items() if key.view and (key.recording, key.view) not in views)

    def remove_items(self, keys: Iterable[ItemKey]) -> None:
        """Delete items from the store, as its only builder."""
        from actionprep.datasets.store.lock import build_lock

        with build_lock(self.store.require_local() / ".lock"):
            for key in keys:
                self.store.remove(key)
            self.store.clear_partial()
            self.store.snapshot()  # writes the index

    def _product(self, name: str) -> str:
        """A product's name from the name of its stage or command."""
        for entry in stage_index().values():
            if name in (entry.name, entry.command):
                return entry.name
        known = [entry.name for entry in stage_index().values()]
        raise UserError(f"No stage '{name}'.{nearest(name, known)} Stages: {', '.join(known)}.")


class _StageSettings(Mapping[str, StageSettings]):
    """Settings of all stages of a study; those of a stage are read on their first look-up."""

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
    """All tables that actionprep.toml may have besides [study], with their models."""
    from actionprep.training.train_settings import TrainSettings

    return {**{name: stage.Settings for name, stage in load_stages().items()}, "train": TrainSettings}
