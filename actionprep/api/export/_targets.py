"""Choose the views of an export, and write folders that appear when they are complete."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.errors import UserError, explained_disk_errors

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store

Progress = Callable[[int, int], None]
"""Function that is called with the numbers of finished and of all files or items."""


def chosen_views(store: Store, available: set[str], views: Sequence[str | int] | None) -> tuple[str, ...]:
    """Return the views that an export is for, by name.

    Raises:
        UserError: If there is no such view.
    """
    from actionprep.datasets.natural_order import natural_key
    from actionprep.datasets.view_ids import views_of_ids
    from actionprep.errors import nearest

    names = sorted(available, key=natural_key)
    if not views:
        return tuple(names)

    def no_view(id: str) -> str:
        return f"No view '{id}' in {store.url}.{nearest(id, names)} Available views: {', '.join(names) or 'none'}."

    return tuple(views_of_ids(views, names, no_view=no_view))


def check_target(target: Path, before: dict[str, Any] | None, *, overwrite: bool, instead: str = "") -> None:
    """Check that an export may be written to a folder.

    Args:
        target: The folder.
        before: Contents of its export.json, if it is a finished export.
        overwrite: Whether a finished export may be replaced.
        instead: What else the user can change, such as " or --name".

    Raises:
        UserError: If the folder is taken.
    """
    if os.path.lexists(target) and (before is None or not overwrite):
        what = "an export of other content or settings" if before is not None else "no export of actionprep"
        raise UserError(
            f"{target} exists and is {what}. "
            + ("Replace it with --overwrite, or choose" if before is not None else "Choose")
            + f" another folder{instead}."
        )


def move_into_place(draft: Path, target: Path) -> None:
    """Rename a finished draft to its name, and delete the export that it replaces."""
    if os.path.lexists(target):
        old = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        target.rename(old)
        draft.rename(target)
        delete(old)
    else:
        draft.rename(target)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the name of the target when its content is complete."""
    draft = target.with_name(f".{target.name}.partial")
    with explained_disk_errors(target):
        if os.path.lexists(draft):
            delete(draft)
        draft.mkdir(parents=True)
        yield draft
        move_into_place(draft, target)


def exported(folder: Path, format: str) -> dict[str, Any] | None:
    """Return the contents of the export.json of a folder that an export of this format wrote, else None."""
    from actionprep.datasets.npz_snippets import EXPORT

    try:
        facts = json.loads((folder / EXPORT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and facts.get("format") == format else None


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file that appears when it is complete."""
    from actionprep.datasets.atomic_files import write_text

    write_text(path, json.dumps(document, indent=1))


def delete(folder: Path) -> None:
    """Delete the folder of an export; of a link, delete the link."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        shutil.rmtree(folder)
