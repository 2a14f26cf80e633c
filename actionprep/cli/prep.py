"""The `actionprep` command: every sub-command parses, calls the public API, and prints."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, get_type_hints

import typer
from typer.core import TyperCommand

from actionprep.cli.options import (
    DebugOption,
    JsonOption,
    ManyValuesCommand,
    PlainGroup,
    StudyOption,
    guarded,
    settings_parameters,
)

if TYPE_CHECKING:
    from actionprep.api import Study
    from actionprep.datasets.scan import ScanProgress
    from actionprep.pipeline.engine import BuildReport
    from actionprep.pipeline.plan import Plan

STUDY, STAGES, BUILD, LOOK = "Study", "Stages (each builds what it needs first)", "Build", "Look and move"

ViewsOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--views", help="Views by name or 0-based index, any number of them: --views 0 1 3 6."),
]
WorkersOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--workers", min=0, help="Processes; 0 works in this one. (default: one a core)"),
]
SchedulerOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--scheduler", help="Address of a running Dask scheduler, tcp://…, instead of local processes."),
]
SlurmOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--slurm", help="Work in SLURM jobs: options of a job as key=value, such as queue=cpu cores=4 memory=16GB."
    ),
]
RetryOption = Annotated[bool, typer.Option("--retry", help="Try quarantined items again.")]
SkipOption = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--skip-incomplete/--no-skip-incomplete", help="Leave out recordings that lack a wanted view."),
]


class StageGroup(PlainGroup):
    """Adds one command for each stage file, and imports a stage only when its command is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, the stages' after those of the study."""
        from actionprep.pipeline.index import stage_index

        names = super().list_commands(ctx)
        stages = [entry.command for entry in stage_index().values() if entry.command not in names]
        at = names.index("plan")
        return [*names[:at], *stages, *names[at:]]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command, or for a stage what help lists: its name and line. A product's name means its stage too."""
        from actionprep.pipeline.index import stage_index

        found = super().get_command(ctx, cmd_name)
        if found is None:
            for entry in stage_index().values():
                if cmd_name in (entry.command, entry.name):
                    return TyperCommand(entry.command, help=entry.help, rich_help_panel=STAGES)
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is to run; a stage's options are made from its settings here."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name not in self.commands:
            command = stage_command(name)
        return name, command, rest


app = typer.Typer(
    cls=StageGroup,
    help="Turn recordings of actions, from one or many cameras, into one verified Zarr store.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Start with [bold]actionprep demo my-study[/], or [bold]actionprep init[/] in a folder of videos.",
)


def stage_command(command: str) -> Any:
    """The command of one stage, with an option for each of its settings."""
    from actionprep.pipeline.index import stage_index
    from actionprep.pipeline.stage import ArrayStage, find_stage

    entry = next(entry for entry in stage_index().values() if command in (entry.command, entry.name))
    stage = find_stage(entry.name)

    def run(
        study: StudyOption = None,
        views: ViewsOption = None,
        workers: WorkersOption = None,
        scheduler: SchedulerOption = None,
        slurm: SlurmOption = None,
        retry: RetryOption = False,
        skip_incomplete: SkipOption = None,
        json: JsonOption = False,
        debug: DebugOption = False,
        **overrides: Any,
    ) -> None:
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
        given = {key: value for key, value in given.items() if value is not None and value != ()}
        if views and "views" in stage.Settings.model_fields:
            given["views"] = tuple(views)
        work_on(
            _open(study),
            (entry.name,),
            views=views,
            overrides={entry.name: given},
            workers=workers,
            scheduler=scheduler,
            slurm=slurm,
            retry=retry,
            skip_incomplete=skip_incomplete,
            json=json,
        )

    signature = inspect.signature(run)
    common = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    common = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in common]
    if issubclass(stage, ArrayStage):
        common = [one for one in common if one.name not in ("workers", "scheduler", "slurm", "retry")]
    # Annotations are text in this file; Typer needs the types themselves.
    hints = get_type_hints(run, include_extras=True)
    common = [one.replace(annotation=hints[one.name]) for one in common]
    own = settings_parameters(stage.Settings, panel="Settings", taken={one.name for one in common})
    wrapped = guarded(run)
    wrapped.__signature__ = signature.replace(parameters=[*own, *common], return_annotation=None)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in (*own, *common)}
    del wrapped.__wrapped__  # type: ignore[attr-defined]  # Typer would look at the signature behind it
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    single.command(entry.command, cls=ManyValuesCommand, help=f"{entry.help}.\n\n{_stage_help(stage)}")(wrapped)
    return typer.main.get_command(single)


def work_on(
    study: Study,
    stages: tuple[str, ...],
    *,
    views: list[str] | None,
    overrides: dict[str, dict[str, Any]] | None,
    workers: int | None,
    scheduler: str | None,
    slurm: list[str] | None,
    retry: bool,
    skip_incomplete: bool | None,
    json: bool,
) -> None:
    """Plan, say so, build with a progress bar, and end with a table and the next command."""
    from actionprep.cli import output
    from actionprep.pipeline.plan import mixtures

    plan = study.plan(*stages, views=views or (), overrides=overrides, retry=retry, skip_incomplete=skip_incomplete)
    mixed = mixtures(plan, study.store)
    if not json:
        _announce(study, plan, mixed)
    frames = sum(task.num_frames for task in plan.view_tasks)
    unit, total = ("frames", frames) if frames else ("views", len(plan.view_tasks))
    quiet = json or not plan.view_tasks
    with output.progress_bar("building", total, unit, quiet=quiet) as advance:
        report = study.carry_out(
            plan,
            workers=_workers(workers, scheduler, slurm),
            progress=lambda task, sofar: advance(task.num_frames if frames else 1, failures=len(sofar.quarantined)),
        )
    events = study.events(item.key for item in plan.items)
    if json:
        output.print_json({**_report_document(plan, report), "events": events, "mixed": mixed})
    else:
        _tell_outside(study.joints_outside(item.key for item in plan.items))
        has_segments = any(study.catalogue.segments.values())
        _print_report(plan, report, events, has_segments=has_segments)
    if not report.ok:
        raise typer.Exit(1)


@app.command(rich_help_panel=STUDY, cls=ManyValuesCommand)
@guarded
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make a study.")] = Path("."),
    videos: Annotated[Optional[str], typer.Option(help="Folder of the videos.")] = None,  # noqa: UP045
    layout: Annotated[
        Optional[str], typer.Option(help="folder-per-class, views or csv; found out from the other options.")  # noqa: UP045
    ] = None,
    pattern: Annotated[
        Optional[str], typer.Option(help="Layout views: where videos lie, such as {recording}/cam{view}.mp4.")  # noqa: UP045
    ] = None,
    csv: Annotated[Optional[str], typer.Option(help="Layout csv: a table with one row a video or segment.")] = None,  # noqa: UP045
    path_column: Annotated[Optional[str], typer.Option(help="Its column with the path. (default: path)")] = None,  # noqa: UP045
    recording_column: Annotated[Optional[str], typer.Option(help="Its column with the recording's id.")] = None,  # noqa: UP045
    view_column: Annotated[Optional[str], typer.Option(help="Its column with the view.")] = None,  # noqa: UP045
    label_column: Annotated[Optional[str], typer.Option(help="Its column with the label. (default: label)")] = None,  # noqa: UP045
    subject_column: Annotated[Optional[str], typer.Option(help="Its column with the subject.")] = None,  # noqa: UP045
    recordings: Annotated[
        Optional[str], typer.Option(help="Table with subject, session, label, split of recordings.")  # noqa: UP045
    ] = None,
    segments: Annotated[Optional[list[str]], typer.Option(help="Annotation files with segments.")] = None,  # noqa: UP045
    offsets: Annotated[Optional[str], typer.Option(help="Table with recording, view, offset of clocks.")] = None,  # noqa: UP045
    force: Annotated[
        bool, typer.Option("--force", help="Replace an actionprep.toml that is there; write one where no videos are.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Make a folder a study: write its commented actionprep.toml."""
    from actionprep.api import make_study
    from actionprep.cli import output

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


@app.command(rich_help_panel=STUDY, cls=ManyValuesCommand)
@guarded
def scan(
    study: StudyOption = None,
    workers: WorkersOption = None,
    again: Annotated[bool, typer.Option("--again", help="Also read files that have not changed.")] = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Read every video by its packets and write the catalogue; changes no input."""
    from actionprep.cli import output

    opened = _open(study)
    with ExitStack() as stack:
        bar: list[Any] = []

        def progress(sofar: ScanProgress) -> None:
            if not bar:
                bar.append(stack.enter_context(output.progress_bar("scanning", sofar.total, "videos", quiet=json)))
            bar[0](1, failures=sofar.unreadable)

        report = opened.scan(workers=workers or 4, again=again, progress=progress)
    catalogue = report.catalogue
    counts = {
        "recordings": len(catalogue),
        "views": len(catalogue.views),
        "frames": sum(view.num_frames for view in catalogue.views),
        "segments": sum(map(len, catalogue.segments.values())),
        "labels": len(catalogue.labels),
        "subjects": len({one.subject for one in catalogue.recordings} - {None}),
        "unreadable videos": len(report.unreadable),
    }
    if json:
        findings = [{"kind": one.kind, "where": one.where, "message": one.message} for one in report.findings]
        output.print_json({**counts, "read_now": report.num_probed, "findings": findings})
        return
    if report.findings:
        rows = [(one.kind, one.where, one.message) for one in report.findings]
        output.print_table("Findings", ("kind", "where", "what"), rows)
    output.print_table("Catalogue", ("what", "count"), [(name, f"{count:,}") for name, count in counts.items()])
    output.note(f"{report.num_probed} videos read, {report.num_reused} unchanged since the last scan.")
    if report.unreadable:
        output.warn(f"{len(report.unreadable)} videos cannot be read; the others go on without them.")
    output.print_next("actionprep plan", "what a build would do")


@app.command(rich_help_panel=STUDY, cls=ManyValuesCommand)
@guarded
def config(
    study: StudyOption = None,
    comments: Annotated[bool, typer.Option(help="With each setting's help.")] = True,
    debug: DebugOption = False,
) -> None:
    """Print all settings in force, as TOML that reads back to the same."""
    from actionprep.datasets.study import render_settings

    print(render_settings(_open(study).settings, comments=comments), end="")


@app.command(rich_help_panel=STUDY, cls=ManyValuesCommand)
@guarded
def doctor(
    install: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--install", help="Install a pose backend that pip alone cannot: mediapipe or mmpose."),
    ] = None,
    place: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For --install: folder of MediaPipe's environment, or the Python that gets MMPose."),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what this machine can use, and how to get the rest; --install gets a pose backend."""
    from rich.text import Text

    from actionprep.cli import output
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
    marks = {"ready": Text("ready", style="green"), "missing": Text("missing", style="yellow")}
    output.print_table(
        "This machine",
        ("what", "state", "detail"),
        [(one.name, marks[one.state], one.detail if one.state == "ready" else one.remedy) for one in findings],
    )


@app.command(rich_help_panel=STUDY, cls=ManyValuesCommand)
@guarded
def formats(json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the layouts, annotation formats and pose formats that are read."""
    from actionprep.api import list_formats
    from actionprep.cli import output

    rows = list_formats()
    if json:
        output.print_json([dict(zip(("kind", "name", "what"), row, strict=True)) for row in rows])
    else:
        output.print_table("Formats", ("kind", "name", "what"), rows)


@app.command(rich_help_panel=LOOK, cls=ManyValuesCommand)
@guarded
def skeletons(
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            help="Layouts to draw, by name or as TOML files; without any, all are listed, or drawn with --out."
        ),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="The picture. (default: skeletons.png)"),
    ] = None,
    to: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--to", help="Draw this layout beside, and say what a conversion to it keeps, derives and loses."),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the skeleton layouts; draw those that are named."""
    from actionprep.api import list_skeletons
    from actionprep.cli import output
    from actionprep.datasets.skeletons import conversion, skeleton_names
    from actionprep.errors import UserError
    from actionprep.show.layouts import draw_layouts

    if not names and to is not None:
        raise UserError("Name the layouts to convert, such as 'actionprep skeletons mediapipe33 --to coco17'.")
    if names or out is not None:
        losses = [str(conversion(name, to)) for name in names or ()] if to else []
        place = out or Path("skeletons.png")
        replaced = place.exists()
        drawn = [*(names or skeleton_names()), *([to] if to else [])]
        path = draw_layouts(list(dict.fromkeys(drawn)), place)
        if json:
            output.print_json({"picture": str(path), "conversions": losses})
            return
        for line in losses:
            output.note(line)
        output.note(f"{'Replaced' if replaced else 'Wrote'} {path}")
        return
    layouts = list_skeletons()
    if json:
        output.print_json(layouts)
        return
    rows = [
        (one["name"], len(one["joints"]), one["limbs"], one["pairs"], f"{one['dimensions']}D", one["title"])
        for one in layouts
    ]
    output.print_table("Skeletons", ("name", "joints", "limbs", "pairs", "", "what"), rows)
    output.print_next("actionprep skeletons coco17", "draws that one; a TOML file of your own is drawn too")


@app.command(rich_help_panel=BUILD, cls=ManyValuesCommand)
@guarded
def plan(
    stages: Annotated[Optional[list[str]], typer.Argument(help="Stages; those of the settings when none.")] = None,  # noqa: UP045
    study: StudyOption = None,
    views: ViewsOption = None,
    retry: RetryOption = False,
    skip_incomplete: SkipOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what a build would do, why, and about how many bytes it would write."""
    from actionprep.cli import output
    from actionprep.pipeline.plan import mixtures

    opened = _open(study)
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
            }
        )
        return
    _print_plan(planned)
    _warn_of(mixed)
    frames = sum(task.num_frames for task in planned.view_tasks)
    if planned.count("build"):
        output.note(f"{len(planned.view_tasks)} views to go through once, {frames:,} frames to decode.")
        output.print_next("actionprep build", "carries this out")
    else:
        output.note("Everything is there.")


@app.command(rich_help_panel=BUILD, cls=ManyValuesCommand)
@guarded
def build(
    stages: Annotated[Optional[list[str]], typer.Argument(help="Stages; those of the settings when none.")] = None,  # noqa: UP045
    study: StudyOption = None,
    views: ViewsOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    slurm: SlurmOption = None,
    retry: RetryOption = False,
    skip_incomplete: SkipOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make everything that the settings ask for and the store lacks."""
    work_on(
        _open(study), tuple(stages or ()), views=views, overrides=None, workers=workers, scheduler=scheduler,
        slurm=slurm, retry=retry, skip_incomplete=skip_incomplete, json=json,
    )  # fmt: skip


@app.command(rich_help_panel=BUILD, cls=ManyValuesCommand)
@guarded
def status(study: StudyOption = None, json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show what the store holds, what is quarantined and why, and what a build would still do."""
    from actionprep.cli import output

    opened = _open(study)
    facts = opened.status()
    if json:
        output.print_json(facts)
        return
    output.print_table(
        f"{opened.folder.name}: {facts['recordings']} recordings, {facts['views']} views, store {facts['store']}",
        ("product", "items", "arrays", "made with", "against the settings"),
        [
            (one["product"], one["items"], output.bytes_text(one["nbytes"]), one["made_with"], one["against_settings"])
            for one in facts["products"]
        ],
    )
    if facts["alignment"]:
        output.print_table(
            "Views that do not lie together",
            ("recording", "kind", "what"),
            [(one["recording"], one["kind"], one["what"]) for one in facts["alignment"]],
        )
    for one in facts["products"]:
        if one["made_otherwise"]:
            output.warn(_otherwise(one["product"], one["made_otherwise"]))
    _tell_outside([(one["item"], one["outside"], one["seen"]) for one in facts["joints_outside"]])
    if facts["problem"]:
        output.warn(f"A build would stop: {facts['problem']}")
    if facts["quarantined"]:
        output.print_table(
            "Quarantined",
            ("item", "reason", "frame"),
            [(one["item"], one["reason"], one["frame"]) for one in facts["quarantined"]],
        )
        output.note("Mend the files, then build again; build --retry tries them as they are.")


def _otherwise(product: str, differing: list[dict[str, Any]]) -> str:
    """That a build would make a product anew, since it was made with other settings than the file's."""
    from actionprep.datasets.study import toml_text

    stored = ", ".join(f"{one['setting']} = {' or '.join(map(toml_text, one['stored']))}" for one in differing)
    said = ", ".join(f"{one['setting']} = {toml_text(one['file'])}" for one in differing)
    return (
        f"'{product}' was made with {stored}, and actionprep.toml says {said}: a build would make "
        f"{max(one['items'] for one in differing)} item(s) of it anew. To keep what is there, write its settings under "
        f"[{product}]."
    )


@app.command(rich_help_panel=BUILD, cls=ManyValuesCommand)
@guarded
def verify(
    study: StudyOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Make damaged items anew.")] = False,
    workers: WorkersOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Prove every item complete and unchanged by its checksums."""
    from actionprep.cli import output

    opened = _open(study)
    damaged, num_items = [], 0
    with output.progress_bar("verifying", len(opened.store.items()), "items", quiet=json) as advance:
        for _, damage in opened.store.verify():
            num_items += 1
            if damage is not None:
                damaged.append(damage)
            advance(1, failures=len(damaged))
    repaired = opened.repair(damaged, workers=_workers(workers, None, None)) if repair and damaged else None
    if json:
        output.print_json(
            {
                "items": num_items,
                "damaged": [{"item": str(one.key), "reason": one.reason} for one in damaged],
                "repaired": [] if repaired is None else [str(key) for key in repaired.built],
                "not_repaired": {} if repaired is None else _not_repaired(repaired),
            }
        )
    elif not damaged:
        output.note(f"{num_items} items, all whole.")
    else:
        output.print_table("Damaged", ("item", "what"), [(one.key, one.reason) for one in damaged])
        if repaired is not None:
            output.note(f"{len(repaired.built)} items made anew.")
            if left := _not_repaired(repaired):
                output.print_table("Not repaired", ("item", "why"), list(left.items()))
        else:
            output.print_next("actionprep verify --repair", "makes just these anew")
    whole = repaired is not None and {one.key for one in damaged} <= set(repaired.built)
    if damaged and not whole:
        raise typer.Exit(1)


@app.command(rich_help_panel=BUILD, cls=ManyValuesCommand)
@guarded
def digest(study: StudyOption = None, json: JsonOption = False, debug: DebugOption = False) -> None:
    """Print one hash of all content: equal for equal builds."""
    from actionprep.cli import output

    store = _open(study).store
    if json:
        output.print_json({"digest": store.digest(), "items": len(store.items())})
    else:
        print(store.digest())


@app.command(rich_help_panel=BUILD, cls=ManyValuesCommand)
@guarded
def gc(
    study: StudyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; otherwise only list.")] = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List, or with --yes delete, items whose recording or view is no longer in the catalogue."""
    from actionprep.cli import output

    opened = _open(study)
    stray = opened.stray_items()
    if yes:
        opened.remove_items(stray)
    if json:
        output.print_json({"stray": [str(key) for key in stray], "deleted": yes})
        return
    for key in stray:
        output.note(str(key))
    output.note(f"{len(stray)} items belong to nothing in the catalogue{'; deleted' if yes else ''}.")
    if stray and not yes:
        output.print_next("actionprep gc --yes", "deletes them")


@app.command(rich_help_panel=LOOK, cls=ManyValuesCommand)
@guarded
def show(
    product: Annotated[
        str,
        typer.Argument(
            help="video, frames, keyframes, lowres, masks, tracks, pose, heatmaps, segments, snippets or split."
        ),
    ],
    recording: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="Recording; the first that has it, or for segments and snippets all, when left out."),
    ] = None,
    study: StudyOption = None,
    views: ViewsOption = None,
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="A .png contact sheet or a .mp4. (default: show/<name>.png)")  # noqa: UP045
    ] = None,
    columns: Annotated[int, typer.Option(help="Pictures beside each other on a contact sheet.", min=1, max=20)] = 6,
    rows: Annotated[int, typer.Option(help="Moments shown, one a row for several views.", min=1, max=50)] = 4,
    start: Annotated[Optional[float], typer.Option("--from", help="Begin at this time of the recording, in s.")] = None,  # noqa: UP045
    stop: Annotated[Optional[float], typer.Option("--to", help="End before this time of the recording, in s.")] = None,  # noqa: UP045
    whole: Annotated[
        bool, typer.Option("--whole", help="Whole pictures, not cut to where something is drawn.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Draw an item: a contact sheet (.png) or a film (.mp4)."""
    from actionprep.cli import output
    from actionprep.show import show_item

    replaced: list[Path] = []
    with ExitStack() as stack:
        bar: list[Any] = []

        def progress(done: int, total: int) -> None:
            if not bar:
                bar.append(stack.enter_context(output.progress_bar("filming", total, "frames")))
            bar[0](1)

        path = show_item(
            _open(study), product, recording, views=views or (), out=out, columns=columns, rows=rows,
            start=start, stop=stop, whole=whole, progress=progress, replacing=replaced.append,
        )  # fmt: skip
    output.note(f"{'Replaced' if replaced else 'Wrote'} {path}")


@app.command("import", rich_help_panel=LOOK, cls=ManyValuesCommand)
@guarded
def import_(
    format: Annotated[str, typer.Argument(help="Format of the poses ('actionprep formats' lists them), or auto.")],
    paths: Annotated[
        list[str],
        typer.Argument(help="Files or folders of a skeleton data set; in a study of videos a pattern with {view}."),
    ],
    study: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--study", help="Folder of the study, made when it is none. (default: the current folder)"),
    ] = None,
    skeleton: Annotated[str, typer.Option(help="Layout of the joints, where the files do not say.")] = "",
    coordinates: Annotated[str, typer.Option(help="Of ntu: world, color or depth; of jhmdb: image or world.")] = "",
    image_size: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option("--image-size", help="Height and width in px, where the files do not say: --image-size 480 640."),
    ] = None,
    fps: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Frames a second, where the files do not say. (default: 30)"),
    ] = None,
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Text file with the classes' names, one a line, for classes that are numbers."),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take over poses that are there: a skeleton data set without videos, or poses of this study's videos."""
    from actionprep.api import import_poses
    from actionprep.cli import output
    from actionprep.errors import UserError

    if image_size is not None and len(image_size) != 2:
        raise UserError(f"--image-size takes height and width, got {len(image_size)} numbers.")
    with ExitStack() as stack:
        bar: list[Any] = []

        def progress(task: Any, sofar: Any) -> None:
            if not bar:
                bar.append(stack.enter_context(output.progress_bar("importing", 0, "views", quiet=json)))
            bar[0](1, failures=len(sofar.quarantined))

        done = import_poses(
            study or Path("."), paths, format=format, skeleton=skeleton, coordinates=coordinates,
            image_size=image_size, fps=fps, labels=labels, progress=progress,
        )  # fmt: skip
    catalogue, report = done.study.catalogue, done.report
    counts = {
        "recordings": len(catalogue),
        "frames": sum(view.num_frames for view in catalogue.views),
        "labels": len(catalogue.labels),
        "subjects": len({one.subject for one in catalogue.recordings} - {None}),
        "unreadable": sum(view.status != "ok" for view in catalogue.views),
        "items made": len(report.built),
        "quarantined": len(report.quarantined),
    }
    if json:
        reasons = {str(key): reason for key, reason in report.quarantined.items()}
        output.print_json(
            {**counts, "splits": list(done.splits), "refused_splits": dict(done.refused_splits), "reasons": reasons}
        )
    else:
        output.print_table("Imported", ("what", "count"), [(name, f"{count:,}") for name, count in counts.items()])
        for finding in catalogue.findings[:8]:
            output.warn(f"{finding.kind}: {finding.where}: {finding.message}")
        if len(catalogue.findings) > 8:
            output.warn(f"and {len(catalogue.findings) - 8} more; 'actionprep scan' lists them.")
        keys = done.study.store.items("pose")
        if sums := done.study.events(keys).get("pose"):
            told = [(what, f"{count:,}") for what, count in sums.items()]
            output.print_table("Left out, filled in or converted", ("what", "count"), told)
        _tell_outside(done.study.joints_outside(keys))
        for name, reason in done.refused_splits.items():
            output.warn(f"The official split '{name}' is not stored: {reason}")
        if done.splits:
            output.note(f"Official splits, to be used with --split: {', '.join(done.splits)}.")
        if report.quarantined:
            rows = [(key, reason) for key, reason in list(report.quarantined.items())[:20]]
            output.print_table("Quarantined", ("item", "reason"), rows)
        if not report.built and not report.done:
            output.warn("Nothing was imported, and actionprep.toml is as it was.")
        elif done.study.folder.study.layout == "poses":
            output.print_next("actionprep snippets", "makes a sample of each labelled recording")
        else:
            output.print_next("actionprep show pose", "draws them over the videos")
    if not report.ok:
        raise typer.Exit(1)


@app.command(rich_help_panel=STUDY, cls=ManyValuesCommand)
@guarded
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to make; must not hold a study yet.")],
    seed: Annotated[int, typer.Option(help="Equal seeds give equal studies.")] = 0,
    recordings: Annotated[Optional[int], typer.Option(help="How many recordings.", min=1)] = None,  # noqa: UP045
    debug: DebugOption = False,
) -> None:
    """Render a small multi-view sample study with known truth, ready to build and train."""
    from actionprep.api import make_demo
    from actionprep.cli import output

    with ExitStack() as stack:
        bar: list[Any] = []

        def progress(done: int, total: int, name: str) -> None:
            if not bar:
                bar.append(stack.enter_context(output.progress_bar("rendering", total, "recordings")))
            bar[0](1)

        study = make_demo(folder, seed=seed, recordings=recordings, progress=progress)
    output.note(f"A study of {len(study.catalogue)} recordings is in {folder}; its truth is in {folder}/truth.")
    output.print_next(
        f"cd {folder} && actionprep track --grid 20 --views 0 1 3 6", "tracks points in four of the views"
    )


def _tell_outside(found: Sequence[tuple[Any, int, int]]) -> None:
    """The share of the joints of imported poses that lie outside of the picture, as a note or, where large, a warning."""
    from actionprep.cli import output

    if not found:
        return
    outside, seen = sum(one for _, one, _ in found), sum(one for _, _, one in found)
    worst, out, of = max(found, key=lambda one: one[1] / one[2])
    text = (
        f"{outside:,} of the {seen:,} joints ({outside / seen:.1%}) of {len(found)} imported item(s) lie outside of the "
        f"picture; most in {worst} ({out / of:.1%})."
    )
    if out / of > 0.05:
        output.warn(f"{text} Look at them: actionprep show pose")
    else:
        output.note(text)


def _not_repaired(report: BuildReport) -> dict[str, str]:
    return {str(key): reason for key, reason in (report.quarantined | report.blocked).items()}


def _open(study: Path | None) -> Study:
    from actionprep.api import open_study
    from actionprep.cli import output

    return open_study(study, tell=output.warn)


def _workers(count: int | None, scheduler: str | None, slurm: list[str] | None) -> Any:
    import os

    from actionprep.errors import UserError
    from actionprep.pipeline.engine import Workers

    options = None
    if slurm:
        wrong = [one for one in slurm if "=" not in one]
        if wrong:
            raise UserError(f"--slurm takes key=value options, such as queue=cpu; got {wrong[0]!r}.")
        options = {key: int(value) if value.isdigit() else value for key, value in (one.split("=", 1) for one in slurm)}
    if count is None:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Workers(count, scheduler, options)


def _announce(study: Study, plan: Plan, mixed: list[str]) -> None:
    from actionprep.cli import output

    views = len(plan.view_tasks)
    frames = sum(task.num_frames for task in plan.view_tasks)
    todo = plan.count("build")
    output.note(f"{study.folder.name}: {todo} items to make, {plan.count('done')} are there.")
    if views:
        output.note(f"{views} views, {frames:,} frames to decode.")
    if plan.skipped:
        output.warn(
            f"{len(plan.skipped)} recordings lack a wanted view and are left out: {', '.join(plan.skipped[:5])}"
        )
    _warn_of(mixed)


def _warn_of(mixed: list[str]) -> None:
    from actionprep.cli import output

    for sentence in mixed:
        output.warn(sentence)
    if mixed:
        output.warn(
            "Training takes them for alike. Run the same command for all views, or write the settings into "
            "actionprep.toml and run 'actionprep build'."
        )


def _print_plan(plan: Plan) -> None:
    from collections import Counter

    from actionprep.cli import output

    rows = []
    for name, row in plan.by_stage().items():
        why = Counter(item.why for item in plan.items if item.key.product == name and item.action == "build")
        reasons = ", ".join(f"{text} ({count})" for text, count in why.most_common(3))
        rows.append(
            (
                name,
                row["build"],
                row["done"],
                row["quarantined"] + row["blocked"],
                output.bytes_text(row["nbytes"]),
                reasons,
            )
        )
    output.print_table("Plan", ("stage", "to make", "there", "quarantined", "arrays", "why"), rows)


def _print_report(plan: Plan, report: BuildReport, events: dict[str, dict[str, int]], *, has_segments: bool) -> None:
    from collections import Counter

    from actionprep.cli import output

    built = Counter(key.product for key in report.built)
    there = Counter(item.key.product for item in plan.items if item.action == "done")
    failed = Counter(key.product for key in (*report.quarantined, *report.blocked))
    names = list(dict.fromkeys(item.key.product for item in plan.items))
    output.print_table(
        "",
        ("stage", "made", "were there", "quarantined"),
        [(name, built[name], there[name], failed[name]) for name in names],
    )
    rate = f", {report.num_frames / report.seconds:,.0f} frames/s" if report.num_frames and report.seconds else ""
    output.note(f"{output.bytes_text(report.nbytes)} of arrays made in {output.duration_text(report.seconds)}{rate}.")
    if report.concealed or report.missing:
        output.warn(f"Frames that the decoder concealed: {report.concealed}; that were missing: {report.missing}.")
    if events:
        sums = [(name, what, f"{count:,}") for name, one in events.items() for what, count in one.items()]
        output.print_table("Left out, filled in or converted", ("stage", "what", "count"), sums)
    if report.quarantined:
        first = list(report.quarantined.items())[:20]
        output.print_table("Quarantined", ("item", "reason"), first)
        output.note("Neighbours went on. 'actionprep status' lists all.")
    # Tables of the whole study may have other names than "default", which the next command then needs.
    tables = {item.key.product: item.key.recording for item in plan.items if not item.key.view}
    named = {product: name for product, name in tables.items() if name != "default"}
    if "snippets" in names:
        which = f" --snippets {named['snippets']}" if "snippets" in named else ""
        output.print_next(f"actiontrain fit{which}", "trains on these snippets")
    elif "tracks" in names:
        # Clips that are one labelled whole are one snippet each.
        options = " --length 1000 --iou 0.5" if has_segments else ""
        output.print_next(f"actionprep snippets{options}", "cuts labelled windows")
    elif names:
        last = f"{names[-1]}/{named[names[-1]]}" if names[-1] in named else names[-1]
        output.print_next(f"actionprep show {last}", "draws what was made")


def _report_document(plan: Plan, report: BuildReport) -> dict[str, Any]:
    return {
        "built": [str(key) for key in report.built],
        "done": report.done,
        "quarantined": {str(key): reason for key, reason in report.quarantined.items()},
        "blocked": {str(key): reason for key, reason in report.blocked.items()},
        "frames": report.num_frames,
        "concealed": report.concealed,
        "missing": report.missing,
        "nbytes": report.nbytes,
        "seconds": round(report.seconds, 3),
    }


def _stage_help(stage: Any) -> str:
    """What the stage makes, in a paragraph; lists of arrays stand in the specification of the store."""
    first = (stage.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(line.strip() for line in first.splitlines())
