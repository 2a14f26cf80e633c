"""How figures of tests and folds are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actionprep.cli import output


def print_test(tested: dict[str, Any]) -> None:
    """The figures of a test with their intervals, and its tables."""
    from actionprep.training.metrics import figure_name

    intervals = tested["intervals"]
    rows = []
    for name, value in tested["figures"].items():
        one = intervals.get(name)
        rows.append((figure_name(name), shown(value), _between(one)))
    title = f"Test on {tested['num_samples']} snippets of {tested['num_recordings']} recordings"
    output.print_table(title, ("figure", "value", "95 % interval"), rows)
    frames = tested.get("frames")
    if frames:
        rows = [
            (name.replace("_", " "), shown(value), "{low:.3f} to {high:.3f}".format(**frames["intervals"][name]))
            for name, value in frames["figures"].items()
        ]
        output.print_table(f"And on their {frames['num_frames']} frames", ("figure", "value", "95 % interval"), rows)
    for name in ("classes", "subjects", "sessions", "views"):
        if tested.get(name):
            columns = list(tested[name][0])
            output.print_table(name.capitalize(), [column.replace("_", " ") for column in columns],
                               [[shown(row.get(column)) for column in columns] for row in tested[name]])  # fmt: skip


def print_folds(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """The figures of each fold, and of all together."""
    columns = list(rows[0])
    output.print_table("Folds", columns, [[shown(row.get(name)) for name in columns] for row in rows])
    output.print_table("Together", ("figure", "value"), [(name, shown(value)) for name, value in summary.items()])


def _between(interval: dict[str, float | None] | None) -> str:
    """The bounds of a figure; nothing where it has none, "–" where the test cannot tell them."""
    if interval is None:
        return ""
    low, high = (shown(float("nan") if interval[end] is None else interval[end]) for end in ("low", "high"))
    return f"{low} to {high}" if "–" not in (low, high) else "–"


def shown(value: Any) -> str:
    """A figure as a cell of a table."""
    if isinstance(value, float):
        return f"{value:.3f}" if value == value else "–"
    if isinstance(value, (list, tuple)):
        return " to ".join(shown(one) for one in value)
    return "" if value is None else str(value)
