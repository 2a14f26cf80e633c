"""Rebuild what is damaged, with the settings that it was made with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from actionprep.datasets.store.reader import DamagedItemError
from actionprep.settings import read_recorded

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.store.zarr_store import Damage, ItemKey
    from actionprep.pipeline.engine import BuildReport
    from actionprep.pipeline.tasks import Workers
    from actionprep.settings import StageSettings


def repair(study: Study, damage: Iterable[Damage], *, workers: int | Workers = 0) -> BuildReport:
    """Rebuild damaged items, with the settings that they were made with, and write damaged metadata of folders again.

    Settings that an item with damaged metadata records are not used: it gets those of the intact items of its product
    where they agree, else those of actionprep.toml. A damaged item stays in its place until its replacement is
    committed; one that nothing makes any more is reported as blocked.
    """
    from actionprep.datasets.store.lock import build_lock
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.pipeline.plan import IntactSettings, Plan, make_plan

    damage = list(damage)
    if any(one.is_folder for one in damage):
        # The study's own store does not open while its root is damaged.
        store = Store(study.folder.store, check_root=False)
        with build_lock(store.require_local() / ".lock"):
            store.repair_folders(damage)
    found = {one.key for one in damage if not one.is_folder}
    views = {(view.recording, view.id) for view in study.catalog.views}
    settings = study.stage_settings()
    snapshot = study.store.snapshot()
    stored = set(snapshot.intact(found))
    orphans = {
        key: "nothing in the catalog makes it any more: "
        + ("'actionprep gc' deletes it" if key in stored else f"delete its folder {study.store.url}/{key}")
        for key in found
        if key.product not in settings or (key.view and (key.recording, key.view) not in views)
    }
    force = frozenset(found - orphans.keys())
    intact = IntactSettings(snapshot)
    parts = []
    for keys in _by_place(force):
        made = {key.product: _settings_as_made(study, key, settings[key.product]) for key in keys}
        parts.append(
            make_plan(
                study.catalog,
                snapshot,
                wanted=sorted(made),
                settings={**settings, **made},
                views=[study.catalog.view(keys[0].recording, keys[0].view)] if keys[0].view else [],
                quarantine=study.quarantine,
                root=str(study.root.resolve()),
                retry=True,
                force=force,
                warn=study.warn,
                intact=intact,
            )
        )
    plan = Plan(
        items=tuple(item for part in parts for item in part.items),
        view_tasks=tuple(task for part in parts for task in part.view_tasks),
        study_stages=tuple(stage for part in parts for stage in part.study_stages),
        forced=force,
        notes=tuple(note for part in parts for note in part.notes),
    )
    report = study.carry_out(plan, workers=workers)
    report.blocked.update(orphans)
    return report


def _settings_as_made(study: Study, key: ItemKey, otherwise: StageSettings) -> StageSettings:
    try:
        committed = study.store.metadata(key)
    except DamagedItemError:
        committed = None
    if committed is None:  # all that is known is its path; of views the plan takes the settings of intact items
        made = otherwise.model_dump()
    else:
        made = committed["provenance"].get("settings", {})
    if not key.view:
        made = {**made, "name": key.recording}
    recorded = read_recorded(otherwise, made, table=key.product, where=f"the stored {key}")
    for ignored in recorded.ignored:
        study.warn(str(ignored))
    options = {} if committed is None else committed["provenance"].get("command_line")
    settings = recorded.require().at(study.paths_from.resolve())
    return settings.with_command_line(options) if isinstance(options, dict) else settings


def _by_place(keys: Iterable[ItemKey]) -> list[list[ItemKey]]:
    """Keys of each view together, and each item of the whole study alone: two tables of one stage differ in settings."""
    found: dict[tuple[str, ...], list[ItemKey]] = {}
    for key in sorted(keys):
        place = (key.recording, key.view) if key.view else (key.product, key.recording, "")
        found.setdefault(place, []).append(key)
    return list(found.values())
