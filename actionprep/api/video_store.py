"""Build a store of one recording from its raw videos, with the settings of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.api.study import Study
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.pipeline.view_tasks import Workers


def store_of_videos(
    folder: Path,
    recording: str,
    videos: Mapping[str, Path],
    settings: dict[str, Any],
    product: str,
    workers: int | Workers,
    *,
    clocks: Clocks,
    paths_from: Path,
    unseen: list[str],
) -> Store:
    """Build a study of one recording and return its store.

    Args:
        folder: Empty folder for the study.
        recording: Id of the recording.
        videos: View → file.
        settings: Settings of the stages, by table.
        product: Product to build, or several joined with `+`.
        workers: Processes, or where else to build; 0 builds in this process.
        clocks: Clocks of the views.
        paths_from: Folder that relative paths in the settings start from.
        unseen: Gets the views without foreground.

    Raises:
        UserError: If the views are not aligned, or a video cannot be built for another reason than empty masks.
    """
    import csv

    from actionprep.datasets.study import StudySettings, init_study
    from actionprep.pipeline.tracks import EMPTY_MASKS

    with open(folder / "videos.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["recording", "view", "path"])
        writer.writerows([[recording, view, path.resolve()] for view, path in videos.items()])
    # A hang must end neither the other recordings nor this process: the mark of a hang would be lost with the folder.
    given: dict[str, Any] = {"layout": "csv", "csv": "videos.csv", "item_timeout": 0, **clocks.settings}
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
            f"{str(error).splitlines()[0]}\nGive the offset of a view's clock with --offset VIEW=SECONDS, or allow a larger "
            "error with --tolerance SECONDS. Otherwise the values of the training are used."
        ) from None
    failed = report.quarantined | report.blocked
    entries = {key: study.quarantine.get(key) for key in failed}
    unseen += [key.view for key, entry in entries.items() if entry is not None and entry.backend == EMPTY_MASKS]
    if len(failed) > len(unseen) or len(unseen) == len(videos):
        # A stage and the stages that read it often fail for the same reason.
        reasons = "\n".join(dict.fromkeys(f"{key.view}: {reason}" for key, reason in failed.items()))
        raise UserError(f"Not every video could be built into {product}:\n{reasons}")
    return study.store


@dataclass(frozen=True)
class Clocks:
    """Clocks of the views of one recording.

    Attributes:
        offsets: Offset of each view in s.
        settings: Settings of [study] for clocks and alignment.
    """

    offsets: Mapping[str, float]
    settings: Mapping[str, Any]


def clocks_of(
    trained: Mapping[str, Any], videos: Mapping[str, Path], offsets: Mapping[str, float], tolerance: float | None
) -> Clocks:
    """Return the clocks of a training for some videos.

    Args:
        trained: Clocks that the training recorded.
        videos: View → file.
        offsets: Offsets in s that replace those of the training.
        tolerance: Tolerance in s that replaces that of the training; None keeps it.

    Raises:
        UserError: If an offset is for a view without a video.
    """
    for view in offsets:
        if view not in videos:
            raise UserError(f"The offset for view '{view}' has no video. Views with videos: {', '.join(videos)}.")
    settings = {name: trained[name] for name in ("tolerance", "clock", "allow_misaligned") if name in trained}
    if tolerance is not None:
        settings["tolerance"] = tolerance
    known = {view: shift for view, shift in trained.get("offsets", {}).items() if view in videos}
    return Clocks({**known, **offsets}, settings)
