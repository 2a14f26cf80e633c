"""Find the views that ids on a command line or in settings mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from actionprep.errors import UserError


def view_of(id: str, names: Sequence[str]) -> str | None:
    """Find the view that an id means.

    An exact name always wins. Otherwise a number means the view with that number in its name: `1` is `01` and `3` is
    `cam3`. An index, from 0, counts only if no name contains a digit, as in `left` and `right`.

    Args:
        id: Name, number or index.
        names: Ids of all views of the study, in natural order.

    Returns:
        Name of the view; None if the id means none, or if several have that number.
    """
    if id in names:
        return id
    if not id.isdecimal():
        return None
    if not any(re.search(r"\d", name) for name in names):
        return names[int(id)] if int(id) < len(names) else None
    matching = views_with_number(id, names)
    return matching[0] if len(matching) == 1 else None


def views_with_number(id: str, names: Sequence[str]) -> list[str]:
    """Return the views with a number in their name, as long as it is the only number there."""
    if not id.isdecimal():
        return []
    return [name for name in names if [int(number) for number in re.findall(r"\d+", name)] == [int(id)]]


def views_of_ids(ids: Sequence[str | int], names: Sequence[str], *, no_view: Callable[[str], str]) -> dict[str, str]:
    """Find the views that several ids mean.

    Args:
        ids: Names, numbers or indices; see `view_of`.
        names: Ids of all views of the study, in natural order.
        no_view: Returns the error message for an id that means no view.

    Returns:
        Name of the view → the given id, in the order of the ids.

    Raises:
        UserError: If an id means no view, or a view is given twice.
    """
    given = [str(id) for id in ids]
    views: dict[str, str] = {}
    for id in given:
        name = view_of(id, names)
        if name is None:
            raise UserError(no_view(id))
        if name in views:
            raise UserError(
                f"View '{name}' is given twice: {' '.join(given)}. Give each view once. "
                f"Available views: {', '.join(names)}."
            )
        views[name] = id
    return views
