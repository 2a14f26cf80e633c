"""Write tables of DeepEthogram: a row per frame with 0 or 1 per label; the first column `background` is 1 without any."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from actionprep.datasets.annotation_writers.frame_rows import labels_by_frame
from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter


def _write(videos: Sequence[AnnotatedVideo], labels: Sequence[str]) -> str:
    (video,) = videos
    shown = [label for label in labels if label != "background"]
    applies = labels_by_frame(video, labels)[:, [labels.index(label) for label in shown]]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["", "background", *shown])
    for frame, row in enumerate(applies.astype(int).tolist()):
        writer.writerow([frame, int(not any(row)), *row])
    return buffer.getvalue()


WRITER = SegmentWriter(
    "frames", "table of DeepEthogram, a row per frame", ".csv", _write, one_file=False, name_of="video", counts="frame"
)
