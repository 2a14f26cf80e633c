"""The command that turns predictions of a run into bouts and their statistics."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from actionprep.cli.bout_output import print_bouts
from actionprep.cli.options import DebugOption, JsonOption, Real, StudyOption, Text, Texts, Where
from actionprep.cli.prep.bouts import BinOption, GroupOption, XlsxOption
from actionprep.cli.train.options import DeviceOption


def bouts(
    run: Annotated[Text, typer.Argument(help="Run, by name or folder; the last run when left out.")] = None,
    run_option: Annotated[Text, typer.Option("--run", help="The same as RUN.")] = None,
    part: Annotated[
        Literal["test", "val", "all"], typer.Option("--part", help="Part of the run's split to predict.")
    ] = "test",
    recordings: Annotated[
        Texts, typer.Option("--recording", help="Instead of a part: recordings of the study, by id.")
    ] = None,
    enter: Annotated[
        Real, typer.Option("--enter", help="Probability that a bout must reach. (default: chosen on val)", min=0, max=1)
    ] = None,
    leave: Annotated[
        Real,
        typer.Option("--leave", help="Probability below which a bout ends. (default: that of --enter)", min=0, max=1),
    ] = None,
    max_gap: Annotated[
        Real, typer.Option("--max-gap", help="Join bouts of one label up to this far apart, in ms.", min=0)
    ] = None,
    min_length: Annotated[
        Real, typer.Option("--min-length", help="Drop bouts shorter than this, in ms.", min=0)
    ] = None,
    group: GroupOption = None,
    bin: BinOption = None,
    out: Annotated[Where, typer.Option("--out", "-o", help="Folder for the results. (default: bouts/RUN/PART)")] = None,
    xlsx: XlsxOption = False,
    device: DeviceOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Turn predictions of a run into bouts: thresholds chosen on val by F1@50, then statistics, a figure and a page."""
    from actionprep.api import open_study
    from actionprep.api.bouts import predicted_bout_report
    from actionprep.cli import output
    from actionprep.cli.train.folders import find_run
    from actionprep.errors import UserError
    from actionprep.training.evaluation.bout_rules import PredictedBoutRules

    if run is not None and run_option is not None and run != run_option:
        raise UserError(f"RUN is '{run}' and --run is '{run_option}'. Give one of them.")
    rules = None
    if (enter, leave, max_gap, min_length) != (None, None, None, None):
        high = 0.0 if enter is None else enter
        low = high if leave is None else leave
        if low > high:
            raise UserError(f"--leave {low:g} is above --enter {high:g}. Give a lower --leave, or a higher --enter.")
        rules = PredictedBoutRules(high, low, (max_gap or 0) / 1000, (min_length or 0) / 1000)
    report = predicted_bout_report(
        find_run(run or run_option, study).folder,
        open_study(study, log=output.warn),
        part=part,
        recordings=recordings or (),
        rules=rules,
        group=group,
        bin_s=bin,
        out=out,
        xlsx=xlsx,
        device=device or "auto",
    )
    print_bouts(report, json=json)
