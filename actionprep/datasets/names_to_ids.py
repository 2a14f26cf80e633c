"""Names of files as text and as ids: a disk takes names that tables and the store cannot."""

from __future__ import annotations

NOT_TEXT = "its name is not UTF-8 text, as names of other systems are after unpacking; rename it"


FIELDS = ("label", "subject", "session", "split")
"""What file names and tables state about recordings."""


def is_text(name: str) -> bool:
    """Whether a name from the disk is UTF-8; Python stands for other bytes with characters that cannot be encoded."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def id_of_name(name: str) -> str:
    """Turn a relative path without suffix into an id that the store takes.

    The store skips names that begin with a dot, and Zarr reserves "zarr.json" and names that begin with two underscores.

    Args:
        name: Path with "/" between its parts.

    Returns:
        The same text where it is an id already.
    """
    parts = [part.lstrip(".").replace("\\", "_") or "_" for part in name.split("/")]
    parts = ["_" + part.lstrip("_") if part.startswith("__") else part for part in parts]
    return "/".join("zarr_json" if part == "zarr.json" else part for part in parts)
