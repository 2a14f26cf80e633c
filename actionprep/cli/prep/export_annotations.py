"""The commands that write annotations and predictions for other tools: one per format, all with the same options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Text, Texts
from actionprep.cli.prep.options import RecordingsOption, opened_study
from actionprep.cli.program import add_command

if TYPE_CHECKING:
    from collections.abc import Callable

PANEL = "Annotations and predictions"


def add_commands(app: typer.Typer) -> None:
    """Add a command for every registered writer, without importing them."""
    from actionprep.datasets.annotation_writers.index import SEGMENT_WRITERS

    for name, entry in SEGMENT_WRITERS.entries().items():
        add_command(app, _command(name, entry.help), PANEL, name=name)


def _command(format: str, help: str) -> Callable[..., None]:
    def export(
        out: Annotated[Path, typer.Argument(help="File to write; for a file per recording, a folder.")],
        run: Annotated[
            Text, typer.Option("--run", help="Write the predictions of this run: prediction/RUN/timeline.csv.")
        ] = None,
        layers: Annotated[Texts, typer.Option("--layers", help="Write only these layers. (default: all)")] = None,
        annotators: Annotated[
            Texts, typer.Option("--annotators", help="Write only these annotators. (default: all)")
        ] = None,
        view: Annotated[
            Text, typer.Option("--view", help="View whose video the files name. (default: the first one)")
        ] = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
        recordings: RecordingsOption = None,
        study: StudyOption = None,
        json: JsonOption = False,
        debug: DebugOption = False,
    ) -> None:
        from actionprep.api.export_annotations import export_annotations
        from actionprep.api.segment_sources import segments_of_file, timeline_of_run
        from actionprep.json_values import counted

        opened = opened_study(study)
        made = export_annotations(
            opened,
            format,
            out,
            segments=None if run is None else segments_of_file(opened, timeline_of_run(run)),
            recordings=recordings or (),
            layers=layers or (),
            annotators=annotators or (),
            view=view,
            overwrite=overwrite,
        )
        if json:
            output.print_json(made.document())
            return
        if made.without_frame:
            output.warn(f"{counted(made.without_frame, 'segment')} without a frame left out.")
        output.note(
            f"Wrote {counted(made.segments - made.without_frame, 'segment')} of {counted(made.recordings, 'recording')} "
            f"with {counted(len(made.labels), 'label')} to {out} ({counted(len(made.files), 'file')})"
        )

    export.__doc__ = f"{help[0].upper()}{help[1:]}."
    return export
