"""What commands print of a plan, of a build, and of what is not as one would think."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from actionprep.cli import output
from actionprep.cli.options import with_study

if TYPE_CHECKING:
    from pathlib import Path

    from actionprep.api import Study
    from actionprep.datasets.recordings import View
    from actionprep.pipeline.engine import BuildReport
    from actionprep.pipeline.plan import Plan


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
    shown = [f"{id} ({name})" for id, name in list(names.items())[:_SHOWN_VIEWS]]
    more = f" and {len(names) - _SHOWN_VIEWS} more" if len(names) > _SHOWN_VIEWS else ""
    count = len({view.recording for view in views})
    where = f"recording {views[0].recording}" if count == 1 else f"{count:,} recordings, such as {views[0].recording}"
    output.note(f"View{'s'[: len(names) != 1]} {', '.join(shown)}{more} of {where}.")


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
