"""Report page of a run with images of the clips that the model classified wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprep.errors import ActionprepError

if TYPE_CHECKING:
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.study import StudyFolder
    from actionprep.training.run import Run

_HEIGHT, _MOMENTS = 96, (1 / 6, 1 / 2, 5 / 6)


def write_run_report(run: Run) -> None:
    """Write the report page of a run again, with images of wrong clips if it lies in a study with videos.

    Args:
        run: Tested run or fusion.
    """
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.study import find_study
    from actionprep.training.evaluation.report import write_report

    try:
        folder = find_study(run.folder.resolve())
        # Use the last catalog: a report must not start a scan of the study.
        # A run on another store may have recordings of the same names.
        is_own = Path(run.recorded_store).resolve() == Path(folder.store).resolve()
        images = _Images(folder, Catalog.read(folder.catalog), run.facts.get("views") or []) if is_own else None
    except ActionprepError:
        images = None
    write_report(run, images)


class _Images:
    """Three images of a clip, from the first view of the run that has a video."""

    def __init__(self, folder: StudyFolder, catalog: Catalog, views: Sequence[str]) -> None:
        self.folder, self.catalog, self.views = folder, catalog, list(views)

    def __call__(self, recording: str, onset: float, offset: float) -> list[bytes]:
        """Return JPEG files; none if no video of the recording can be read."""
        import cv2

        from actionprep.show.images import VideoFrames

        if recording not in {entry.id for entry in self.catalog.recordings}:
            return []
        readable = [view for view in self.catalog.views_of(recording) if view.status == "ok" and view.has_video]
        order = {view: position for position, view in enumerate(self.views)}
        for view in sorted(readable, key=lambda view: order.get(view.id, len(order))):
            if not view.num_frames or not view.width:
                continue
            path = self.catalog.resolve(view.path, self.folder.root)
            wanted = onset + np.array(_MOMENTS) * (offset - onset)
            numbers = sorted({int(np.abs(view.times - time).argmin()) for time in wanted})
            try:
                frames = VideoFrames(path, times=view.times, reading=view.reading.at(self.folder.root))
                width = max(2, round(_HEIGHT * frames.width / frames.height))
                drawn = list(frames.at(numbers, _HEIGHT, width))
            except (ActionprepError, OSError):
                continue  # the page shows the clip without images
            encoded = [cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1] for image in drawn]
            return [image.tobytes() for image in encoded]
        return []
