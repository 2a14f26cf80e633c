"""What notebooks and the commands call: a study, its plan, its products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.datasets.study import StudyFolder, find_study
from actionprep.errors import UserError, nearest
from actionprep.pipeline.index import load_stages, stage_index
from actionprep.settings import Settings, StageSettings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from actionprep.datasets.catalogue import Catalogue, ViewSelection
    from actionprep.datasets.item_reader import ItemReader
    from actionprep.datasets.scan import ScanReport
    from actionprep.datasets.store import Damage, ItemKey, Store
    from actionprep.pipeline.engine import BuildReport, Progress, Workers
    from actionprep.pipeline.plan import Plan


def open_study(folder: str | Path | None = None) -> Study:
    """The study in `folder`, or the nearest one above the current folder.

    Raises UserError when there is none, or when its settings are wrong.
    """
    return Study(find_study(study=folder))


@dataclass(frozen=True)
class Tracks:
    """Point tracks of one view, cut into windows that are each seeded anew.

    xy          (W, T, N, 2) float32  pixels of the source image, x then y
    visibility  (W, T, N) bool        as the tracker says, before any threshold on confidence
    confidence  (W, T, N) float32     in [0, 1]
    valid       (W, N) bool           which of the N slots hold a point
    frame_valid (W, T) bool           which frames of the window exist
    start       (W,) int64            index of each window's first frame
    time        (W, T) float64        seconds on the recording's clock
    region      (W, 4) float32        box x0, y0, x1, y1 of the foreground at the seed frame, px
    """

    xy: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray
    valid: np.ndarray
    frame_valid: np.ndarray
    start: np.ndarray
    time: np.ndarray
    region: np.ndarray
    attributes: dict[str, Any]

    def __repr__(self) -> str:
        windows, frames, points = self.xy.shape[:3]
        made = f"{self.attributes.get('tracker')}, grid {self.attributes.get('grid')}"
        return f"Tracks({windows} windows x {frames} frames x {points} points; {int(self.valid.sum())} seeded; {made})"


class Study:
    """A study folder with its settings, catalogue and store."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder

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
        return self.folder.resolved(settings_models())

    @cached_property
    def catalogue(self) -> Catalogue:
        """Recordings, views and segments as the last scan found them; the first use scans."""
        from actionprep.datasets.catalogue import Catalogue

        if not (self.folder.catalogue / "views.parquet").exists():
            self.scan()
        return Catalogue.read(self.folder.catalogue)

    @cached_property
    def store(self) -> Store:
        """The study's store; made when it is not there."""
        from actionprep.datasets.store import Store

        return Store(self.folder.store, create=True)

    @cached_property
    def _quarantine(self) -> Any:
        from actionprep.pipeline.quarantine import Quarantine

        return Quarantine(self.folder.quarantine)

    def scan(
        self, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
    ) -> ScanReport:
        """Read every video once by packets and every annotation, and write the catalogue."""
        from actionprep.datasets.scan import scan
        from actionprep.pipeline.video import probe

        report = scan(self.folder, self.folder.study, probe, workers=workers, progress=progress)
        self.__dict__.pop("catalogue", None)
        return report

    def select(self, views: Sequence[str | int] = (), *, skip_incomplete: bool | None = None) -> ViewSelection:
        """The views that a command works on: those named, else those of the settings, else all."""
        study = self.folder.study
        skip = study.skip_incomplete if skip_incomplete is None else skip_incomplete
        return self.catalogue.select_views(views or study.views, skip_incomplete=skip)

    def stage_settings(self, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, StageSettings]:
        """Settings of every stage: defaults, then the file, then the overrides."""
        models = {name: stage.Settings for name, stage in load_stages().items()}
        chosen = self.folder.resolved({**settings_models(), **models}, overrides)
        return {name: one for name, one in chosen.items() if isinstance(one, StageSettings) and name in models}

    def plan(
        self,
        *stages: str,
        views: Sequence[str | int] = (),
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        enforce: bool | None = None,
        retry: bool = False,
        skip_incomplete: bool | None = None,
    ) -> Plan:
        """What building these stages (those of the settings when none is named) would do, and why.

        overrides: settings for this build only, such as {"tracks": {"grid": 10}}.
        enforce:   also make inputs anew that were made with other settings than the file's; the default does so only
            when no stage is named.
        """
        from actionprep.datasets.catalogue import Catalogue
        from actionprep.pipeline.plan import make_plan

        wanted = [self._product(name) for name in stages] or list(self.folder.study.stages)
        selection = self.select(views, skip_incomplete=skip_incomplete)
        assert isinstance(self.catalogue, Catalogue)
        return make_plan(
            self.catalogue,
            self.store,
            wanted=wanted,
            settings=self.stage_settings(overrides),
            views=(*selection.views, *selection.unreadable),
            quarantine=self._quarantine,
            root=str(self.root.resolve()),
            enforce=not stages if enforce is None else enforce,
            retry=retry,
            skipped=selection.skipped,
        )

    def build(
        self,
        *stages: str,
        views: Sequence[str | int] = (),
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        workers: int | Workers = 0,
        retry: bool = False,
        skip_incomplete: bool | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Make what these stages lack, and what they read; see `plan` for the arguments.

        workers: 0 works in this process; more use processes, for which a script needs the usual `__main__` guard.
        """
        plan = self.plan(*stages, views=views, overrides=overrides, retry=retry, skip_incomplete=skip_incomplete)
        return self.carry_out(plan, workers=workers, progress=progress)

    def carry_out(self, plan: Plan, *, workers: int | Workers = 0, progress: Progress | None = None) -> BuildReport:
        """Build a plan; see `actionprep.pipeline.engine.build` for the errors."""
        from actionprep.pipeline.engine import Workers, build

        return build(
            plan,
            self.catalogue,
            self.store,
            self._quarantine,
            workers=workers if isinstance(workers, Workers) else Workers(workers),
            failure_budget=self.folder.study.failure_budget,
            log_folder=self.root / "logs",
            progress=progress,
        )

    def repair(self, damage: Iterable[Damage], *, workers: int | Workers = 0) -> BuildReport:
        """Make damaged items anew, with the settings that they were made with; nothing else is touched."""
        from actionprep.pipeline.engine import BuildReport

        report = BuildReport()
        by_settings: dict[tuple[str, str], list[ItemKey]] = {}
        for one in damage:
            made = self.store.metadata(one.key) or {}
            settings = made.get("provenance", {}).get("settings", {})
            by_settings.setdefault((one.key.product, repr(sorted(settings.items()))), []).append(one.key)
        for (product, _), keys in by_settings.items():
            made = self.store.metadata(keys[0]) or {}
            settings = made.get("provenance", {}).get("settings")
            for key in keys:
                self.store.remove(key)
            views = sorted({key.view for key in keys if key.view})
            part = self.build(
                product, views=views, overrides={product: settings} if settings else None, workers=workers,
                skip_incomplete=True,
            )
            report.built += part.built
            report.quarantined.update(part.quarantined)
        return report

    def item(self, product: str, recording: str, view: str | int = "") -> ItemReader:
        """Any stored item, by product, recording and view (name or index)."""
        name = self.catalogue.view(recording, view).id if view != "" else ""
        return self.store.item(product, recording, name)

    def tracks(self, recording: str, *, view: str | int) -> Tracks:
        """The point tracks of one view, read into memory."""
        item = self.item("tracks", recording, view)
        return Tracks(
            xy=item["xy"][:],
            visibility=item["visibility"][:].astype(bool),
            confidence=item["confidence"][:],
            valid=item["valid"][:].astype(bool),
            frame_valid=item["frame_valid"][:].astype(bool),
            start=item["start"][:],
            time=item["time"][:],
            region=item["region"][:],
            attributes=item.attributes,
        )

    @property
    def snippets(self) -> pd.DataFrame:
        """The default table of snippets as a data frame; `snippet_table(name)` reads others."""
        return self.snippet_table()

    def snippet_table(self, name: str = "default") -> pd.DataFrame:
        """One row a snippet: recording, onset and offset (s), label, subject, session, overlap figures."""
        from actionprep.datasets.snippets import SnippetTable

        return SnippetTable.read(self.store.item("snippets", name)).to_frame()

    def _product(self, name: str) -> str:
        """A product's name from the name of its stage or command."""
        for entry in stage_index().values():
            if name in (entry.name, entry.command):
                return entry.name
        known = [entry.name for entry in stage_index().values()]
        raise UserError(f"No stage '{name}'.{nearest(name, known)} Stages: {', '.join(known)}.")


def settings_models() -> dict[str, type[Settings]]:
    """All tables that actionprep.toml may have besides [study], with their models."""
    from actionprep.training.recipes import TrainSettings

    return {**{name: stage.Settings for name, stage in load_stages().items()}, "train": TrainSettings}
