"""Write the tables of V-TRACE (vtrace-behavior 1.2): one csv per video with labelId, timestamp and endTimestamp.

Times are seconds on the video's clock with three decimals.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter


def _write(videos: Sequence[AnnotatedVideo], labels: Sequence[str]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["labelId", "timestamp", "endTimestamp"])
    for video in videos:
        writer.writerows(
            [segment.label, f"{segment.onset:.3f}", f"{segment.offset:.3f}"] for segment in video.on_video_clock()
        )
    return buffer.getvalue()


WRITER = SegmentWriter("vtrace", "table of V-TRACE, one per video", ".csv", _write, one_file=False, name_of="video")
