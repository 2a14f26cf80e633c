"""The commands that plan and build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Texts, with_study
from actionprep.cli.prep.build_output import (
    announce,
    print_kept,
    print_plan,
    print_report,
    report_document,
    report_joints_outside,
    save_kept,
    warn_of_damage,
    warn_of_mixtures,
)
from actionprep.cli.prep.options import (
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

if TYPE_CHECKING:
    from pathlib import Path

    from actionprep.api import Study
    from actionprep.pipeline.plan import Plan
    from actionprep.pipeline.tasks import Workers

StagesArgument = Annotated[Texts, typer.Argument(help="Stages; those of the settings when none.")]


def plan(
    stages: StagesArgument = None,
    study: StudyOption = None,
    views: ViewsOption = None,
    retry: RetryOption = False,
    skip_incomplete: SkipOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what a build would do, why, and about how many bytes it would write."""
    from actionprep.pipeline.plan import mixtures

    opened = opened_study(study)
    planned = opened.plan(*(stages or ()), views=views or (), retry=retry, skip_incomplete=skip_incomplete)
    mixed = mixtures(planned, opened.store)
    if json:
        output.print_json(
            {
                "stages": planned.by_stage(),
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
    print_plan(planned)
    print_kept(planned, study)
    warn_of_damage(planned.notes)
    warn_of_mixtures(mixed)
    frames = sum(task.num_frames for task in planned.view_tasks)
    if planned.count("build"):
        output.note(f"{len(planned.view_tasks)} views to go through once, {frames:,} frames to decode.")
        output.print_next(with_study("actionprep build", study), "carries this out")
    else:
        output.note("Everything is there.")


def build(
    stages: StagesArgument = None,
    study: StudyOption = None,
    views: ViewsOption = None,
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
    """Make everything that the settings ask for and the store lacks."""
    from actionprep.errors import UserError

    if save and reset:
        raise UserError("--save and --reset exclude each other: give one of them.")
    opened = opened_study(study)
    planned = opened.plan(*(stages or ()), views=views or (), retry=retry, skip_incomplete=skip_incomplete, reset=reset)
    if save:
        save_kept(opened, planned, quiet=json)
    elif not json:
        print_kept(planned, study)
    carry_out(opened, planned, workers=workers_of(workers, scheduler, slurm), json=json, named=study)


def carry_out(study: Study, plan: Plan, *, workers: Workers, json: bool, named: Path | None = None) -> None:
    """Say what will be done, build with a progress bar, and end with a table and the next command.

    named: the study's folder, where --study named it.
    """
    from actionprep.pipeline.plan import mixtures

    mixed = mixtures(plan, study.store)
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
    events = study.events(item.key for item in plan.items)
    if json:
        output.print_json({**report_document(report), "events": events, "mixed": mixed, "damaged": list(plan.notes)})
    else:
        report_joints_outside(study.joints_outside(item.key for item in plan.items))
        has_segments = any(study.catalog.segments.values())
        print_report(plan, report, events, has_segments=has_segments, study=named)
    if not report.ok:
        raise typer.Exit(1)
