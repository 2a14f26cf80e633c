"""Make damaged items anew, with the settings that they were made with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from actionprep.settings import read_recorded

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.store.zarr_store import Damage, ItemKey
    from actionprep.pipeline.engine import BuildReport, Workers
    from actionprep.settings import StageSettings


def repair(study: Study, damage: Iterable[Damage], *, workers: int | Workers = 0) -> BuildReport:
    """Make damaged items anew, with the settings that they were made with; nothing else is touched.

    A damaged item stays in its place until its replacement is whole; one that nothing makes any more is reported as
    blocked.
    """
    from actionprep.pipeline.plan import Plan, make_plan

    found = {one.key for one in damage}
    views = {(view.recording, view.id) for view in study.catalog.views}
    settings = study.stage_settings()
    stored = set(study.store.items())
    orphans = {
        key: "nothing in the catalog makes it any more: "
        + ("'actionprep gc' deletes it" if key in stored else f"delete its folder {study.store.url}/{key}")
        for key in found
        if key.product not in settings or (key.view and (key.recording, key.view) not in views)
    }
    force = frozenset(found - orphans.keys())
    parts = []
    for keys in _by_place(force):
        made = {key.product: _settings_as_made(study, key, settings[key.product]) for key in keys}
        parts.append(
            make_plan(
                study.catalog,
                study.store,
                wanted=sorted(made),
                settings={**settings, **made},
                views=[study.catalog.view(keys[0].recording, keys[0].view)] if keys[0].view else [],
                quarantine=study.quarantine,
                root=str(study.root.resolve()),
                retry=True,
                force=force,
                warn=study.warn,
            )
        )
    plan = Plan(
        items=tuple(item for part in parts for item in part.items),
        view_tasks=tuple(task for part in parts for task in part.view_tasks),
        study_stages=tuple(stage for part in parts for stage in part.study_stages),
        forced=force,
    )
    report = study.carry_out(plan, workers=workers)
    report.blocked.update(orphans)
    return report


def _settings_as_made(study: Study, key: ItemKey, otherwise: StageSettings) -> StageSettings:
    made = (study.store.metadata(key) or {}).get("provenance", {}).get("settings")
    if made is None:  # its metadata is lost: all that is known is where it lies
        made = otherwise.model_dump()
    if not key.view:
        made = {**made, "name": key.recording}
    recorded = read_recorded(otherwise, made, table=key.product, where=f"the stored {key}")
    for ignored in recorded.ignored:
        study.warn(str(ignored))
    return recorded.require().at(study.paths_from.resolve())


def _by_place(keys: Iterable[ItemKey]) -> list[list[ItemKey]]:
    """Keys of each view together, and each item of the whole study alone: two tables of one stage differ in settings."""
    found: dict[tuple[str, ...], list[ItemKey]] = {}
    for key in sorted(keys):
        place = (key.recording, key.view) if key.view else (key.product, key.recording, "")
        found.setdefault(place, []).append(key)
    return list(found.values())
