"""Plain values for JSON, and plain text for terminals and logs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Values that JSON knows; numbers that are none become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


# Control characters but for the tab and the end of a line, marks that reorder or hide text, and halves of surrogate pairs,
# with which Python stands for bytes of file names that are not UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Escape what a terminal would obey, hide or refuse, as Python writes it in a string.

    Args:
        text: Any text, such as a message with names of files.

    Returns:
        The text with control characters as "\x1b" or "\u202e" and bytes that are not UTF-8 as "\xe9". Line ends and tabs
        stay.
    """
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Write a count with its noun in singular or plural.

    Args:
        count: The count.
        noun: Noun in singular, such as "recording" or "class".
        plural: Its plural where the rules (-s, -es, -ies) do not give it.

    Returns:
        Text such as "1 recording", "2 classes" or "12,345 frames".
    """
    if count == 1:
        return f"1 {noun}"
    if plural is None:
        if re.search(r"(s|x|z|ch|sh)$", noun):
            plural = f"{noun}es"
        else:
            plural = re.sub(r"(?<![aeiou])y$", "ie", noun) + "s"
    return f"{count:,} {plural}"
