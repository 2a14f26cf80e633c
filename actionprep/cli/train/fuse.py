"""The command that fuses runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Text, Texts
from actionprep.cli.train.folders import new_folder, run_folder
from actionprep.cli.train.options import DeviceOption
from actionprep.cli.train.print_metrics import note_folds, print_folds, print_test


def fuse(
    runs: Annotated[list[str], typer.Argument(help="Two runs or more, or cross-validations, by name or folder.")],
    out: Annotated[Text, typer.Option("--out", "-o", help="Name of the folder. (default: fusion and time)")] = None,
    weights: Annotated[
        Texts, typer.Option(help="val: chosen on val; equal; or one number a run. (default: val)")
    ] = None,
    device: DeviceOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Pool what several runs say of the same snippets and split, whatever they read."""
    from actionprep.training.fusion import fold_names, fuse_folds
    from actionprep.training.fusion import fuse as fuse_runs

    places = [run_folder(one, study) for one in runs]
    beside = places[0].parent
    log = (lambda _: None) if json else output.note
    weighting = _weighting(weights or ["val"])
    named = None if out is None else beside / out
    if all(fold_names(place) for place in places):
        with new_folder(beside, "fusion", named) as folder:
            document = fuse_folds(places, folder, weights=weighting, device=device or "auto", log=log)
        if json:
            output.print_json({"run": str(folder), **document})
            return
        print_folds(document["folds"], document["summary"])
        note_folds(folder)
        _print_next([*places, folder])
        return
    with new_folder(beside, "fusion", named) as folder:
        made = fuse_runs(places, folder, weights=weighting, device=device or "auto", log=log)
    if json:
        output.print_json({"run": str(folder), "weights": made.weights, **made.tested})
        return
    print_test(made.tested)
    output.note(f"Wrote {made.folder}")
    output.note(f"Report {made.folder / 'report.html'}")
    _print_next([*places, folder])


def _print_next(folders: list[Path]) -> None:
    compared = shlex.join(["actiontrain", "compare", *map(str, folders)])
    output.print_next(compared, "puts the fusion beside its runs")


def _weighting(given: list[str]) -> Any:
    from actionprep.errors import UserError

    if given in (["val"], ["equal"]):
        return given[0]
    try:
        return tuple(float(one) for one in given)
    except ValueError:
        raise UserError(f"--weights takes val, equal, or one number a run; got {' '.join(given)}.") from None
