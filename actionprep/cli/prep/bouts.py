"""The commands that compute statistics of annotated behavior."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from actionprep.cli.bout_output import print_agreement, print_bouts
from actionprep.cli.options import DebugOption, JsonOption, Real, StudyOption, Text, Texts, Where
from actionprep.cli.prep.options import RecordingsOption, opened_study

GroupOption = Annotated[
    Text, typer.Option("--group", help="Column of the table of recordings to group by, such as a treatment.")
]
BinOption = Annotated[Real, typer.Option("--bin", help="Also compute time bins of this length in s.", min=0.001)]
XlsxOption = Annotated[bool, typer.Option("--xlsx", help="Also write the tables as one workbook, bouts.xlsx.")]


def bouts(
    max_gap: Annotated[
        Real,
        typer.Option(
            "--max-gap", help="Join bouts of one label up to this far apart, in ms. (default: as annotated)", min=0
        ),
    ] = None,
    min_length: Annotated[
        float, typer.Option("--min-length", help="Drop bouts shorter than this, in ms.", min=0)
    ] = 0.0,
    group: GroupOption = None,
    bin: BinOption = None,
    layers: Annotated[Texts, typer.Option("--layers", help="Use only these layers. (default: all)")] = None,
    annotators: Annotated[Texts, typer.Option("--annotators", help="Use only these annotators. (default: all)")] = None,
    out: Annotated[Where, typer.Option("--out", "-o", help="Folder for the results. (default: bouts)")] = None,
    xlsx: XlsxOption = False,
    recordings: RecordingsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compute bouts of the annotations and their statistics: count, durations, latency, share of time, transitions."""
    from actionprep.api.bouts import annotated_bouts
    from actionprep.datasets.bouts import BoutRules

    report = annotated_bouts(
        opened_study(study),
        recordings=recordings or (),
        rules=BoutRules(None if max_gap is None else max_gap / 1000, min_length / 1000),
        group=group,
        layers=layers or (),
        annotators=annotators or (),
        bin_s=bin,
        out=out or Path("bouts"),
        xlsx=xlsx,
    )
    print_bouts(report, json=json)


def agreement(
    by: Annotated[
        Literal["annotator", "layer"], typer.Option("--by", help="Compare annotators, or layers, of the study.")
    ] = "annotator",
    run: Annotated[
        Text,
        typer.Option("--run", help="Instead: compare the annotations with predictions: prediction/RUN/timeline.csv."),
    ] = None,
    tables: Annotated[
        Texts, typer.Option("--table", help="Instead: compare the annotations with other files: --table NAME=FILE …")
    ] = None,
    out: Annotated[Where, typer.Option("--out", "-o", help="Folder for the table. (default: agreement)")] = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare annotators, layers, or predictions with annotations: Cohen's and Fleiss' kappa, F1 of bouts."""
    from actionprep.api.bouts import annotator_agreement

    opened = opened_study(study)
    result = annotator_agreement(opened, by=by, tables=_tables(run, tables or []), out=out or Path("agreement"))
    print_agreement(result, out or Path("agreement"), json=json)


def _tables(run: str | None, given: list[str]) -> dict[str, Path]:
    """Files to compare with, by the name of their rater."""
    from actionprep.api.segment_sources import timeline_of_run
    from actionprep.errors import UserError

    tables: dict[str, Path] = {}
    if run is not None:
        tables[run] = timeline_of_run(run)
    for text in given:
        name, mark, path_text = text.partition("=")
        if not mark or not name or not path_text:
            raise UserError(f"--table takes NAME=FILE, such as --table anna=anna.csv; got '{text}'.")
        tables[name] = Path(path_text)
    return tables
