"""Which videos are one recording, and the recording's name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.api.view_names import ViewPattern, name_videos, pattern_of_study, view_of_field
from actionprep.datasets.paths import safe_name
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.training.checkpoints import Checkpoint


def group_videos(run: str | Path | Checkpoint, given: Sequence[str | Path]) -> dict[str, list[str]]:
    """Group files and folders into recordings.

    A model of several views takes the files together as one recording, and each folder as one. For a model of one view
    every file, and every video in a folder, is a recording. If the run's study names recordings by a pattern, the videos
    in a folder are grouped by it, and views that a run of one view does not know are left out. Files of the run's study
    have the id of their recording as name.

    Args:
        run: Folder of a run or of fused runs, or a checkpoint.
        given: Paths of videos or folders, or "view=path".

    Returns:
        The paths of each recording, by its name.

    Raises:
        UserError: If a file does not exist, a folder has no videos, the view of a file is not known, or files and
            folders are mixed for a model of several views.
    """
    missing = [
        str(path)
        for path in given
        if not any(Path(part).exists() for part in (path, str(path).partition("=")[2] or path))
    ]
    if missing:
        # Before any model is loaded, which takes time.
        raise UserError(
            f"No such video: {', '.join(missing)}. For recordings of the study, give their ids: --recording "
            f"{' '.join(map(shlex.quote, missing))}."
        )
    from actionprep.datasets.discovery import VIDEO_SUFFIXES
    from actionprep.datasets.natural_order import natural_key
    from actionprep.training.predict import open_models, views_of

    models = open_models(run, device="cpu")
    views = views_of(models)
    pattern = pattern_of_study(models[0].checkpoint)
    groups: list[list[str]] = []
    files = [str(path) for path in given if not Path(path).is_dir()]
    folders = [Path(path) for path in given if Path(path).is_dir()]
    if len(views) > 1 and files and folders:
        raise UserError(
            f"This model has {len(views)} views, and got files and folders. Give the videos of one recording, or folders "
            "with the videos of one recording each."
        )
    if files:
        groups += [[path] for path in files] if len(views) < 2 else [files]
    for folder in folders:
        inside = _videos_in(folder, VIDEO_SUFFIXES)
        if not inside:
            raise UserError(f"No videos in {folder}: looked there for {', '.join(VIDEO_SUFFIXES)}.")
        inside.sort(key=lambda path: natural_key(str(path)))
        groups += _recordings_of(inside, views, pattern)
    known = _recordings_by_file(models[0].checkpoint)
    recordings: dict[str, list[str]] = {}
    for group in groups:
        paths = list(name_videos(group, views, pattern).videos.values())
        ids = {known.get(path.resolve(), "") for path in paths}
        name = ids.pop() if len(ids) == 1 else ""
        name = name or recording_name(paths, pattern)
        if name in recordings:
            name = f"{paths[0].resolve().parent.name}_{name}"
        base, number = name, 2
        while name in recordings:
            name, number = f"{base}_{number}", number + 1
        recordings[name] = group
    return recordings


def _recordings_by_file(checkpoint: Checkpoint) -> dict[Path, str]:
    """Id of the recording of each video in the study of a checkpoint's run; empty if it is in no scanned study."""
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.study import find_study

    try:
        folder = find_study(checkpoint.path.expanduser().absolute().parent)
        if not folder.catalog.is_dir():
            return {}
        catalog = Catalog.read(folder.catalog)
    except UserError:
        return {}
    return {catalog.resolve(view.path, folder.root).resolve(): view.recording for view in catalog.views}


def _videos_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Videos in a folder, or below it if it contains none itself; hidden files and folders are left out."""

    def visible(path: Path) -> bool:
        return not any(part.startswith(".") for part in path.relative_to(folder).parts)

    direct = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and visible(path)]
    return direct or [path for path in folder.rglob("*") if path.suffix.lower() in suffixes and visible(path)]


def _recordings_of(videos: Sequence[Path], views: Sequence[str], pattern: ViewPattern | None) -> list[list[str]]:
    """Group the videos of a folder: by the pattern's recording, otherwise by folder, or one each for a run of one view."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path in videos:
        fields = pattern.fields(path) if pattern is not None else None
        recording = (fields or {}).get("recording")
        if recording is not None:
            shown = fields.get("view") if fields else None
            if len(views) == 1 and shown is not None and view_of_field(shown, views) is None:
                continue  # a view that the run was not trained on
            key = ("pattern", recording)
        else:
            key = ("file", str(path)) if len(views) < 2 else ("folder", str(path.parent))
        groups.setdefault(key, []).append(str(path))
    if not groups:
        raise UserError(
            f"None of the {len(videos)} videos in {videos[0].parent} shows view {', '.join(views)}, which the run was "
            "trained on. Give such a video by its path."
        )
    return list(groups.values())


def recording_name(videos: Sequence[Path], pattern: ViewPattern | None = None) -> str:
    """Return a name for the recording of some videos.

    It is what the study's pattern gives as recording, where all paths match. Otherwise it is the file's name, what all
    names begin with, or the name of their folder.
    """
    fields = [pattern.fields(path) for path in videos] if pattern is not None else []
    ids = {values.get("recording") if values else None for values in fields}
    stems = [path.name.removesuffix(path.suffix) for path in videos]
    words = [re.split(r"[-_. ]+", stem) for stem in stems]
    shared = [word[0] for word in takewhile(lambda word: len(set(word)) == 1, zip(*words, strict=False))]
    folders = {path.resolve().parent for path in videos}
    if len(ids) == 1 and (id := ids.pop()):
        name = id
    elif len(set(stems)) == 1:
        name = stems[0]
    elif shared:
        name = "_".join(shared)
    else:
        name = folders.pop().name if len(folders) == 1 else stems[0]
    # A name that the store and a folder of results can have.
    return safe_name(name).lstrip("._") or "recording"
