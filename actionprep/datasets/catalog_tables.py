"""The catalog as Arrow tables, and as Parquet files that belong together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.findings import Finding
from actionprep.datasets.paths import no_link
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.segments import Segment
from actionprep.errors import SetupError, UserError

SCHEMA = 2
_EXTRA = "extra_"


def write_tables(tables: Mapping[str, Any], folder: Path) -> None:
    """Write the tables of `make_tables`; each file is replaced whole. Raises SetupError when the disk refuses."""
    import pyarrow.parquet as pq

    stamp = _content_stamp(tables)
    drafts: list[tuple[Path, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            metadata = {"actionprep_schema": str(SCHEMA), "actionprep_catalogue": stamp}
            place = folder / f"{name}.parquet"
            draft = folder / f".{name}.{os.getpid()}.parquet"
            drafts.append((draft, place))
            pq.write_table(table.replace_schema_metadata(metadata), no_link(draft), compression="zstd")
            with open(draft, "rb") as file:
                os.fsync(file.fileno())
        for draft, place in drafts:
            os.replace(draft, place)
    except OSError as error:
        raise SetupError(
            f"Cannot write the catalog in {folder}: {error.strerror or error}. Free some room or make the folder "
            "writable, then run 'actionprep scan' again."
        ) from error
    finally:
        for draft, _ in drafts:
            draft.unlink(missing_ok=True)


def read_tables(
    folder: Path,
) -> tuple[tuple[Recording, ...], tuple[View, ...], dict[str, tuple[Segment, ...]], tuple[Finding, ...]]:
    """What `make_tables` took, from the files in a folder.

    Raises UserError when there are none, when a newer actionprep wrote them, or when they do not belong together.
    """
    if not (folder / "recordings.parquet").exists():
        raise UserError(f"No catalog in {folder}. Run 'actionprep scan' first: it reads the videos and fills it.")
    found = {name: _read_table(folder / f"{name}.parquet") for name in ("recordings", "views", "segments", "findings")}
    stamps = {table.schema.metadata.get(b"actionprep_catalogue") for table in found.values()}
    if len(stamps) != 1:
        raise UserError(
            f"The tables in {folder} are not of one scan: writing them was interrupted. Run 'actionprep scan' again."
        )
    segments: dict[str, list[Segment]] = {}
    for row in found["segments"].to_pylist():
        segments.setdefault(row.pop("recording"), []).append(Segment(**row))
    return (
        tuple(_recording_from(row) for row in found["recordings"].to_pylist()),
        views_from_table(found["views"]),
        {recording: tuple(of_one) for recording, of_one in segments.items()},
        tuple(Finding(**row) for row in found["findings"].to_pylist()),
    )


def is_older(folder: Path) -> bool:
    """Return whether an earlier version wrote the catalog in a folder, which lacks properties of videos."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(folder / "views.parquet").metadata or {}
    return 1 <= int(metadata.get(b"actionprep_schema", b"0")) < SCHEMA


def views_to_table(views: Sequence[View]) -> Any:
    """Views as an Arrow table, frame times as a list column."""
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
        "warnings": pa.list_(pa.string()),
    }
    small = ("width", "height", "rotation", "stream")
    columns: dict[str, Any] = {}
    for one in fields(View):
        if one.name == "frame_times":
            continue
        values = [getattr(view, one.name) for view in views]
        columns[one.name] = pa.array(values, types.get(one.name, pa.int32() if one.name in small else pa.string()))
    lengths = np.array([len(view.frame_times) for view in views], np.int64)
    flat = np.concatenate([view.frame_times for view in views]) if views else np.empty(0)
    limits = np.concatenate([[0], np.cumsum(lengths)])
    columns["frame_times"] = pa.LargeListArray.from_arrays(pa.array(limits, pa.int64()), pa.array(flat, pa.float64()))
    return pa.table(columns)


def views_from_table(table: Any) -> tuple[View, ...]:
    """The reverse of `views_to_table`."""
    times = table.column("frame_times").combine_chunks()
    if table.num_rows == 0:
        return ()
    flat = times.values.to_numpy(zero_copy_only=False)
    limits = times.offsets.to_numpy(zero_copy_only=False)
    views = []
    rows = table.drop_columns("frame_times").to_pylist()
    for row, (first, last) in zip(rows, pairwise(limits), strict=True):
        row["warnings"] = tuple(row["warnings"])
        row["poses"] = row.get("poses") or ""
        views.append(View(**row, frame_times=flat[first:last]))
    return tuple(views)


def make_tables(
    recordings: Sequence[Recording],
    views: Sequence[View],
    segments: Mapping[str, Sequence[Segment]],
    findings: Sequence[Finding],
) -> dict[str, Any]:
    """Arrow tables by name; segments: by recording id."""
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
    told = {
        name: pa.array([getattr(finding, name) for finding in findings], pa.string())
        for name in ("kind", "where", "message")
    }
    return {
        "recordings": pa.table(columns),
        "views": views_to_table(views),
        "segments": pa.table(rows),
        "findings": pa.table(told),
    }


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
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid) as error:
        first = str(error).split("\n")[0]
        raise UserError(f"Cannot read the catalog's {path}: {first}. Run 'actionprep scan' to make it anew.") from None
    schema = int((table.schema.metadata or {}).get(b"actionprep_schema", b"0"))
    if schema > SCHEMA:
        raise UserError(
            f"{path} was written by a newer actionprep: it has schema {schema}, this version reads up to {SCHEMA}. "
            "Upgrade actionprep, or run 'actionprep scan' to make the catalog anew with this version."
        )
    if schema < 1:
        raise UserError(f"{path} is not a table of a catalog. Run 'actionprep scan' to make it anew.")
    return table


def _recording_from(row: dict[str, Any]) -> Recording:
    extra = {key.removeprefix(_EXTRA): row.pop(key) for key in list(row) if key.startswith(_EXTRA)}
    return Recording(**row, extra={key: value for key, value in extra.items() if value is not None})
