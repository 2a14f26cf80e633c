"""Commands about the study itself: init, scan, config, doctor, formats, demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, Number, Real, StudyOption, Text, Texts, Where, with_study
from actionprep.cli.prep.build_output import print_findings, print_next_without_labels
from actionprep.cli.prep.options import opened_study
from actionprep.json_values import counted


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make a study.")] = Path("."),
    videos: Annotated[Text, typer.Option(help="Folder of the videos.")] = None,
    layout: Annotated[
        Text,
        typer.Option(
            help="folder-per-class, views or csv; follows from the other options. With views alone, the pattern is "
            "proposed from the names of the videos."
        ),
    ] = None,
    pattern: Annotated[
        Text, typer.Option(help="Layout views: paths of the videos, such as {recording}/cam{view}.mp4.")
    ] = None,
    csv: Annotated[Text, typer.Option(help="Layout csv: a table with one row per video or segment.")] = None,
    path_column: Annotated[Text, typer.Option(help="Its column with the path. (default: path)")] = None,
    recording_column: Annotated[Text, typer.Option(help="Its column with the recording's id.")] = None,
    view_column: Annotated[Text, typer.Option(help="Its column with the view.")] = None,
    label_column: Annotated[Text, typer.Option(help="Its column with the label. (default: label)")] = None,
    subject_column: Annotated[Text, typer.Option(help="Its column with the subject.")] = None,
    recordings: Annotated[Text, typer.Option(help="Table with subject, session, label, split of recordings.")] = None,
    segments: Annotated[Texts, typer.Option(help="Annotation files with segments.")] = None,
    segment_columns: Annotated[
        Texts,
        typer.Option(
            help="Columns of csv annotations, as FIELD=COLUMN: recording=Video onset=Start offset=Stop label=Name."
        ),
    ] = None,
    segment_format: Annotated[
        Text,
        typer.Option(help="Their format, or a TOML file with a list preset; 'actionprep formats' lists the formats."),
    ] = None,
    segment_classes: Annotated[
        Text, typer.Option(help="Text file with the name of each class, for annotations with numbers.")
    ] = None,
    point_length: Annotated[
        Real, typer.Option(help="Length in ms of segments that begin at events without length.", min=0)
    ] = None,
    encoding: Annotated[
        Text, typer.Option(help="Encoding of tables and lists, such as cp1252. (default: auto)")
    ] = None,
    offsets: Annotated[Text, typer.Option(help="Table with recording, view, offset of clocks.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing actionprep.toml; write one also without videos.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Make a folder a study: write its commented actionprep.toml."""
    from actionprep.api import make_study
    from actionprep.api.new_study import parse_columns

    given = {
        "videos": videos, "layout": layout, "pattern": pattern, "csv": csv, "path_column": path_column,
        "recording_column": recording_column, "view_column": view_column, "label_column": label_column,
        "subject_column": subject_column, "recordings": recordings, "offsets": offsets,
        "segments": tuple(segments) if segments else None,
        "segment_format": segment_format, "segment_classes": segment_classes, "encoding": encoding,
        "point_length": point_length,
        "segment_columns": parse_columns(segment_columns) if segment_columns else None,
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None}
    study, notes = make_study(folder, given, force=force, ask=_ask if output.can_ask() else None)
    output.note(f"Wrote {study.folder.settings_file}")
    for line in notes:
        output.note(line)
    output.print_next("actionprep scan", "reads every video once and lists what is wrong")


def _ask(question: str, answers: Sequence[str], proposed: str) -> str:
    """Ask until one of the answers comes; an empty answer is the proposed one."""
    choices = f"{output.printable(question)} ({output.printable(', '.join(answers))})"
    while True:
        answer = str(typer.prompt(choices, default=proposed))
        if answer in answers:
            return answer
        output.warn(f"Answer one of {', '.join(answers)}.")


def scan(
    study: StudyOption = None,
    workers: Annotated[
        Number, typer.Option("--workers", min=0, help="Number of videos to read at the same time. (default: 4)")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also read files that have not changed.")] = False,
    template: Annotated[
        Where,
        typer.Option(help="Also write a csv to annotate segments in: one row per recording, with its id and length."),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Read the packets of every video and write the catalog; changes no input."""
    from actionprep.datasets.annotation_template import write_template
    from actionprep.datasets.scan import findings_file

    opened = opened_study(study)
    with output.progress_of_steps("scanning", "videos", quiet=json) as step:
        report = opened.scan(
            workers=workers or 4,
            again=again,
            progress=lambda progress: step(progress.total, failures=progress.unreadable),
        )
    catalog = report.catalog
    if template is not None:
        write_template(catalog, template)
    counts = {
        "recordings": len(catalog),
        "views": len(catalog.views),
        "frames": sum(view.num_frames for view in catalog.views),
        "segments": sum(map(len, catalog.segments.values())),
        "labels": len(catalog.labels),
        "subjects": len({recording.subject for recording in catalog.recordings} - {None}),
        "unreadable videos": len(report.unreadable),
    }
    all_findings = findings_file(opened.folder)
    if json:
        findings = [
            {"kind": finding.kind, "where": finding.where, "message": finding.message} for finding in report.findings
        ]
        output.print_json(
            {**counts, "read_now": report.num_probed, "findings": findings, "findings_file": str(all_findings)}
        )
        return
    if report.findings:
        print_findings(report.findings)
        total = len(report.findings)
        output.note(f"{counted(total, 'finding')}, each with its line, in {all_findings}")
    output.print_table("Catalog", ("what", "count"), [(name, f"{count:,}") for name, count in counts.items()])
    output.note(f"{counted(report.num_probed, 'video')} read, {report.num_reused} unchanged since the last scan.")
    if template is not None:
        output.note(f"Wrote {template}. Fill it in, and name it under [study] as segments.")
    if num_unreadable := len(report.unreadable):
        output.warn(
            f"{counted(num_unreadable, 'video')} cannot be read; the others are used without "
            f"{'them' if num_unreadable > 1 else 'it'}."
        )
    if template is not None:
        output.print_next(with_study("actionprep scan", study), "reads the table once it is filled in and named")
        return
    if catalog.recordings and not catalog.labels:
        print_next_without_labels(study)
        return
    output.print_next(with_study("actionprep plan", study), "shows what a build would do")


def config(
    study: StudyOption = None,
    comments: Annotated[bool, typer.Option(help="With each setting's help.")] = True,
    debug: DebugOption = False,
) -> None:
    """Print all current settings, as TOML that reads back to the same settings."""
    from actionprep.datasets.study import render_settings

    output.print_text(render_settings(opened_study(study).settings, comments=comments), end="")


def doctor(
    install: Annotated[
        Text, typer.Option("--install", help="Install a pose backend that pip alone cannot: mediapipe or mmpose.")
    ] = None,
    place: Annotated[
        Text, typer.Option(help="For --install: folder of MediaPipe's environment, or the Python that gets MMPose.")
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List what this machine can use, and how to get the rest; --install installs a pose backend."""
    from rich.text import Text as RichText

    from actionprep.pipeline.doctor import examine
    from actionprep.pipeline.doctor import install as install_backend

    if install is not None:
        done = install_backend(install, place, echo=not json)
        if json:
            output.print_json({"installed": install, "detail": done})
        else:
            output.note(done)
        return
    findings = examine()
    if json:
        output.print_json([finding.document() for finding in findings])
        return
    marks = {"ready": RichText("ready", style="green"), "missing": RichText("missing", style="yellow")}
    output.print_table(
        "This machine",
        ("what", "state", "detail"),
        [
            (finding.name, marks[finding.state], finding.detail if finding.state == "ready" else finding.remedy)
            for finding in findings
        ],
    )


def formats(
    preset: Annotated[
        str | None, typer.Argument(help="Print this list preset as TOML, to copy and change.", show_default=False)
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the formats that can be read and written, with an example line for each, or print a list preset."""
    from actionprep.api import format_example, list_formats

    if preset is not None:
        from actionprep.datasets.annotation_formats.lists import preset_text

        output.print_text(preset_text(preset), end="")
        return
    rows = [(*row, format_example(*row[:2])) for row in list_formats()] + _exports()
    if json:
        output.print_json([dict(zip(("kind", "name", "what", "example"), row, strict=True)) for row in rows])
        return
    for kind, title in _FORMAT_TITLES.items():
        cells = [(name, f"{what}\n{example}".strip()) for row_kind, name, what, example in rows if row_kind == kind]
        output.print_table(title, ("name", "what it is, and an example"), cells, whole=("name",))
        output.print_text("")


_FORMAT_TITLES = {
    "layout": "Layouts of videos",
    "pattern": "File names of data sets",
    "videos": "Videos",
    "segments": "Annotations",
    "poses": "Poses",
    "masks": "Masks",
    "cameras": "Cameras",
    "export": "Exports",
}
"""Kinds of formats in the order of their list, and the title of each."""


def _exports() -> list[tuple[str, str, str, str]]:
    """Return a row for each command of `actionprep export`."""
    from actionprep.cli.prep.export import app

    rows = []
    for command in app.registered_commands:
        function = command.callback
        name = command.name or getattr(function, "__name__", "").replace("_", "-")
        what = (function.__doc__ or "").strip().split("\n")[0] if function is not None else ""
        rows.append(("export", name, what, f"actionprep export {name} TARGET"))
    return rows


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to create; must not be a study.")],
    seed: Annotated[int, typer.Option(help="Equal seeds give equal studies.")] = 0,
    recordings: Annotated[Number, typer.Option(help="Number of recordings.", min=1)] = None,
    debug: DebugOption = False,
) -> None:
    """Render a small multi-view sample study with exact ground truth, ready to build and train."""
    from actionprep.api import make_demo

    with output.progress_of_steps("rendering", "recordings") as step:
        study = make_demo(folder, seed=seed, recordings=recordings, progress=lambda done, total, name: step(total))
    count = len(study.catalog)
    output.note(f"The study of {counted(count, 'recording')} is in {folder}; its ground truth is in {folder}/truth.")
    output.print_next(
        f"cd {folder} && actionprep track --grid 20 --views 0 1 3 6", "tracks points in four of the views"
    )
