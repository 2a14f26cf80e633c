"""Tables of backends, of one kind each: classes by the name that a setting gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from actionprep.errors import UserError, nearest

B = TypeVar("B")
C = TypeVar("C", bound=type)


class Backends(dict[str, type[B]]):
    """Backends of one kind by name."""

    def __init__(self, kind: str, *, short: str) -> None:
        """kind: what one of them is called, such as "point tracker"; short: what a list of them is headed with."""
        super().__init__()
        self._kind, self._short = kind, short

    def register(self, name: str) -> Callable[[C], C]:
        """Put a class into the table, and give it `name` and, from its docstring's first line, `help`."""

        def put(cls: C) -> C:
            if name in self and self[name].__qualname__ != cls.__qualname__:
                raise ValueError(
                    f"Two {self._kind}s are called '{name}': {self[name].__qualname__} and {cls.__qualname__}."
                )
            cls.name = name  # type: ignore[attr-defined]
            cls.help = (cls.__doc__ or "").strip().split("\n")[0]  # type: ignore[attr-defined]
            self[name] = cls
            return cls

        return put

    def find(self, name: str) -> type[B]:
        """The backend of that name; raises UserError naming the nearest one."""
        if name not in self:
            raise UserError(f"No {self._kind} '{name}'.{nearest(name, self)} {self._short}: {', '.join(self)}.")
        return self[name]
