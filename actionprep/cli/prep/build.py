"""The commands `actionprep plan` and `actionprep build`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Texts, with_study
from actionprep.cli.prep.build_output import (
    announce,
    print_kept,
    print_keyframes,
    print_plan,
    print_report,
    print_tracks,
    print_views,
    report_document,
    report_joints_outside,
    save_kept,
    views_document,
    views_of_plan,
    warn_of_damage,
    warn_of_mixtures,
)
from actionprep.cli.prep.options import (
    RecordingsOption,
    ResetOption,
    RetryOption,
    SaveOption,
    SchedulerOption,
    SkipOption,
    SlurmOption,
    ViewsOption,
    WorkersOption,
    opened_study,
    workers_of,
)
from actionprep.json_values import counted

if TYPE_CHECKING:
    from pathlib import Path

    from actionprep.api import Study
    from actionprep.pipeline.plan import Plan
    from actionprep.pipeline.view_tasks import Workers

StagesArgument = Annotated[Texts, typer.Argument(help="Stages. (default: those of the settings)")]


def plan(
    stages: StagesArgument = None,
    study: StudyOption = None,
    views: ViewsOption = None,
    recordings: RecordingsOption = None,
    retry: RetryOption = False,
    skip_incomplete: SkipOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what a build would do, why, and roughly how many bytes it would write."""
    from actionprep.pipeline.plan import mixtures

    opened = opened_study(study)
    planned = opened.plan(
        *(stages or ()), views=views or (), recordings=recordings or (), retry=retry, skip_incomplete=skip_incomplete
    )
    mixed = mixtures(planned, planned.store or opened.store)
    if json:
        output.print_json(
            {
                "stages": planned.by_stage(),
                "views": views_document(views_of_plan(opened, planned)),
                "frames_to_decode": sum(task.num_frames for task in planned.view_tasks),
                "items": [
                    {"item": str(item.key), "action": item.action, "why": item.why, "nbytes": item.nbytes}
                    for item in planned.items
                ],
                "skipped_recordings": list(planned.skipped),
                "mixed": mixed,
                "damaged": list(planned.notes),
            }
        )
        return
    print_views(views_of_plan(opened, planned))
    print_plan(planned)
    print_kept(planned, study)
    warn_of_damage(planned.notes)
    warn_of_mixtures(mixed)
    frames = sum(task.num_frames for task in planned.view_tasks)
    if planned.count("build"):
        output.note(f"{counted(len(planned.view_tasks), 'view')} to process, {counted(frames, 'frame')} to decode.")
        output.print_next(with_study("actionprep build", study), "builds these items")
    else:
        output.note("All items are built.")
        output.print_next(with_study("actionprep status", study), "lists all products")


def build(
    stages: StagesArgument = None,
    study: StudyOption = None,
    views: ViewsOption = None,
    recordings: RecordingsOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    slurm: SlurmOption = None,
    retry: RetryOption = False,
    save: SaveOption = False,
    reset: ResetOption = False,
    skip_incomplete: SkipOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Build all products of the settings that are missing in the store."""
    from actionprep.errors import UserError

    if save and reset:
        raise UserError("--save and --reset exclude each other: give one of them.")
    opened = opened_study(study)
    planned = opened.plan(
        *(stages or ()),
        views=views or (),
        recordings=recordings or (),
        retry=retry,
        skip_incomplete=skip_incomplete,
        reset=reset,
    )
    if save:
        save_kept(opened, planned, quiet=json)
    elif not json:
        print_kept(planned, study)
    carry_out(opened, planned, workers=workers_of(workers, scheduler, slurm), json=json, named=study)


def carry_out(study: Study, plan: Plan, *, workers: Workers, json: bool, named: Path | None = None) -> None:
    """Announce a build, run it with a progress bar, and print a table and the next command.

    Args:
        study: The study.
        plan: The plan to build.
        workers: Processes, scheduler or cluster to use.
        json: Print one JSON document instead.
        named: Folder of the study, if --study was given.
    """
    from actionprep.pipeline.plan import mixtures

    mixed = mixtures(plan, plan.store or study.store)
    if not json:
        announce(study, plan, mixed)
    frames = sum(task.num_frames for task in plan.view_tasks)
    unit, total = ("frames", frames) if frames else ("views", len(plan.view_tasks))
    quiet = json or not plan.view_tasks
    with output.progress_bar("building", total, unit, quiet=quiet) as advance:
        report = study.carry_out(
            plan,
            workers=workers,
            progress=lambda task, sofar: advance(task.num_frames if frames else 1, failures=len(sofar.quarantined)),
        )
    finished = (
        plan.store if plan.store is not None and not (report.built or report.quarantined) else study.store.snapshot()
    )
    events = study.events((item.key for item in plan.items), store=finished)
    results = study.results(item.key for item in plan.items)
    if json:
        tables = {
            str(key): [dict(zip(table.columns, row, strict=True)) for row in table.rows]
            for key, table in results.items()
        }
        views = views_document(views_of_plan(study, plan))
        document = {**report_document(report), "views": views, "events": events, "results": tables, "mixed": mixed}
        document["damaged"] = list(plan.notes)
        keys = [item.key for item in plan.items]
        summaries = {
            "tracks": study.track_summary(keys, store=finished),
            "keyframes": study.keyframe_summary(keys, store=finished),
        }
        output.print_json({**document, **{name: values for name, values in summaries.items() if values is not None}})
    else:
        report_joints_outside(study.joints_outside((item.key for item in plan.items), store=finished))
        has_segments = any(study.catalog.segments.values())
        print_keyframes(study.keyframe_summary((item.key for item in plan.items), store=finished))
        print_tracks(study.track_summary((item.key for item in plan.items), store=finished))
        print_report(plan, report, events, results, has_segments=has_segments, study=named)
    if not report.ok:
        raise typer.Exit(1)
