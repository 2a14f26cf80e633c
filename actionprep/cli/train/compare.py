"""The commands on many runs: compare those that there are, or train a whole sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, Number, Numbers, StudyOption, Text, Texts
from actionprep.cli.train.choices import split_of
from actionprep.cli.train.folders import Place, runs_folder
from actionprep.cli.train.options import (
    DeviceOption,
    FoldsOption,
    MeasureOption,
    NumFoldsOption,
    StoreArgument,
    changes_of,
    group_of,
    use_threads,
)


def compare(
    runs: Annotated[
        Texts, typer.Argument(help="Runs, or folders that hold some (folds, a sweep); all of the study when left out.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the table (csv, md, json) and its picture.")
    ] = Path("comparison"),
    measure: MeasureOption = True,
    device: DeviceOption = None,
    threads: Annotated[Number, typer.Option("--threads", help="CPU threads of what is timed.", min=1)] = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """One table over tested runs: accuracy, macro F1, size, operations, training time, latency, clips/s; and a picture."""
    from actionprep.training.experiments.compare import compare as put_side_by_side

    use_threads(threads)
    if runs:
        folders = [Path(name) if Path(name).is_dir() else runs_folder(study) / name for name in runs]
    else:
        folders = [runs_folder(study)]
    found = put_side_by_side(folders, measure=measure, device=device or "auto")
    paths = found.write(out)
    if json:
        output.print_json({**found.document(), "files": [str(path) for path in paths]})
        return
    _print_comparison(found)
    for path in paths:
        output.note(f"Wrote {path}")


def sweep(
    store: StoreArgument = None,
    recipes: Annotated[Texts, typer.Option("--recipes", help="Recipes to train, by name or path.")] = None,
    grid: Annotated[
        Texts, typer.Option("--grid", help="Settings with values to try: --grid epochs=20,40 input.frames=16,32.")
    ] = None,
    changes: Annotated[Texts, typer.Option("--set", help="Settings that all have, as name=value.")] = None,
    seeds: Annotated[
        Numbers, typer.Option("--seeds", help="Seeds of weights, order and augmentation: --seeds 0 1 2.")
    ] = None,
    views: Annotated[
        Texts, typer.Option("--views", help="Views to train on, by name or index: --views 0 1 3 6.")
    ] = None,
    folds: FoldsOption = None,
    num_folds: NumFoldsOption = None,
    split: Annotated[Text, typer.Option("--split", help="Use this stored split: split/<name>.")] = None,
    splits: Annotated[
        Texts, typer.Option("--splits", help="Train and test on each of these stored splits: --splits split1 split2.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the sweep's folder; the same again goes on.")] = "sweep",
    jobs: Annotated[int, typer.Option("--jobs", help="Trainings at a time.", min=1)] = 1,
    measure: MeasureOption = True,
    device: DeviceOption = None,
    threads: Annotated[Number, typer.Option("--threads", help="CPU threads of each training.", min=1)] = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train and test recipes × settings × seeds (× folds or splits) and compare them; what is done is not done again."""
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
    log = (lambda _: None) if json else output.note
    for sentence in not_used:
        log(sentence)
    found = train_all(
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
        log=log,
    )
    failures = [{"run": str(job.folder), "reason": reason} for job, reason in found.failures]
    if json:
        table = None if found.comparison is None else found.comparison.document()
        output.print_json({"folder": str(found.folder), "comparison": table, "failures": failures})
    else:
        if found.comparison is not None:
            _print_comparison(found.comparison)
            output.note(f"Wrote compare.csv, compare.md, compare.json and compare.png into {found.folder}")
        for one in failures:
            output.warn(f"{one['run']}: {one['reason']}")
    if failures:
        raise typer.Exit(1)


def _check_parts(**given: Any) -> None:
    """Folds, one stored split and several are three ways to say what is tested."""
    from actionprep.errors import UserError

    asked = [f"--{name}" for name, value in given.items() if value]
    if len(asked) > 1:
        raise UserError(
            f"{' and '.join(asked)} were given, and a sweep takes one of them: --folds splits the snippets anew, --split "
            "takes one stored split, and --splits trains and tests on each of several stored splits."
        )


def _print_comparison(found: Any) -> None:
    from actionprep.training.experiments.comparison import IMPORTANCE

    columns, rows = found.cells()
    out = output.print_table("Comparison", columns, rows, importance=[name for name in IMPORTANCE if name in columns])
    if out:
        output.note(f"No room at this width for {', '.join(out)}: compare.csv holds them.")
    for note in found.notes:
        output.note(note)


def _grid(given: list[str] | None) -> dict[str, list[Any]]:
    """`["epochs=20,40"]` → {"epochs": [20, 40]}; a list or table in TOML's form is one value a semicolon apart."""
    from actionprep.errors import UserError

    found: dict[str, list[Any]] = {}
    for one in given or []:
        name, equals, values = one.partition("=")
        if not equals or not values:
            raise UserError(f"--grid takes name=value,value, such as epochs=20,40; got {one!r}.")
        apart = ";" if any(bracket in values for bracket in "[{") else ","
        found[name] = [changes_of([f"{name}={value}"])[name] for value in values.split(apart)]
    return found
