"""Rebuild damaged items with the settings that they were built with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from actionprep.datasets.store.reader import DamagedItemError
from actionprep.settings import read_recorded

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.store.keys import Damage, ItemKey
    from actionprep.pipeline.engine import BuildReport
    from actionprep.pipeline.view_tasks import Workers
    from actionprep.settings import StageSettings


def repair(study: Study, damage: Iterable[Damage], *, workers: int | Workers = 0) -> BuildReport:
    """Rebuild damaged items with the settings that they were built with, and rewrite damaged metadata of folders.

    An item with damaged metadata gets the settings of the intact items of its product if they agree, else those of
    actionprep.toml. A damaged item is kept until its replacement is committed. Items that no stage builds any more are
    reported as blocked.

    Args:
        study: The study.
        damage: Damage that `Store.verify` found.
        workers: Number of processes; 0 uses this process.

    Returns:
        Report of the build.
    """
    from actionprep.datasets.store.lock import hold
    from actionprep.datasets.store.opening import open_zarr_store
    from actionprep.pipeline.plan import IntactSettings, Plan, make_plan

    damage = list(damage)
    if any(part.is_folder for part in damage):
        # The store of the study cannot be opened while its root is damaged.
        store = open_zarr_store(study.folder.store, check_root=False)
        with hold(store.lock()):
            store.repair_folders(damage)
    damaged = {part.key for part in damage if not part.is_folder}
    views = {(view.recording, view.id) for view in study.catalog.views}
    settings = study.stage_settings()
    snapshot = study.store.snapshot()
    stored = set(snapshot.intact(damaged))
    orphans = {
        key: "nothing in the catalog makes it any more: "
        + ("'actionprep gc' deletes it" if key in stored else f"delete its folder {study.store.url}/{key}")
        for key in damaged
        if key.product not in settings or (key.view and (key.recording, key.view) not in views)
    }
    force = frozenset(damaged - orphans.keys())
    intact = IntactSettings(snapshot)
    parts = []
    for keys in _by_view(force):
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
    if committed is None:  # only its path is known; for views, the plan uses the settings of intact items
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


def _by_view(keys: Iterable[ItemKey]) -> list[list[ItemKey]]:
    """Group keys by view; items of the study are separate, because tables of one stage have different settings."""
    groups: dict[tuple[str, ...], list[ItemKey]] = {}
    for key in sorted(keys):
        group_key = (key.recording, key.view) if key.view else (key.product, key.recording, "")
        groups.setdefault(group_key, []).append(key)
    return list(groups.values())
