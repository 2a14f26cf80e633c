"""What notebooks and the commands call: a study, its plan, its products."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.datasets.study import StudyFolder, find_study
from actionprep.errors import ActionprepError, UserError, nearest
from actionprep.pipeline.index import load_stages, stage_index
from actionprep.settings import Settings, StageSettings, canonical_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from actionprep.datasets.catalogue import Catalogue, ViewSelection
    from actionprep.datasets.item_reader import ItemReader
    from actionprep.datasets.poses import PoseSequence
    from actionprep.datasets.recordings import View
    from actionprep.datasets.scan import ScanProgress, ScanReport
    from actionprep.datasets.segments import Segment
    from actionprep.datasets.store import Damage, ItemKey, Store
    from actionprep.datasets.study import StudySettings
    from actionprep.pipeline.engine import BuildReport, Progress, Workers
    from actionprep.pipeline.plan import Plan, PlannedItem
    from actionprep.training.checkpoints import Checkpoint
    from actionprep.training.predict import Timeline


def open_study(folder: str | Path | None = None, *, tell: Callable[[str], None] | None = None) -> Study:
    """The study in `folder`, or the nearest one above the current folder.

    tell: is told, in a sentence, when the study scans by itself.

    Raises UserError when there is none, or when its settings are wrong.
    """
    return Study(find_study(study=folder), tell=tell)


@dataclass(frozen=True)
class Tracks:
    """Point tracks of one view, cut into windows that are each seeded anew.

    xy          (W, T, N, 2) float32  pixels of the source image, x then y
    visible     (W, T, N) bool        by the rule of the tracker's authors
    visibility  (W, T, N) float32     as the tracker gives it, in [0, 1]
    confidence  (W, T, N) float32     likewise
    valid       (W, N) bool           which of the N slots hold a point
    frame       (W, T) int32          index of each frame in the view; -1 after its end
    frame_valid (W, T) bool           which frames of the window exist
    time        (W, T) float64        seconds on the recording's clock
    region      (W, 4) float32        box x0, y0, x1, y1 of the foreground, px
    """

    xy: np.ndarray
    visible: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray
    valid: np.ndarray
    frame: np.ndarray
    frame_valid: np.ndarray
    time: np.ndarray
    region: np.ndarray
    attributes: dict[str, Any]

    def __repr__(self) -> str:
        windows, frames, points = self.xy.shape[:3]
        made = f"{self.attributes.get('tracker')}, grid {self.attributes.get('grid')}"
        return f"Tracks({windows} windows x {frames} frames x {points} points; {int(self.valid.sum())} seeded; {made})"


class Study:
    """A study folder with its settings, catalogue and store."""

    def __init__(
        self, folder: StudyFolder, *, paths_from: Path | None = None, tell: Callable[[str], None] | None = None
    ) -> None:
        """paths_from: the folder that relative paths in the settings of stages start from; the study's own when None.

        tell: is told, in a sentence, when the study scans by itself.
        """
        self.folder = folder
        self._paths_from = paths_from or folder.root
        self._tell = tell

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
        """Recordings, views and segments as the last scan found them.

        The first use scans, and so does one after settings, tables, annotations or videos have changed: what a scan
        found is never used for something else. Files that are new are found by `scan`.
        """
        from actionprep.datasets.catalogue import Catalogue

        why = self._reason_to_scan()
        if why:
            if self._tell is not None:
                self._tell(f"{why}: scanning.")
            self.scan()
        return Catalogue.read(self.folder.catalogue)

    def _reason_to_scan(self) -> str:
        from actionprep.datasets.catalogue import Catalogue
        from actionprep.datasets.layouts import tables_of
        from actionprep.datasets.scan import read_with, scan_settings

        filled = self.folder.catalogue / "views.parquet"
        if not filled.exists():
            return "There is no catalogue yet"
        for path in tables_of(self.folder, self.folder.study):
            if path == self.folder.settings_file and read_with(self.folder) == scan_settings(self.folder.study):
                continue  # what changed in it is nothing that a scan reads
            if path.stat().st_mtime_ns > filled.stat().st_mtime_ns:
                return f"{self.folder.relative(path)} is newer than the catalogue"
        changed = [view.path for view in Catalogue.read(self.folder.catalogue).views if _has_changed(self.root, view)]
        more = f" and {len(changed) - 1} more videos have" if len(changed) > 1 else " has"
        return f"{changed[0]}{more} changed since the last scan" if changed else ""

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
        self, *, workers: int = 4, again: bool = False, progress: Callable[[ScanProgress], None] | None = None
    ) -> ScanReport:
        """Read every video once by packets and every annotation, and write the catalogue.

        again: also read files that have not changed since the last scan.
        """
        from actionprep.datasets.scan import scan
        from actionprep.pipeline.probe import probe

        report = scan(self.folder, self.folder.study, probe=probe, workers=workers, again=again, progress=progress)
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
        root = self._paths_from.resolve()
        return {name: one.at(root) for name, one in chosen.items() if isinstance(one, StageSettings) and name in models}

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
        from actionprep.datasets.alignment import require_aligned
        from actionprep.pipeline.plan import make_plan

        wanted = [self._product(name) for name in stages] or list(self.folder.study.stages)
        settings = self.stage_settings(overrides)
        selection = self.select(views, skip_incomplete=skip_incomplete)
        if not self.folder.study.allow_misaligned:
            require_aligned(
                self.catalogue,
                selection.recordings,
                tolerance=self.folder.study.tolerance,
                views=sorted({view.id for view in selection.views}),
            )
        return make_plan(
            self.catalogue,
            self.store,
            wanted=wanted,
            settings=settings,
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

        try:
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
        finally:
            # Items were replaced by other processes or other objects than this store.
            self.store.forget_readers()

    def repair(self, damage: Iterable[Damage], *, workers: int | Workers = 0) -> BuildReport:
        """Make damaged items anew, with the settings that they were made with; nothing else is touched.

        A damaged item stays in its place until its replacement is whole; one that nothing makes any more is reported as
        blocked.
        """
        from actionprep.pipeline.plan import Plan, make_plan

        found = {one.key for one in damage}
        views = {(view.recording, view.id) for view in self.catalogue.views}
        settings = self.stage_settings()
        orphans = {
            key: "nothing in the catalogue makes it any more: 'actionprep gc' deletes it"
            for key in found
            if key.product not in settings or (key.view and (key.recording, key.view) not in views)
        }
        force = frozenset(found - orphans.keys())
        parts = []
        for keys in _by_place(force):
            made = {key.product: self._settings_as_made(key, settings[key.product]) for key in keys}
            parts.append(
                make_plan(
                    self.catalogue,
                    self.store,
                    wanted=sorted(made),
                    settings={**settings, **made},
                    views=[self.catalogue.view(keys[0].recording, keys[0].view)] if keys[0].view else [],
                    quarantine=self._quarantine,
                    root=str(self.root.resolve()),
                    retry=True,
                    force=force,
                )
            )
        plan = Plan(
            items=tuple(item for part in parts for item in part.items),
            view_tasks=tuple(task for part in parts for task in part.view_tasks),
            study_stages=tuple(stage for part in parts for stage in part.study_stages),
            forced=force,
        )
        report = self.carry_out(plan, workers=workers)
        report.blocked.update(orphans)
        return report

    def _settings_as_made(self, key: ItemKey, otherwise: StageSettings) -> StageSettings:
        made = (self.store.metadata(key) or {}).get("provenance", {}).get("settings")
        if made is None:  # its metadata is lost: all that is known is where it lies
            made = {**otherwise.model_dump(), **({} if key.view else {"name": key.recording})}
        return type(otherwise).read(made, where=f"the stored {key}").at(self._paths_from.resolve())

    def events(self, keys: Iterable[ItemKey]) -> dict[str, dict[str, int]]:
        """What these items left out, filled in or converted: for each product sums by what it was; only what there was."""
        found: dict[str, Counter[str]] = {}
        stages = load_stages()
        for key in keys:
            attributes = (self.store.metadata(key) or {}).get("stage")
            if attributes is not None and key.product in stages:
                found.setdefault(key.product, Counter()).update(stages[key.product].events(attributes))
        return {product: +counted for product, counted in found.items() if +counted}

    def joints_outside(self, keys: Iterable[ItemKey]) -> list[tuple[ItemKey, int, int]]:
        """Imported poses with joints outside of the picture: the item, how many they are, and of how many joints."""
        found = []
        for key in keys:
            told = (self.store.metadata(key) or {}).get("stage", {}) if key.product == "pose" else {}
            if told.get("num_joints_outside"):
                found.append((key, int(told["num_joints_outside"]), int(told["num_joints_seen"])))
        return found

    def item(self, product: str, recording: str, view: str | int = "") -> ItemReader:
        """Any stored item, by product, recording and view (name or index)."""
        name = self.catalogue.view(recording, view).id if view != "" else ""
        return self.store.item(product, recording, name)

    def tracks(self, recording: str, *, view: str | int) -> Tracks:
        """The point tracks of one view, read into memory."""
        from actionprep.datasets.tracks import visible

        item = self.item("tracks", recording, view)
        attributes = item.attributes
        visibility, confidence = item["visibility"][:], item["confidence"][:]
        return Tracks(
            xy=item["xy"][:],
            visible=visible(visibility, confidence, rule=attributes["visible_rule"], above=attributes["visible_above"]),
            visibility=visibility,
            confidence=confidence,
            valid=item["valid"][:].astype(bool),
            frame=item["frame"][:],
            frame_valid=item["frame_valid"][:].astype(bool),
            time=item["time"][:],
            region=item["region"][:],
            attributes=attributes,
        )

    def poses(self, recording: str, *, view: str | int) -> PoseSequence:
        """The poses of one view, read into memory."""
        from actionprep.datasets.pose_items import read_pose_item

        return read_pose_item(self.item("pose", recording, view))

    @property
    def snippets(self) -> pd.DataFrame:
        """The default table of snippets as a data frame; `snippet_table(name)` reads others."""
        return self.snippet_table()

    def snippet_table(self, name: str = "default") -> pd.DataFrame:
        """One row a snippet: recording, onset and offset (s), label, subject, session, overlap figures."""
        from actionprep.datasets.snippets import SnippetTable

        return SnippetTable.read(self.store.item("snippets", name)).to_frame()

    def status(self) -> dict[str, Any]:
        """What the store holds, how that stands to the settings, and what is quarantined, as plain values."""
        from actionprep.datasets.scan import DRIFTING, NOT_ALIGNED

        problem = ""
        items: tuple[PlannedItem, ...] = ()
        try:
            items = self.plan(enforce=True).items
        except ActionprepError as error:  # what is there can be shown, whatever keeps a build from going on
            problem = str(error)
        sizes = self.store.nbytes()
        products = []
        for product in dict.fromkeys([*(item.key.product for item in items), *self.store.products()]):
            keys = self.store.items(product)
            wanted = [item for item in items if item.key.product == product]
            missing = [item for item in wanted if item.action == "build"]
            if problem:
                against = "not known"
            elif not wanted:
                against = "not in [study] stages"
            elif not missing:
                against = "up to date" if all(item.action == "done" for item in wanted) else "some quarantined"
            else:
                against = f"{len(missing)} to make: {Counter(item.why for item in missing).most_common(1)[0][0]}"
            products.append(
                {
                    "product": product,
                    "items": len(keys),
                    "nbytes": sizes.get(product, 0),
                    "made_with": _made_with(self.store, keys),
                    "against_settings": against,
                    "made_otherwise": _made_otherwise(self.store, missing),
                }
            )
        entries = [
            (item.key, item.why, self._quarantine.get(item.key)) for item in items if item.action == "quarantined"
        ]
        outside = self.joints_outside(self.store.items("pose"))
        return {
            "study": self.folder.name,
            "store": self.folder.store,
            "recordings": len(self.catalogue),
            "views": len(self.catalogue.views),
            "problem": problem,
            "products": products,
            "alignment": [
                {"recording": one.where, "kind": one.kind, "what": one.message}
                for one in self.catalogue.findings
                if one.kind in (NOT_ALIGNED, DRIFTING)
            ],
            "joints_outside": [{"item": str(key), "outside": out, "seen": seen} for key, out, seen in outside],
            "quarantined": [
                {
                    "item": str(key),
                    "reason": why,
                    "frame": None if entry is None else entry.frame,
                    "backend": None if entry is None else entry.backend,
                }
                for key, why, entry in entries
            ],
        }

    def stray_items(self) -> list[ItemKey]:
        """Items whose recording or view is no longer in the catalogue."""
        views = {(view.recording, view.id) for view in self.catalogue.views}
        return [key for key in self.store.items() if key.view and (key.recording, key.view) not in views]

    def remove_items(self, keys: Iterable[ItemKey]) -> None:
        """Delete items from the store, as its only builder."""
        from actionprep.datasets.lock import build_lock

        with build_lock(self.store.require_local() / ".lock"):
            for key in keys:
                self.store.remove(key)
            self.store.clear_partial()

    def _product(self, name: str) -> str:
        """A product's name from the name of its stage or command."""
        for entry in stage_index().values():
            if name in (entry.name, entry.command):
                return entry.name
        known = [entry.name for entry in stage_index().values()]
        raise UserError(f"No stage '{name}'.{nearest(name, known)} Stages: {', '.join(known)}.")


def _has_changed(root: Path, view: View) -> bool:
    """Whether a video is another than the one that was scanned; one that is gone is told when it is read."""
    try:
        found = (root / view.path).stat()
    except OSError:
        return False
    return view.mtime_ns != 0 and (found.st_size, found.st_mtime_ns) != (view.size_bytes, view.mtime_ns)


def _by_place(keys: Iterable[ItemKey]) -> list[list[ItemKey]]:
    """Keys of each view together, and each item of the whole study alone: two tables of one stage differ in settings."""
    found: dict[tuple[str, ...], list[ItemKey]] = {}
    for key in sorted(keys):
        place = (key.recording, key.view) if key.view else (key.product, key.recording, "")
        found.setdefault(place, []).append(key)
    return list(found.values())


def settings_models() -> dict[str, type[Settings]]:
    """All tables that actionprep.toml may have besides [study], with their models."""
    from actionprep.training.recipes import TrainSettings

    return {**{name: stage.Settings for name, stage in load_stages().items()}, "train": TrainSettings}


def make_study(folder: str | Path, given: Mapping[str, Any], *, force: bool = False) -> tuple[Study, list[str]]:
    """Make a folder a study, with the best backends that this machine can use written into its settings.

    given: keys of [study]; the layout follows from them when it is not among them. force: also where there is a settings
    file already, or no video is found. Returns the study and what to say.

    Raises UserError for wrong keys or values, when no videos are found, or when the folder is a study already.
    """
    from actionprep.datasets.study import StudySettings, init_study
    from actionprep.pipeline.doctor import best_pose_backend, best_tracker

    given = dict(given)
    if "layout" not in given:
        given["layout"] = "csv" if "csv" in given else "views" if "pattern" in given else "folder-per-class"
    study = StudySettings.read(given, where="actionprep init")
    place = StudyFolder(Path(folder).expanduser())
    if place.settings_file.exists() and not force:
        init_study(folder, study)  # says so, before backends are looked for
    found = _what_is_there(place, study, force=force)
    tracker, why = best_tracker()
    backend, why_pose = best_pose_backend()
    notes = {"tracks": f"tracker: {why}", "pose": f"backend: {why_pose}"}
    chosen = {"tracks": {"tracker": tracker}, "pose": {"backend": backend}}
    made = init_study(folder, study, chosen=chosen, models=settings_models(), notes=notes, force=force)
    return Study(made), [
        found,
        f"Layout {study.layout}. Tracker '{tracker}': {why} Change it under [tracks].",
        f"Pose backend '{backend}': {why_pose} Change it under [pose].",
    ]


def _what_is_there(folder: StudyFolder, study: StudySettings, *, force: bool) -> str:
    """One sentence on the videos that these settings find; raises UserError when there are none, unless forced."""
    from actionprep.datasets.layouts import NoVideos, discover, holds_text, videos_below

    try:
        there = discover(folder, study)
    except NoVideos as error:
        if force:
            return f"{error.looked} The settings are written all the same: put the videos there, or change [study]."
        others = videos_below(folder)
        hint = (
            f"There are {len(others)} videos elsewhere in {folder.root}, such as '{others[0].as_posix()}'. "
            "Say where with --videos (--videos . for <class>/<clip> right here), --pattern or --csv."
            if others
            else "Put them there, or say where they are with --videos, --pattern or --csv."
        )
        raise UserError(
            f"{error.looked}\n{hint}\nNothing was written; --force writes the settings without videos."
        ) from None
    texts = [] if study.layout == "poses" else [one for one in there.views if holds_text(folder.root / one.path)]
    videos = [one for one in there.views if one not in texts]
    count = len({one.recording for one in videos})
    found = f"Found {len(videos)} video{'s'[: len(videos) != 1]} of {count} recording{'s'[: count != 1]}."
    if texts:
        one = len(texts) == 1
        found += (
            f" {len(texts)} more file{' is' if one else 's are'} named like {'one' if one else 'them'} but "
            f"{'is' if one else 'are'} empty or text, such as '{texts[0].path}'."
        )
    return found


def make_demo(
    folder: str | Path,
    *,
    seed: int = 0,
    recordings: int | None = None,
    workers: int = 2,
    progress: Callable[[int, int, str], None] | None = None,
) -> Study:
    """Render the sample study and make its folder a study; its tracker is `lk`, which every machine has.

    Raises UserError when the folder is a study already.
    """
    from actionprep.datasets.study import SETTINGS_FILE, StudySettings, init_study
    from actionprep.sample import make_sample_study

    if (Path(folder) / SETTINGS_FILE).exists():
        raise UserError(f"{folder} is a study already. Name a new folder, or delete that one.")
    options = {} if recordings is None else {"recordings": recordings}
    make_sample_study(Path(folder), seed=seed, workers=workers, progress=progress, **options)
    study = StudySettings(
        layout="views",
        videos="videos",
        pattern="{recording}/cam{view}.mp4",
        recordings="recordings.csv",
        segments=("segments.csv",),
        offsets="views.csv",
        tolerance=0.1,  # the slowest camera has ten frames a second
    )
    # Fewer instants, points and epochs than the recipe's: the demo should take minutes.
    changes = {"epochs": 24, "batch": 8, "test_variants": 4, "input.frames": 16, "input.points": 64}
    chosen: dict[str, dict[str, object]] = {"tracks": {"tracker": "lk"}, "train": {"changes": changes}}
    made = Study(init_study(folder, study, chosen=chosen, models=settings_models()))
    made.scan()
    return made


@dataclass(frozen=True)
class ImportedPoses:
    """What `import_poses` did: the study, what was built, and the official splits that are stored now.

    refused_splits: official splits that these recordings cannot be split by, and why.
    """

    study: Study
    report: BuildReport
    splits: tuple[str, ...] = ()
    refused_splits: Mapping[str, str] = field(default_factory=dict)


def import_poses(
    folder: str | Path,
    paths: Sequence[str | Path],
    *,
    format: str = "auto",
    skeleton: str = "",
    coordinates: str = "",
    image_size: Sequence[int] | None = None,
    fps: float | None = None,
    labels: str | Path | None = None,
    workers: int | Workers = 0,
    progress: Progress | None = None,
) -> ImportedPoses:
    """Poses that are there already, into the store as estimated ones.

    folder: of the study. Where it is none yet, or one of imported poses, the files are a skeleton data set without
        videos: their recordings, subjects, labels and official splits go into the catalogue (the layout "poses"), and
        each official split becomes a stored split of its name, its test part as published and a val part taken out of
        train. In a study of videos there is one path, a pattern with {recording} and {view}, and the poses are laid on
        the frames of the videos.
    format: see `list_formats`; auto looks into the files. skeleton: layout of the joints, coordinates: which of the
        file's, image_size: (height, width) in px, fps: frames a second, labels: text file with the classes' names, one
        a line, for classes that are numbers; each where the files do not say.

    The choice is written into actionprep.toml, so that 'actionprep scan' and 'actionprep pose' repeat it.

    Raises UserError when there is nothing to read or the options do not fit the format, InputProblem for a data set
    that is damaged.
    """
    from actionprep.datasets.pose_formats import FORMATS
    from actionprep.datasets.study import SETTINGS_FILE, StudySettings, init_study

    if format != "auto" and format not in FORMATS:
        raise UserError(f"Unknown pose format '{format}'.{nearest(format, FORMATS)} Known: {', '.join(FORMATS)}.")
    root = Path(folder).expanduser()
    place = StudyFolder(root)
    # Of the current folder, as all paths of a command; the settings' paths begin at the study.
    layout = place.relative(Path(skeleton).expanduser()) if skeleton.endswith(".toml") else skeleton
    given = {
        "pose_format": None if format == "auto" else format,
        "pose_skeleton": layout or None,
        "pose_coordinates": coordinates or None,
        "pose_image_size": None if image_size is None else tuple(int(side) for side in image_size),
        "pose_fps": fps,
        "pose_labels": None if labels is None else place.relative(labels),
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    if (root / SETTINGS_FILE).is_file() and place.study.layout != "poses":
        study = Study(place)
        useless = [name for name, value in (("image size", image_size), ("fps", fps), ("labels", labels)) if value]
        if useless:
            raise UserError(
                f"{root} is a study of videos, which say that themselves: leave out {', '.join(useless)}. They are for "
                "skeleton data sets without videos."
            )
        with _settings_kept_on(UserError, place) as put_back:
            _import_for_videos(study, paths, format, layout, coordinates)
            report = study.build("pose", workers=workers, progress=progress)
            if not report.built and not report.done:
                put_back()
            return ImportedPoses(study, report)
    missing = [path for path in paths if not Path(path).expanduser().exists()]
    if missing or not paths:
        raise UserError(f"No pose file or folder at {missing[0]}." if missing else "Name the files to import.")
    files = tuple(place.relative(Path(path).expanduser()) for path in paths)
    with _settings_kept_on(ActionprepError, place):
        if place.settings_file.is_file():
            known = place.study.poses
            for key, value in {**chosen, "poses": (*known, *(file for file in files if file not in known))}.items():
                place.change("study", key, value)
            study = Study(place)
        else:
            settings = StudySettings.read(
                {"layout": "poses", "poses": files, "stages": ("pose", "snippets"), **chosen}, where="actionprep import"
            )
            notes = {"pose": "backend: the poses are imported; this study has no videos."}
            chosen_pose = {"pose": {"backend": "import"}}
            study = Study(init_study(root, settings, chosen=chosen_pose, models=settings_models(), notes=notes))
        study.scan()
    report = study.build("pose", workers=workers, progress=progress)
    return ImportedPoses(study, report, *store_official_splits(study))


@contextmanager
def _settings_kept_on(error: type[ActionprepError], place: StudyFolder) -> Iterator[Callable[[], None]]:
    """Put the settings file back as it was when this error comes: what could not be read must not stand in the way.

    A folder that was made for it goes with it. Yields what does the same without an error.
    """
    was_there = place.root.exists()
    before = place.settings_file.read_bytes() if place.settings_file.is_file() else None

    def put_back() -> None:
        if before is not None:
            place.settings_file.write_bytes(before)
        else:
            place.settings_file.unlink(missing_ok=True)
        if not was_there and place.root.is_dir() and not any(place.root.iterdir()):
            place.root.rmdir()
        for cached in ("tables", "study"):
            place.__dict__.pop(cached, None)

    try:
        yield put_back
    except error:
        put_back()
        raise


def _import_for_videos(study: Study, paths: Sequence[str | Path], format: str, skeleton: str, coordinates: str) -> None:
    """Have the poses of a study of videos read from a pattern."""
    if len(paths) != 1:
        raise UserError(
            f"{study.root} is a study of videos: give one pattern with {{recording}} and {{view}} that leads to the poses "
            f"of each video, such as 'openpose/{{recording}}/{{view}}'; got {len(paths)} paths."
        )
    from actionprep.pipeline.pose_backends.files import check_pattern

    pattern = str(paths[0])
    check_pattern(pattern)
    views = study.select().views
    if len(views) > 1 and "{recording}" not in pattern and "{view}" not in pattern and not Path(pattern).is_file():
        raise UserError(
            f"'{pattern}' leads all {len(views)} views of this study to the same folder of poses. Put {{recording}} and "
            "{view} where the path differs, such as 'openpose/{recording}/{view}'."
        )
    # Relative to the current folder, as a path of a command; the settings' paths begin at the study.
    chosen = {
        "backend": "import", "files": study.folder.relative(pattern), "format": format, "file_skeleton": skeleton,
        "coordinates": coordinates,
    }  # fmt: skip
    for key, value in chosen.items():
        study.folder.change("pose", key, value)
    study.folder.change("study", "stages", _stages_with_pose(study))
    study.__dict__.pop("settings", None)


def _stages_with_pose(study: Study) -> tuple[str, ...]:
    """The stages of [study] and pose; it takes the place of tracks where these were not asked for and none are there."""
    stages = study.folder.study.stages
    if "pose" in stages:
        return stages
    if "stages" not in study.folder.tables.get("study", {}) and not study.store.items("tracks"):
        stages = tuple(name for name in stages if name != "tracks")
    return ("pose", *stages)


def store_official_splits(study: Study) -> tuple[tuple[str, ...], dict[str, str]]:
    """A stored split for each official one: its test part as it is, val taken out of train.

    Returns the names of those that are stored, and why others could not be.
    """
    from actionprep.datasets.pose_layout import official_splits

    catalogue = study.catalogue
    stored: list[str] = []
    refused: dict[str, str] = {}
    for name in official_splits(catalogue.recordings):
        train = {one.subject for one in catalogue.recordings if one.extra.get(name) == "train"}
        by_subject = None not in train and len(train) > 2
        overrides = {
            "name": name, "by": "column", "column": name, "val": 0.2, "train": 0.8, "test": 0.0, "allow_single": True,
            "val_by": "subject" if by_subject else "recording",
        }  # fmt: skip
        try:
            study.build("split", overrides={"split": overrides})
        except UserError as error:
            refused[name] = str(error)
        else:
            stored.append(name)
    return tuple(stored), refused


def list_skeletons() -> list[dict[str, Any]]:
    """Facts of every layout that comes with the package, by name."""
    from actionprep.datasets.skeletons import skeleton, skeleton_names

    layouts = [skeleton(name) for name in skeleton_names()]
    return [
        {
            "name": one.name,
            "title": one.title,
            "joints": list(one.joints),
            "limbs": len(one.limbs),
            "pairs": len(one.symmetric),
            "dimensions": one.dimensions,
            "aliases": list(one.aliases),
        }
        for one in layouts
    ]


def list_formats() -> list[tuple[str, str, str]]:
    """(kind, name, what it is) of every layout and format that is read."""
    from actionprep.datasets.annotations import segment_formats
    from actionprep.datasets.pose_formats import FORMATS

    rows = [
        ("layout", "folder-per-class", "<class>/<clip>.mp4: each clip labelled by its folder"),
        ("layout", "views", "a pattern with {recording} and {view}, such as {recording}/cam{view}.mp4"),
        ("layout", "csv", "a table with one row a video, or one row a segment"),
        ("layout", "poses", "a skeleton data set without videos (actionprep import)"),
    ]
    rows += [("segments", name, one.description) for name, one in segment_formats().items()]
    rows += [("poses", one.name, one.title) for one in FORMATS.values()]
    return rows


def _made_with(store: Store, keys: Sequence[ItemKey]) -> str:
    """The settings of most items that are not the defaults, and how the others differ."""
    from actionprep.datasets.mixtures import difference, made_alike, provenance_of

    groups = made_alike(provenance_of(store, keys))
    stage = load_stages().get(keys[0].product) if keys else None
    if not groups or stage is None:
        return ""
    if keys[0].view and len(groups) > 1:
        return f"not all alike: {difference(groups)}"
    defaults = stage.Settings().model_dump(mode="json")
    changed = [f"{key} {value}" for key, value in groups[0].facts.items() if key in defaults and value != defaults[key]]
    return ", ".join(changed) or "defaults"


def _made_otherwise(store: Store, missing: Sequence[PlannedItem]) -> list[dict[str, Any]]:
    """Settings that stored items were made with, on a command line say, and that a build would make anew with the file's.

    For each setting its name, the stored values, that of the file, and the number of items.
    """
    stored: dict[str, list[Any]] = {}
    wanted: dict[str, Any] = {}
    for item in missing:
        made = (store.metadata(item.key) or {}).get("provenance", {}).get("settings", {})
        now = item.provenance.get("settings", {})
        for name in now.keys() & made.keys():
            if now[name] != made[name]:
                stored.setdefault(name, []).append(made[name])
                wanted[name] = now[name]
    return [
        {
            "setting": name,
            "stored": [one for at, one in enumerate(values) if one not in values[:at]],
            "file": wanted[name],
            "items": len(values),
        }
        for name, values in sorted(stored.items())
    ]


@dataclass(frozen=True)
class Prediction:
    """What a model said of one recording, and the files that tell it.

    segments: of the timeline, with the threshold and the least length that were asked for, each with its probability.
    unseen:   views without foreground, which took no part, as they take none in training.
    """

    timeline: Timeline
    segments: tuple[tuple[Segment, float], ...]
    files: tuple[Path, ...]
    unseen: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "recording": self.timeline.recording,
            "segments": [
                {"onset": one.onset, "offset": one.offset, "label": one.label, "probability": probability}
                for one, probability in self.segments
            ],
            "files": [str(path) for path in self.files],
            "unseen_views": list(self.unseen),
        }


def predict_videos(
    run: str | Path,
    videos: Sequence[str | Path],
    *,
    recording: str | None = None,
    out: str | Path = "prediction",
    overlay: bool = False,
    length_ms: float | None = None,
    stride_ms: float | None = None,
    threshold: float = 0.0,
    min_length_ms: float = 0.0,
    offsets: Mapping[str, float] | None = None,
    tolerance: float | None = None,
    carry: bool | None = None,
    device: str = "auto",
    workers: int = 0,
) -> Prediction:
    """From the raw videos of one recording to a labelled timeline, made just as the training's input was.

    run:     folder of a run or of fused runs, or a checkpoint. videos: in the order of the run's views, or "view=path".
    recording: its name in what is written; None: from the names of the videos or of their folder.
    threshold: least probability of a label to be said; with several labels at least 0.5.
    min_length_ms: shorter segments are left out.
    offsets: seconds to add to the time of views; others have the offset that they had in every recording of the training.
    tolerance: views count as aligned when frames of one instant lie this close, in s; None: as in the training.
    carry:   let a window go on from the model's state after the one before it; None: as the recipe says.
    out:     gets timeline.csv, windows.csv, timeline.png and with overlay prediction.mp4.

    Raises UserError when videos and run do not fit, or when a video cannot be read.
    """
    from actionprep.training.predict import open_models, pipeline_settings, views_of
    from actionprep.training.predict import predict_videos as predict

    models = open_models(run, device=device)
    named = _named_videos(videos, views_of(models))
    recording = recording or recording_name([path for _, path in named])
    _clocks({}, dict(named), offsets or {}, tolerance)  # refuses offsets of views that have no video
    unseen: list[str] = []
    with tempfile.TemporaryDirectory(prefix="actionprep-predict-") as folder:
        made: dict[str, Store] = {}

        def build(checkpoint: Checkpoint, videos: dict[str, Path]) -> Store:
            settings, product = pipeline_settings(checkpoint), checkpoint.recipe.reads
            shifts = {view: shift for view, shift in (offsets or {}).items() if view in videos}
            clocks = _clocks(checkpoint.card["pipeline"].get("clocks", {}), videos, shifts, tolerance)
            # Models that read the same share one store.
            key = canonical_json([settings, product, list(videos), clocks.offsets, clocks.settings])
            if key not in made:
                inner = Path(folder) / str(len(made))
                inner.mkdir()
                not_seen: list[str] = []
                made[key] = _store_of_videos(
                    inner, recording, videos, settings, product, workers,
                    clocks=clocks, paths_from=_study_of(checkpoint.path), unseen=not_seen,
                )  # fmt: skip
                unseen.extend(view for view in not_seen if view not in unseen)
            return made[key]

        timeline = predict(
            models,
            dict(named),
            build,
            window_s=None if length_ms is None else length_ms / 1000,
            stride_s=None if stride_ms is None else stride_ms / 1000,
            carry=carry,
            device=device,
        )
    chosen = {"threshold": threshold, "min_s": min_length_ms / 1000}
    files, segments = timeline.write(out, **chosen), tuple(timeline.segments(**chosen))
    if overlay:
        from actionprep.show.prediction import draw_prediction, predicted_row

        film = Path(out) / "prediction.mp4"
        files.append(draw_prediction(dict(named), [predicted_row(segments)], film))
    return Prediction(timeline, segments, tuple(files), tuple(unseen))


def group_videos(run: str | Path, given: Sequence[str | Path]) -> dict[str, list[str]]:
    """Which of these files and folders are one recording, by the name that it gets.

    A model of several views takes the files together as one recording, and each folder as one; for a model of one view
    every file, and every video in a folder, is a recording.

    Raises UserError for a folder without videos, and for files beside folders where it is not clear what belongs together.
    """
    missing = [
        str(one) for one in given if not any(Path(path).exists() for path in (one, str(one).partition("=")[2] or one))
    ]
    if missing:
        # Before any model is loaded, which takes its time.
        raise UserError(f"No such video: {', '.join(missing)}.")
    from actionprep.datasets.layouts import VIDEO_SUFFIXES
    from actionprep.datasets.natural_order import natural_key
    from actionprep.training.predict import open_models, views_of

    views = views_of(open_models(run, device="cpu"))
    groups: list[list[str]] = []
    files = [str(one) for one in given if not Path(one).is_dir()]
    folders = [Path(one) for one in given if Path(one).is_dir()]
    if len(views) > 1 and files and folders:
        raise UserError(
            f"This model looks at {len(views)} views, and got files and folders. Give the videos of one recording, or "
            "folders that hold those of one recording each."
        )
    if files:
        groups += [[one] for one in files] if len(views) < 2 else [files]
    for folder in folders:
        inside = [str(one) for one in folder.iterdir() if one.suffix.lower() in VIDEO_SUFFIXES and one.name[0] != "."]
        if not inside:
            raise UserError(f"No videos in {folder}: looked there for {', '.join(VIDEO_SUFFIXES)}.")
        inside.sort(key=natural_key)
        groups += [[one] for one in inside] if len(views) < 2 else [inside]
    found: dict[str, list[str]] = {}
    for group in groups:
        paths = [path for _, path in _named_videos(group, views)]
        name = recording_name(paths)
        if name in found:
            name = f"{paths[0].resolve().parent.name}_{name}"
        base, number = name, 2
        while name in found:
            name, number = f"{base}_{number}", number + 1
        found[name] = group
    return found


def recording_name(videos: Sequence[Path]) -> str:
    """What videos of one recording are called together: a file's name, what all names begin with, or their folder's name."""
    stems = [path.name.removesuffix(path.suffix) for path in videos]
    words = [re.split(r"[-_. ]+", stem) for stem in stems]
    shared = [word[0] for word in takewhile(lambda word: len(set(word)) == 1, zip(*words, strict=False))]
    folders = {path.resolve().parent for path in videos}
    if len(set(stems)) == 1:
        name = stems[0]
    elif shared:
        name = "_".join(shared)
    else:
        name = folders.pop().name if len(folders) == 1 else stems[0]
    # As the store can name it.
    return name.replace("\\", "_").lstrip("._") or "recording"


def _named_videos(videos: Sequence[str | Path], views: Sequence[str]) -> list[tuple[str, Path]]:
    """(view, path) in the order of the training's views."""
    named: dict[str, Path] = {}
    for at, video in enumerate(videos):
        view, equals, path = str(video).partition("=")
        if not equals or view not in views:
            view, path = (views[at] if at < len(views) else str(at)), str(video)
        if view in named:
            raise UserError(f"Two videos for view '{view}': {named[view]} and {path}.")
        named[view] = Path(path)
    order = {view: at for at, view in enumerate(views)}
    return sorted(named.items(), key=lambda pair: order.get(pair[0], len(order)))


@dataclass(frozen=True)
class _Clocks:
    """How the views of one recording are held against each other; the fields are those of [study]."""

    offsets: Mapping[str, float]
    settings: Mapping[str, Any]


def _clocks(
    trained: Mapping[str, Any], videos: Mapping[str, Path], offsets: Mapping[str, float], tolerance: float | None
) -> _Clocks:
    for view in offsets:
        if view not in videos:
            raise UserError(f"An offset for view '{view}', of which there is no video. Videos: {', '.join(videos)}.")
    settings = {name: trained[name] for name in ("tolerance", "clock", "allow_misaligned") if name in trained}
    if tolerance is not None:
        settings["tolerance"] = tolerance
    known = {view: shift for view, shift in trained.get("offsets", {}).items() if view in videos}
    return _Clocks({**known, **offsets}, settings)


def _study_of(run: Path) -> Path:
    """The study folder that a run lies in, else the current folder: where relative paths in settings start."""
    from actionprep.datasets.study import SETTINGS_FILE

    here = run.expanduser().resolve()
    return next((above for above in here.parents if (above / SETTINGS_FILE).is_file()), Path.cwd())


def _store_of_videos(
    folder: Path,
    recording: str,
    videos: Mapping[str, Path],
    settings: dict[str, Any],
    product: str,
    workers: int,
    *,
    clocks: _Clocks,
    paths_from: Path,
    unseen: list[str],
) -> Store:
    """A study of one recording, its videos by view, built with the given settings; views without foreground: `unseen`."""
    import csv

    from actionprep.datasets.study import StudySettings, init_study
    from actionprep.pipeline.tracks import EMPTY_MASKS

    with open(folder / "videos.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["recording", "view", "path"])
        writer.writerows([[recording, view, path.resolve()] for view, path in videos.items()])
    given: dict[str, Any] = {"layout": "csv", "csv": "videos.csv", **clocks.settings}
    if clocks.offsets:
        given["offsets"] = "offsets.csv"
        with open(folder / "offsets.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["recording", "view", "offset"])
            writer.writerows([[recording, view, shift] for view, shift in clocks.offsets.items()])
    made = init_study(folder, StudySettings.read(given, where="the training's study"))
    study = Study(made, paths_from=paths_from)
    try:
        report = study.build(*product.split("+"), overrides=settings, workers=workers)
    except UserError as error:
        if "are not aligned" not in str(error):
            raise
        raise UserError(
            f"{str(error).splitlines()[0]}\nSay by how much a view's clock is off with --offset VIEW=SECONDS, or let frames "
            "of one instant lie further apart with --tolerance SECONDS; the training's own are used unless said otherwise."
        ) from None
    failed = report.quarantined | report.blocked
    entries = {key: study._quarantine.get(key) for key in failed}
    unseen += [key.view for key, entry in entries.items() if entry is not None and entry.backend == EMPTY_MASKS]
    if len(failed) > len(unseen) or len(unseen) == len(videos):
        # A stage and those that read it often fail for one reason.
        reasons = "\n".join(dict.fromkeys(f"{key.view}: {reason}" for key, reason in failed.items()))
        raise UserError(f"Not every video could be made into {product}:\n{reasons}")
    return study.store
