"""Write snippets as npz files, in a folder for each part and class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.api.export._targets import (
    Progress,
    check_target,
    chosen_views,
    delete,
    exported,
    move_into_place,
    write_json,
)
from actionprep.errors import UserError, explained_disk_errors, name_list

if TYPE_CHECKING:
    import numpy as np

    from actionprep.datasets.poses.sequence import PoseSequence
    from actionprep.datasets.products.snippets import SnippetTable
    from actionprep.datasets.store.keys import ItemKey
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.zarr_store import Store
    from actionprep.training.inputs._frame_spans import FrameSource, Spans

_FORMAT = "actionprep npz snippets 1"


@dataclass(frozen=True)
class NpzExport:
    """What `export_npz` wrote.

    Attributes:
        folder: The folder of snippets.
        product: Product that the frames are from.
        written: Number of files that were written.
        kept: Number of files that an interrupted export of the same snippets had written.
        snippets: Number of snippets by part and label.
        views: Views that were exported.
        unused: Number of snippets of the table that are in no part of the split.
        without_frames: Number of snippets without a stored frame.
        without_keypoints: Number of files without joints, although the store has poses.
        num_bytes: Size of all files.
    """

    folder: Path
    product: str
    written: int
    kept: int
    snippets: dict[str, dict[str, int]]
    views: tuple[str, ...]
    unused: int
    without_frames: int
    without_keypoints: int
    num_bytes: int


def export_npz(
    store: Store | str | Path,
    folder: str | Path,
    *,
    snippets: str = "default",
    split: str | None = None,
    product: str | None = None,
    views: Sequence[str | int] | None = None,
    size: int = 320,
    sample_rate: int = 1,
    name: str = "snippets",
    compress: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> NpzExport:
    """Write each snippet and view as one npz file, in a folder for each part and class.

    The result is `folder/{name}_{snippets}_length_{ms}_sample_rate_{r}_iou_{x}`. It appears when all files are written. An
    interrupted export resumes if it is called with the same arguments.

    Args:
        store: Store with snippets and with `frames` or `lowres`.
        folder: Folder to write to.
        snippets: Name of the table of snippets.
        split: Name of a stored split; None: split/default if it exists, otherwise the split that training would make.
        product: "frames" or "lowres"; None: frames if the store has them.
        views: Views by name or number; None: all.
        size: Height and width of the frames. Frames of this size are written as stored, others are resized.
        sample_rate: Write every n-th frame.
        name: First part of the name of the result.
        compress: Compress the files.
        overwrite: Replace a finished export of other snippets or settings.
        progress: Called after each file.

    Returns:
        The counts. A finished export of the same snippets and settings stays as it is.

    Raises:
        UserError: If the snippets are multi-label, if a product is missing, or if the folder is not empty.
    """
    from actionprep.datasets.npz_snippets import EXPORT, folder_name
    from actionprep.datasets.store.opening import open_store

    if size < 1 or sample_rate < 1:
        raise UserError(f"size and sample_rate must be at least 1, got {size} and {sample_rate}.")
    store = open_store(store).snapshot()
    job = _NpzJob.make(store, snippets, split, product, views, size=size, sample_rate=sample_rate, compress=compress)
    label_settings = job.table.settings
    target = Path(folder) / folder_name(
        f"{name.replace('_', '-')}_{snippets.replace('_', '-')}",
        length_s=label_settings.get("length_s"),
        sample_rate=sample_rate,
        threshold=float(label_settings.get("threshold", 0.0)),
    )
    before = exported(target, _FORMAT)
    if before is not None and before.get("request") == job.request:
        return job.report(target, written=0, counts=before["counts"])
    check_target(target, before, overwrite=overwrite, instead=" or --name")
    draft = target.with_name(f".{target.name}.partial")
    with explained_disk_errors(target):
        if draft.is_symlink() or (draft.exists() and (exported(draft, _FORMAT) or {}).get("request") != job.request):
            delete(draft)
        draft.mkdir(parents=True, exist_ok=True)
        write_json(draft / EXPORT, job.facts({}))
        counts = job.write(draft, progress)
        write_json(draft / EXPORT, job.facts(counts))
        move_into_place(draft, target)
    return job.report(target, written=counts["files"] - counts["kept"], counts=counts)


@dataclass(frozen=True)
class _NpzJob:
    """One export of snippets: what is written, and from where."""

    store: Store
    table: SnippetTable
    product: str
    array: str
    views: tuple[str, ...]
    rows: dict[str, np.ndarray]
    sources: dict[tuple[int, int], FrameSource]
    spans: Spans
    size: int
    sample_rate: int
    compress: bool
    request: dict[str, Any]
    poses: dict[ItemKey, PoseSequence | None] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        store: Store,
        snippets: str,
        split: str | None,
        product: str | None,
        views: Sequence[str | int] | None,
        *,
        size: int,
        sample_rate: int,
        compress: bool,
    ) -> _NpzJob:
        """Check the store and choose snippets, views and frames."""
        import numpy as np

        from actionprep.datasets.split_choice import SplitChoice, choose_parts, is_multi_label
        from actionprep.training.datasets import read_table
        from actionprep.training.inputs._frame_spans import FrameSource, find_spans
        from actionprep.training.run import input_digest

        table = read_table(store, snippets)
        if is_multi_label(table):
            raise UserError(
                f"The snippets '{snippets}' are multi-label, and an npz folder has one class per file. Export them as HDF5: "
                "actionprep export hdf5 FILE."
            )
        parts = choose_parts(store, table, SplitChoice(stored=split))
        product = _frames_product(store, product)
        names = chosen_views(store, {key.view for key in store.items(product)}, views)
        array = "rgb" if product == "frames" else _largest(store, product)
        sources = {}
        for code in np.unique(table.recording).tolist():
            for column, view in enumerate(names):
                if store.has(product, table.recordings[code], view):
                    item = store.item(product, table.recordings[code], view)
                    sources[code, column] = FrameSource(item["time"][:], (0, 0))
        rows = {part: parts.split.rows(part) for part in ("train", "val", "test")}
        request = {
            "input": input_digest(store, product, snippets),
            "poses": [[key.path, (store.metadata(key) or {})["digest"]] for key in store.items("pose")],
            "product": product,
            "array": array,
            "snippets": snippets,
            "rows": {part: chosen.tolist() for part, chosen in rows.items()},
            "views": list(names),
            "size": size,
            "sample_rate": sample_rate,
            "compress": compress,
        }
        spans = find_spans(sources, table, len(names))
        return cls(
            store, table, product, array, names, rows, sources, spans, size, sample_rate, compress, request
        )  # fmt: skip

    def facts(self, counts: dict[str, Any]) -> dict[str, Any]:
        """Contents of export.json; `counts` is empty until all files are written."""
        from actionprep.datasets.paths import safe_names

        folders = safe_names(self.table.labels)
        return {
            "format": _FORMAT,
            "labels": {folders[label]: label for label in self.table.labels},
            "settings": self.table.settings,
            "request": self.request,
            "counts": counts,
        }

    def report(self, folder: Path, *, written: int, counts: dict[str, Any]) -> NpzExport:
        """The counts of a finished export."""
        return NpzExport(
            folder=folder,
            product=self.product,
            written=written,
            kept=counts["files"] - written,
            snippets=counts["snippets"],
            views=self.views,
            unused=len(self.table) - sum(len(rows) for rows in self.rows.values()),
            without_frames=counts["without_frames"],
            without_keypoints=counts["without_keypoints"],
            num_bytes=counts["bytes"],
        )

    def write(self, root: Path, progress: Progress | None) -> dict[str, Any]:
        """Write all files that are not there, and count."""
        from actionprep.datasets.npz_snippets import write_snippet
        from actionprep.datasets.paths import below
        from actionprep.datasets.poses.formats.safe_npz import npz_members

        files = list(self._files())
        counts: dict[str, Any] = {
            "files": len(files), "kept": 0, "bytes": 0, "snippets": {}, "without_keypoints": 0,
            "without_frames": sum(not self._columns(row) for rows in self.rows.values() for row in rows.tolist()),
        }  # fmt: skip
        has_poses = bool(self.store.items("pose"))
        for part, rows in self.rows.items():
            exported = [int(self.table.label[row]) for row in rows.tolist() if self._columns(row)]
            counts["snippets"][part] = {
                label: exported.count(code) for code, label in enumerate(self.table.labels) if code in exported
            }
        for number, (name, row, column) in enumerate(files, start=1):
            path = below(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                counts["kept"] += 1
            else:
                write_snippet(path, self._arrays(row, column), compress=self.compress)
            counts["bytes"] += path.stat().st_size
            counts["without_keypoints"] += has_poses and "keypoints" not in npz_members(path)
            if progress is not None:
                progress(number, len(files))
        return counts

    def _columns(self, row: int) -> list[int]:
        return [column for column in range(len(self.views)) if (row, column) in self.spans]

    def _files(self) -> Iterator[tuple[str, int, int]]:
        """Path in the folder, row and view of each file."""
        from actionprep.datasets.paths import safe_names

        folders = safe_names(self.table.labels)
        for part, rows in self.rows.items():
            for row in rows.tolist():
                recording = self.table.recordings[self.table.recording[row]]
                stems = {column: f"{row:09d}_{recording}_{self.views[column]}" for column in self._columns(row)}
                names = safe_names(stems.values())
                folder = folders[self.table.labels[self.table.label[row]]]
                for column, stem in stems.items():
                    yield f"{part}/{folder}/{names[stem]}.npz", row, column

    def _arrays(self, row: int, column: int) -> dict[str, np.ndarray]:
        import numpy as np

        from actionprep.datasets.products.frames import read_frames
        from actionprep.pipeline.stage import ArrayBlock

        code = int(self.table.recording[row])
        recording, view = self.table.recordings[code], self.views[column]
        item = self.store.item(self.product, recording, view)
        chosen = slice(*self.spans[row, column], self.sample_rate)
        frames = read_frames(item, chosen) if self.product == "frames" else item[self.array][chosen]
        time = self.sources[code, column].time[chosen]
        source = frames.shape[1:3]
        if source != (self.size, self.size):
            frames = ArrayBlock(frames, time=time).resized(self.size, self.size)
        arrays = {
            "video": frames,
            "time": time,
            "view": np.array(view),
            "recording": np.array(recording),
            "subject": np.array(self.table.subjects[code]),
            "onset": np.array(self.table.onset[row], np.float64),
            "offset": np.array(self.table.offset[row], np.float64),
        }
        keypoints = self._keypoints(recording, view, time, item)
        return arrays if keypoints is None else {**arrays, "keypoints": keypoints}

    def _keypoints(self, recording: str, view: str, time: np.ndarray, item: ItemReader) -> np.ndarray | None:
        """The raster of joints at some times; None without 2D poses in pixels, or if frames are letterboxed."""
        from actionprep.datasets.poses.raster import has_raster, pose_raster, poses_in_frames
        from actionprep.datasets.products.poses import read_pose_item
        from actionprep.datasets.store.keys import ItemKey

        key = ItemKey("pose", recording, view)
        if key not in self.poses:
            self.poses.clear()
            has = self.store.has("pose", recording, view)
            self.poses[key] = read_pose_item(self.store.item("pose", recording, view)) if has else None
        poses = self.poses[key]
        if poses is None or not has_raster(poses) or item.attributes.get("num_letterboxed"):
            return None
        poses = poses_in_frames(poses, item.attributes, f"{self.product}/{recording}/{view}")
        return pose_raster(poses, time, size=(self.size, self.size))


def _frames_product(store: Store, product: str | None) -> str:
    available = [candidate for candidate in ("frames", "lowres") if store.items(candidate)]
    if product is not None and product not in ("frames", "lowres"):
        raise UserError(f"npz snippets are written from frames or lowres, not from '{product}'.")
    if product in available or (product is None and available):
        return product or available[0]
    command = "lowres" if product == "lowres" else "decode"
    raise UserError(
        f"The store {store.url} has no {product or 'frames or lowres'}. Available products: "
        f"{name_list(store.products()) or 'none'}. Make them with 'actionprep {command}'."
    )


def _largest(store: Store, product: str) -> str:
    """Name of the array of the largest size in lowres."""
    key = store.items(product)[0]
    sizes: dict[str, list[int]] = store.item(key.product, key.recording, key.view).attributes["sizes"]
    return max(sizes, key=lambda name: sizes[name])
