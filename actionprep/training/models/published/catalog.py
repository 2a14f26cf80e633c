"""The list of published checkpoints that load here, from checkpoints.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublishedCheckpoint:
    """One published checkpoint.

    Attributes:
        name: Model and training data.
        family: Name of its layout, a key of `FAMILIES`.
        recipe: Recipe that it fits.
        url: Download page or file.
        license: License of the repository that lists it.
        source: Page that lists it.
        sha256: Hash of the file, where the source publishes it; "" otherwise.
    """

    name: str
    family: str
    recipe: str
    url: str
    license: str
    source: str
    sha256: str = ""


def published_checkpoints() -> list[PublishedCheckpoint]:
    """Return all listed checkpoints, in the order of the file."""
    tables = tomllib.loads(Path(__file__).with_name("checkpoints.toml").read_text(encoding="utf-8"))
    return [
        PublishedCheckpoint(**file, **{key: table[key] for key in ("family", "license", "source")})
        for table in tables.values()
        for file in table["files"]
    ]
