"""Tell when items of one product were not all made alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actionprep.datasets.store.zarr_store import ItemKey, Store
from actionprep.settings import canonical_json

_SHOWN = 3


@dataclass
class MadeAlike:
    """Items that were made alike.

    facts: what they were made with, by name: each setting, "version" of the stage, and what its backend tells of itself.
    """

    facts: dict[str, Any]
    keys: list[ItemKey] = field(default_factory=list)


def made_alike(provenance: Mapping[ItemKey, Mapping[str, Any]]) -> list[MadeAlike]:
    """Items grouped by what they were made with, the largest group first.

    provenance: of each item, as the store keeps it; inputs and sources differ from item to item and do not count.
    """
    groups: dict[str, MadeAlike] = {}
    for key, made in sorted(provenance.items()):
        facts = {"version": made.get("version"), **made.get("identity", {}), **made.get("settings", {})}
        groups.setdefault(canonical_json(facts), MadeAlike(facts)).keys.append(key)
    return sorted(groups.values(), key=lambda one: -len(one.keys))


def provenance_of(store: Store, keys: Iterable[ItemKey]) -> dict[ItemKey, dict[str, Any]]:
    """How these items were made; those that are not in the store are left out."""
    found = {key: store.metadata(key) for key in keys}
    return {key: metadata["provenance"] for key, metadata in found.items() if metadata is not None}


def difference(groups: list[MadeAlike]) -> str:
    """What tells the groups apart, and the items of the smaller ones: "grid 20 (6 items); grid 10 (2 items: a/1, b/1)".

    "" for a single group.
    """
    if len(groups) < 2:
        return ""
    names = list(dict.fromkeys(name for one in groups for name in one.facts))
    differing = [name for name in names if len({canonical_json(one.facts.get(name)) for one in groups}) > 1]
    parts = []
    for at, one in enumerate(groups):
        facts = ", ".join(f"{name} {one.facts.get(name, 'not set')}" for name in differing)
        count = f"{len(one.keys)} item{'s' if len(one.keys) > 1 else ''}"
        shown = ", ".join(f"{key.recording}/{key.view}" for key in one.keys[:_SHOWN])
        more = " …" if len(one.keys) > _SHOWN else ""
        parts.append(f"{facts} ({count})" if at == 0 else f"{facts} ({count}: {shown}{more})")
    return "; ".join(parts)
