"""Available products of a study's store, compared with the settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from actionprep.errors import ActionprepError
from actionprep.pipeline.index import known_stage

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.store.keys import ItemKey
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.pipeline.plan import KeptOption, PlannedItem
    from actionprep.pipeline.stage import Stage


def status(study: Study) -> dict[str, Any]:
    """Return the available products, how they compare with the settings, and quarantined items, as plain values."""
    from actionprep.datasets.scan import DRIFTING, NOT_ALIGNED

    store = study.store.snapshot()
    problem = ""
    items: tuple[PlannedItem, ...] = ()
    kept: list[KeptOption] = []
    try:
        plan = study.plan(enforce=True, store=store)
        items, kept = plan.items, plan.kept_options()
    except ActionprepError as error:  # available products are shown also if a build is not possible
        problem = str(error)
    sizes = store.nbytes()
    products = []
    for product in dict.fromkeys([*(item.key.product for item in items), *store.products()]):
        keys = store.intact(store.items(product))
        wanted = [item for item in items if item.key.product == product]
        missing = [item for item in wanted if item.action == "build"]
        if problem:
            against = "not known"
        elif not wanted:
            against = "not in [study] stages"
        elif not missing:
            against = "up to date" if all(item.action == "done" for item in wanted) else "some quarantined"
        else:
            against = f"{len(missing)} to build: {Counter(item.why for item in missing).most_common(1)[0][0]}"
        products.append(
            {
                "product": product,
                "items": len(keys),
                "damaged": len(store.items(product)) - len(keys),
                "nbytes": sizes.get(product, 0),
                "made_with": _made_with(store, keys),
                "against_settings": against,
                "made_otherwise": _made_otherwise(store, missing),
                "kept_options": [
                    {"setting": option.setting, "stored": list(option.values), "file": option.in_file}
                    for option in kept
                    if option.stage == product
                ],
            }
        )
    entries = [(item.key, item.why, study.quarantine.get(item.key)) for item in items if item.action == "quarantined"]
    outside = joints_outside(store, store.items("pose"))
    return {
        "study": study.folder.name,
        "store": study.folder.store,
        "recordings": len(study.catalog),
        "views": len(study.catalog.views),
        "problem": problem,
        "products": products,
        "alignment": [
            {"recording": finding.where, "kind": finding.kind, "what": finding.message}
            for finding in study.catalog.findings
            if finding.kind in (NOT_ALIGNED, DRIFTING)
        ],
        "joints_outside": [{"item": str(key), "outside": out, "seen": seen} for key, out, seen in outside],
        "quarantined": [
            {
                "item": str(key),
                "reason": why,
                "frame": None if entry is None else entry.frame,
                "backend": None if entry is None else entry.backend,
            }
            for key, why, entry in entries
        ],
    }


def events(store: Store, keys: Iterable[ItemKey]) -> dict[str, dict[str, int]]:
    """Count what these items left out, filled in or converted: for each product the sum of each kind, without zeros."""
    counts: dict[str, Counter[str]] = {}
    stages: dict[str, type[Stage] | None] = {}
    store = store.snapshot()
    for key in store.intact(keys):
        attributes = (store.metadata(key) or {}).get("stage")
        if key.product not in stages:
            stages[key.product] = known_stage(key.product)
        stage = stages[key.product]
        if attributes is not None and stage is not None:
            counts.setdefault(key.product, Counter()).update(stage.events(attributes))
    return {product: +counted for product, counted in counts.items() if +counted}


def joints_outside(store: Store, keys: Iterable[ItemKey]) -> list[tuple[ItemKey, int, int]]:
    """Return imported poses with joints outside of the image: item, number of such joints, and number of all joints."""
    items = []
    store = store.snapshot()
    for key in store.intact(key for key in keys if key.product == "pose"):
        facts = (store.metadata(key) or {}).get("stage", {})
        if facts.get("num_joints_outside"):
            items.append((key, int(facts["num_joints_outside"]), int(facts["num_joints_seen"])))
    return items


def track_summary(store: Store, keys: Iterable[ItemKey]) -> dict[str, Any] | None:
    """Summarize point tracks over views.

    Args:
        store: The store.
        keys: Items of any product; those of other products are ignored.

    Returns:
        Numbers of views, windows, empty windows and points, and the fraction of positions that are visible (None without
        points); None if no item has tracks.
    """
    store = store.snapshot()
    stages = [
        (store.metadata(key) or {}).get("stage", {}) for key in store.intact(k for k in keys if k.product == "tracks")
    ]
    if not stages:
        return None
    points = sum(int(stage["num_points"]) for stage in stages)
    # Windows of a product have equal lengths, so points are the weights.
    visible = sum(stage["num_points"] * (stage["visible_share"] or 0.0) for stage in stages)
    return {
        "views": len(stages),
        "windows": sum(int(stage["num_windows"]) for stage in stages),
        "empty_windows": sum(int(stage["num_empty_windows"]) for stage in stages),
        "points": points,
        "visible_share": visible / points if points else None,
    }


def keyframe_summary(store: Store, keys: Iterable[ItemKey]) -> dict[str, Any] | None:
    """Summarize keyframes over views.

    Args:
        store: The store.
        keys: Items of any product; those of other products are ignored.

    Returns:
        Numbers of views and keyframes; smallest, median and largest number per view; `sampler` with the names of the
        samplers. None if no item has keyframes.
    """
    from actionprep.datasets.products.keyframes import read_keyframe_index

    store = store.snapshot()
    counts, samplers = [], []
    for key in store.intact(key for key in keys if key.product == "keyframes"):
        item = store.item(key.product, key.recording, key.view)
        counts.append(len(read_keyframe_index(item)))
        samplers.append(str(item.attributes["sampler"]))
    if not counts:
        return None
    return {
        "views": len(counts),
        "keyframes": sum(counts),
        "smallest": min(counts),
        "median": median(counts),
        "largest": max(counts),
        "sampler": sorted(set(samplers)),
    }


def _made_with(store: Store, keys: Sequence[ItemKey]) -> str:
    """Describe the settings of most items that differ from the defaults, and how the other items differ."""
    from actionprep.datasets.store.provenance import difference, made_alike, provenance_of

    groups = made_alike(provenance_of(store, keys))
    stage = known_stage(keys[0].product) if keys else None
    if not groups or stage is None:
        return ""
    if keys[0].view and len(groups) > 1:
        return f"not all alike: {difference(groups)}"
    defaults = stage.Settings().model_dump(mode="json")
    changed = [f"{key} {value}" for key, value in groups[0].facts.items() if key in defaults and value != defaults[key]]
    return ", ".join(changed) or "defaults"


def _made_otherwise(store: Store, missing: Sequence[PlannedItem]) -> list[dict[str, Any]]:
    """List settings of stored items, such as from a command line, that a build would replace by those of the file.

    Returns:
        For each setting its name, the stored values, the value of the file, and the number of items.
    """
    stored: dict[str, list[Any]] = {}
    wanted: dict[str, Any] = {}
    for item in missing:
        if item.why == "damaged":
            continue
        made = (store.metadata(item.key) or {}).get("provenance", {}).get("settings", {})
        now = item.provenance.get("settings", {})
        for name in now.keys() & made.keys():
            if now[name] != made[name]:
                stored.setdefault(name, []).append(made[name])
                wanted[name] = now[name]
    return [
        {
            "setting": name,
            "stored": [value for index, value in enumerate(values) if value not in values[:index]],
            "file": wanted[name],
            "items": len(values),
        }
        for name, values in sorted(stored.items())
    ]
