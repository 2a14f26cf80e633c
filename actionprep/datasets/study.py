"""The study folder: finding it, its settings file, and what the settings resolve to."""

from __future__ import annotations

import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from actionprep.datasets.paths import no_link
from actionprep.datasets.recordings import Clock
from actionprep.errors import SetupError, UserError, nearest
from actionprep.settings import COMMAND_LINE, Settings, is_no_layout_file, option

SETTINGS_FILE = "actionprep.toml"
NOT_SET = "none"  # TOML has no null: this word stands for None where a setting allows it

S = TypeVar("S", bound=Settings)


class StudySettings(Settings):
    """Where the recordings are and how they are laid out."""

    name: str = option("", "Name of the study; the folder's name when empty.")
    layout: Literal["folder-per-class", "views", "csv", "poses"] = option(
        "folder-per-class",
        "How videos are found: folder-per-class (<class>/<clip>.mp4), views (a pattern with {recording} and {view}), "
        "csv (a table of recordings); poses is for skeleton data sets without videos.",
    )
    videos: str = option("videos", "Folder of the videos, relative to the study or absolute.", names="file")
    pattern: str = option(
        "{recording}/cam{view}.mp4",
        "Layout views: path of each video below the videos folder. {recording} may span folders; {view}, {label}, "
        "{subject}, {session} and {split} are one name each; * matches anything but a slash.",
        names="file",
    )
    csv: str | None = option(None, "Layout csv: table with one row a video, or one row a segment.", names="file")
    path_column: str = option("path", "Column of that table with the video's path.")
    recording_column: str = option(
        "recording", "Column with the recording's id; the path without extension when absent."
    )
    view_column: str = option("view", "Column with the view's id.")
    label_column: str = option("label", "Column with the label.")
    subject_column: str = option("subject", "Column with the subject.")
    session_column: str = option("session", "Column with the session.")
    split_column: str = option("split", "Column with the given split: train, val or test.")
    recordings: str | None = option(
        None, "Table with subject, session, label and split of recordings, for any layout.", names="file"
    )
    segments: tuple[str, ...] = option(
        (), "Annotation files, folders or glob patterns with segments, for any layout.", names="file"
    )
    segment_format: str = option("auto", "Format of the annotation files; auto looks into each.")
    segment_columns: dict[str, str] = option(
        {}, "Names of columns in csv annotations, where they differ: { recording = 'video_id', onset = 'start' }."
    )
    offsets: str | None = option(
        None,
        "Table with recording, view, offset (s) and optionally drift (ppm): each view's clock against the recording's.",
        names="file",
    )
    poses: tuple[str, ...] = option(
        (),
        "Layout poses: files or folders of a skeleton data set; 'actionprep import' writes these settings.",
        names="file",
    )
    pose_format: str = option("auto", "Layout poses: their format (see 'actionprep formats'); auto looks into each.")
    pose_skeleton: str = option(
        "", "Layout poses: layout of the joints, where the files do not say.", names="file", known=is_no_layout_file
    )
    pose_coordinates: str = option("", "Layout poses: of ntu, world, color or depth; of jhmdb, image or world.")
    pose_image_size: tuple[int, int] | None = option(
        None, "Layout poses: height and width of the pictures in px, where the files do not say."
    )
    pose_fps: float = option(30.0, "Layout poses: frames a second, where the files do not say.", gt=0)
    pose_labels: str | None = option(
        None, "Layout poses: text file with the classes' names, one a line, for numbers.", names="file"
    )
    clock: Clock = option(
        "file",
        'Time 0 of a view before its offset: "file" is the earliest video or audio stream of its file, as in players; '
        '"first-frame" is its first frame; "container" is the zero of its time stamps (for cameras that share a '
        "clock).",
    )
    tolerance: float = option(0.05, "Views count as aligned when frames of one instant lie this close, in s.", gt=0)
    allow_misaligned: bool = option(False, "Go on with recordings whose views are worse than the tolerance.")
    stages: tuple[str, ...] = option(
        ("tracks", "snippets"), "What 'actionprep build' makes, by product; what these read is made too."
    )
    views: tuple[str, ...] = option((), "Views used when a command names none; all when empty.")
    skip_incomplete: bool = option(False, "Leave out recordings that lack a wanted view, instead of stopping.")
    failure_budget: float = option(0.2, "Share of the work that may fail before a build stops.", ge=0, le=1)
    store: str = option("store", "Folder or fsspec URL of the store.", names="file")


@dataclass(frozen=True)
class StudyFolder:
    """A folder with an actionprep.toml, and where everything of the study lies in it."""

    root: Path

    @property
    def settings_file(self) -> Path:
        """The settings, as the user wrote them."""
        return self.root / SETTINGS_FILE

    @property
    def catalog(self) -> Path:
        """Folder of the catalog's tables.

        Studies made before version 0.2 have it as `catalogue`; it is read there until the next scan renames it.
        """
        current, former = self.root / "catalog", self.root / "catalogue"
        return former if former.is_dir() and not current.is_dir() else current

    def rename_former_catalog(self) -> None:
        """Rename the catalog folder of a study made before version 0.2 to its current name."""
        if self.catalog.name == "catalogue":
            self.catalog.rename(self.root / "catalog")

    @property
    def runs(self) -> Path:
        """Folder of the trainings."""
        return self.root / "runs"

    @property
    def quarantine(self) -> Path:
        """Folder with what failed and why."""
        return self.root / "quarantine"

    @cached_property
    def study(self) -> StudySettings:
        """The [study] table, validated."""
        return self.settings_for("study", StudySettings)

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.study.name or self.root.resolve().name

    @property
    def store(self) -> str:
        """Path or URL of the store, as set in [study]."""
        return self.study.store if "://" in self.study.store else str(self.resolve(self.study.store))

    def resolve(self, path: str | Path) -> Path:
        """A path of the settings: relative ones start at the study folder."""
        return self.root / Path(path).expanduser()

    def relative(self, path: str | Path) -> str:
        """A path as the catalog keeps it: relative to the study folder when inside, else absolute; with slashes."""
        path = Path(os.path.abspath(path))
        root = Path(os.path.abspath(self.root))
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()

    @cached_property
    def tables(self) -> dict[str, dict[str, Any]]:
        """The file's tables as plain values; raises UserError for a file that is not TOML."""
        return read_tables(self.settings_file)

    def check_tables(self, known: typing.Iterable[str]) -> None:
        """Raise UserError for a table that nothing reads, naming the nearest one."""
        known = sorted({"study", *known})
        for name in self.tables:
            if name not in known:
                raise UserError(
                    f"Unknown table [{name}] in {self.settings_file}.{nearest(name, known)} "
                    f"Known tables: {', '.join(known)}."
                )

    def settings_for(self, section: str, model: type[S], overrides: Mapping[str, Any] | None = None) -> S:
        """Settings of one table: the model's defaults, then the file, then the overrides whose value is not None.

        Raises UserError that lists every unknown key, with the nearest known one, and every wrong value.
        """
        values = _with_nones(model, self.tables.get(section, {}))
        settings = model.read(values, where=f"[{section}] in {self.settings_file}")
        if not overrides:
            return settings
        given = {key: value for key, value in overrides.items() if value is not None}
        cleared = _with_nones(model, given)
        # An override of "none" must reach the model as None, which `with_changes` takes for "leave as it is".
        if any(value is None for value in cleared.values()):
            return model.read({**settings.model_dump(), **cleared}, where=COMMAND_LINE)
        return settings.with_changes(cleared, where=COMMAND_LINE)

    def resolved(
        self, models: Mapping[str, type[Settings]], overrides: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, Settings]:
        """Settings of all tables; raises UserError for unknown tables, keys and wrong values."""
        models = {"study": StudySettings, **models}
        self.check_tables(models)
        overrides = overrides or {}
        return {name: self.settings_for(name, model, overrides.get(name)) for name, model in models.items()}

    def change(self, section: str, key: str, value: Any) -> None:
        """Set one key in the file and leave its comments and everything else as they are."""
        import tomlkit

        document = tomlkit.parse(_read_text(self.settings_file))
        if section not in document:
            document[section] = tomlkit.table()
        table: Any = document[section]
        table[key] = NOT_SET if value is None else _toml_item(value)
        _write_text(self.settings_file, tomlkit.dumps(document))
        for cached in ("tables", "study"):
            self.__dict__.pop(cached, None)


def find_study(start: str | Path | None = None, *, study: str | Path | None = None) -> StudyFolder:
    """The study that a command works in: `study` itself when given, else found by walking up from `start`.

    Raises UserError when there is none.
    """
    if study is not None:
        root = Path(study).expanduser()
        if root.name == SETTINGS_FILE:
            root = root.parent
        if not (root / SETTINGS_FILE).is_file():
            missing = "is not a folder" if not root.is_dir() else f"has no {SETTINGS_FILE}"
            raise UserError(f"{root} is not a study: it {missing}. Run 'actionprep init' there to make it one.")
        return StudyFolder(root)
    here = Path.cwd() if start is None else Path(start).expanduser().absolute()
    for folder in (here, *here.parents):
        if (folder / SETTINGS_FILE).is_file():
            return StudyFolder(folder)
    raise UserError(
        f"No study here: neither {here} nor a folder above it has an {SETTINGS_FILE}. "
        "Run 'actionprep init' in the folder of your study, or name the study with --study DIR."
    )


def init_study(
    root: str | Path,
    study: StudySettings,
    *,
    chosen: Mapping[str, Mapping[str, Any]] | None = None,
    models: Mapping[str, type[Settings]] | None = None,
    notes: Mapping[str, str] | None = None,
    force: bool = False,
) -> StudyFolder:
    """Make a folder a study: write its commented settings file.

    chosen: values to write for tables other than [study], such as {"tracks": {"tracker": "lk"}}.
    models: of the tables to write; what was not chosen stands there as a comment with its default and help.
    notes:  a comment for the head of a table, such as which tracker was chosen and how to change it.
    force:  replace a settings file that is there.

    Raises UserError when there is one already, or a chosen value is wrong.
    """
    folder = StudyFolder(Path(root).expanduser())
    if folder.settings_file.exists() and not force:
        raise UserError(
            f"{folder.root.absolute()} is a study already: it has an {SETTINGS_FILE}. Edit that, or replace it with --force."
        )
    chosen = chosen or {}
    tables: dict[str, Settings] = {"study": study}
    for name, model in (models or {}).items():
        tables[name] = model.read(dict(chosen.get(name, {})), where=f"[{name}]")
    written = {name: set(chosen.get(name, {})) for name in tables}
    written["study"] = {"layout", "videos", *_changed(study)}
    if study.layout == "views":
        written["study"].add("pattern")
    text = (
        "# Settings of this study. Options on the command line override them for one command.\n"
        "# 'actionprep config' prints all settings with the values in force.\n"
    )
    text += render_settings(tables, written=written, notes=notes)
    _write_text(folder.settings_file, text)
    return StudyFolder(folder.root)


def render_settings(
    tables: Mapping[str, Settings],
    *,
    written: Mapping[str, set[str]] | None = None,
    notes: Mapping[str, str] | None = None,
    comments: bool = True,
) -> str:
    """Settings as TOML text that reads back to the same settings.

    written:  for each table the keys to write; others stand as comments with their value. None: all are written.
    comments: put each setting's help beside it.
    """
    blocks = []
    for name, settings in tables.items():
        lines = [""]
        if comments:
            lines += _comment((type(settings).__doc__ or "").strip().split("\n")[0])
            lines += _comment((notes or {}).get(name, ""))
        lines.append(f"[{_toml_key(name)}]")
        wanted = None if written is None else written.get(name, set())
        values = settings.model_dump(mode="json", by_alias=False)
        for key, field in type(settings).model_fields.items():
            lines += _comment(field.description or "") if comments else []
            value = values[key]
            default = field.get_default(call_default_factory=True)
            absent = value is None and default is None
            text = f"{_toml_key(key)} = {_toml_text(NOT_SET if value is None else value)}"
            lines.append(text if not absent and (wanted is None or key in wanted) else f"# {text}")
        blocks.append("\n".join(lines) + "\n")
    return "".join(blocks)


def read_tables(path: Path) -> dict[str, dict[str, Any]]:
    """Tables of a settings file; raises UserError for a file that cannot be read, is not TOML, or has stray keys."""
    try:
        found = tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(
            f"{path} is not valid TOML: {error}. Mend that line, or write the file anew with 'actionprep init --force'."
        ) from None
    for key, value in found.items():
        if not isinstance(value, dict):
            raise UserError(
                f"Key '{key}' in {path} stands outside of any table. Put it below the table it belongs to, such as "
                "[study]."
            )
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None


def _write_text(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        no_link(draft).write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise SetupError(
            f"Cannot write {path}: {error.strerror or error}. Free some room, or make the folder writable."
        ) from error
    finally:
        draft.unlink(missing_ok=True) if draft.parent.is_dir() else None


def _changed(settings: Settings) -> set[str]:
    fields = type(settings).model_fields
    return {key for key in fields if getattr(settings, key) != fields[key].get_default(call_default_factory=True)}


def _with_nones(model: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with the word for None replaced where the model's field takes None."""
    found = dict(values)
    for key, value in found.items():
        field = model.model_fields.get(key)
        if field is None:
            continue
        if value == NOT_SET and _takes_none(field.annotation):
            found[key] = None
        elif isinstance(value, dict):
            below = [part for part in (field.annotation, *typing.get_args(field.annotation)) if _is_settings(part)]
            if below:
                found[key] = _with_nones(below[0], value)
    return found


def _takes_none(annotation: Any) -> bool:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return annotation is type(None) or (is_union and type(None) in typing.get_args(annotation))


def _is_settings(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, Settings)


def _toml_item(value: Any) -> Any:
    import tomlkit

    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        for key, below in value.items():
            table[key] = NOT_SET if below is None else _toml_item(below)
        return table
    if isinstance(value, (list, tuple)):
        array = tomlkit.array()
        for below in value:
            array.append(_toml_item(below))
        return array
    return tomlkit.item(value)


def toml_text(value: Any) -> str:
    """A value as the settings file has it."""
    return _toml_text(NOT_SET if value is None else value)


def _toml_text(value: Any) -> str:
    return str(_toml_item(value).as_string())


def _toml_key(key: str) -> str:
    import tomlkit

    return str(tomlkit.key(key).as_string())


def _comment(text: str, width: int = 110) -> list[str]:
    import textwrap

    return [f"# {line}" for line in textwrap.wrap(text, width)]
