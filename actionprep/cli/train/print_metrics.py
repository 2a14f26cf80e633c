"""How figures of tests and folds are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actionprep.cli import output


def print_test(tested: dict[str, Any]) -> None:
    """The figures of a test with their intervals, and its tables."""
    from actionprep.training.evaluation.metrics import metric_name

    intervals = tested["intervals"]
    rows = []
    for name, value in tested["metrics"].items():
        one = intervals.get(name)
        rows.append((metric_name(name), shown(value), _between(one)))
    part = tested.get("part", "test")
    title = f"{tested['num_samples']} snippets of {tested['num_recordings']} recordings"
    title = f"Test on {title}" if part == "test" else f"Part {part}: {title}"
    output.print_table(title, ("figure", "value", "95 % interval"), rows)
    missing = tested.get("num_without_evidence", 0)
    if missing:
        output.warn(
            f"{missing} of {tested['num_samples']} snippets show no points, people or frames: they get no label and count "
            "as wrong (evidence 0 in samples.csv)."
        )
    if part != "test":
        output.warn(_what_the_model_saw(tested))
    for sentence in mended(tested):
        output.note(sentence)
    frames = tested.get("frames")
    if frames:
        rows = [
            (name.replace("_", " "), shown(value), _between(frames["intervals"][name]))
            for name, value in frames["metrics"].items()
        ]
        output.print_table(f"And on their {frames['num_frames']} frames", ("figure", "value", "95 % interval"), rows)
    for name in ("classes", "subjects", "sessions", "views"):
        if tested.get(name):
            columns = list(tested[name][0])
            output.print_table(name.capitalize(), [metric_name(column) for column in columns],
                               [[shown(_number(row[column])) for column in columns] for row in tested[name]])  # fmt: skip


def mended(tested: Mapping[str, Any]) -> list[str]:
    """What validation snippets mend of the probabilities, in sentences."""
    found = []
    calibration = tested.get("calibration") or {}
    on_val = tested.get("part") == "val"
    if "from" in calibration:
        source = calibration["from"] + (", these same ones" if on_val else "")
        found.append(f"Temperature {calibration['temperature']:.2f}, of {source}: {_with_temperature(calibration)}.")
    if "metrics_at_thresholds" in tested:
        at_half, at_own = (tested[name]["macro_f1"] for name in ("metrics", "metrics_at_thresholds"))
        given = "the val snippets, these same ones, give" if on_val else "val gives"
        found.append(
            f"With the threshold that {given} each label (test.json lists them) macro F1 is {at_own:.3f}, not "
            f"{at_half:.3f}."
        )
    return found


def _with_temperature(calibration: Mapping[str, Any]) -> str:
    before, after = (f"{calibration[name]:.3f}" for name in ("error", "scaled_error"))
    if before == after:
        nothing = "it changes nothing, and" if f"{calibration['temperature']:.2f}" == "1.00" else "with it"
        return f"{nothing} the calibration error stays {before}"
    if calibration["scaled_error"] > calibration["error"]:
        return f"with it the calibration error is worse here, {after}, not {before}"
    return f"with it the calibration error is {after}, not {before}"


def _what_the_model_saw(tested: Mapping[str, Any]) -> str:
    """What the training did with another part than test: so much less do its figures promise for new recordings."""
    part, checkpoint = tested["part"], tested["checkpoint"]
    if tested["trained_on"]:
        return f"The model was trained on {part}: this is what it remembers, not how well it does on new recordings."
    which = "the weights before the refit" if checkpoint == "validated.ckpt" else "weights"
    return (
        f"Scored with {which} ({checkpoint}) that were not trained on val; the epoch was chosen on it, which flatters "
        "a little."
    )


def print_folds(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """The figures of each fold, and of the test snippets of all together; of stored splits the mean over them."""
    from actionprep.training.evaluation.metrics import metric_name

    columns = list(rows[0])
    cells = [[shown(row.get(name)) for name in columns] for row in rows]
    of_splits = "over_splits" in summary
    output.print_table("Splits" if of_splits else "Folds", [metric_name(name) for name in columns], cells)
    over, accuracy = summary["over_splits" if of_splits else "over_folds"], summary["accuracy"]
    figures = {"accuracy": (accuracy["value"], _between(accuracy)), "macro_f1": (summary["macro_f1"], "")}
    if of_splits:
        output.print_table(
            f"Mean over {len(rows)} splits, which test {summary['num_samples']} snippets",
            ("figure", "mean of the splits", "95 % interval", "their spread"),
            [
                (metric_name(name), shown(value), between, shown(over[name]["std"]))
                for name, (value, between) in figures.items()
            ],
        )
        return
    output.print_table(
        f"Together, on {summary['num_samples']} snippets",
        ("figure", "value", "95 % interval", "mean of the folds", "their spread"),
        [
            (metric_name(name), shown(value), between, shown(over[name]["mean"]), shown(over[name]["std"]))
            for name, (value, between) in figures.items()
        ],
    )


def note_folds(folder: Path) -> None:
    """Where the figures of folds or stored splits are kept, and their runs."""
    from actionprep.training.fusion import fold_names

    names = fold_names(folder)
    few = names if len(names) < 3 else [names[0], "…", names[-1]]
    output.note(f"Wrote {folder / 'folds.csv'} and folds.json, and a report.html in each of {' '.join(few)}")


def _between(interval: dict[str, float | None] | None) -> str:
    """The bounds of a figure; nothing where it has none, "–" where the test cannot tell them."""
    if interval is None:
        return ""
    low, high = (shown(_number(interval[end])) for end in ("low", "high"))
    return f"{low} to {high}" if "–" not in (low, high) else "–"


def _number(value: Any) -> Any:
    """What test.json says: null stands for what is no number."""
    return float("nan") if value is None else value


def shown(value: Any) -> str:
    """A figure as a cell of a table."""
    if isinstance(value, float):
        return f"{value:.3f}" if value == value else "–"
    if isinstance(value, (list, tuple)):
        return " to ".join(shown(one) for one in value)
    return "" if value is None else str(value)
