"""A store of one recording, made of its raw videos as the input of a training was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.api.study import Study
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store


def store_of_videos(
    folder: Path,
    recording: str,
    videos: Mapping[str, Path],
    settings: dict[str, Any],
    product: str,
    workers: int,
    *,
    clocks: Clocks,
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
    entries = {key: study.quarantine.get(key) for key in failed}
    unseen += [key.view for key, entry in entries.items() if entry is not None and entry.backend == EMPTY_MASKS]
    if len(failed) > len(unseen) or len(unseen) == len(videos):
        # A stage and those that read it often fail for one reason.
        reasons = "\n".join(dict.fromkeys(f"{key.view}: {reason}" for key, reason in failed.items()))
        raise UserError(f"Not every video could be made into {product}:\n{reasons}")
    return study.store


@dataclass(frozen=True)
class Clocks:
    """How the views of one recording are held against each other; the fields are those of [study]."""

    offsets: Mapping[str, float]
    settings: Mapping[str, Any]


def clocks_of(
    trained: Mapping[str, Any], videos: Mapping[str, Path], offsets: Mapping[str, float], tolerance: float | None
) -> Clocks:
    """The clocks of a training, for these videos, but for what is given.

    Raises UserError for an offset of a view that has no video.
    """
    for view in offsets:
        if view not in videos:
            raise UserError(f"An offset for view '{view}', of which there is no video. Videos: {', '.join(videos)}.")
    settings = {name: trained[name] for name in ("tolerance", "clock", "allow_misaligned") if name in trained}
    if tolerance is not None:
        settings["tolerance"] = tolerance
    known = {view: shift for view, shift in trained.get("offsets", {}).items() if view in videos}
    return Clocks({**known, **offsets}, settings)
