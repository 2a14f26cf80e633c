"""Folders of npz snippets as a store: one recording per snippet, with the given split and the classes as labels."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.npz_snippets import EXPORT, PARTS, SnippetFile
from actionprep.datasets.poses.formats.safe_npz import load_npz
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.read_only import MemoryArray, ReadOnlyStore
from actionprep.datasets.store.reader import ArrayReader, DamagedItemError, ItemReader
from actionprep.errors import InputError, UserError
from actionprep.settings import canonical_json

if TYPE_CHECKING:
    from actionprep.datasets.products.snippets import SnippetTable

_NAME = "default"
_VIEW = "0"
_MAX_JSON_BYTES = 64 << 20


def is_npz_folder(folder: Path) -> bool:
    """Whether a folder has npz files in train, val or test."""
    return any(True for part in PARTS for _ in (folder / part).glob("*/[!.]*.npz"))


class NpzStore(ReadOnlyStore):
    """Snippets of an npz folder, as `actionprep export npz` or the gesture-snippet system writes them.

    Products: `frames` (arrays rgb, time and, where present, keypoints), `snippets/default` and `split/default`. A recording
    is one snippet, called `{part}/{class}/{file}`; its session is the recording that the snippet was cut from. Rows are in
    the order of the file names. All headers are read once; frames are read when they are asked for.

    Raises:
        InputError: If a file is damaged or is no snippet.
    """

    form = "a folder of npz snippets"

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder).absolute()
        facts = _read_facts(folder)
        self._snippet_files: dict[ItemKey, SnippetFile] = {}
        names, sessions, parts, classes, firsts = [], [], [], [], []
        for part, label, views in _snippets(folder):
            first = next(iter(views.values()))
            name = f"{part}/{label}/{first.path.stem}"
            for view, file in views.items():
                self._snippet_files[ItemKey("frames", name, view)] = file
            names.append(name)
            sessions.append(first.recording or re.sub(r"^\d+_", "", first.path.stem))
            parts.append(part)
            classes.append(label)
            firsts.append(first)
        attributes = {
            key: _attributes(key, _digest(file.content), file.size) for key, file in self._snippet_files.items()
        }
        self._table = _table(facts, names, sessions, parts, classes, firsts)
        self._part = np.array([[1 + PARTS.index(part) for part in parts]], np.uint8)
        content = [self._table.attributes(), self._table.onset.tolist(), self._table.offset.tolist(), classes]
        for product in ("snippets", "split"):
            key = ItemKey(product, _NAME)
            attributes[key] = _attributes(key, _digest([product, content]))
        super().__init__(folder, attributes)

    def __repr__(self) -> str:
        return f"NpzStore({self.url!r})"

    def verify(self, keys: list[ItemKey] | None = None) -> Any:
        """Read all frames; the CRC-32 of each array is checked. Yields each item with its damage or None."""
        from actionprep.datasets.store.keys import Damage

        for key in self.items() if keys is None else keys:
            try:
                item = self.item(key.product, key.recording, key.view)
                for name in item:
                    item[name][:]
            except DamagedItemError as error:
                yield key, Damage(key, str(error))
            else:
                yield key, None

    def _open_item(self, key: ItemKey, attributes: dict[str, Any]) -> ItemReader:
        if key.product == "frames":
            return _NpzItem(key.path, attributes, _frame_arrays(key.path, self._snippet_files[key]))
        table = self._table
        if key.product == "split":
            arrays = {"part": MemoryArray(f"{key.path}/part", self._part, ("fold", "recording"))}
            stage = {"recordings": list(table.recordings), "by": "column", "seed": 0, "groups": [], "notes": []}
        else:
            each = ("snippet", "label")
            arrays = {
                name: MemoryArray(f"{key.path}/{name}", values, each[: values.ndim], unit)
                for name, values, unit in (
                    ("recording", table.recording, None),
                    ("onset", table.onset, "s"),
                    ("offset", table.offset, "s"),
                    ("label", table.label, None),
                    ("target", table.target, None),
                    ("coverage", table.coverage, None),
                    ("iou", table.iou, None),
                    ("segment_share", table.segment_share, None),
                )
            }
            stage = table.attributes()
        return _NpzItem(key.path, {**attributes, "stage": stage}, arrays)


def _read_facts(folder: Path) -> dict[str, Any]:
    """The labels by class folder, and the settings of the snippets, where the folder has them."""
    path = folder / EXPORT
    if not path.is_file():
        return {"labels": {}, "settings": {}}
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError("it is too large")
        facts = json.loads(path.read_bytes())
        labels, settings = facts["labels"], facts["settings"]
        if not isinstance(settings, dict) or not all(isinstance(label, str) for label in labels.values()):
            raise TypeError("labels or settings have another form")
        if len(set(labels.values())) < len(labels):
            raise ValueError("two folders have the same label")
        canonical_json([labels, settings]).encode()  # raises for numbers that are not finite and for broken text
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({error}). Export the folder again, or delete this file: labels are then the names of "
            "the class folders."
        ) from error
    return {"labels": labels, "settings": settings}


def _snippets(folder: Path) -> list[tuple[str, str, dict[str, SnippetFile]]]:
    """Part, class folder and files by view of each snippet, in the order of the file names."""
    paths = sorted(
        (path for part in PARTS for path in (folder / part).glob("*/[!.]*.npz")),
        key=lambda path: (natural_key(path.name), path.parts),
    )
    if not paths:
        raise UserError(f"{folder} has no npz files in {', '.join(f'{part}/<class>' for part in PARTS)}.")
    groups: dict[tuple[Any, ...], tuple[str, str, dict[str, SnippetFile]]] = {}
    for path in paths:
        file = SnippetFile.read(path)
        part, label = path.parts[-3], path.parts[-2]
        number = path.name.partition("_")[0]
        identity = path.name if file.view is None else (number, file.recording, file.onset)
        views = groups.setdefault((part, label, identity), (part, label, {}))[2]
        view = file.view or _VIEW
        if view in views:
            raise InputError(
                f"{path} and {views[view].path.name} are the same view '{view}' of the same snippet. Delete one of them."
            )
        views[view] = file
    return list(groups.values())


def _table(
    facts: Mapping[str, Any],
    names: list[str],
    sessions: list[str],
    parts: list[str],
    classes: list[str],
    firsts: list[SnippetFile],
) -> SnippetTable:
    from actionprep.datasets.products.snippets import SnippetTable

    # Labels without a snippet keep their codes.
    label_of = {**facts["labels"], **{name: name for name in set(classes) if name not in facts["labels"]}}
    labels = [
        *facts["labels"].values(),
        *sorted(set(label_of.values()) - set(facts["labels"].values()), key=natural_key),
    ]
    code = np.array([labels.index(label_of[name]) for name in classes], np.int32)
    target = np.eye(len(labels), dtype=np.uint8)[code]
    overlap = target.astype(np.float32)
    settings = {"length_s": None, "background": None, **facts["settings"], "multi_label": False}
    return SnippetTable(
        recording=np.arange(len(names), dtype=np.int32),
        onset=np.array([file.onset for file in firsts]),
        offset=np.array([file.offset for file in firsts]),
        label=code,
        target=target,
        coverage=overlap,
        iou=overlap,
        segment_share=overlap,
        labels=tuple(labels),
        recordings=tuple(names),
        subjects=tuple(file.subject for file in firsts),
        sessions=tuple(sessions),
        splits=tuple(parts),
        sources=((),) * len(names),
        settings=settings,
    )


def _digest(content: Any) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _attributes(key: ItemKey, digest: str, size: tuple[int, int] | None = None) -> dict[str, Any]:
    stage = {} if size is None else {"which": "all", "height": size[0], "width": size[1]}
    return {
        "digest": digest,
        "fingerprint": digest,
        "item": {"product": key.product, "recording": key.recording, "view": key.view},
        "nbytes": 0,
        "provenance": {},
        "stage": stage,
    }


def _frame_arrays(where: str, file: SnippetFile) -> dict[str, ArrayReader]:
    shape = (len(file.time), *file.size)
    arrays: dict[str, ArrayReader] = {
        "rgb": _NpzArray(f"{where}/rgb", file.path, "video", (*shape, 3), ("time", "y", "x", "channel")),
        "time": MemoryArray(f"{where}/time", file.time, ("time",), "s"),
    }
    if file.has_keypoints:
        arrays["keypoints"] = _NpzArray(f"{where}/keypoints", file.path, "keypoints", shape, ("time", "y", "x"))
    return arrays


class _NpzItem(ItemReader):
    """One item with arrays that are opened already."""

    def __init__(self, where: str, attributes: Mapping[str, Any], arrays: Mapping[str, ArrayReader]) -> None:
        self.where = where
        self._attributes = attributes
        self._recorded = dict.fromkeys(arrays, "")
        self._names = sorted(arrays)
        self._arrays = dict(arrays)


class _NpzArray(ArrayReader):
    """A uint8 array of an npz file. An npz file is only read as a whole; the last read array is kept."""

    def __init__(self, where: str, path: Path, name: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> None:
        self.where, self.shape, self.dtype, self.axes, self.unit = where, shape, np.dtype(np.uint8), axes, None
        self._path, self._name = path, name

    def _rows(self, start: int, stop: int) -> np.ndarray:
        global _last
        at = (self._path, self._name)
        if _last is None or _last[0] != at:
            try:
                _last = at, load_npz(self._path, [self._name])[self._name]
            except (InputError, UserError) as error:
                raise DamagedItemError(f"Damaged array {self.where}: {error}") from error
        values = _last[1]
        if values.shape != self.shape or values.dtype != self.dtype:
            raise DamagedItemError(f"Damaged array {self.where}: {self._path} has changed since it was opened.")
        return values[start:stop].copy()


_last: tuple[tuple[Path, str], np.ndarray] | None = None
