"""Which views are meant by what a user calls them: by names, or by indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from actionprep.errors import UserError


def view_of(id: str, names: Sequence[str]) -> str | None:
    """The view that one id means: the one of that name, else the one at that 0-based index; None where there is none."""
    if id in names:
        return id
    return names[int(id)] if id.isdecimal() and int(id) < len(names) else None


def views_of_ids(ids: Sequence[str | int], names: Sequence[str], *, no_view: Callable[[str], str]) -> dict[str, str]:
    """The views that ids mean, in their order: {name: id}.

    names:   of all views, in natural order.
    no_view: what to say of an id that means none.

    All ids are names, or else all are 0-based indices, so that a name that is a number has one meaning beside the others.

    Raises UserError for an id that means no view, for names among indices, and for a view that is given twice.
    """
    given = [str(id) for id in ids]
    for id in given:
        if view_of(id, names) is None:
            raise UserError(no_view(id))
    known = f"The views are {', '.join(names)}."
    if all(id in names for id in given):
        meant = given
    elif all(id.isdecimal() and int(id) < len(names) for id in given):
        meant = [names[int(id)] for id in given]
    else:
        name, other = next(id for id in given if id in names), next(id for id in given if id not in names)
        raise UserError(
            f"Views are all given by name, or all by index from 0; '{name}' is a view's name, and '{other}' is none. {known}"
        )
    twice = next((name for at, name in enumerate(meant) if name in meant[:at]), None)
    if twice is not None:
        raise UserError(f"View '{twice}' is given twice: {' '.join(given)}. Give each view once. {known}")
    return dict(zip(meant, given, strict=True))
