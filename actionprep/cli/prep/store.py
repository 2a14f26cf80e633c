"""The commands that look after the store: status, verify, digest, gc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, with_study
from actionprep.cli.prep.build_output import report_joints_outside, warn_of_damage
from actionprep.cli.prep.options import WorkersOption, opened_study, workers_of

if TYPE_CHECKING:
    from actionprep.pipeline.engine import BuildReport


def status(study: StudyOption = None, json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show what the store holds, what is quarantined and why, and what a build would still do."""
    opened = opened_study(study)
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
        if one["damaged"]:
            output.warn(f"Damaged items of '{one['product']}': {one['damaged']}. Run 'actionprep verify --repair'.")
        if one["made_otherwise"]:
            output.warn(_otherwise(one["product"], one["made_otherwise"]))
    report_joints_outside([(one["item"], one["outside"], one["seen"]) for one in facts["joints_outside"]])
    if facts["problem"]:
        output.warn(f"A build would stop: {facts['problem']}")
    if facts["quarantined"]:
        output.print_table(
            "Quarantined",
            ("item", "reason", "frame"),
            [(one["item"], one["reason"], one["frame"]) for one in facts["quarantined"]],
        )
        output.note("Mend the files, then build again; build --retry tries them as they are.")


def verify(
    study: StudyOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Rebuild damaged items.")] = False,
    workers: WorkersOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Prove every item complete and unchanged by its checksums."""
    opened = opened_study(study)
    store = opened.store_to_verify()
    damaged, num_items = [], 0
    with output.progress_bar("verifying", len(store.items()), "items", quiet=json) as advance:
        for _, damage in store.verify():
            is_item = damage is None or not damage.is_folder
            num_items += is_item
            if damage is not None:
                damaged.append(damage)
            advance(int(is_item), failures=len(damaged))
    repaired = opened.repair(damaged, workers=workers_of(workers, None, None)) if repair and damaged else None
    not_repaired = {} if repaired is None else _not_repaired(repaired)
    folders = [] if repaired is None else [one.place for one in damaged if one.is_folder]
    without_checksum = len(store.without_checksum())
    if json:
        output.print_json(
            {
                "items": num_items,
                "damaged": [{"item": one.place, "reason": one.reason} for one in damaged],
                "repaired": [] if repaired is None else [*folders, *(str(key) for key in repaired.built)],
                "not_repaired": not_repaired,
                "notes": [] if repaired is None else list(repaired.notes),
                "without_checksum": without_checksum,
            }
        )
    else:
        if not damaged:
            output.note(f"{num_items} items, all whole.")
        else:
            output.print_table("Damaged", ("item", "what"), [(one.place, one.reason) for one in damaged])
        if repaired is not None:
            warn_of_damage(repaired.notes)
            output.note(f"{len(repaired.built)} items rebuilt.")
            if folders:
                output.note(f"Metadata of folders written again: {', '.join(folders)}.")
            if not_repaired:
                output.print_table("Not repaired", ("item", "why"), list(not_repaired.items()))
        if without_checksum:
            output.note(
                f"Items of an older schema, whose metadata has no checksum: {without_checksum}. A changed setting in them "
                "cannot be found; they get a checksum when they are rebuilt."
            )
        if damaged and repaired is None:
            output.print_next(with_study("actionprep verify --repair", study), "rebuilds just these")
    done = repaired is not None and {one.key for one in damaged if not one.is_folder} <= set(repaired.built)
    if damaged and not done:
        raise typer.Exit(1)


def digest(study: StudyOption = None, json: JsonOption = False, debug: DebugOption = False) -> None:
    """Print one hash of all content: equal for equal builds."""
    store = opened_study(study).store
    if json:
        output.print_json({"digest": store.digest(), "items": len(store.items())})
    else:
        print(store.digest())


def gc(
    study: StudyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; otherwise only list.")] = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List, or with --yes delete, items whose recording or view is no longer in the catalog."""
    opened = opened_study(study)
    stray = opened.stray_items()
    lost = list(opened.store.lost())
    if yes:
        opened.remove_items(stray)
    if json:
        damaged = [{"item": str(one.key), "reason": one.reason} for one in lost]
        output.print_json({"stray": [str(key) for key in stray], "deleted": yes, "damaged": damaged})
        return
    for key in stray:
        output.note(str(key))
    for one in lost:
        output.warn(f"Left alone: {one.reason} 'actionprep verify' checks all items.")
    output.note(f"{len(stray)} items belong to nothing in the catalog{'; deleted' if yes else ''}.")
    if stray and not yes:
        output.print_next(with_study("actionprep gc --yes", study), "deletes them")


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


def _not_repaired(report: BuildReport) -> dict[str, str]:
    return {str(key): reason for key, reason in (report.quarantined | report.blocked).items()}
