"""Write stored poses in formats of other programs, one file per view."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.api.export._targets import Progress, check_target, chosen_views, exported, new_folder, write_json
from actionprep.errors import UserError, nearest

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.poses.writers import ViewPoses
    from actionprep.datasets.store.keys import ItemKey

MANIFEST = "export.json"


@dataclass(frozen=True)
class PosesExport:
    """What `export_poses` or `export_tapvid` wrote.

    Attributes:
        folder: The folder of files.
        pattern: Path of the files with {recording} and {view}, as `import_poses` takes it.
        reads: Name of the pose format that reads the files; "" for tracks.
        files: Number of files.
        views: Number of views of recordings in the files.
        written: False if the folder had the same content already.
        num_bytes: Size of all files.
        without: Number of views without something to write: no points, or no stored frames.
    """

    folder: Path
    pattern: str
    reads: str
    files: int
    views: int
    written: bool
    num_bytes: int
    without: int = 0


def export_poses(
    study: Study,
    folder: str | Path,
    format: str,
    *,
    views: Sequence[str | int] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PosesExport:
    """Write the stored poses of a study for another program.

    Args:
        study: The study.
        folder: Folder to write to. It appears when all files are written.
        format: Name of a writer: pyskl, coco, dlc, sleap, nwb or netcdf.
        views: Views by name or number; None: all.
        overwrite: Replace an export of other content.
        progress: Called after each view.

    Returns:
        The counts. An export of the same poses stays as it is.

    Raises:
        UserError: If the format is not known or cannot express the poses, if a package is missing, if the study has no
            poses, or if the folder is taken.
    """
    from actionprep.datasets.paths import below
    from actionprep.datasets.poses.writers import WRITERS

    if format not in WRITERS:
        raise UserError(
            f"Poses are not written as '{format}'.{nearest(format, WRITERS)} Formats: {', '.join(WRITERS)}."
        )
    writer = WRITERS[format]
    keys, request = request_of(study, "pose", format, views, command="actionprep pose")
    target, stamp = Path(folder), f"actionprep {format} poses 1"
    before = exported(target, stamp)
    if before is None or before.get("request") != request:
        check_target(target, before, overwrite=overwrite)
        with new_folder(target) as draft:
            by_file: dict[str, list[ViewPoses]] = {}
            files = 0
            for number, key in enumerate(keys, start=1):
                poses = view_poses(study, key)
                writer.check(poses)
                if writer.joint:
                    by_file.setdefault(f"{key.view}{writer.suffix}", []).append(poses)
                else:
                    path = below(draft, f"{key.recording}/{key.view}{writer.suffix}")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    writer.write(path, poses)
                    files += 1
                if progress is not None:
                    progress(number, len(keys))
            for name, of_view in by_file.items():
                writer.write(below(draft, name), of_view)
                files += 1
            facts = {"files": files, "views": len(keys)}
            write_json(draft / MANIFEST, {"format": stamp, "request": request, "counts": facts})
    facts = (exported(target, stamp) or {})["counts"]
    return PosesExport(
        target,
        f"{target}/{writer.pattern}",
        writer.reads,
        facts["files"],
        facts["views"],
        before is None or before.get("request") != request,
        size_of_files(target),
    )


def request_of(
    study: Study, product: str, format: str, views: Sequence[str | int] | None, *, command: str
) -> tuple[list[ItemKey], dict[str, object]]:
    """Return the items of an export, and what identifies its content.

    Raises:
        UserError: If the store has no items of the product, or a view is not known.
    """
    store = study.store.snapshot()
    keys = store.items(product)
    if not keys:
        raise UserError(
            f"The store {store.url} has no {product}. Available products: {', '.join(store.products()) or 'none'}. "
            f"Make them with '{command}'."
        )
    chosen = chosen_views(store, {key.view for key in keys}, views)
    keys = [key for key in keys if key.view in chosen]
    digests = [[key.path, (store.metadata(key) or {})["digest"]] for key in keys]
    return keys, {"format": format, "items": digests}


def view_poses(study: Study, key: ItemKey) -> ViewPoses:
    """Read the poses of a view, with its label, subject and official splits."""
    from actionprep.datasets.poses.sequence import PoseItem
    from actionprep.datasets.poses.writers import ViewPoses
    from actionprep.datasets.products.poses import read_pose_item

    recording, view = study.catalog.recording(key.recording), study.catalog.view(key.recording, key.view)
    splits = tuple(f"{name}_{part}" for name, part in recording.extra.items() if part in ("train", "val", "test"))
    poses = read_pose_item(study.store.item("pose", key.recording, key.view))
    item = PoseItem(
        key.recording, poses, view=key.view, label=recording.label, subject=recording.subject, splits=splits
    )
    return ViewPoses(item, view.fps, "" if view.poses else os.path.abspath(study.root / view.path))


def size_of_files(folder: Path) -> int:
    """Return the size of all files in a folder in bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
