"""The order in which people sort names with numbers."""

from __future__ import annotations

import re


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts "cam2" before "cam10"; keys are equal only for equal texts."""
    parts = re.split(r"(\d+)", text)
    numbers = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part)
    return (*numbers, (-1, 0, text))
