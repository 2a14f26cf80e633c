"""DeepLabCut tables, csv and HDF5: predictions and labeled frames of one or several animals."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats.content import Damaged, check_span, going_on
from actionprep.datasets.poses.formats.safe_h5 import H5, open_h5
from actionprep.datasets.poses.formats.safe_pickle import load_pickle_bytes
from actionprep.datasets.poses.individuals import track_id_array
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import layout_of_names
from actionprep.datasets.poses.skeletons import skeleton as layout_of
from actionprep.errors import InputError, explained_read_errors, name_list

_LEVELS = ("scorer", "individuals", "bodyparts", "coords")
_NO_INDIVIDUAL = ""


@dataclass(frozen=True)
class _Table:
    """A table of one file: a column is (scorer, individual, body part, coordinate)."""

    columns: list[tuple[str, str, str, str]]
    index: list[str]  # frame number, or path of the image
    values: NDArray[np.float64]


def read_deeplabcut(
    path: str | Path,
    *,
    skeleton: str | None = None,
    image_size: Sequence[int] | None = None,
    damaged: Damaged | None = None,
) -> Iterator[PoseItem]:
    """Read the recordings of one DeepLabCut file.

    The file is csv, or HDF5 as pandas writes it (fixed or table). Coordinates are pixels. The score is the likelihood,
    and 1 for labels by hand. Joints are the body parts of the file; an individual without a body part, such as one of
    the unique parts of "single", lacks it. Frames of labeled data have the number in the name of their image, and each
    folder of images is a recording. A file of predictions is one recording, named by the file without DeepLabCut's
    suffix.

    Args:
        path: The file.
        skeleton: Layout of the joints; without it, the layout of the file's own body parts.
        image_size: Height and width in pixels.
        damaged: Called for each recording that cannot be read; without it, the first error is raised.

    Yields:
        One item per recording. `extra["individuals"]` has the names of the persons, by track id.

    Raises:
        InputError: If the file is not such a table, or is damaged.
    """
    path = Path(path)
    table = _read_csv(path) if path.suffix.lower() in (".csv", ".tsv") else _read_h5(path)
    scorers = sorted({scorer for scorer, *_ in table.columns})
    if len(scorers) != 1:
        raise InputError(f"{path} has columns of {len(scorers)} scorers: {name_list(scorers)}. Keep those of one.")
    folders: dict[str, list[int]] = {}
    for row, name in enumerate(table.index):
        folder = "" if name.isdigit() else PurePosixPath(name.replace("\\", "/")).parent.name
        folders.setdefault(folder, []).append(row)
    for folder, rows in folders.items():
        recording = folder or _recording(path, scorers[0])
        with going_on(recording, damaged):
            yield _item(table, rows, recording, skeleton, image_size, path, images=bool(folder))


def _recording(path: Path, scorer: str) -> str:
    stem = path.name.removesuffix(path.suffix)
    at = stem.find(scorer)
    return stem[:at].rstrip("_-") if at > 0 else stem


def _item(
    table: _Table,
    rows: list[int],
    recording: str,
    skeleton: str | None,
    image_size: Sequence[int] | None,
    path: Path,
    *,
    images: bool,
) -> PoseItem:
    parts = list(dict.fromkeys(part for _, _, part, _ in table.columns))
    layout = layout_of(skeleton) if skeleton else layout_of_names(parts, name="deeplabcut", source=path.name)
    if layout.num_joints != len(parts):
        raise InputError(f"{path} has {len(parts)} body parts, and skeleton '{layout.name}' has {layout.num_joints}.")
    individuals = list(dict.fromkeys(individual for _, individual, _, _ in table.columns))
    numbers = np.array([_frame_number(table.index[row], path) for row in rows], np.int64)
    order = np.argsort(numbers, kind="stable")
    numbers = numbers[order]
    if (np.diff(numbers) == 0).any():
        raise InputError(f"{path} has frame {int(numbers[:-1][np.diff(numbers) == 0][0])} of '{recording}' twice.")
    check_span(numbers, str(path))
    axes = ("x", "y", "z") if any(axis == "z" for *_, axis in table.columns) else ("x", "y")
    points = np.full((len(rows), len(individuals), len(parts), len(axes)), np.nan)
    score = np.ones(points.shape[:3])
    values = table.values[np.array(rows)[order]]
    for column, (_, individual, part, axis) in enumerate(table.columns):
        at = slice(None), individuals.index(individual), parts.index(part)
        if axis in axes:
            points[(*at, axes.index(axis))] = values[:, column]
        elif axis == "likelihood":
            score[at] = values[:, column]
    finite = np.isfinite(points).all(-1)
    score = np.where(finite, score, 0)
    poses = PoseSequence.of(
        points,
        score,
        skeleton=skeleton or layout.name,
        track_id=track_id_array(individuals, score),
        image_size=image_size,
        frame_index=numbers,
        where=f"'{recording}' in {path}",
    )
    extra: dict[str, Any] = {"file_per_frame": not images}
    if individuals != [_NO_INDIVIDUAL]:
        extra["individuals"] = individuals
    return PoseItem(recording, poses, extra=extra)


def _frame_number(name: str, path: Path) -> int:
    match = re.search(r"(\d+)$", PurePosixPath(name.replace("\\", "/")).stem)
    if match is None or len(match[1]) > 15:
        raise InputError(f"{path} has the row '{name}'; expected a frame number, or an image whose name ends in one.")
    return int(match[1])


def _read_csv(path: Path) -> _Table:
    with explained_read_errors(path):
        content = path.read_bytes()
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a readable csv file: {error}.") from None
    heads = {}
    for number, row in enumerate(rows[:6]):
        if row and row[0].strip().lower() in _LEVELS:
            heads[row[0].strip().lower()] = number
    for head in ("scorer", "bodyparts", "coords"):
        if head not in heads:
            raise InputError(
                f"{path} has no row '{head}'. DeepLabCut's tables begin with scorer, bodyparts and coords."
            )
    body = [row for row in rows[max(heads.values()) + 1 :] if any(cell.strip() for cell in row)]
    coords = rows[heads["coords"]]
    # Labeled data may give the path of an image in three columns.
    first = next((at for at in range(1, len(coords)) if coords[at].strip()), len(coords))

    def level(name: str) -> list[str]:
        if name not in heads:
            return [_NO_INDIVIDUAL] * (len(coords) - first)
        cells = rows[heads[name]][first:]
        if len(cells) != len(coords) - first:
            raise InputError(f"The row '{name}' of {path} has {len(cells)} columns; expected {len(coords) - first}.")
        return [cell.strip() for cell in cells]

    columns = list(zip(*(level(name) for name in _LEVELS), strict=True))
    values = np.full((len(body), len(columns)), np.nan)
    for number, row in enumerate(body):
        # Rows may lack empty cells at their end; a last line without its end is cut.
        cut = number == len(body) - 1 and not content.endswith(b"\n")
        if len(row) > len(coords) or len(row) <= first or (len(row) < len(coords) and cut):
            raise InputError(f"Row {number} of {path} has {len(row)} columns; expected {len(coords)}. It is cut short.")
        try:
            values[number, : len(row) - first] = [float(cell) if cell.strip() else np.nan for cell in row[first:]]
        except ValueError as error:
            raise InputError(f"Row {number} of {path} must hold numbers: {error}.") from None
    index = ["/".join(cell.strip() for cell in row[:first]) for row in body]
    return _checked(columns, [_plain_number(name) for name in index], values, path)


def _plain_number(name: str) -> str:
    """Frame numbers are sometimes written as 12.0."""
    return name.removesuffix(".0") if re.fullmatch(r"\d+\.0", name) else name


def _checked(columns: Sequence[Sequence[str]], index: list[str], values: NDArray[np.float64], path: Path) -> _Table:
    if not columns or values.ndim != 2 or values.shape != (len(index), len(columns)):
        raise InputError(f"{path} has {len(index)} rows and {len(columns)} columns, and values {values.shape}.")
    four: list[tuple[str, str, str, str]] = []
    for column in columns:
        scorer, individual, part, axis = column if len(column) == 4 else (column[0], _NO_INDIVIDUAL, *column[1:])
        if axis not in ("x", "y", "z", "likelihood"):
            raise InputError(f"{path} has the coordinate '{axis}'; expected x, y, z or likelihood.")
        four.append((scorer, individual, part, axis))
    if len(set(four)) != len(four):
        raise InputError(f"{path} has a column twice.")
    return _Table(four, index, values)


def _read_h5(path: Path) -> _Table:
    with open_h5(path) as file:
        for key in file.names():
            names = file.names(key)
            if "axis0_label0" in names or "axis0_level0" in names:
                return _fixed(file, key)
            if "table" in names:
                return _table(file, key)
        raise InputError(
            f"{path} has no table as DeepLabCut writes it with pandas. It has {', '.join(file.names()) or 'nothing'}."
        )


def _fixed(file: H5, key: str) -> _Table:
    """Pandas' format "fixed": levels and labels of both axes, and blocks of columns."""
    columns = _multi_index(file, f"{key}/axis0")
    single = f"{key}/axis1" in file
    index = [str(value) for value in file.read(f"{key}/axis1").tolist()] if single else []
    if not single:
        index = ["/".join(parts) for parts in _multi_index(file, f"{key}/axis1")]
    index = [name.removeprefix("b'").removesuffix("'") for name in index]
    values = np.full((len(index), len(columns)), np.nan)
    places = {column: at for at, column in enumerate(columns)}
    for block in range(sum(name.endswith("_values") for name in file.names(key))):
        items = _multi_index(file, f"{key}/block{block}_items")
        rows = file.read(f"{key}/block{block}_values")
        if rows.shape != (len(index), len(items)) or rows.dtype.kind not in "fiu":
            raise InputError(f"The values in {file.path} have the shape {rows.shape}; expected {len(index)} rows.")
        for at, column in enumerate(items):
            values[:, places[column]] = rows[:, at]
    return _checked(columns, index, values, file.path)


def _multi_index(file: H5, name: str) -> list[tuple[str, ...]]:
    levels: list[list[str]] = []
    while f"{name}_level{len(levels)}" in file:
        texts = file.texts(f"{name}_level{len(levels)}")
        labels = file.read(f"{name}_label{len(levels)}").astype(np.int64)
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(texts):
            raise InputError(f"'{name}' in {file.path} has labels beyond its levels.")
        levels.append([texts[label] for label in labels])
    return list(zip(*levels, strict=True))


def _table(file: H5, key: str) -> _Table:
    """Pandas' format "table": rows with an index and a block of values; the columns are in an attribute, pickled."""
    rows = file.read(f"{key}/table")
    names = rows.dtype.names or ()
    if "index" not in names or "values_block_0" not in names:
        raise InputError(
            f"The table in {file.path} has the columns {', '.join(names)}; expected index, values_block_0."
        )
    attribute = file.attributes(key).get("non_index_axes")
    if not isinstance(attribute, bytes):
        raise InputError(f"The table in {file.path} does not name its columns.")
    axes = load_pickle_bytes(attribute, str(file.path))
    try:
        [(_, columns)] = axes
        columns = [tuple(str(part) for part in column) for column in columns]
    except (TypeError, ValueError):
        raise InputError(f"The table in {file.path} does not name its columns as DeepLabCut does.") from None
    index = [value.decode() if isinstance(value, bytes) else str(value) for value in rows["index"].tolist()]
    return _checked(columns, index, np.asarray(rows["values_block_0"], np.float64), file.path)
