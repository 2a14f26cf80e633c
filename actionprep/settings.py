"""Settings models: one pydantic class per stage and recipe is the source of TOML keys, CLI options, defaults and help."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from actionprep.errors import UserError, nearest


def option(default: Any, help: str, **constraints: Any) -> Any:
    """A settings field with its help text; constraints are pydantic's (ge, gt, le, min_length, …)."""
    return Field(default, description=help, **constraints)


_PLAIN = {
    "int_parsing": "Give a whole number",
    "int_from_float": "Give a whole number",
    "float_parsing": "Give a number",
    "bool_parsing": "Give true or false",
}
"""Our words for what pydantic finds, by its type of error."""


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown keys, errors that name the key, the value and the nearest right key."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def read(cls, values: dict[str, Any], *, where: str) -> Self:
        """Validate plain values, as they come from TOML or from the command line.

        where: what to name in the error, e.g. "[tracks] in actionprep.toml" or "actionprep track".

        Raises UserError that lists every wrong key or value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError("\n".join(cls._explain(problem, where) for problem in error.errors())) from None

    @classmethod
    def _explain(cls, problem: Any, where: str) -> str:
        key = ".".join(str(part) for part in problem["loc"])
        message = _PLAIN.get(problem["type"], str(problem["msg"]).removeprefix("Value error, "))
        if not key:
            # A rule between several settings: its message names them.
            return f"Wrong settings in {where}: {message}.".replace("..", ".")
        model, field = cls._at(problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = list(model.model_fields)
            last = str(problem["loc"][-1])
            return f"Unknown setting '{key}' in {where}.{nearest(last, known)} Known settings: {', '.join(known)}."
        if problem["type"] == "missing":
            return f"Missing setting '{key}' in {where}{_meaning(field)}."
        if issubclass(_settings_of(field), BaseModel) and problem["type"] == "value_error":
            return f"Wrong settings in [{key}] of {where}: {message}.".replace("..", ".")
        return f"Wrong value for '{key}' in {where}: got {problem['input']!r}. {message}.{_meaning(field)}".replace(
            "..", "."
        )

    @classmethod
    def _at(cls, place: tuple[Any, ...]) -> tuple[type[BaseModel], Any]:
        """The model, this one or one inside it, and its field that the place of a problem leads to."""
        model: type[BaseModel] = cls
        field = None
        for part in place:
            inner = _settings_of(field)
            model = inner if issubclass(inner, BaseModel) else model
            found = model.model_fields.get(str(part))
            field = field if found is None else found
        return model, field

    def with_changes(self, changes: dict[str, Any], *, where: str) -> Self:
        """These settings with some replaced and validated anew; None values mean "leave as it is"."""
        given = {key: value for key, value in changes.items() if value is not None}
        return type(self).read({**self.model_dump(), **given}, where=where)

    def digest(self) -> str:
        """Hash of all values, equal for equal settings."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()


def _meaning(field: Any) -> str:
    return f" ({field.description})" if field is not None and field.description else ""


def _settings_of(field: Any) -> type:
    """The settings model that a field holds; object where it holds none."""
    kind = getattr(field, "annotation", None)
    kinds = [kind, *getattr(kind, "__args__", ())]
    return next((one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)), object)


class StageSettings(Settings):
    """Base of the settings of pipeline stages."""

    # Where relative paths start; not a setting, so that a study may be moved without making its items anew.
    _root: Path = PrivateAttr(Path())

    def at(self, root: Path) -> Self:
        """These settings, with relative paths in them starting at that folder."""
        placed = self.model_copy()
        placed._root = root
        return placed

    def path(self, given: str) -> Path:
        """A path that stands in the settings: relative ones start at the study folder, wherever the command is run."""
        return self._root / Path(given).expanduser()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
