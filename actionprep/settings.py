"""Settings models: one pydantic class per stage and recipe is the source of TOML keys, CLI options, defaults and help."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from actionprep.errors import UserError, nearest


def option(default: Any, help: str, **constraints: Any) -> Any:
    """A settings field with its help text; constraints are pydantic's (ge, gt, le, min_length, …)."""
    return Field(default, description=help, **constraints)


COMMAND_LINE = "the command line"
"""Where settings come from that are options: their errors name the option."""

_PLAIN = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), "Give a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "Give a number"),
    "finite_number": "Give a number that is not infinite",
    **dict.fromkeys(("bool_parsing", "bool_type"), "Give true or false"),
    "string_type": "Give a text in quotes",
    "greater_than_equal": "Give {ge} or more",
    "greater_than": "Give more than {gt}",
    "less_than_equal": "Give {le} or less",
    "less_than": "Give less than {lt}",
    "too_short": "Give {min_length} value(s) or more",
    "too_long": "Give {max_length} value(s) or fewer",
    "string_too_short": "Give {min_length} letter(s) or more",
    "string_too_long": "Give {max_length} letter(s) or fewer",
    "string_pattern_mismatch": "It must have the form {pattern}",
    "literal_error": "Give {expected}",
    "enum": "Give {expected}",
    **dict.fromkeys(("list_type", "tuple_type", "set_type"), "Give a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "Give a table"),
}
"""Our words for what pydantic finds, by its type of error."""


def in_plain_words(problem: Any) -> str:
    """What one of pydantic's errors says should have come, as a sentence that may lack its full stop."""
    came = str(problem["input"])
    if problem["type"] in _PLAIN:
        context = {
            key: f"{value:g}" if isinstance(value, float) else value for key, value in problem.get("ctx", {}).items()
        }
        known = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return f"{_PLAIN[problem['type']].format_map(context)}.{nearest(came, known)}"
    said = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "It should be")
    choice = re.fullmatch(r"'.*' is not one of ('.*')\.?", said)
    if choice is not None:
        known = re.findall(r"'([^']*)'", choice[1])
        return f"Give one of {choice[1]}.{nearest(came, known)}"
    return said[:1].upper() + said[1:]


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
            problems = error.errors()
            # A list with a wrong value is also told to be too short: that follows, and misleads.
            places = [one["loc"] for one in problems]
            told = [
                one
                for one in problems
                if not any(len(place) > len(one["loc"]) and place[: len(one["loc"])] == one["loc"] for place in places)
            ]
            raise UserError("\n".join(cls._explain(problem, where) for problem in told)) from None

    @classmethod
    def _explain(cls, problem: Any, where: str) -> str:
        key = ".".join(str(part) for part in problem["loc"])
        message = in_plain_words(problem)
        rule = str(problem["msg"]).removeprefix("Value error, ").removesuffix(".")
        if not key:
            # A rule between several settings: its message names them.
            return f"Wrong options: {rule}." if where == COMMAND_LINE else f"Wrong settings in {where}: {rule}."
        model, field = cls._at(problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = list(model.model_fields)
            last = str(problem["loc"][-1])
            return f"Unknown setting '{key}' in {where}.{nearest(last, known)} Known settings: {', '.join(known)}."
        short = problem["type"] == "missing" and isinstance(problem["loc"][-1], int)
        if short:  # one of a fixed number of values
            key = key.rpartition(".")[0]
            message = f"Give {len(get_args(field.annotation)) or 'more'} values"
        elif problem["type"] == "missing":
            return f"Missing setting '{key}' in {where}{_meaning(field)}."
        if issubclass(_settings_of(field), BaseModel) and problem["type"] == "value_error":
            return f"Wrong settings in [{key}] of {where}: {rule}."
        came = problem["input"]
        if where == COMMAND_LINE:
            return wrong_option(f"--{str(problem['loc'][0]).replace('_', '-')}", came, message, _meaning(field))
        return f"Wrong value for '{key}' in {where}: got {came!r}. {_sentence(message)}{_meaning(field)}"

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


def wrong_option(name: str, came: Any, message: str, meaning: str = "") -> str:
    """The error of an option's value: its name, what came, what should have, and what it means, as " (…)"."""
    shown = " ".join(map(str, came)) if isinstance(came, (list, tuple)) else repr(came)
    if isinstance(came, str) and re.fullmatch(r"[-+.\w]*\d", came):
        shown = came
    return f"Wrong value for {name}: got {shown}. {_sentence(message)}{meaning}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


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
