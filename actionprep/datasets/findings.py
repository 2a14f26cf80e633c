"""What a scan reports: facts that may need attention and do not stop the work."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from actionprep.datasets.atomic_files import atomic_file
from actionprep.errors import name_list
from actionprep.json_values import printable

FindingKind = Literal[
    "unreadable video",
    "video warning",
    "same video twice",
    "video without label",
    "labels for an absent video",
    "class with one sample",
    "file not used",
    "column not used",
    "similar labels",
    "unknown split",
    "conflicting labels",
    "unusable segment",
    "segment past the end",
    "point events",
    "detail not used",
    "views not aligned",
    "views drift apart",
    "poses without people",
    "unreadable poses",
    "official split",
    "guessed encoding",
    "label from tier",
    "camera not used",
    "several recordings linked",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact that a scan reports.

    Attributes:
        kind: What it is about.
        where: The file, with its line as in "labels.csv:12", or the recording.
        message: One sentence without the place.
    """

    kind: FindingKind
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.message}"

    @property
    def file(self) -> str:
        """The file or recording, without a line."""
        return _LINE.sub("", self.where)

    @property
    def line(self) -> int | None:
        """The line in the file; None if there is none."""
        match = _LINE.search(self.where)
        return None if match is None else int(match[1])


_LINE = re.compile(r":(\d+)$")


@dataclass(frozen=True)
class FindingGroup:
    """Findings of one kind that differ only in names and numbers.

    Attributes:
        kind: Their kind.
        findings: The findings, in the order of the scan.
    """

    kind: FindingKind
    findings: tuple[Finding, ...]

    @property
    def where(self) -> str:
        """Files with their first lines, or the first recordings, and how many more there are."""
        files: dict[str, list[int]] = {}
        for finding in self.findings:
            lines = files.setdefault(finding.file, [])
            if finding.line is not None:
                lines.append(finding.line)
        return name_list(
            [f"{file}:{name_list(list(map(str, lines)), _SHOWN)}" if lines else file for file, lines in files.items()],
            _SHOWN,
        )

    @property
    def message(self) -> str:
        """Message of the first finding, marked as an example if the messages differ."""
        first = self.findings[0].message
        is_example = any(finding.message != first for finding in self.findings)
        return f"{first} (first of {len(self.findings):,})" if is_example else first


_SHOWN = 3
"""Files, and lines per file, that a group shows."""


def group_findings(findings: Iterable[Finding]) -> list[FindingGroup]:
    """Group findings that differ only in quoted names and numbers, in the order of their first ones."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        form = re.sub(r"\d+", "0", re.sub(r"'[^']*'", "''", finding.message))
        # Messages about files that cannot be read have many forms: one group per kind and form is enough.
        groups.setdefault((finding.kind, form), []).append(finding)
    return [FindingGroup(members[0].kind, tuple(members)) for members in groups.values()]


def write_findings(findings: Sequence[Finding], path: Path) -> None:
    """Write all findings as a csv table with the columns kind, where, line and message."""
    with atomic_file(path) as draft, open(draft, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "where", "line", "message"])
        writer.writerows(
            [
                finding.kind,
                printable(finding.file),
                "" if finding.line is None else finding.line,
                printable(finding.message),
            ]
            for finding in findings
        )
