"""Metadata files of the store (zarr.json of the root, of folders and of items): how they are written and checked.

The root and every item have the attribute `metadata_sha256`: the SHA-256 of that file with the 64 digits of this value set
to 0. An item also records the SHA-256 of the zarr.json of each of its arrays. Folders carry no information, so
their zarr.json is always the same bytes. A flipped bit in any of these files is therefore found.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from actionprep.datasets.store.reader import DamagedItemError
from actionprep.errors import UserError

SCHEMA = 2
CHECKSUM = "metadata_sha256"
_KEY = ("product", "recording", "view")
_ZEROS = "0" * 64
_SCHEMA_1_ITEM = {"digest", "fingerprint", "item", "nbytes", "provenance", "stage"}
_ITEM = {*_SCHEMA_1_ITEM, "arrays", CHECKSUM}


class DamagedStore(UserError):
    """The zarr.json of the store's root is not what was written."""


def group_text(attributes: dict[str, Any]) -> str:
    """The zarr.json of a group, without a checksum."""
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=1, sort_keys=True)


def group_text_with_checksum(attributes: dict[str, Any]) -> str:
    """The zarr.json of a group with the attribute `metadata_sha256`."""
    text = group_text({**attributes, CHECKSUM: _ZEROS})
    before, after = text.split(_entry(_ZEROS))
    return before + _entry(hashlib.sha256(text.encode()).hexdigest()) + after


def root_text(schema: int = SCHEMA) -> str:
    """The zarr.json of the store's root."""
    attributes = {"actionprep_schema": schema}
    return group_text(attributes) if schema == 1 else group_text_with_checksum(attributes)


def parse_metadata(raw: bytes | None) -> dict[str, Any] | None:
    """The document of a zarr.json; None where there is no file, or none that holds attributes."""
    try:
        document = None if raw is None else json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and isinstance(document.get("attributes"), dict) else None


def looks_like_item(document: dict[str, Any] | None) -> bool:
    """Whether a group has attributes that only items have, sound or not."""
    return document is not None and len(_ITEM & document["attributes"].keys()) > 1


def item_attributes(raw: bytes | None, path: str) -> dict[str, Any]:
    """Attributes of an item from its zarr.json.

    Args:
        raw: Bytes of the file; None where it is missing.
        path: Path of the item in the store, for the error.

    Returns:
        The attributes. Those of an item of schema 1 lack `metadata_sha256` and `arrays`.

    Raises:
        DamagedItemError: If the file is missing, cannot be read, or is not what was written.
    """
    document = parse_metadata(raw)
    if raw is None or document is None:
        raise DamagedItemError(f"Damaged item {path}: its metadata (zarr.json) is lost or cannot be read.")
    attributes: dict[str, Any] = document["attributes"]
    if CHECKSUM in attributes:
        sound = _checksum_matches(raw, attributes[CHECKSUM])
    else:
        # A damaged name of the checksum leaves other attributes than those of schema 1.
        sound = attributes.keys() == _SCHEMA_1_ITEM
    if not sound or not _is_complete(attributes):
        raise DamagedItemError(f"Damaged item {path}: its metadata (zarr.json) is not what was written.")
    if not names_path(attributes["item"], path):
        stated = "/".join(filter(None, (attributes["item"][part] for part in _KEY)))
        raise DamagedItemError(f"Damaged item {path}: its metadata names another item, {stated!r:.200}.")
    return attributes


def names_path(item: Any, path: str) -> bool:
    """Whether the attribute `item` is well formed and names the item at a path.

    A recording may span folders, so the path alone does not show whether its last part is a view.
    """
    if not _is_key(item):
        return False
    product, _, rest = path.partition("/")
    recording, _, view = rest.rpartition("/")
    named = tuple(item[part] for part in _KEY)
    return bool(rest) and named in ((product, rest, ""), (product, recording, view))


def root_schema(raw: bytes, url: str) -> int:
    """Schema version of a store from the zarr.json of its root.

    Raises:
        DamagedStore: If the file is not what was written.
        UserError: If the hierarchy is not one of actionprep's.
    """
    document = parse_metadata(raw)
    attributes = {} if document is None else document["attributes"]
    if document is not None and not attributes.keys() & {"actionprep_schema", CHECKSUM}:
        raise UserError(f"{url} is a Zarr hierarchy, but not a store of actionprep (no 'actionprep_schema').")
    schema = attributes.get("actionprep_schema")
    sound = _checksum_matches(raw, attributes[CHECKSUM]) if CHECKSUM in attributes else schema == 1
    if type(schema) is not int or not sound:
        raise DamagedStore(
            f"{url}/zarr.json, the metadata of the store's root, is damaged: it is not what was written.\n"
            "'actionprep verify --repair' writes it again and checks the items."
        )
    return schema


def _checksum_matches(raw: bytes, recorded: Any) -> bool:
    if not isinstance(recorded, str) or not re.fullmatch("[0-9a-f]{64}", recorded):
        return False
    parts = raw.split(_entry(recorded).encode())
    return len(parts) == 2 and hashlib.sha256(_entry(_ZEROS).encode().join(parts)).hexdigest() == recorded


def _entry(checksum: str) -> str:
    return f'"{CHECKSUM}": "{checksum}"'


def _is_complete(attributes: dict[str, Any]) -> bool:
    """Whether attributes have everything that the program reads of an item."""
    return (
        attributes.keys() >= _SCHEMA_1_ITEM
        and all(isinstance(attributes[name], dict) for name in ("provenance", "stage"))
        and isinstance(attributes["nbytes"], int)
        and isinstance(attributes.get("arrays", {}), dict)
        and _is_key(attributes.get("item"))
    )


def _is_key(item: Any) -> bool:
    return isinstance(item, dict) and item.keys() == set(_KEY) and all(isinstance(part, str) for part in item.values())
