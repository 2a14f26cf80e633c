"""The command that imports poses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, Numbers, Real, Text, Where, with_study
from actionprep.cli.prep.build_output import print_findings, print_next_without_labels, report_joints_outside

if TYPE_CHECKING:
    from actionprep.api import ImportedPoses


def import_(
    format: Annotated[str, typer.Argument(help="Format of the poses ('actionprep formats' lists them), or auto.")],
    paths: Annotated[
        list[str],
        typer.Argument(help="Files or folders of a skeleton data set; in a study of videos a pattern with {view}."),
    ],
    study: Annotated[
        Where,
        typer.Option("--study", help="Folder of the study; made if it does not exist. (default: here)"),
    ] = None,
    skeleton: Annotated[str, typer.Option(help="Layout of the joints, if the files do not name it.")] = "",
    coordinates: Annotated[str, typer.Option(help="Of ntu: world, color or depth; of jhmdb: image or world.")] = "",
    image_size: Annotated[
        Numbers,
        typer.Option("--image-size", help="Height and width in px, if the files have no size: --image-size 480 640."),
    ] = None,
    fps: Annotated[Real, typer.Option(help="Frames per second, if the files have no times. (default: 30)")] = None,
    labels: Annotated[
        Where, typer.Option(help="Text file with one class name per line, for classes that are numbers.")
    ] = None,
    recording: Annotated[
        Text, typer.Option(help="In a study of videos: the recording that the file is for. (default: all)")
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Import poses: a skeleton data set without videos, or poses of the videos of this study."""
    from actionprep.api import import_poses
    from actionprep.errors import UserError

    if image_size is not None and len(image_size) != 2:
        raise UserError(f"--image-size takes height and width, got {len(image_size)} numbers.")
    with output.progress_of_steps("importing", "views", quiet=json) as step:
        done = import_poses(
            study or Path("."),
            paths,
            format=format,
            skeleton=skeleton,
            coordinates=coordinates,
            image_size=image_size,
            fps=fps,
            labels=labels,
            recording=recording,
            progress=lambda task, sofar: step(0, failures=len(sofar.quarantined)),
        )
    catalog, report = done.study.catalog, done.report
    counts = {
        "recordings": len(catalog),
        "frames": sum(view.num_frames for view in catalog.views),
        "labels": len(catalog.labels),
        "subjects": len({item.subject for item in catalog.recordings} - {None}),
        "unreadable": sum(view.status != "ok" for view in catalog.views),
        "items made": len(report.built),
        "quarantined": len(report.quarantined),
    }
    if json:
        reasons = {str(key): reason for key, reason in report.quarantined.items()}
        output.print_json(
            {**counts, "splits": list(done.splits), "refused_splits": dict(done.refused_splits), "reasons": reasons}
        )
    else:
        _print_imported(done, counts, study)
    if not report.ok:
        raise typer.Exit(1)


def _print_imported(done: ImportedPoses, counts: dict[str, int], study: Path | None) -> None:
    catalog, report = done.study.catalog, done.report
    output.print_table("Imported", ("what", "count"), [(name, f"{count:,}") for name, count in counts.items()])
    if catalog.findings:
        print_findings(catalog.findings)
        output.note("'actionprep scan' writes all of them to a file.")
    keys = done.study.store.items("pose")
    if sums := done.study.events(keys).get("pose"):
        counted = [(what, f"{count:,}") for what, count in sums.items()]
        output.print_table("Left out, filled in or converted", ("what", "count"), counted)
    report_joints_outside(done.study.joints_outside(keys))
    for name, reason in done.refused_splits.items():
        output.warn(f"The official split '{name}' is not stored: {reason}")
    if done.splits:
        output.note(f"Official splits, to be used with --split: {', '.join(done.splits)}.")
    if report.quarantined:
        rows = [(key, reason) for key, reason in list(report.quarantined.items())[:20]]
        output.print_table("Quarantined", ("item", "reason"), rows)
    if not report.built and not report.done:
        output.warn("Nothing was imported, and actionprep.toml is unchanged.")
    elif done.study.folder.study.layout == "poses" and not catalog.labels:
        print_next_without_labels(study)
    elif done.study.folder.study.layout == "poses":
        output.print_next(with_study("actionprep snippets", study), "makes a sample of each labeled recording")
    else:
        output.print_next(with_study("actionprep show pose", study), "draws them over the videos")
