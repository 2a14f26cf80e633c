"""The study folder: find it, read and write its settings file, resolve settings."""

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

from pydantic import field_validator, model_validator

from actionprep.datasets.atomic_files import write_text
from actionprep.datasets.names_to_ids import is_text
from actionprep.datasets.recordings import Clock
from actionprep.datasets.tables import is_text_encoding
from actionprep.errors import SetupError, UserError, nearest
from actionprep.settings import COMMAND_LINE, Settings, is_no_layout_file, option

SETTINGS_FILE = "actionprep.toml"
NOT_SET = "none"  # TOML has no null: this word means None where a setting allows None

S = TypeVar("S", bound=Settings)


class ViewCrop(Settings):
    """A view that is a rectangle or a stream of a file."""

    view: str = option("", "View that the file has by the layout; empty if each recording has one file.")
    box: tuple[int, int, int, int] | None = option(
        None, "x, y, width and height of the view in pixels of the displayed frame; not set: the full frame."
    )
    stream: int | None = option(None, "Video stream of the file, counted from 0; not set: as study.stream.", ge=0)

    @model_validator(mode="before")
    @classmethod
    def _from_box(cls, value: Any) -> Any:
        """Accept the box alone."""
        return {"box": value} if isinstance(value, (list, tuple)) else value

    @field_validator("box")
    @classmethod
    def _is_rectangle(cls, box: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if box is not None and (min(box[:2]) < 0 or min(box[2:]) < 1):
            raise ValueError("give x and y of 0 or more, and a width and height of 1 or more")
        return box


class StudySettings(Settings):
    """Where the recordings are and how their files are arranged."""

    name: str = option("", "Name of the study; the folder's name when empty.")
    layout: Literal["folder-per-class", "views", "csv", "poses"] = option(
        "folder-per-class",
        "How videos are found: folder-per-class (<class>/<clip>.mp4), views (a pattern with {recording} and {view}), "
        "csv (a table of recordings), poses (a skeleton data set without videos).",
    )
    videos: str = option("videos", "Folder of the videos, relative to the study or absolute.", names="file")
    pattern: str = option(
        "{recording}/cam{view}.mp4",
        "Layout views: path of each video below the videos folder. {recording} may span folders; {view}, {label}, "
        "{subject}, {session} and {split} are one name each; * matches anything except a slash. ntu and utd-mhad are the "
        "file names of those data sets.",
        names="file",
    )
    csv: str | None = option(None, "Layout csv: table with one row per video or per segment.", names="file")
    path_column: str = option("path", "Column of that table with the video's path.")
    recording_column: str = option(
        "recording", "Column with the recording's id; the path without its suffix if there is none."
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
    segment_format: str = option(
        "auto",
        "Format of the annotation files, or a TOML file with a custom list preset (see 'actionprep formats'); auto "
        "detects it for each file.",
        names="file",
        known=is_no_layout_file,
    )
    segment_classes: str | None = option(
        None,
        "Text file with the name of each class, for annotations with numbers; not set: the file that the format has "
        "beside its lists.",
        names="file",
    )
    segment_columns: dict[str, str] = option(
        {}, "Columns of csv annotations that have other names: { recording = 'video_id', onset = 'start' }."
    )
    point_length: float | None = option(
        None,
        "Length in ms of the segments that begin at events without length, such as POINT events of BORIS; not set: such "
        "events are counted and left out.",
        gt=0,
    )
    encoding: str = option(
        "auto",
        "Encoding of tables and lists, such as cp1252 or utf-16. auto detects UTF-8 and UTF-16 and reads other text as "
        "cp1252, with a finding. A byte order mark always wins.",
    )
    offsets: str | None = option(
        None,
        "Table with recording, view, offset (s) and optionally drift (ppm) of each view's clock to the recording's.",
        names="file",
    )
    crops: dict[str, ViewCrop] = option(
        {},
        "Views that are a rectangle of a file, such as a mirror beside the animal: "
        '{ front = [0, 0, 640, 360], side = { view = "1", box = [640, 0, 640, 360] } }; each box is x, y, width, height '
        "in px.",
    )
    image_rate: float | None = option(
        None,
        "Frames per second of folders of numbered images. If it is set, each such folder is read as a video.",
        gt=0,
        le=100_000,
    )
    raw_rate: float | None = option(
        None, "Frames per second of streams without a clock (.h264, .mjpeg); 25 if it is not set.", gt=0, le=100_000
    )
    stream: int | None = option(
        None, "Which video stream is read of files with several, counted from 0; not set: the one players choose.", ge=0
    )
    chapters: str | None = option(
        None,
        "Read the parts of one recording as one video: gopro (GX010123, GX020123, …; GOPR0123, GP010123, …), or a pattern "
        "of file names without suffix, such as {recording}_{part}.",
    )
    calibration: str | None = option(
        None, "Calibration of the cameras: a file (see 'actionprep formats') or a folder of files.", names="file"
    )
    poses: tuple[str, ...] = option(
        (),
        "Layout poses: files or folders of a skeleton data set; 'actionprep import' writes these settings.",
        names="file",
    )
    pose_format: str = option(
        "auto", "Layout poses: their format (see 'actionprep formats'); auto detects it per file."
    )
    pose_skeleton: str = option(
        "", "Layout poses: layout of the joints, if the files do not state it.", names="file", known=is_no_layout_file
    )
    pose_coordinates: str = option(
        "", "Layout poses: coordinates to read; world, color or depth for ntu, image or world for jhmdb."
    )
    pose_image_size: tuple[int, int] | None = option(
        None, "Layout poses: height and width of the images in px, if the files do not state them."
    )
    pose_fps: float = option(30.0, "Layout poses: frames per second, if the files do not state it.", gt=0)
    pose_labels: str | None = option(
        None,
        "Layout poses: text file with the name of each class, one per line, for labels that are numbers.",
        names="file",
    )
    clock: Clock = option(
        "file",
        'Time 0 of a view before its offset: "file" is the earliest video or audio stream of its file, as in players; '
        '"first-frame" is its first frame; "container" is the zero of its time stamps (for cameras that share a '
        "clock).",
    )
    tolerance: float = option(
        0.05, "Views are aligned if frames of the same time are at most this far apart, in s.", gt=0
    )
    allow_misaligned: bool = option(False, "Accept recordings with views that are not aligned to the tolerance.")
    stages: tuple[str, ...] = option(
        ("tracks", "snippets"), "Products that 'actionprep build' makes; their inputs are made too."
    )
    views: tuple[str, ...] = option((), "Views used if a command names none; all if empty.")
    skip_incomplete: bool = option(False, "Leave out recordings that lack a selected view, instead of stopping.")
    failure_budget: float = option(0.2, "Share of the items that may fail before a build stops.", ge=0, le=1)
    item_timeout: float = option(
        600.0,
        "Seconds without progress after which the item of a hanging worker process is ended and quarantined; 0: never.",
        ge=0,
        le=1_000_000,
    )
    store: str = option("store", "Folder or URL (s3://BUCKET/FOLDER) of the store.", names="file")

    @field_validator("encoding")
    @classmethod
    def _encoding_exists(cls, name: str) -> str:
        if not is_text_encoding(name):
            raise ValueError(f"no text encoding '{name}'. Give auto, utf-8, utf-16, cp1252, latin-1 or another one")
        return name


@dataclass(frozen=True)
class StudyFolder:
    """A folder with an actionprep.toml, and the paths of the study in it.

    Raises:
        UserError: If the folder's path is not UTF-8 text, as settings, tables and runs that name it must be.
    """

    root: Path

    def __post_init__(self) -> None:
        path = self.root.absolute()
        odd = [part for part in path.parts if not is_text(part)]
        if odd:
            raise UserError(
                f"The folder '{odd[0]}' in the path of the study {path} is not UTF-8 text. Rename that folder."
            )

    @property
    def settings_file(self) -> Path:
        """The settings file."""
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
        """Folder of the training runs."""
        return self.root / "runs"

    @property
    def quarantine(self) -> Path:
        """Folder of the items that failed, and why."""
        return self.root / "quarantine"

    @cached_property
    def study(self) -> StudySettings:
        """The table [study], validated."""
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
        """Resolve a path of the settings: relative paths start at the study folder."""
        return self.root / Path(path).expanduser()

    def relative(self, path: str | Path) -> str:
        """Return a path as the catalog has it, with slashes: relative to the study folder if inside, else absolute."""
        path = Path(os.path.abspath(path))
        root = Path(os.path.abspath(self.root))
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()

    @cached_property
    def tables(self) -> dict[str, dict[str, Any]]:
        """Tables of the settings file as plain values; raises UserError for a file that is not TOML."""
        return read_tables(self.settings_file)

    def check_tables(self, known: typing.Iterable[str]) -> None:
        """Raise UserError for a table that does not exist, naming the nearest one."""
        known = sorted({"study", *known})
        for name in self.tables:
            if name not in known:
                raise UserError(
                    f"Unknown table [{name}] in {self.settings_file}.{nearest(name, known)} "
                    f"Known tables: {', '.join(known)}."
                )

    def settings_for(self, section: str, model: type[S], overrides: Mapping[str, Any] | None = None) -> S:
        """Return the settings of one table: defaults, then the file, then overrides that are not None.

        Args:
            section: Name of the table.
            model: Its settings.
            overrides: Values from the command line; None leaves a setting as it is.

        Raises:
            UserError: If keys are unknown or values are wrong; lists all of them, with the nearest known key.
        """
        values = _with_nones(model, self.tables.get(section, {}))
        settings = model.read(values, where=f"[{section}] in {self.settings_file}")
        if not overrides:
            return settings
        given = {key: value for key, value in overrides.items() if value is not None}
        cleared = _with_nones(model, given)
        # An override of "none" must reach the model as None, which `with_changes` would ignore.
        if any(value is None for value in cleared.values()):
            return model.read({**settings.model_dump(), **cleared}, where=COMMAND_LINE)
        return settings.with_changes(cleared, where=COMMAND_LINE)

    def resolved(
        self,
        models: Mapping[str, type[Settings]],
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        unread: typing.Iterable[str] = (),
    ) -> dict[str, Settings]:
        """Return the settings of all tables.

        Args:
            models: Model of each table.
            overrides: Values that replace those of the file, by table and key.
            unread: Tables that the file may have although no model reads them.

        Raises:
            UserError: For unknown tables, unknown keys and wrong values.
        """
        models = {"study": StudySettings, **models}
        self.check_tables([*models, *unread])
        overrides = overrides or {}
        return {name: self.settings_for(name, model, overrides.get(name)) for name, model in models.items()}

    def change(self, section: str, key: str, value: Any) -> None:
        """Set one key in the file and leave its comments and everything else as they are.

        A key that is not set takes the place of the comment that shows its default, below its help.
        """
        import tomlkit

        text = _read_text(self.settings_file)
        document = tomlkit.parse(text)
        item = tomlkit.item(NOT_SET) if value is None else _toml_item(value)
        placed = None if key in document.get(section, {}) else _with_key(text, section, key, item.as_string())
        if placed is None:
            if section not in document:
                document[section] = tomlkit.table()
            table: Any = document[section]
            table[key] = item
            placed = tomlkit.dumps(document)
        _write_text(self.settings_file, placed)
        for cached in ("tables", "study"):
            self.__dict__.pop(cached, None)


def find_study(start: str | Path | None = None, *, study: str | Path | None = None) -> StudyFolder:
    """Find the study that a command works in.

    Args:
        start: Folder to start from; the current one if None. The nearest study at or above it is used.
        study: Folder or settings file of the study, instead.

    Raises:
        UserError: If there is none.
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
        "Run 'actionprep init' in the folder of your study, or give its folder with --study DIR."
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

    Args:
        root: The folder.
        study: Settings of [study].
        chosen: Values of other tables, such as {"tracks": {"tracker": "lk"}}.
        models: Settings of the tables to write; other values are comments with their default and help.
        notes: A comment at the head of a table, such as which tracker was chosen and how to change it.
        force: Replace an existing settings file.

    Raises:
        UserError: If the folder is a study, or a value is wrong.
    """
    folder = StudyFolder(Path(root).expanduser())
    if folder.settings_file.exists() and not force:
        raise UserError(
            f"{folder.root.absolute()} is already a study: it has an {SETTINGS_FILE}. Edit that, or replace it with --force."
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
        "# 'actionprep config' prints all settings with their current values.\n"
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
    """Return settings as TOML text that reads back to the same settings.

    Args:
        tables: Settings by table.
        written: Keys to write for each table; the others become comments with their value. All keys if None.
        notes: A comment at the head of a table.
        comments: Also write each setting's help.
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
    """Read the tables of a settings file; raises UserError if it cannot be read, is not TOML, or has keys in no table."""
    try:
        tables = tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(
            f"{path} is not valid TOML: {error}. Correct that line, or replace the file with 'actionprep init --force'."
        ) from None
    for key, value in tables.items():
        if not isinstance(value, dict):
            raise UserError(
                f"Key '{key}' in {path} is in no table. Move it below the table it belongs to, such as [study]."
            )
    return tables


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None


def _write_text(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise SetupError(
            f"Cannot write {path}: {error.strerror or error}. Free some room, or make the folder writable."
        ) from error


def _with_key(text: str, section: str, key: str, value: str) -> str | None:
    """The text with a new key in a section; None where the section does not stand in the file as `[section]`."""
    lines = text.splitlines(keepends=True)
    heads = [at for at, line in enumerate(lines) if line.strip() == f"[{_toml_key(section)}]"]
    if len(heads) != 1:
        return None
    end = next((at for at in range(heads[0] + 1, len(lines)) if lines[at].lstrip().startswith("[")), len(lines))
    line = f"{_toml_key(key)} = {value}\n"
    shown = next((at for at in range(heads[0] + 1, end) if lines[at].startswith(f"# {_toml_key(key)} = ")), None)
    if shown is not None:
        lines[shown] = line
    else:
        lines[heads[0]] = lines[heads[0]].rstrip("\r\n") + "\n"
        lines.insert(heads[0] + 1, line)
    placed = "".join(lines)
    try:
        read, before = tomllib.loads(placed), tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    # A line that looks like a head or a comment may be part of a text of several lines.
    added = read.get(section, {}).pop(key, None)
    return placed if added is not None and read == before else None


def _changed(settings: Settings) -> set[str]:
    fields = type(settings).model_fields
    return {key for key in fields if getattr(settings, key) != fields[key].get_default(call_default_factory=True)}


def _with_nones(model: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the word for None in fields that can be None."""
    replaced = dict(values)
    for key, value in replaced.items():
        field = model.model_fields.get(key)
        if field is None:
            continue
        if value == NOT_SET and _takes_none(field.annotation):
            replaced[key] = None
        elif isinstance(value, dict):
            below = [part for part in (field.annotation, *typing.get_args(field.annotation)) if _is_settings(part)]
            if below:
                replaced[key] = _with_nones(below[0], value)
    return replaced


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
    """Return a value as the settings file has it."""
    return _toml_text(NOT_SET if value is None else value)


def _toml_text(value: Any) -> str:
    return str(_toml_item(value).as_string())


def _toml_key(key: str) -> str:
    import tomlkit

    return str(tomlkit.key(key).as_string())


def _comment(text: str, width: int = 110) -> list[str]:
    import textwrap

    return [f"# {line}" for line in textwrap.wrap(text, width)]
