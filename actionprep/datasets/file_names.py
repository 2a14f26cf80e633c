"""Get recording, view, label and subject from file names: by a pattern, or by a preset for a published data set."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

from actionprep.datasets.names_to_ids import FIELDS
from actionprep.errors import UserError, nearest
from actionprep.settings import Settings, option

NAME_PRESETS = Path(__file__).parent / "name_presets"
"""Folder of the presets, one TOML file per data set."""


class NamePreset(Settings):
    """How the files of a data set are named."""

    title: str = option(..., "Data set, with an example of a name.")
    expression: str = option(..., "Regular expression of the path below the videos folder, with named groups.")
    recording: str = option(..., "The recording's id, with groups in braces.")
    view: str = option("0", "The view's id.")
    subject: str | None = option(None, "The subject.")
    session: str | None = option(None, "The session.")
    label: str | None = option(None, "The label.")


def name_presets() -> dict[str, NamePreset]:
    """Return all presets by the name that study.pattern takes."""
    return {
        path.stem: NamePreset.read(tomllib.loads(path.read_text(encoding="utf-8")), where=str(path))
        for path in sorted(NAME_PRESETS.glob("*.toml"))
    }


def reader_of_names(pattern: str) -> Callable[[str], dict[str, str] | None]:
    """Return a function from a path to its fields; it returns None for a path of another form.

    Args:
        pattern: A pattern with fields, or the name of a preset.

    Raises:
        UserError: If a field does not exist.
    """
    preset = name_presets().get(pattern)
    if preset is None:
        form = pattern_of_paths(pattern)

        def fields(path: str) -> dict[str, str] | None:
            match = form.fullmatch(path)
            return None if match is None else match.groupdict()

        return fields
    expression = re.compile(preset.expression)
    texts = preset.model_dump(exclude={"title", "expression"}, exclude_none=True)

    def preset_fields(path: str) -> dict[str, str] | None:
        match = expression.fullmatch(path)
        return None if match is None else {name: text.format(**match.groupdict()) for name, text in texts.items()}

    return preset_fields


def pattern_of_paths(pattern: str) -> re.Pattern[str]:
    """Translate a pattern of the layout "views" into a regular expression with its fields as groups.

    Raises:
        UserError: If a field does not exist.
    """
    known = ("recording", "view", *FIELDS)
    parts = []
    used: set[str] = set()
    for part in re.split(r"(\{[^{}]*\}|\*\*|\*)", pattern.strip("/")):
        if part.startswith("{"):
            name = part[1:-1]
            if name not in known:
                raise UserError(
                    f"Unknown field '{part}' in the pattern '{pattern}'.{nearest(name, known)} "
                    f"Fields: {', '.join(f'{{{field}}}' for field in known)}."
                )
            text = ".+" if name == "recording" else "[^/]+?"
            parts.append(f"(?P={name})" if name in used else f"(?P<{name}>{text})")
            used.add(name)
        else:
            parts.append({"*": "[^/]*", "**": ".*"}.get(part) or re.escape(part))
    return re.compile("".join(parts))
