"""Command `actiontrain test`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Text, with_study
from actionprep.cli.train.folders import Place, cross_validation, find_run, run_folder, store_of_study, store_or_study
from actionprep.cli.train.options import (
    CarryOption,
    DeviceOption,
    RunArgument,
    RunOption,
    ThreadsOption,
    WeightsOption,
    WeightsRecipeOption,
    chosen_run,
    part_of,
    published_of,
    use_threads,
)
from actionprep.cli.train.print_metrics import print_folds, print_test, shown

if TYPE_CHECKING:
    from actionprep.training.run import Run


def score(
    run: RunArgument = None,
    named: RunOption = None,
    store: Annotated[
        Text, typer.Option("--store", help="Another store: its path or URL, or the folder of its study.")
    ] = None,
    weights: WeightsOption = None,
    recipe: WeightsRecipeOption = None,
    part: Annotated[str, typer.Option(help="Part of the split: test, val or train.")] = "test",
    epochs: Annotated[
        Text, typer.Option("--epochs", help="Test kept epochs instead of the best: all, 8, 10-50 or 10-50:5.")
    ] = None,
    carry: CarryOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Test a run once, deterministically, and write its predictions, tables and report."""
    from actionprep.api.run_report import write_run_report
    from actionprep.datasets.paths import below, safe_name
    from actionprep.errors import UserError
    from actionprep.training.predict import takes_videos
    from actionprep.training.run import Run
    from actionprep.training.test import other_test_folder, run_test, run_test_elsewhere

    use_threads(threads)
    run = chosen_run(run, named)
    if run is not None and (run_folder(run, study) / "fusion.json").is_file():
        _show_fusion(run_folder(run, study), part=part, store=store, json=json)
        return
    if weights is not None:
        if run is not None or part != "test":
            raise UserError("--weights tests published weights on all labeled snippets, without RUN and --part.")
        place = Place.find(store, study)
        checkpoint = published_of(place, weights, recipe, device=device or "auto", quiet=json)
        into = Run(below(place.runs, f"weights-{safe_name(weights.stem)}"))
        snippets = place.settings.snippets
        tested = run_test_elsewhere(
            checkpoint, place.store, into, snippets=snippets, carry=carry, device=device or "auto"
        )
        _print_other(tested, into, json=json)
        return
    if epochs is not None:
        _test_epochs(run, study, epochs, store=store, part=part, carry=carry, device=device, json=json)
        return
    folds = cross_validation(run, study)
    if folds is not None:
        if store is not None or part != "test":
            raise UserError(
                f"{folds} is a cross-validation, and every fold was tested on its test part. Name one of its runs for "
                f"--store and --part, such as {folds / 'fold-01'}."
            )
        _show_folds(folds, json=json)
        return
    opened_run = find_run(run, study)
    opened = store_of_study(opened_run, study) if store is None else store_or_study(store)
    before = _tested_before(opened_run) if part == "test" and opened is None else None
    tested = run_test(opened_run, opened, part=part_of(part), carry=carry, device=device or "auto")
    if opened is not None and "store" in tested:
        _print_other(tested, Run(other_test_folder(opened_run, opened)), json=json)
        return
    if part == "test":
        write_run_report(opened_run)
    if json:
        output.print_json({"run": str(opened_run.folder), **tested})
        return
    print_test(tested)
    if before is not None:
        output.warn(
            f"This run was already tested, {before['when']}. Use the test part only once: choose recipes and settings on "
            "val, or the metrics will be too optimistic."
        )
    # The report page is of the test part.
    output.note(f"Report {opened_run.report}" if part == "test" else f"Wrote {opened_run.folder / part / 'test.json'}")
    if takes_videos(opened_run):
        output.print_next(with_study("actiontrain predict VIDEO …", study), "labels new recordings with this run")


def _test_epochs(
    run: str | None, study: Path | None, epochs: str, *, store: str | None, part: str, carry: bool | None,
    device: str | None, json: bool,
) -> None:  # fmt: skip
    """Test a range of kept epochs, and print one row of metrics for each."""
    from actionprep.training.epoch_test import parse_epochs, run_epoch_tests
    from actionprep.training.evaluation.metrics import metric_name

    opened_run = find_run(run, study)
    opened = store_of_study(opened_run, study) if store is None else store_or_study(store)
    chosen = parse_epochs(epochs, opened_run.kept_epochs)
    rows = run_epoch_tests(opened_run, opened, epochs=chosen, part=part_of(part), carry=carry, device=device or "auto")
    if json:
        output.print_json({"run": str(opened_run.folder), "part": part, "epochs": rows})
        return
    columns = list(rows[0])
    output.print_table(
        f"Epochs on {part}",
        [metric_name(column) for column in columns],
        [(str(row["epoch"]), *(shown(row[column]) for column in columns[1:])) for row in rows],
    )
    if part == "test":
        output.warn("Do not choose an epoch by these metrics: they would be too good. Choose it with --part val.")
    output.note(f"Wrote {opened_run.folder / 'epochs' / f'{part}.csv'}")


def _show_folds(folder: Path, *, json: bool) -> None:
    """Print the result of a cross-validation, whose folds were tested after their training."""
    from actionprep.training.experiments.folds import joint_result

    result = joint_result(folder)
    if json:
        document = {"labels": result.labels, "confusion": result.confusion.tolist()}
        output.print_json({"run": str(folder), "folds": list(result.rows), "summary": result.summary, **document})
        return
    print_folds(result.rows, result.summary)
    if result.confusion.ndim == 2 and result.confusion.shape[0] == result.confusion.shape[1]:
        rows = [(label, *map(str, row)) for label, row in zip(result.labels, result.confusion.tolist(), strict=True)]
        output.print_table("Confusion of all folds (rows: actual, columns: predicted)", ("", *result.labels), rows)
    if not (folder / "final/run.json").is_file():
        output.note(
            f"To train a model on all recordings: actiontrain fit --folds … --run {folder.name} --resume --final. "
            "'actiontrain predict' then uses it."
        )


def _print_other(tested: dict[str, Any], into: Run, *, json: bool) -> None:
    """Print a test on another store than that of the training."""
    if json:
        output.print_json({"run": str(into.folder), **tested})
        return
    print_test(tested)
    if tested["seen_in_training"]:
        output.warn(
            f"The model was trained on the videos of {tested['seen_in_training']} of these {tested['num_samples']} "
            "snippets, so the metrics are too good."
        )
    output.note(f"Tested all labeled snippets of {tested['store']}. Wrote {into.folder / 'test.json'}")


def _tested_before(run: Run) -> dict[str, Any] | None:
    """Return the result of an earlier test; None if there is none, or if it is damaged and will be overwritten."""
    from actionprep.errors import UserError

    try:
        return run.tested
    except UserError:
        return None


def _show_fusion(folder: Path, *, part: str, store: str | None, json: bool) -> None:
    """Print the result of a fusion, which was tested when it was made."""
    from actionprep.errors import UserError
    from actionprep.training.fusion import run_tested
    from actionprep.training.run import Run

    if part != "test" or store is not None:
        raise UserError(
            f"{folder} is a fusion, and fusions are only tested on the test part of their runs' store. For another part or "
            "store, test its runs one by one."
        )
    tested = run_tested(Run(folder))
    if json:
        output.print_json({"run": str(folder), **tested})
        return
    print_test(tested)
    output.note(
        f"{folder} is a fusion. These metrics are from its creation, {tested['when']}. If its runs have changed, fuse them "
        "again with 'actiontrain fuse'."
    )
