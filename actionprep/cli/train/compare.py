"""The commands `actiontrain compare` and `actiontrain sweep`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, Numbers, StudyOption, Text, Texts, with_study
from actionprep.cli.train.choices import split_of
from actionprep.cli.train.folders import Place, runs_folder
from actionprep.cli.train.options import (
    DeviceOption,
    FoldsOption,
    MeasureOption,
    NumFoldsOption,
    StoreArgument,
    ThreadsOption,
    changes_of,
    group_of,
    use_threads,
)


def compare(
    runs: Annotated[
        Texts, typer.Argument(help="Runs, or folders of runs (folds, a sweep). (default: all of the study)")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the table (csv, md, json) and its plot.")] = Path(
        "comparison"
    ),
    measure: MeasureOption = True,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare tested runs: accuracy, macro F1, size, operations, training time, latency and clips/s, with a plot."""
    from actionprep.training.experiments.compare import compare as put_side_by_side

    use_threads(threads)
    if runs:
        folders = [Path(name) if Path(name).is_dir() else runs_folder(study) / name for name in runs]
    else:
        folders = [runs_folder(study)]
    comparison = put_side_by_side(folders, measure=measure, device=device or "auto")
    paths = comparison.write(out)
    if json:
        output.print_json({**comparison.document(), "files": [str(path) for path in paths]})
        return
    _print_comparison(comparison)
    for path in paths:
        output.note(f"Wrote {path}")
    output.print_next("actiontrain fuse RUN1 RUN2", "combines the predictions of several runs")


def sweep(
    store: StoreArgument = None,
    recipes: Annotated[Texts, typer.Option("--recipes", help="Recipes to train, by name or path.")] = None,
    grid: Annotated[
        Texts, typer.Option("--grid", help="Settings with values to try: --grid epochs=20,40 input.frames=16,32.")
    ] = None,
    changes: Annotated[Texts, typer.Option("--set", help="Settings of all runs, as name=value.")] = None,
    seeds: Annotated[Numbers, typer.Option("--seeds", help="Random seeds: --seeds 0 1 2.")] = None,
    views: Annotated[
        Texts, typer.Option("--views", help="Views to train on, by name or index: --views 0 1 3 6.")
    ] = None,
    folds: FoldsOption = None,
    num_folds: NumFoldsOption = None,
    split: Annotated[Text, typer.Option("--split", help="Use this stored split: split/<name>.")] = None,
    splits: Annotated[
        Texts, typer.Option("--splits", help="Train and test on each of these stored splits: --splits split1 split2.")
    ] = None,
    name: Annotated[
        str, typer.Option("--name", help="Name of the sweep's folder. An existing sweep is resumed.")
    ] = "sweep",
    jobs: Annotated[int, typer.Option("--jobs", help="Number of parallel runs.", min=1)] = 1,
    measure: MeasureOption = True,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train, test and compare recipes × settings × seeds (× folds or splits). Finished runs are reused."""
    from actionprep.settings import COMMAND_LINE
    from actionprep.training.experiments.sweep import sweep as train_all
    from actionprep.training.recipes import choose_recipe

    _check_parts(folds=folds, split=split, splits=splits)
    where = Place.find(store, study)
    given = {"device": device, "threads": threads, "split": split, "views": tuple(views) if views else None}
    settings = where.settings.with_changes(given, where=COMMAND_LINE)
    rebuilt_by = "--folds" if folds is not None else "--splits" if splits else None
    choice, not_used = split_of(where.store, where.settings, given, rebuilt_by=rebuilt_by)
    chosen = recipes or [choose_recipe(where.store).recipe.name if settings.recipe == "auto" else settings.recipe]
    report = (lambda _: None) if json else output.note
    for message in not_used:
        report(message)
    results = train_all(
        where.store,
        chosen,
        where.runs / name,
        grid=_grid(grid),
        changes=changes_of(changes),
        of_study=settings.changes,
        seeds=seeds or [settings.seed],
        folds=None if folds is None else group_of(folds),
        num_folds=num_folds,
        splits=splits or (),
        snippets=settings.snippets,
        split=choice,
        views=settings.views or None,
        device=settings.device,
        jobs=jobs,
        threads=settings.threads,
        measure=measure,
        log=report,
    )
    failures = [{"run": str(job.folder), "reason": reason} for job, reason in results.failures]
    if json:
        table = None if results.comparison is None else results.comparison.document()
        output.print_json({"folder": str(results.folder), "comparison": table, "failures": failures})
    else:
        if results.comparison is not None:
            _print_comparison(results.comparison)
            output.note(f"Wrote compare.csv, compare.md, compare.json and compare.png to {results.folder}")
        for failure in failures:
            output.warn(f"{failure['run']}: {failure['reason']}")
        command = shlex.join(["actiontrain", "compare", str(results.folder)])
        output.print_next(with_study(command, study), "compares the runs of this sweep again")
    if failures:
        raise typer.Exit(1)


def _check_parts(**given: Any) -> None:
    """Raise UserError unless at most one of --folds, --split and --splits is given."""
    from actionprep.errors import UserError

    asked = [f"--{name}" for name, value in given.items() if value]
    if len(asked) > 1:
        raise UserError(
            f"{' and '.join(asked)} cannot be combined. --folds makes its own splits, --split uses one stored split, and "
            "--splits trains and tests on each of several stored splits."
        )


def _print_comparison(comparison: Any) -> None:
    from actionprep.training.experiments.comparison import IMPORTANCE

    columns, rows = comparison.cells()
    out = output.print_table("Comparison", columns, rows, importance=[name for name in IMPORTANCE if name in columns])
    if out:
        output.note(f"Columns that do not fit: {', '.join(out)}. compare.csv has all columns.")
    for note in comparison.notes:
        output.note(note)


def _grid(given: list[str] | None) -> dict[str, list[Any]]:
    """Parse `["epochs=20,40"]` into {"epochs": [20, 40]}. TOML lists and tables are separated by semicolons."""
    from actionprep.errors import UserError

    values_of: dict[str, list[Any]] = {}
    for word in given or []:
        name, equals, values = word.partition("=")
        if not equals or not values:
            raise UserError(f"--grid expects name=value,value, such as epochs=20,40; got {word!r}.")
        separator = ";" if any(bracket in values for bracket in "[{") else ","
        values_of[name] = [changes_of([f"{name}={value}"])[name] for value in values.split(separator)]
    return values_of
