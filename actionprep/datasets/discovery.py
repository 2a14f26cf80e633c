"""What every layout returns: the recordings and views of a study, before any video is read."""

from __future__ import annotations

from dataclasses import dataclass, field

from actionprep.datasets.annotations import AnnotatedRow, RowError
from actionprep.datasets.findings import Finding
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.video_suffixes import VIDEO_SUFFIXES
from actionprep.errors import UserError

__all__ = ["SPLIT_NAMES", "VIDEO_SUFFIXES", "Discovery", "NoVideosError"]

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
"""Names of splits in folders and tables, in lower case, and the split that each means."""


class NoVideosError(UserError):
    """No videos were found.

    Attributes:
        searched: What was searched for, where, and what was found instead. The full message also has a remedy for a
            study that has a settings file.
    """

    def __init__(self, searched: str, remedy: str) -> None:
        super().__init__(f"{searched} {remedy}")
        self.searched = searched


@dataclass
class Discovery:
    """Recordings and views that a layout found.

    Attributes:
        recordings: Recordings with the label, subject, session and split that folders and tables give.
        views: Views with their id and path only; views of imported poses are complete.
        rows: Annotated rows by the file that contains them.
        findings: Files and rows that were not used, and why.
    """

    recordings: list[Recording]
    views: list[View]
    rows: dict[str, list[AnnotatedRow | RowError]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
