"""Console output of plans, builds and warnings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from actionprep.cli import output
from actionprep.cli.options import with_study
from actionprep.errors import name_list
from actionprep.json_values import counted

if TYPE_CHECKING:
    from pathlib import Path

    from actionprep.api import Study
    from actionprep.datasets.findings import Finding
    from actionprep.datasets.recordings import View
    from actionprep.datasets.store.keys import ItemKey
    from actionprep.pipeline.engine import BuildReport
    from actionprep.pipeline.plan import Plan
    from actionprep.pipeline.stage import ResultTable
    from actionprep.pipeline.timings import Timings
    from actionprep.settings import StageSettings


def views_of_plan(study: Study, plan: Plan) -> list[View]:
    """Return the views that a plan works on, in the order of the catalog."""
    keys = {(item.key.recording, item.key.view) for item in plan.items if item.key.view}
    return [view for view in study.catalog.views if (view.recording, view.id) in keys]


def print_views(views: Sequence[View]) -> None:
    """Print the views that a command works on, each with its file, and the number of recordings.

    A view has a file in every recording; the one of the first recording is printed, with its folder where the names of
    the files are equal.
    """
    if not views:
        return
    files: dict[str, str] = {}
    for view in views:
        files.setdefault(view.id, view.path)
    names = {id: PurePosixPath(path).name for id, path in files.items()}
    if len(set(names.values())) < len(names):
        names = {id: "/".join(PurePosixPath(path).parts[-2:]) for id, path in files.items()}
    shown = name_list([f"{id} ({name})" for id, name in names.items()], _SHOWN_VIEWS)
    count = len({view.recording for view in views})
    where = f"recording {views[0].recording}" if count == 1 else f"{count:,} recordings, such as {views[0].recording}"
    output.note(f"View{'s'[: len(names) != 1]} {shown} of {where}.")


def views_document(views: Sequence[View]) -> list[dict[str, str]]:
    """Return the same facts as plain values, for every view."""
    return [{"recording": view.recording, "view": view.id, "path": view.path} for view in views]


_SHOWN_VIEWS = 16


def announce(study: Study, plan: Plan, mixed: list[str]) -> None:
    """Print what a build will do."""
    print_views(views_of_plan(study, plan))
    views = len(plan.view_tasks)
    frames = sum(task.num_frames for task in plan.view_tasks)
    todo = plan.count("build")
    output.note(f"{study.folder.name}: {counted(todo, 'item')} to build, {plan.count('done'):,} already built.")
    if views:
        output.note(f"{counted(views, 'view')}, {counted(frames, 'frame')} to decode.")
    if plan.skipped:
        names = name_list(plan.skipped)
        output.warn(f"Skipped {counted(len(plan.skipped), 'recording')} without all selected views: {names}.")
    warn_of_damage(plan.notes)
    warn_of_mixtures(mixed)


def warn_of_damage(notes: Sequence[str], most: int = 5) -> None:
    """Warn about items with damaged metadata, and name the settings that they are rebuilt with."""
    for note in notes[:most]:
        output.warn(note)
    if len(notes) > most:
        output.warn(
            f"{counted(len(notes) - most, 'more item')} with damaged metadata. Run 'actionprep verify' to list all."
        )


def warn_of_mixtures(mixed: list[str]) -> None:
    """Warn about products with items of different settings."""
    for sentence in mixed:
        output.warn(sentence)
    if mixed:
        output.warn(
            "Training treats them alike. Run the same command for all views, or write the settings to actionprep.toml "
            "and run 'actionprep build'."
        )


def save_or_offer(study: Study, settings: StageSettings, stage: str, *, save: bool, quiet: bool) -> None:
    """Write the options of a stage's command that differ from actionprep.toml into it, or print how to."""
    values = settings.model_dump(mode="json")
    options = {name: values[name] for name in settings.command_line}
    if not options:
        return
    if save:
        study.save_options({stage: options})
    if quiet:
        return
    if save:
        saved = ", ".join(f"{stage}.{name} = {_value(value)}" for name, value in options.items())
        output.note(f"Saved in actionprep.toml: {saved}.")
        return
    for name, in_file in settings.command_line.items():
        output.note(f"{stage}.{name} is {_value(options[name])} here and {_value(in_file)} in actionprep.toml.")
    output.note("Later builds keep what this command makes. Add --save to write the options into actionprep.toml.")


def print_kept(plan: Plan, study: Path | None) -> None:
    """Print options of earlier commands that items keep, and how to save or reset them."""
    options = plan.kept_options()
    for option in options:
        values = " and ".join(map(_value, option.values))
        output.note(
            f"Kept: {option.stage} made with {option.setting} = {values} by an option "
            f"(actionprep.toml: {_value(option.in_file)})."
        )
    if options:
        output.note(
            f"'{with_study('actionprep build --save', study)}' writes these options into actionprep.toml, "
            f"'{with_study('actionprep build --reset', study)}' rebuilds the items with its settings."
        )


def save_kept(study: Study, plan: Plan, *, quiet: bool) -> None:
    """Write options that items keep into actionprep.toml.

    Raises:
        UserError: If items of one stage keep several values of one setting.
    """
    from actionprep.errors import UserError

    chosen: dict[str, dict[str, Any]] = {}
    for option in plan.kept_options():
        if len(option.values) > 1:
            raise UserError(
                f"Items of '{option.stage}' were made with {option.setting} = {' and '.join(map(_value, option.values))}: "
                f"actionprep.toml can have one value. Set {option.stage}.{option.setting} there, and run 'actionprep build'."
            )
        chosen.setdefault(option.stage, {})[option.setting] = option.values[0]
    study.save_options(chosen)
    if not quiet:
        saved = [
            f"{stage}.{name} = {_value(value)}" for stage, values in chosen.items() for name, value in values.items()
        ]
        output.note(f"Saved in actionprep.toml: {', '.join(saved) or 'nothing, since no item keeps an option'}.")


def _value(value: Any) -> str:
    """A setting's plain value for a message."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def print_plan(plan: Plan) -> None:
    """Print a table of the stages: the number of items to build, and why."""
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
    output.print_table("Plan", ("stage", "to build", "built", "quarantined", "arrays", "why"), rows)


def print_report(
    plan: Plan,
    report: BuildReport,
    events: dict[str, dict[str, int]],
    results: Mapping[ItemKey, ResultTable],
    *,
    has_segments: bool,
    study: Path | None = None,
) -> None:
    """Print what a build made, the results of its products, and the next command.

    Args:
        plan: What was to be done.
        report: What was done.
        events: Counts of unusual things, by product.
        results: Tables of results by item.
        has_segments: Whether the study has annotated segments.
        study: Folder of the study, if --study named it.
    """
    built = Counter(key.product for key in report.built)
    done = Counter(item.key.product for item in plan.items if item.action == "done")
    failed = Counter(key.product for key in (*report.quarantined, *report.blocked))
    names = list(dict.fromkeys(item.key.product for item in plan.items))
    output.print_table(
        "",
        ("stage", "built", "already built", "quarantined"),
        [(name, built[name], done[name], failed[name]) for name in names],
    )
    output.note(
        f"{output.bytes_text(report.nbytes)} of arrays built in {output.duration_text(report.seconds)}{_rate(report)}."
    )
    if report.num_frames:
        output.note(_time_spent(report.timings))
    if report.concealed or report.missing:
        output.warn(f"Damaged frames concealed by the decoder: {report.concealed}; missing frames: {report.missing}.")
    for table in results.values():
        output.print_table(
            table.title,
            table.columns,
            [tuple(f"{cell:,}" if isinstance(cell, int) else cell for cell in row) for row in table.rows],
        )
    shown = {(key.product, event) for key, table in results.items() for event in table.events}
    sums = [
        (name, event, f"{count:,}")
        for name, counts in events.items()
        for event, count in counts.items()
        if (name, event) not in shown
    ]
    if sums:
        output.print_table("Skipped, filled in or converted", ("stage", "description", "count"), sums)
    if report.quarantined:
        first = list(report.quarantined.items())[:20]
        output.print_table("Quarantined", ("item", "reason"), first)
        output.note("Other items are not affected. Run 'actionprep status' to list all quarantined items.")
    # The next command needs the name of a table if it is not "default".
    tables = {item.key.product: item.key.recording for item in plan.items if not item.key.view}
    named = {product: name for product, name in tables.items() if name != "default"}
    if "snippets" in names:
        which = f" --snippets {named['snippets']}" if "snippets" in named else ""
        output.print_next(with_study(f"actiontrain fit{which}", study), "trains a classifier on these snippets")
    elif "tracks" in names:
        # Recordings with one label are one snippet each.
        options = " --length 1000 --iou 0.5" if has_segments else ""
        output.print_next(with_study(f"actionprep snippets{options}", study), "makes labeled windows")
    elif names:
        last = f"{names[-1]}/{named[names[-1]]}" if names[-1] in named else names[-1]
        output.print_next(with_study(f"actionprep show {last}", study), "draws the result")


def _rate(report: BuildReport) -> str:
    """The rate of a build as the end of a sentence, also as a share of the rate of a thread that only decodes."""
    if not (report.num_frames and report.seconds):
        return ""
    rate, bare = report.num_frames / report.seconds, report.timings.bare_rate(report.num_frames)
    share = "" if bare is None else f", {rate / bare:.0%} of the {bare:,.0f} frames/s of one thread that only decodes"
    return f", {rate:,.0f} frames/s{share}"


def _time_spent(timings: Timings) -> str:
    """A sentence about the parts of a build that took the most time."""
    parts = [f"{name} {share:.0%}" for name, share in timings.shares().items() if share >= _SMALLEST_SHARE]
    beside = [f"{name} {seconds / timings.total:.0%}" for name, seconds in timings.beside.items() if timings.total]
    return f"Time: {', '.join(parts)}; at the same time in threads: {', '.join(beside)}."


_SMALLEST_SHARE = 0.005


def report_document(report: BuildReport) -> dict[str, Any]:
    """The same facts as a JSON document."""
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
        "bare_decode_frames_per_s": report.timings.bare_rate(report.num_frames),
        "task_seconds": {
            "total": report.timings.total,
            "parts": report.timings.parts,
            "threads": report.timings.beside,
        },
    }


def print_keyframes(summary: dict[str, Any] | None) -> None:
    """Print the number of keyframes, and their range per view."""
    if summary is None:
        return
    noun = "scene" if summary["sampler"] == ["scenes"] else "keyframe"
    low, high = summary["smallest"], summary["largest"]
    each = f"{low} each" if low == high else f"{low} to {high} each, median {summary['median']:g}"
    per_view = f": {each}" if summary["views"] > 1 else ""
    output.note(f"Keyframes: {counted(summary['keyframes'], noun)} in {counted(summary['views'], 'view')}{per_view}.")


def print_tracks(summary: dict[str, Any] | None) -> None:
    """Print the number of tracked points and the fraction of visible positions."""
    if summary is None:
        return
    share = "" if summary["visible_share"] is None else f", {summary['visible_share']:.1%} visible"
    views, windows = counted(summary["views"], "view"), counted(summary["windows"], "window")
    output.note(f"Tracks: {counted(summary['points'], 'point')} in {windows} of {views}{share}.")
    if summary["empty_windows"]:
        output.warn(f"{counted(summary['empty_windows'], 'window')} without foreground, and so without points.")


def report_joints_outside(counts: Sequence[tuple[Any, int, int]]) -> None:
    """Report the fraction of the joints of imported poses outside the image: as a note, or as a warning if it is large."""
    if not counts:
        return
    outside, seen = sum(count for _, count, _ in counts), sum(total for _, _, total in counts)
    worst, out, of = max(counts, key=lambda row: row[1] / row[2])
    text = (
        f"{outside:,} of the {seen:,} joints ({outside / seen:.1%}) of {counted(len(counts), 'imported item')} are outside "
        f"the image; most in {worst} ({out / of:.1%})."
    )
    if out / of > 0.05:
        output.warn(f"{text} Run 'actionprep show pose' to check them.")
    else:
        output.note(text)


def print_findings(findings: Iterable[Finding]) -> None:
    """Print the findings of a scan or import, equal ones grouped."""
    from actionprep.datasets.findings import group_findings

    rows = [(group.kind, len(group.findings), group.where, group.message) for group in group_findings(findings)]
    output.print_table("Findings", ("kind", "count", "where", "what"), rows)


def print_next_without_labels(study: Path | None) -> None:
    """Print the next step for a study whose recordings have no labels yet."""
    output.print_next(
        with_study("actionprep scan --template segments.csv", study),
        "writes a table to label your recordings in; nothing is labeled yet",
    )
