"""Find items of one product that were made with different settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import name_list
from actionprep.json_values import counted
from actionprep.settings import canonical_json

_SHOWN = 3


@dataclass
class MadeAlike:
    """Items that were made alike.

    Attributes:
        facts: What they were made with, by name: each setting, the version of the stage and the identity of its backend.
        keys: The items.
    """

    facts: dict[str, Any]
    keys: list[ItemKey] = field(default_factory=list)


def made_alike(provenance: Mapping[ItemKey, Mapping[str, Any]]) -> list[MadeAlike]:
    """Group items by what they were made with, the largest group first.

    Args:
        provenance: Provenance of each item. Inputs and sources differ between items and do not count.
    """
    groups: dict[str, MadeAlike] = {}
    texts: dict[str, str] = {}
    for key, made in sorted(provenance.items()):
        parts = made.get("version"), made.get("identity", {}), made.get("settings", {})
        # Canonical text takes longer than a plain one, and there are few different ones.
        written = repr(parts)
        if written not in texts:
            facts = {"version": parts[0], **parts[1], **parts[2]}
            texts[written] = canonical_json(facts)
            groups.setdefault(texts[written], MadeAlike(facts))
        groups[texts[written]].keys.append(key)
    return sorted(groups.values(), key=lambda group: -len(group.keys))


def provenance_of(store: Store, keys: Iterable[ItemKey]) -> dict[ItemKey, dict[str, Any]]:
    """Return the provenance of items; those that are not in the store are left out."""
    metadata_of = {key: store.metadata(key) for key in keys}
    return {key: metadata["provenance"] for key, metadata in metadata_of.items() if metadata is not None}


def difference(groups: list[MadeAlike]) -> str:
    """Describe how groups differ, with the items of the smaller ones.

    Returns:
        For example "grid 20 (6 items); grid 10 (2 items: a/1, b/1)"; empty for a single group.
    """
    if len(groups) < 2:
        return ""
    names = list(dict.fromkeys(name for group in groups for name in group.facts))
    differing = [name for name in names if len({canonical_json(group.facts.get(name)) for group in groups}) > 1]
    parts = []
    for index, group in enumerate(groups):
        facts = ", ".join(f"{name} {group.facts.get(name, 'not set')}" for name in differing)
        count = counted(len(group.keys), "item")
        shown = name_list([f"{key.recording}/{key.view}" for key in group.keys], _SHOWN)
        parts.append(f"{facts} ({count})" if index == 0 else f"{facts} ({count}: {shown})")
    return "; ".join(parts)
