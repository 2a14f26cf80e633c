"""Write segments as a plain csv in seconds on the recording's clock. `annotation_formats.plain_csv` reads it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter


def _write(videos: Sequence[AnnotatedVideo], labels: Sequence[str]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["recording", "onset", "offset", "label", "layer", "annotator"])
    for video in videos:
        for segment in video.segments:
            writer.writerow(
                [
                    video.recording,
                    f"{segment.onset:.6f}",
                    f"{segment.offset:.6f}",
                    segment.label,
                    segment.layer,
                    segment.annotator,
                ]
            )
    return buffer.getvalue()


WRITER = SegmentWriter("csv", "table of segments in seconds on the recording's clock", ".csv", _write)
