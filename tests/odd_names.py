"""Names in data that must not lead outside a folder, and a snapshot of what is outside."""

from __future__ import annotations

from pathlib import Path

ESCAPES = (
    "..",
    "../victim",
    "a/../../victim",
    "/tmp/victim-of-a-name",
    "..\\victim",
    "nul\0name",
    "x" * 300,
    "/".join(["y" * 200] * 30),
)
"""Names that cannot name anything below a folder."""

ODD = ("\x1b[2J\x1b[31mred", "<img src=x onerror=alert(1)>", "a&b 'c' \"d\"", "new\nline")
"""Names that a file system accepts, and that terminals and pages must escape."""


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Return every file, link and folder below a folder, with its content."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }
