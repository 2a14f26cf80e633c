"""Print the metrics of tests and folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actionprep.cli import output
from actionprep.json_values import counted


def print_test(tested: dict[str, Any]) -> None:
    """Print the metrics of a test with their intervals, and its tables."""
    from actionprep.training.evaluation.metrics import metric_name

    intervals = tested["intervals"]
    rows = []
    for name, value in tested["metrics"].items():
        rows.append((metric_name(name), shown(value), _between(intervals.get(name))))
    part = tested.get("part", "test")
    title = f"{counted(tested['num_samples'], 'snippet')} of {counted(tested['num_recordings'], 'recording')}"
    title = f"Test on {title}" if part == "test" else f"Part {part}: {title}"
    output.print_table(title, ("metric", "value", "95 % interval"), rows)
    if part != "test":
        output.warn(_what_the_model_saw(tested))
    for sentence in adjustments(tested):
        output.note(sentence)
    frames = tested.get("frames")
    if frames:
        rows = [
            (metric_name(name), shown(value), _between(frames["intervals"][name]))
            for name, value in frames["metrics"].items()
        ]
        output.print_table(
            f"Per frame, on {counted(frames['num_frames'], 'frame')}", ("metric", "value", "95 % interval"), rows
        )
    for name in ("classes", "subjects", "sessions", "views"):
        if tested.get(name):
            columns = list(tested[name][0])
            output.print_table(name.capitalize(), [metric_name(column) for column in columns],
                               [[shown(_number(row[column])) for column in columns] for row in tested[name]])  # fmt: skip


def adjustments(tested: Mapping[str, Any]) -> list[str]:
    """Describe the temperature and thresholds that were tuned on the validation snippets."""
    sentences = []
    calibration = tested.get("calibration") or {}
    on_val = tested.get("part") == "val"
    if "from" in calibration:
        source = calibration["from"] + (" (the same snippets)" if on_val else "")
        sentences.append(
            f"Temperature {calibration['temperature']:.2f}, tuned on {source}: {_with_temperature(calibration)}."
        )
    if "metrics_at_thresholds" in tested:
        at_half, at_own = (tested[name]["macro_f1"] for name in ("metrics", "metrics_at_thresholds"))
        source = "val (the same snippets)" if on_val else "val"
        sentences.append(
            f"With one threshold per label, tuned on {source} (listed in test.json), macro F1 is {at_own:.3f} instead of "
            f"{at_half:.3f}."
        )
    return sentences


def _with_temperature(calibration: Mapping[str, Any]) -> str:
    before, after = (f"{calibration[name]:.3f}" for name in ("error", "scaled_error"))
    if before == after:
        return f"the calibration error stays {before}"
    if calibration["scaled_error"] > calibration["error"]:
        return f"the calibration error increases from {before} to {after}"
    return f"the calibration error decreases from {before} to {after}"


def _what_the_model_saw(tested: Mapping[str, Any]) -> str:
    """Warn that metrics of another part than test are optimistic, and why."""
    part, checkpoint = tested["part"], tested["checkpoint"]
    if tested["trained_on"]:
        return f"The model was trained on {part}. These metrics do not show how well it does on new recordings."
    which = "the weights before the refit" if checkpoint == "validated.ckpt" else "weights"
    return (
        f"Evaluated {which} ({checkpoint}), which were not trained on val. The epoch was selected on val, so these metrics "
        "are slightly optimistic."
    )


def print_folds(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """Print the metrics of each fold and of all test snippets together; for stored splits, the mean over splits."""
    from actionprep.training.evaluation.metrics import metric_name

    columns = list(rows[0])
    cells = [[shown(row.get(name)) for name in columns] for row in rows]
    of_splits = "over_splits" in summary
    output.print_table("Splits" if of_splits else "Folds", [metric_name(name) for name in columns], cells)
    over, accuracy = summary["over_splits" if of_splits else "over_folds"], summary["accuracy"]
    metrics = {"accuracy": (accuracy["value"], _between(accuracy)), "macro_f1": (summary["macro_f1"], "")}
    if of_splits:
        output.print_table(
            f"Mean over {counted(len(rows), 'split')}, {counted(summary['num_samples'], 'test snippet')}",
            ("metric", "mean of splits", "95 % interval", "std"),
            [
                (metric_name(name), shown(value), between, shown(over[name]["std"]))
                for name, (value, between) in metrics.items()
            ],
        )
        return
    output.print_table(
        f"Pooled, {counted(summary['num_samples'], 'snippet')}",
        ("metric", "value", "95 % interval", "mean of folds", "std"),
        [
            (metric_name(name), shown(value), between, shown(over[name]["mean"]), shown(over[name]["std"]))
            for name, (value, between) in metrics.items()
        ],
    )


def note_folds(folder: Path) -> None:
    """Print where the metrics of folds or stored splits and their runs are."""
    from actionprep.training.fusion import fold_names

    names = fold_names(folder)
    listed = names if len(names) < 3 else [names[0], "…", names[-1]]
    output.note(f"Wrote {folder / 'folds.csv'}, folds.json, and report.html in {' '.join(listed)}")


def _between(interval: dict[str, float | None] | None) -> str:
    """Interval of a metric; "" if it has none, "–" if the test cannot estimate it."""
    if interval is None:
        return ""
    low, high = (shown(_number(interval[end])) for end in ("low", "high"))
    return f"{low} to {high}" if "–" not in (low, high) else "–"


def _number(value: Any) -> Any:
    """Convert null in test.json to NaN."""
    return float("nan") if value is None else value


def shown(value: Any) -> str:
    """Format a metric as a cell of a table."""
    if isinstance(value, float):
        return f"{value:.3f}" if value == value else "–"
    if isinstance(value, (list, tuple)):
        return " to ".join(shown(bound) for bound in value)
    return "" if value is None else str(value)
