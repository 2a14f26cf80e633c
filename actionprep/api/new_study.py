"""Make a folder a study: of one's own videos, or of the sample's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.api.study import Study, settings_models
from actionprep.datasets.study import StudyFolder
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.datasets.study import StudySettings


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
    from actionprep.datasets.video_layouts import NoVideosError, discover, holds_text, videos_below

    try:
        there = discover(folder, study)
    except NoVideosError as error:
        if force:
            return f"{error.looked} The settings are written all the same: put the videos there, or change [study]."
        others = videos_below(folder, study)
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
