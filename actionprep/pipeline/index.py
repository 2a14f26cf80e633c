"""Which stages there are: found by reading the stage files, so that `--help` need not import them."""

from __future__ import annotations

import functools
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actionprep.pipeline.stage import Stage

_DECORATOR = re.compile(r'^@stage\(\s*"(?P<name>\w+)"(?:[^)]*command="(?P<command>\w+)")?', re.MULTILINE)
# The first line of a file says what it is for; it is also the command's line in `--help`.
_FIRST_LINE = re.compile(r'^"""(?P<help>[^\n]*?)\.?(?:"""|\n)')

# The order in which a study is built, for help and tables; stages that are not named follow by name.
_ORDER = ("frames", "keyframes", "masks", "tracks", "pose", "heatmaps", "lowres", "snippets", "split")


@dataclass(frozen=True)
class StageEntry:
    """One stage, as found in its file."""

    name: str
    command: str
    module: str
    help: str


@functools.cache
def stage_index() -> dict[str, StageEntry]:
    """All stages by product name: every file of this package with `@stage("name", …)` at the start of a line."""
    found = {}
    for path in Path(__file__).parent.glob("*.py"):
        if path.name == "stage.py":
            continue
        text = path.read_text(encoding="utf-8")
        for match in _DECORATOR.finditer(text):
            first = _FIRST_LINE.match(text)
            name = match["name"]
            found[name] = StageEntry(
                name, match["command"] or name, f"actionprep.pipeline.{path.stem}", first["help"] if first else name
            )
    order = {name: at for at, name in enumerate(_ORDER)}
    return dict(sorted(found.items(), key=lambda pair: (order.get(pair[0], len(order)), pair[0])))


@functools.cache
def load_stages() -> dict[str, type[Stage]]:
    """Import every stage file; returns the registry, in the index's order."""
    from actionprep.pipeline.stage import STAGES

    for entry in stage_index().values():
        importlib.import_module(entry.module)
    ordered = {name: STAGES[name] for name in stage_index() if name in STAGES}
    ordered.update(STAGES)
    return ordered
