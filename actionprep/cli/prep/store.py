"""The commands on the store: status, verify, digest and gc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, with_study
from actionprep.cli.prep.build_output import report_joints_outside, warn_of_damage
from actionprep.cli.prep.options import WorkersOption, opened_study, workers_of
from actionprep.json_values import counted

if TYPE_CHECKING:
    from actionprep.pipeline.engine import BuildReport


def status(study: StudyOption = None, json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show the products in the store, quarantined items and what a build would still do."""
    opened = opened_study(study)
    facts = opened.status()
    if json:
        output.print_json(facts)
        return
    output.print_table(
        f"{opened.folder.name}: {counted(facts['recordings'], 'recording')}, {counted(facts['views'], 'view')}, "
        f"store {facts['store']}",
        ("product", "items", "arrays", "built with", "compared with settings"),
        [
            (row["product"], row["items"], output.bytes_text(row["nbytes"]), row["made_with"], row["against_settings"])
            for row in facts["products"]
        ],
    )
    if facts["alignment"]:
        output.print_table(
            "Misaligned views",
            ("recording", "kind", "description"),
            [(row["recording"], row["kind"], row["what"]) for row in facts["alignment"]],
        )
    for row in facts["products"]:
        if row["damaged"]:
            output.warn(f"Damaged items of '{row['product']}': {row['damaged']}. Run 'actionprep verify --repair'.")
        if row["made_otherwise"]:
            output.warn(_changed_settings(row["product"], row["made_otherwise"]))
    report_joints_outside([(row["item"], row["outside"], row["seen"]) for row in facts["joints_outside"]])
    if facts["problem"]:
        output.warn(f"A build would stop: {facts['problem']}")
    if facts["quarantined"]:
        output.print_table(
            "Quarantined",
            ("item", "reason", "frame"),
            [(row["item"], row["reason"], row["frame"]) for row in facts["quarantined"]],
        )
        output.note("Repair the files, then build again. 'actionprep build --retry' tries them unchanged.")
    output.print_next(with_study("actionprep plan", study), "lists what a build would do")


def verify(
    study: StudyOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Rebuild damaged items.")] = False,
    workers: WorkersOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check with checksums that every item is complete and unchanged."""
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
    folders = [] if repaired is None else [damage.place for damage in damaged if damage.is_folder]
    without_checksum = len(store.without_checksum())
    if json:
        output.print_json(
            {
                "items": num_items,
                "damaged": [{"item": damage.place, "reason": damage.reason} for damage in damaged],
                "repaired": [] if repaired is None else [*folders, *(str(key) for key in repaired.built)],
                "not_repaired": not_repaired,
                "notes": [] if repaired is None else list(repaired.notes),
                "without_checksum": without_checksum,
            }
        )
    else:
        if not damaged:
            output.note(f"{counted(num_items, 'item')} checked, none damaged.")
        else:
            output.print_table("Damaged", ("item", "reason"), [(damage.place, damage.reason) for damage in damaged])
        if repaired is not None:
            warn_of_damage(repaired.notes)
            output.note(f"{counted(len(repaired.built), 'item')} rebuilt.")
            if folders:
                output.note(f"Metadata of folders rewritten: {', '.join(folders)}.")
            if not_repaired:
                output.print_table("Not repaired", ("item", "reason"), list(not_repaired.items()))
        if without_checksum:
            output.note(
                f"Items of an older schema without a checksum of their metadata: {without_checksum}. Changed settings in "
                "them cannot be detected. They get a checksum when they are rebuilt."
            )
        if damaged and repaired is None:
            output.print_next(with_study("actionprep verify --repair", study), "rebuilds only these")
        else:
            output.print_next(with_study("actionprep status", study), "lists all products")
    done = repaired is not None and {damage.key for damage in damaged if not damage.is_folder} <= set(repaired.built)
    if damaged and not done:
        raise typer.Exit(1)


def digest(study: StudyOption = None, json: JsonOption = False, debug: DebugOption = False) -> None:
    """Print one hash of the full content. Equal builds have equal hashes."""
    store = opened_study(study).store
    if json:
        output.print_json({"digest": store.digest(), "items": len(store.items())})
    else:
        print(store.digest())
        output.print_next(with_study("actionprep verify", study), "checks all items by their checksums", to_stderr=True)


def gc(
    study: StudyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete the items instead of listing them.")] = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List or delete items of recordings and views that are no longer in the catalog."""
    opened = opened_study(study)
    stray = opened.stray_items()
    lost = list(opened.store.lost())
    if yes:
        opened.remove_items(stray)
    if json:
        damaged = [{"item": str(item.key), "reason": item.reason} for item in lost]
        output.print_json({"stray": [str(key) for key in stray], "deleted": yes, "damaged": damaged})
        return
    for key in stray:
        output.note(str(key))
    for item in lost:
        output.warn(f"Not touched: {item.reason} Run 'actionprep verify' to check all items.")
    output.note(
        f"{counted(len(stray), 'item')} without a recording or view in the catalog{'; deleted' if yes else ''}."
    )
    if stray and not yes:
        output.print_next(with_study("actionprep gc --yes", study), "deletes them")
    elif lost:
        output.print_next(with_study("actionprep verify", study), "checks all items")
    else:
        output.print_next(with_study("actionprep status", study), "lists all products")


def _changed_settings(product: str, differing: list[dict[str, Any]]) -> str:
    """Warn that a build would rebuild a product, because its settings differ from the settings file."""
    from actionprep.datasets.study import toml_text

    stored = ", ".join(f"{row['setting']} = {' or '.join(map(toml_text, row['stored']))}" for row in differing)
    wanted = ", ".join(f"{row['setting']} = {toml_text(row['file'])}" for row in differing)
    return (
        f"'{product}' was built with {stored}, but actionprep.toml has {wanted}. A build would rebuild "
        f"{counted(max(row['items'] for row in differing), 'item')}. To keep the stored items, write their settings under "
        f"[{product}]."
    )


def _not_repaired(report: BuildReport) -> dict[str, str]:
    return {str(key): reason for key, reason in (report.quarantined | report.blocked).items()}
