"""The catalog as Arrow tables, and as Parquet files that belong together."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.alignment import MeasuredAlignment
from actionprep.datasets.cameras import Camera
from actionprep.datasets.findings import Finding
from actionprep.datasets.paths import no_link
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.segments import Segment
from actionprep.datasets.view_reading import Reading
from actionprep.errors import SetupError, UserError, discard, file_on_the_way
from actionprep.json_values import printable

SCHEMA = 4
_CHECKSUM = b"actionprep_sha256"
_ZEROS = b"0" * 64
_EXTRA = "extra_"


def write_tables(tables: Mapping[str, Any], folder: Path) -> None:
    """Write the tables of `make_tables`; each file is complete or unchanged.

    Raises:
        SetupError: If the disk refuses.
    """
    stamp = _content_stamp(tables)
    drafts: list[tuple[Path, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            path = folder / f"{name}.parquet"
            draft = folder / f".{name}.{os.getpid()}.parquet"
            drafts.append((draft, path))
            write_with_checksum(table.replace_schema_metadata({"actionprep_catalogue": stamp}), no_link(draft))
        for draft, path in drafts:
            os.replace(draft, path)
    except OSError as error:
        obstacle = file_on_the_way(folder)
        if obstacle is not None:
            raise SetupError(
                f"{obstacle} is a file, but must be the folder of the catalog. Move it away, then run the same "
                "command again."
            ) from error
        raise SetupError(
            f"Cannot write the catalog in {folder}: {error.strerror or error}. Free some room or make the folder "
            "writable, then run 'actionprep scan' again."
        ) from error
    finally:
        for draft, _ in drafts:
            discard(draft)


def read_tables(
    folder: Path,
) -> tuple[
    tuple[Recording, ...],
    tuple[View, ...],
    dict[str, tuple[Segment, ...]],
    tuple[Finding, ...],
    MeasuredAlignment | None,
    tuple[Camera, ...],
]:
    """Read what `make_tables` took from the files in a folder.

    Raises:
        UserError: If there are none, a newer actionprep wrote them, or they are not of one scan.
    """
    if not (folder / "recordings.parquet").exists():
        raise UserError(f"No catalog in {folder}. Run 'actionprep scan' first: it reads the videos and fills it.")
    names = ["recordings", "views", "segments", "findings"]
    if (folder / "alignment.parquet").exists():  # added after version 0.1
        names.append("alignment")
    if (folder / "cameras.parquet").exists():  # added with schema 4
        names.append("cameras")
    tables = {name: _read_table(folder / f"{name}.parquet") for name in names}
    stamps = {table.schema.metadata.get(b"actionprep_catalogue") for table in tables.values()}
    if len(stamps) != 1:
        raise UserError(
            f"The tables in {folder} are of different scans, because writing them was interrupted. Run 'actionprep scan' "
            "again."
        )
    try:
        segments: dict[str, list[Segment]] = {}
        for row in tables["segments"].to_pylist():
            segments.setdefault(row.pop("recording"), []).append(Segment(**row))
        return (
            tuple(_recording_from(row) for row in tables["recordings"].to_pylist()),
            views_from_table(tables["views"]),
            {recording: tuple(own) for recording, own in segments.items()},
            tuple(Finding(**row) for row in tables["findings"].to_pylist()),
            _alignment_from(tables["alignment"].to_pylist()) if "alignment" in tables else None,
            tuple(_camera_from(row) for row in tables["cameras"].to_pylist()) if "cameras" in tables else (),
        )
    # Damage can pass the checks of Parquet and give other columns, invalid text, or rows of another length.
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"The tables in {folder} are damaged: {str(error).splitlines()[0]}. Run 'actionprep scan' to write them again."
        ) from None


def write_with_checksum(table: Any, path: Path) -> None:
    """Write a Parquet file with the SHA-256 of its bytes in its metadata, and sync it.

    The metadata `actionprep_sha256` is the hash of the file with the 64 digits of that value set to 0. It covers the
    footer too, which Parquet's own checksums of pages do not.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    metadata = {**(table.schema.metadata or {}), b"actionprep_schema": str(SCHEMA), _CHECKSUM: _ZEROS}
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    [recorded] = _recorded(content)
    with open(path, "wb") as file:
        file.write(_with_checksum(content, recorded, hashlib.sha256(content).hexdigest().encode()))
        file.flush()
        os.fsync(file.fileno())


def read_with_checksum(path: Path) -> Any:
    """Read a file of `write_with_checksum`, or one of schema 1, which has no checksum.

    Raises:
        UserError: If the file is not what was written, or no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = path.read_bytes()
        recorded = _recorded(content)
        intact = [
            hashlib.sha256(_with_checksum(content, each, _ZEROS)).hexdigest().encode() == each[0] for each in recorded
        ]
        if intact not in ([], [True]):
            raise UserError(_damaged(path, "it is not what was written"))
        table = pq.ParquetFile(pa.BufferReader(content)).read()
    except (OSError, pa.ArrowException) as error:
        raise UserError(_damaged(path, str(error).split("\n")[0])) from None
    if not intact and (table.schema.metadata or {}).get(b"actionprep_schema", b"1") != b"1":
        raise UserError(_damaged(path, "its checksum is missing"))
    return table


def _recorded(content: bytes) -> list[re.Match[bytes]]:
    """Places of the checksum in a file: Parquet keeps the key, a few bytes for the length, and the value."""
    return list(re.finditer(rb"(?s)(?<=%s.{2})[0-9a-f]{64}" % _CHECKSUM, content))


def _with_checksum(content: bytes, position: re.Match[bytes], value: bytes) -> bytes:
    return content[: position.start()] + value + content[position.end() :]


def _damaged(path: Path, reason: str) -> str:
    return f"Cannot read the catalog's {path}: {reason}. Run 'actionprep scan' to write it again."


def is_older(folder: Path) -> bool:
    """Return whether an earlier version wrote the catalog in a folder, which lacks properties of videos."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(folder / "views.parquet").metadata or {}
    return 1 <= int(metadata.get(b"actionprep_schema", b"0")) < SCHEMA


def views_to_table(views: Sequence[View]) -> Any:
    """Return views as an Arrow table, with frame times as a list column."""
    import pyarrow as pa

    types = {
        "num_frames": pa.int64(),
        "header_frames": pa.int64(),
        "fps": pa.float64(),
        "start": pa.float64(),
        "file_start": pa.float64(),
        "offset": pa.float64(),
        "drift": pa.float64(),
        "duration": pa.float64(),
        "size_bytes": pa.int64(),
        "mtime_ns": pa.int64(),
        "ctime_ns": pa.int64(),
        "inode": pa.uint64(),
        "warnings": pa.list_(pa.string()),
    }
    small = ("width", "height", "rotation", "stream")
    columns: dict[str, Any] = {}
    for field in fields(View):
        if field.name == "frame_times":
            continue
        values = [view.reading.to_json() if field.name == "reading" else getattr(view, field.name) for view in views]
        columns[field.name] = pa.array(
            values, types.get(field.name, pa.int32() if field.name in small else pa.string())
        )
    lengths = np.array([len(view.frame_times) for view in views], np.int64)
    flat = np.concatenate([view.frame_times for view in views]) if views else np.empty(0)
    limits = np.concatenate([[0], np.cumsum(lengths)])
    columns["frame_times"] = pa.LargeListArray.from_arrays(pa.array(limits, pa.int64()), pa.array(flat, pa.float64()))
    return pa.table(columns)


def views_from_table(table: Any) -> tuple[View, ...]:
    """Return the views of a table of `views_to_table`."""
    times = table.column("frame_times").combine_chunks()
    if table.num_rows == 0:
        return ()
    flat, limits = _numbers(times.values, np.float64), _numbers(times.offsets, np.int64)
    views = []
    rows = table.drop_columns("frame_times").to_pylist()
    for row, (first, last) in zip(rows, pairwise(limits), strict=True):
        row["warnings"] = tuple(row["warnings"])
        row["poses"] = row.get("poses") or ""
        row["reading"] = Reading.from_json(row.get("reading") or "")
        views.append(View(**row, frame_times=flat[first:last]))
    return tuple(views)


def _numbers(column: Any, dtype: type[np.generic]) -> np.ndarray:
    """Return a column of numbers without copying; `to_numpy` would import pandas, which takes longer than most commands.

    Raises:
        ValueError: If the column has another type, or missing values.
    """
    if column.type != _arrow_type(dtype) or column.null_count:
        raise ValueError(f"expected a column of {np.dtype(dtype)} without missing values, got {column.type}")
    if not len(column):
        return np.empty(0, dtype)
    values: np.ndarray = np.frombuffer(column.buffers()[1], dtype)[column.offset : column.offset + len(column)]
    return values


def _arrow_type(dtype: type[np.generic]) -> Any:
    import pyarrow as pa

    return pa.from_numpy_dtype(np.dtype(dtype))


def make_tables(
    recordings: Sequence[Recording],
    views: Sequence[View],
    segments: Mapping[str, Sequence[Segment]],
    findings: Sequence[Finding],
    alignment: MeasuredAlignment | None = None,
    cameras: Sequence[Camera] = (),
) -> dict[str, Any]:
    """Return Arrow tables by name; `segments` are by recording id."""
    import pyarrow as pa

    columns = {
        name: pa.array([getattr(recording, name) for recording in recordings], pa.string())
        for name in ("id", "subject", "session", "label", "split")
    }
    for key in sorted({key for recording in recordings for key in recording.extra}):
        columns[_EXTRA + key] = pa.array([recording.extra.get(key) for recording in recordings], pa.string())
    flat = [(id, segment) for id in sorted(segments) for segment in segments[id]]
    rows = {"recording": pa.array([id for id, _ in flat], pa.string())}
    for name, kind in (
        ("onset", pa.float64()),
        ("offset", pa.float64()),
        ("label", pa.string()),
        ("layer", pa.string()),
        ("annotator", pa.string()),
    ):
        rows[name] = pa.array([getattr(segment, name) for _, segment in flat], kind)
    messages = {
        # Findings are for people: a name of a file that is not text is escaped there.
        name: pa.array([printable(getattr(finding, name)) for finding in findings], pa.string())
        for name in ("kind", "where", "message")
    }
    measured = {} if alignment is None else alignment.misaligned
    pairs = {
        "recording": pa.array(list(measured), pa.string()),
        "tolerance": pa.array([alignment.tolerance if alignment else 0.0] * len(measured), pa.float64()),
        "first": pa.array([[first for first, _ in own] for own in measured.values()], pa.list_(pa.string())),
        "second": pa.array([[second for _, second in own] for own in measured.values()], pa.list_(pa.string())),
    }
    return {
        "recordings": pa.table(columns),
        "views": views_to_table(views),
        "segments": pa.table(rows),
        "findings": pa.table(messages),
        "alignment": pa.table(pairs),
        "cameras": _cameras_table(cameras),
    }


def _cameras_table(cameras: Sequence[Camera]) -> Any:
    """Return cameras as an Arrow table, with matrices row by row in list columns."""
    import pyarrow as pa

    numbers = pa.list_(pa.float64())
    columns = {
        name: pa.array([getattr(camera, name) for camera in cameras], kind)
        for name, kind in (
            ("view", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("unit", pa.string()),
            ("fisheye", pa.bool_()),
            ("source", pa.string()),
        )
    }
    for name in ("matrix", "distortion", "rotation", "translation"):
        values = [getattr(camera, name) for camera in cameras]
        columns[name] = pa.array([None if each is None else each.reshape(-1).tolist() for each in values], numbers)
    return pa.table(columns)


def _camera_from(row: dict[str, Any]) -> Camera:
    row["matrix"] = np.array(row["matrix"], np.float64).reshape(3, 3)
    if row["rotation"] is not None:
        row["rotation"] = np.array(row["rotation"], np.float64).reshape(3, 3)
    return Camera(**row)


def _alignment_from(rows: list[dict[str, Any]]) -> MeasuredAlignment | None:
    if not rows:
        return None
    pairs = {row["recording"]: tuple(zip(row["first"], row["second"], strict=True)) for row in rows}
    return MeasuredAlignment(rows[0]["tolerance"], pairs)


def _content_stamp(tables: Mapping[str, Any]) -> str:
    import pyarrow as pa

    stamp = hashlib.sha256()
    for name, table in tables.items():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        stamp.update(name.encode())
        stamp.update(sink.getvalue())
    return stamp.hexdigest()[:32]


def _read_table(path: Path) -> Any:
    table = read_with_checksum(path)
    try:
        schema = int((table.schema.metadata or {}).get(b"actionprep_schema", b"0"))
    except ValueError as error:
        raise UserError(_damaged(path, str(error))) from None
    if schema > SCHEMA:
        raise UserError(
            f"{path} was written by a newer actionprep: it has schema {schema}, this version reads up to {SCHEMA}. "
            "Upgrade actionprep, or run 'actionprep scan' to write the catalog again with this version."
        )
    if schema < 1:
        raise UserError(f"{path} is not a table of a catalog. Run 'actionprep scan' to write it again.")
    return table


def _recording_from(row: dict[str, Any]) -> Recording:
    extra = {key.removeprefix(_EXTRA): row.pop(key) for key in list(row) if key.startswith(_EXTRA)}
    return Recording(**row, extra={key: value for key, value in extra.items() if value is not None})
