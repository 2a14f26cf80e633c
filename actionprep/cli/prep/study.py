"""The commands about the study itself: init, scan, config, doctor, formats, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, Number, StudyOption, Text, Texts, with_study
from actionprep.cli.prep.options import WorkersOption, opened_study


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make a study.")] = Path("."),
    videos: Annotated[Text, typer.Option(help="Folder of the videos.")] = None,
    layout: Annotated[
        Text, typer.Option(help="folder-per-class, views or csv; found out from the other options.")
    ] = None,
    pattern: Annotated[
        Text, typer.Option(help="Layout views: where videos lie, such as {recording}/cam{view}.mp4.")
    ] = None,
    csv: Annotated[Text, typer.Option(help="Layout csv: a table with one row a video or segment.")] = None,
    path_column: Annotated[Text, typer.Option(help="Its column with the path. (default: path)")] = None,
    recording_column: Annotated[Text, typer.Option(help="Its column with the recording's id.")] = None,
    view_column: Annotated[Text, typer.Option(help="Its column with the view.")] = None,
    label_column: Annotated[Text, typer.Option(help="Its column with the label. (default: label)")] = None,
    subject_column: Annotated[Text, typer.Option(help="Its column with the subject.")] = None,
    recordings: Annotated[Text, typer.Option(help="Table with subject, session, label, split of recordings.")] = None,
    segments: Annotated[Texts, typer.Option(help="Annotation files with segments.")] = None,
    offsets: Annotated[Text, typer.Option(help="Table with recording, view, offset of clocks.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an actionprep.toml that is there; write one where no videos are.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Make a folder a study: write its commented actionprep.toml."""
    from actionprep.api import make_study

    given = {
        "videos": videos, "layout": layout, "pattern": pattern, "csv": csv, "path_column": path_column,
        "recording_column": recording_column, "view_column": view_column, "label_column": label_column,
        "subject_column": subject_column, "recordings": recordings, "offsets": offsets,
        "segments": tuple(segments) if segments else None,
    }  # fmt: skip
    study, notes = make_study(folder, {key: value for key, value in given.items() if value is not None}, force=force)
    output.note(f"Wrote {study.folder.settings_file}")
    for line in notes:
        output.note(line)
    output.print_next("actionprep scan", "reads every video once and lists what is wrong")


def scan(
    study: StudyOption = None,
    workers: WorkersOption = None,
    again: Annotated[bool, typer.Option("--again", help="Also read files that have not changed.")] = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Read every video by its packets and write the catalog; changes no input."""
    opened = opened_study(study)
    with output.progress_of_steps("scanning", "videos", quiet=json) as step:
        report = opened.scan(
            workers=workers or 4, again=again, progress=lambda sofar: step(sofar.total, failures=sofar.unreadable)
        )
    catalog = report.catalog
    counts = {
        "recordings": len(catalog),
        "views": len(catalog.views),
        "frames": sum(view.num_frames for view in catalog.views),
        "segments": sum(map(len, catalog.segments.values())),
        "labels": len(catalog.labels),
        "subjects": len({one.subject for one in catalog.recordings} - {None}),
        "unreadable videos": len(report.unreadable),
    }
    if json:
        findings = [{"kind": one.kind, "where": one.where, "message": one.message} for one in report.findings]
        output.print_json({**counts, "read_now": report.num_probed, "findings": findings})
        return
    if report.findings:
        rows = [(one.kind, one.where, one.message) for one in report.findings]
        output.print_table("Findings", ("kind", "where", "what"), rows)
    output.print_table("Catalog", ("what", "count"), [(name, f"{count:,}") for name, count in counts.items()])
    output.note(f"{report.num_probed} videos read, {report.num_reused} unchanged since the last scan.")
    if report.unreadable:
        output.warn(f"{len(report.unreadable)} videos cannot be read; the others go on without them.")
    output.print_next(with_study("actionprep plan", study), "what a build would do")


def config(
    study: StudyOption = None,
    comments: Annotated[bool, typer.Option(help="With each setting's help.")] = True,
    debug: DebugOption = False,
) -> None:
    """Print all settings in force, as TOML that reads back to the same."""
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
    """Say what this machine can use, and how to get the rest; --install gets a pose backend."""
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
        [(one.name, marks[one.state], one.detail if one.state == "ready" else one.remedy) for one in findings],
    )


def formats(json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the layouts, annotation formats and pose formats that are read."""
    from actionprep.api import list_formats

    rows = list_formats()
    if json:
        output.print_json([dict(zip(("kind", "name", "what"), row, strict=True)) for row in rows])
    else:
        output.print_table("Formats", ("kind", "name", "what"), rows)


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to make; must not hold a study yet.")],
    seed: Annotated[int, typer.Option(help="Equal seeds give equal studies.")] = 0,
    recordings: Annotated[Number, typer.Option(help="How many recordings.", min=1)] = None,
    debug: DebugOption = False,
) -> None:
    """Render a small multi-view sample study with known truth, ready to build and train."""
    from actionprep.api import make_demo

    with output.progress_of_steps("rendering", "recordings") as step:
        study = make_demo(folder, seed=seed, recordings=recordings, progress=lambda done, total, name: step(total))
    output.note(f"A study of {len(study.catalog)} recordings is in {folder}; its truth is in {folder}/truth.")
    output.print_next(
        f"cd {folder} && actionprep track --grid 20 --views 0 1 3 6", "tracks points in four of the views"
    )
