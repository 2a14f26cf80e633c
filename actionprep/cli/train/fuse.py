"""The command `actiontrain fuse`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Text, Texts
from actionprep.cli.train.folders import new_folder, run_folder
from actionprep.cli.train.options import DeviceOption, ThreadsOption, use_threads
from actionprep.cli.train.print_metrics import note_folds, print_folds, print_test


def fuse(
    runs: Annotated[list[str], typer.Argument(help="Two or more runs or cross-validations, by name or folder.")],
    out: Annotated[
        Text, typer.Option("--out", "-o", help="Name of the folder. (default: 'fusion' and the time)")
    ] = None,
    weights: Annotated[
        Texts, typer.Option(help="val (chosen on val), equal, or one number per run. (default: val)")
    ] = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Combine the predictions of several runs on the same snippets and split. Their inputs may differ."""
    from actionprep.training.fusion import fold_names, fuse_folds
    from actionprep.training.fusion import fuse as fuse_runs

    use_threads(threads)
    folders = [run_folder(name, study) for name in runs]
    parent = folders[0].parent
    report = (lambda _: None) if json else output.note
    weighting = _weighting(weights or ["val"])
    named = None if out is None else parent / out
    if all(fold_names(path) for path in folders):
        with new_folder(parent, "fusion", named) as folder:
            document = fuse_folds(folders, folder, weights=weighting, device=device or "auto", log=report)
        if json:
            output.print_json({"run": str(folder), **document})
            return
        print_folds(document["folds"], document["summary"])
        note_folds(folder)
        _print_next([*folders, folder])
        return
    with new_folder(parent, "fusion", named) as folder:
        made = fuse_runs(folders, folder, weights=weighting, device=device or "auto", log=report)
    if json:
        output.print_json({"run": str(folder), "weights": made.weights, **made.tested})
        return
    print_test(made.tested)
    output.note(f"Wrote {made.folder}")
    output.note(f"Report {made.folder / 'report.html'}")
    _print_next([*folders, folder])


def _print_next(folders: list[Path]) -> None:
    compared = shlex.join(["actiontrain", "compare", *map(str, folders)])
    output.print_next(compared, "compares the fusion with its runs")


def _weighting(given: list[str]) -> Any:
    from actionprep.errors import UserError

    if given in (["val"], ["equal"]):
        return given[0]
    try:
        return tuple(float(word) for word in given)
    except ValueError:
        raise UserError(f"--weights expects val, equal, or one number per run; got {' '.join(given)}.") from None
