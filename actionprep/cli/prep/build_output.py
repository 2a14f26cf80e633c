"""What commands print of a plan, of a build, and of what is not as one would think."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actionprep.cli import output
from actionprep.cli.options import with_study

if TYPE_CHECKING:
    from pathlib import Path

    from actionprep.api import Study
    from actionprep.pipeline.engine import BuildReport
    from actionprep.pipeline.plan import Plan
    from actionprep.settings import StageSettings


def announce(study: Study, plan: Plan, mixed: list[str]) -> None:
    """What will be done."""
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
    warn_of_damage(plan.notes)
    warn_of_mixtures(mixed)


def warn_of_damage(notes: Sequence[str], most: int = 5) -> None:
    """Items with damaged metadata, and the settings that they are rebuilt with."""
    for note in notes[:most]:
        output.warn(note)
    if len(notes) > most:
        output.warn(f"{len(notes) - most} more items have damaged metadata; 'actionprep verify' lists them.")


def warn_of_mixtures(mixed: list[str]) -> None:
    """That items of one product were made with several settings, in these sentences."""
    for sentence in mixed:
        output.warn(sentence)
    if mixed:
        output.warn(
            "Training takes them for alike. Run the same command for all views, or write the settings into "
            "actionprep.toml and run 'actionprep build'."
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
    """A table of the stages: how much there is to do, and why."""
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


def print_report(
    plan: Plan,
    report: BuildReport,
    events: dict[str, dict[str, int]],
    *,
    has_segments: bool,
    study: Path | None = None,
) -> None:
    """What a build has made and what not, and the next command; study: its folder, where --study named it."""
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
        output.note("Neighbors went on. 'actionprep status' lists all.")
    # Tables of the whole study may have other names than "default", which the next command then needs.
    tables = {item.key.product: item.key.recording for item in plan.items if not item.key.view}
    named = {product: name for product, name in tables.items() if name != "default"}
    if "snippets" in names:
        which = f" --snippets {named['snippets']}" if "snippets" in named else ""
        output.print_next(with_study(f"actiontrain fit{which}", study), "trains on these snippets")
    elif "tracks" in names:
        # Clips that are one labeled whole are one snippet each.
        options = " --length 1000 --iou 0.5" if has_segments else ""
        output.print_next(with_study(f"actionprep snippets{options}", study), "cuts labeled windows")
    elif names:
        last = f"{names[-1]}/{named[names[-1]]}" if names[-1] in named else names[-1]
        output.print_next(with_study(f"actionprep show {last}", study), "draws what was made")


def report_document(report: BuildReport) -> dict[str, Any]:
    """The same facts, for a machine."""
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


def report_joints_outside(found: Sequence[tuple[Any, int, int]]) -> None:
    """The share of the joints of imported poses that lie outside of the picture, as a note or, where large, a warning."""
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
