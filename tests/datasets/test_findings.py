"""Findings of a scan, grouped and counted."""

from __future__ import annotations

from actionprep.datasets.findings import Finding, group_findings


def test_group_findings_counts_lines_of_one_kind():
    findings = [
        *(Finding("unusable segment", f"a.csv:{line}", f"it ends at {line} s") for line in range(2, 9)),
        Finding("unusable segment", "b.csv:4", "it has no label"),
        *(Finding("unusable segment", f"{name}.csv", "it ends at 7 s") for name in "cdef"),
    ]
    first, second = group_findings(findings)
    assert (first.kind, len(first.findings)) == ("unusable segment", 11)
    assert first.where == "a.csv:2, 3, 4 and 4 more, c.csv, d.csv and 2 more"
    assert first.message == "it ends at 2 s (first of 11)"
    assert (second.where, second.message) == ("b.csv:4", "it has no label")


def test_group_findings_takes_names_alike():
    findings = [Finding("labels for an absent video", "a.csv", f"'{name}' is no recording") for name in "xy"]
    [group] = group_findings(findings)
    assert (group.where, group.message) == ("a.csv", "'x' is no recording (first of 2)")


def test_finding_line_of_its_place():
    assert (Finding("file not used", "a:b.csv:12", "x").file, Finding("file not used", "a.csv:12", "x").line) == (
        "a:b.csv",
        12,
    )
    assert Finding("file not used", "a.csv", "x").line is None
