"""Segments of a study: its annotations, another annotation file, or the predictions of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.segments import Segment


def timeline_of_run(run: str, folder: str | Path = "prediction") -> Path:
    """Return the table of the predicted segments of a run.

    Args:
        run: Name of the run.
        folder: Folder of predictions, as `actiontrain predict --out` writes it.

    Raises:
        UserError: If the run has no predictions there, with the command that makes them.
    """
    path = Path(folder) / run / "timeline.csv"
    if not path.is_file():
        raise UserError(
            f"{path} does not exist. Predict recordings of the study first: actiontrain predict --run {run} --recording "
            "ID …"
        )
    return path


def segments_of_file(study: Study, path: str | Path) -> dict[str, list[Segment]]:
    """Read segments of an annotation file that is not part of the study, such as timeline.csv of predictions.

    Args:
        study: The study whose recordings the file names.
        path: The file, in any annotation format.

    Returns:
        Segments on the clock of each recording.

    Raises:
        UserError: If no segment belongs to a recording of the study.
    """
    from actionprep.datasets.annotations import check_segments, read_annotations
    from actionprep.datasets.recording_names import RecordingNames
    from actionprep.datasets.scan import recordings_of_files

    path = Path(path)
    catalog = study.catalog
    names = RecordingNames.of((item.id for item in catalog.recordings), catalog.views)
    views = {item.id: catalog.views_of(item.id) for item in catalog.recordings}
    only = recordings_of_files([path.as_posix()], names).get(path.as_posix())
    if only is None and len(catalog) == 1:
        only = (catalog.recordings[0].id, None)
    checked = check_segments(read_annotations(path), source=path.name, names=names, views=views, only=only)
    if not checked.segments:
        reasons = "".join(f"\n{item}" for item in list(dict.fromkeys(map(str, checked.findings)))[:3])
        raise UserError(f"No segment of {path} belongs to a recording of the study.{reasons}")
    if checked.num_unusable:
        study.warn(f"{checked.num_unusable} rows of {path} are not used: {checked.findings[0]}")
    return {recording: list(segments) for recording, segments in checked.segments.items()}
