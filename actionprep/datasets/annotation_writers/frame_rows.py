"""Labels of single frames, for formats with a row or a code per frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actionprep.datasets.annotation_writers.writer import AnnotatedVideo


def labels_by_frame(video: AnnotatedVideo, labels: Sequence[str]) -> np.ndarray:
    """Return whether each label applies to each frame, bool of shape (T, C).

    A label applies to a frame that begins in one of its segments.
    """
    applies = np.zeros((len(video.frame_times), len(labels)), bool)
    code_of = {label: code for code, label in enumerate(labels)}
    for segment in video.segments:
        first, last = video.frames_of(segment)
        applies[first:last, code_of[segment.label]] = True
    return applies
