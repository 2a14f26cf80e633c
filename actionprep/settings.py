"""Settings models: one pydantic class per stage and recipe is the source of TOML keys, CLI options, defaults and help."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from actionprep.errors import UserError, nearest

Names = Literal["code", "file", "layout"]
"""What a setting can name: code or a program, a file or folder, or a TOML file with a layout of joints."""


@dataclass(frozen=True)
class Reference:
    """Marks a setting whose value leads outside of the settings.

    Attributes:
        names: What the value names; see `Names`.
        known: Whether a value is one of the program's own names instead, which leads nowhere else.
    """

    names: Names
    known: Callable[[Any], bool] = lambda value: False


@dataclass(frozen=True)
class Later:
    """Marks a setting that was added after items were stored without it; its default leaves their fingerprints alone."""


def is_no_layout_file(name: Any) -> bool:
    """Return whether a setting names a built-in layout of joints, or none, instead of a TOML file with a layout."""
    return name is None or not str(name).endswith(".toml")


def option(
    default: Any,
    help: str,
    *,
    names: Names | None = None,
    known: Callable[[Any], bool] | None = None,
    later: bool = False,
    **constraints: Any,
) -> Any:
    """Declare a settings field with its help text.

    Args:
        default: Default value; `...` for a required setting.
        help: One sentence, also the help of the command-line option.
        names: For a setting that names code, a program, a file or a folder. Only the user's own settings file and
            command line may set it: `read_recorded` ignores what data records for it.
        known: For such a setting, whether a value is one of the program's own names, which data may set.
        later: Whether the setting was added later, and its default gives the same bytes as before. It is then left out
            of fingerprints and records where it has its default, so that items are not rebuilt.
        **constraints: Pydantic's constraints (ge, gt, le, min_length, …).

    Returns:
        The pydantic field.
    """
    field = Field(default, description=help, **constraints)
    if names is not None:
        field.metadata.append(Reference(names) if known is None else Reference(names, known))
    if later:
        field.metadata.append(Later())
    return field


T = TypeVar("T", bound="Settings")

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
    "too_short": "Give a list of {min_length} or more values",
    "too_long": "Give a list of {max_length} or fewer values",
    "string_too_short": "Give at least {min_length} letters",
    "string_too_long": "Give at most {max_length} letters",
    "string_pattern_mismatch": "It must have the form {pattern}",
    "literal_error": "Give {expected}",
    "enum": "Give {expected}",
    **dict.fromkeys(("list_type", "tuple_type", "set_type"), "Give a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "Give a table"),
}
"""Messages for errors of pydantic, by their type."""


def in_plain_words(problem: Any) -> str:
    """Describe the expected value of an error of pydantic, as a sentence that may lack its full stop."""
    came = str(problem["input"])
    if problem["type"] in _PLAIN:
        context = {
            key: f"{value:g}" if isinstance(value, float) else value for key, value in problem.get("ctx", {}).items()
        }
        known = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return f"{_PLAIN[problem['type']].format_map(context)}.{nearest(came, known)}"
    message = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "It should be")
    choice = re.fullmatch(r"'.*' is not one of ('.*')\.?", message)
    if choice is not None:
        known = re.findall(r"'([^']*)'", choice[1])
        return f"Give one of {choice[1]}.{nearest(came, known)}"
    return message[:1].upper() + message[1:]


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown keys, errors that name the key, the value and the nearest right key."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def read(cls, values: dict[str, Any], *, where: str) -> Self:
        """Validate plain values from TOML or from the command line.

        Args:
            values: Value by name of the setting.
            where: Origin to name in errors, for example "[tracks] in actionprep.toml" or "actionprep track".

        Raises:
            UserError: Lists every wrong key or value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = error.errors()
            # A list with a wrong value is also reported as too short, which misleads.
            paths = [problem["loc"] for problem in problems]
            shown = [
                problem
                for problem in problems
                if not any(
                    len(path) > len(problem["loc"]) and path[: len(problem["loc"])] == problem["loc"] for path in paths
                )
            ]
            raise UserError("\n".join(cls._explain(problem, where) for problem in shown)) from None

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
        """Return the model, this one or a nested one, and the field that an error is about."""
        model: type[BaseModel] = cls
        field = None
        for part in place:
            inner = _settings_of(field)
            model = inner if issubclass(inner, BaseModel) else model
            model_field = model.model_fields.get(str(part))
            field = field if model_field is None else model_field
        return model, field

    def with_changes(self, changes: dict[str, Any], *, where: str) -> Self:
        """Return these settings with some replaced and all validated again; None keeps a value."""
        given = {key: value for key, value in changes.items() if value is not None}
        return type(self).read({**self.model_dump(), **given}, where=where)

    def digest(self) -> str:
        """Return a hash of all values. Equal settings have equal hashes."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()


def wrong_option(name: str, came: Any, message: str, meaning: str = "") -> str:
    """Return the message for a wrong value of an option: name, value, expected value and meaning as " (…)"."""
    shown = " ".join(map(str, came)) if isinstance(came, (list, tuple)) else repr(came)
    if isinstance(came, str) and re.fullmatch(r"[-+.\w]*\d", came):
        shown = came
    return f"Wrong value for {name}: got {shown}. {_sentence(message)}{meaning}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _meaning(field: Any) -> str:
    return f" ({field.description})" if field is not None and field.description else ""


def _settings_of(field: Any) -> type:
    """Return the settings model of a field; object if it has none."""
    kind = getattr(field, "annotation", None)
    kinds = [kind, *getattr(kind, "__args__", ())]
    return next(
        (candidate for candidate in kinds if isinstance(candidate, type) and issubclass(candidate, BaseModel)), object
    )


class StageSettings(Settings):
    """Base of the settings of pipeline stages."""

    # Where relative paths start; not a setting, so that a study may be moved without rebuilding its items.
    _root: Path = PrivateAttr(Path())
    _command_line: dict[str, Any] = PrivateAttr({})

    def recorded(self) -> dict[str, Any]:
        """Return the plain values that fingerprints and records contain: all but the defaults of later settings."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            if any(isinstance(mark, Later) for mark in field.metadata) and getattr(self, name) == field.default:
                del values[name]
        return values

    @property
    def command_line(self) -> dict[str, Any]:
        """Settings whose value came from the command line and differed from the settings file.

        Returns:
            By name the plain value that the settings file gave at that time.
        """
        return dict(self._command_line)

    def with_command_line(self, in_file: Mapping[str, Any]) -> Self:
        """Return these settings with a record of what came from the command line; see `command_line`."""
        marked = self.model_copy()
        marked._command_line = dict(sorted(in_file.items()))
        return marked

    def at(self, root: Path) -> Self:
        """Return these settings with relative paths that start at a folder."""
        placed = self.model_copy()
        placed._root = root
        return placed

    def path(self, given: str) -> Path:
        """Resolve a path of the settings. Relative ones start at the study folder, wherever the command runs."""
        return self._root / Path(given).expanduser()


@dataclass(frozen=True)
class Ignored:
    """A recorded setting that was not used, because data must not name code or files.

    Attributes:
        setting: Table and name, such as "tracks.repo".
        names: What it names.
        recorded: The value that the data record.
        used: The user's own value, which counts instead; the default where the user set none.
        is_set: Whether the user set one.
        where: What recorded it.
    """

    setting: str
    names: Names
    recorded: Any
    used: Any
    is_set: bool
    where: str

    def __str__(self) -> str:
        what = "code" if self.names == "code" else "a file"
        instead = f"{self.used!r}, as you set it" if self.is_set else f"the default, {self.used!r}"
        return (
            f"Ignored {self.setting} = {self.recorded!r}, recorded in {self.where}: data must not name {what}. Only your "
            f"own {_FILE} or the command line sets it. Used instead: {instead}."
        )


_FILE = "actionprep.toml"


@dataclass(frozen=True)
class Recorded(Generic[T]):
    """Settings as data record them, with the user's own values for everything that leads outside of them.

    Attributes:
        settings: The settings to use. They may not fit together where something is ignored; `require` checks.
        as_written: The recorded values, for comparison alone: nothing may follow a path in them.
        ignored: What was recorded and is not used.
        problem: The first rule that the settings break without what was ignored; empty if they fit together.
    """

    settings: T
    as_written: dict[str, Any]
    ignored: tuple[Ignored, ...] = ()
    problem: str = ""

    @property
    def can_compare(self) -> bool:
        """Whether the user set every ignored setting themselves, so that contents can be compared."""
        return all(setting.is_set for setting in self.ignored)

    def require(self) -> T:
        """Return settings that are complete.

        Raises:
            UserError: If they lack what was ignored; the error names the settings to give.
        """
        if self.problem:
            raise UserError("\n".join([*map(str, self.ignored), f"Without it: {self.problem}. Set it and run again."]))
        return self.settings


def references(model: type[BaseModel]) -> dict[str, Reference]:
    """Return the settings of a model that name code, a program, a file or a folder."""
    named = {}
    for name, field in model.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Reference)]
        if marks:
            named[name] = marks[0]
    return named


def is_reference(model: type[BaseModel], name: str, value: Any) -> bool:
    """Return whether a value of a setting leads outside of the settings, to code or to a file."""
    mark = references(model).get(name)
    if mark is None:
        return False
    default = model.model_fields[name].get_default(call_default_factory=True)
    return bool(value != default and not mark.known(value))


def read_recorded(own: T, recorded: Mapping[str, Any], *, table: str, where: str) -> Recorded[T]:
    """Read settings that data record: a checkpoint, a run, an item of a store.

    Data must not make the program run code or read files. What they record for settings that are marked with
    `option(..., names=...)` is compared only; the user's own value is used. Every reader of recorded settings goes
    through this function.

    Args:
        own: The user's own settings, from their settings file and command line.
        recorded: The plain values that the data record.
        table: Name of the settings, such as "tracks".
        where: What records them, for messages.

    Returns:
        The settings to use and what was ignored.

    Raises:
        UserError: If the recorded values are not valid settings.
    """
    model = type(own)
    written = model.read(dict(recorded), where=where)
    taken, ignored = {}, []
    for name, mark in references(model).items():
        value, mine = getattr(written, name), getattr(own, name)
        if value != mine and is_reference(model, name, value):
            taken[name] = mine
            is_set = mine != model.model_fields[name].get_default(call_default_factory=True)
            ignored.append(Ignored(f"{table}.{name}", mark.names, value, mine, is_set, where))
    settings, problem = written.model_copy(update=taken), ""
    if taken:
        try:
            model.model_validate(settings.model_dump())
        except ValidationError as error:
            problem = str(error.errors()[0]["msg"]).removeprefix("Value error, ").removesuffix(".")
    values = written.recorded() if isinstance(written, StageSettings) else written.model_dump(mode="json")
    return Recorded(settings, values, tuple(ignored), problem)


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no blanks: equal values give equal text."""
    return _CANONICAL.encode(value)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
