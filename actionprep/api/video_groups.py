"""Which videos are one recording, and what it is called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from actionprep.api.view_names import StudyNames, name_videos, names_of_study
from actionprep.datasets.paths import safe_name
from actionprep.errors import UserError


def group_videos(run: str | Path, given: Sequence[str | Path]) -> dict[str, list[str]]:
    """Which of these files and folders are one recording, by the name that it gets.

    A model of several views takes the files together as one recording, and each folder as one; for a model of one view
    every file, and every video in a folder, is a recording.

    Raises UserError for a folder without videos, and for files beside folders where it is not clear what belongs together.
    """
    missing = [
        str(one) for one in given if not any(Path(path).exists() for path in (one, str(one).partition("=")[2] or one))
    ]
    if missing:
        # Before any model is loaded, which takes its time.
        raise UserError(f"No such video: {', '.join(missing)}.")
    from actionprep.datasets.natural_order import natural_key
    from actionprep.datasets.video_layouts import VIDEO_SUFFIXES
    from actionprep.training.predict import open_models, views_of

    models = open_models(run, device="cpu")
    views = views_of(models)
    names = names_of_study(models[0].checkpoint) if len(views) > 1 else StudyNames()
    groups: list[list[str]] = []
    files = [str(one) for one in given if not Path(one).is_dir()]
    folders = [Path(one) for one in given if Path(one).is_dir()]
    if len(views) > 1 and files and folders:
        raise UserError(
            f"This model looks at {len(views)} views, and got files and folders. Give the videos of one recording, or "
            "folders that hold those of one recording each."
        )
    if files:
        groups += [[one] for one in files] if len(views) < 2 else [files]
    for folder in folders:
        inside = [str(one) for one in folder.iterdir() if one.suffix.lower() in VIDEO_SUFFIXES and one.name[0] != "."]
        if not inside:
            raise UserError(f"No videos in {folder}: looked there for {', '.join(VIDEO_SUFFIXES)}.")
        inside.sort(key=natural_key)
        groups += [[one] for one in inside] if len(views) < 2 else [inside]
    found: dict[str, list[str]] = {}
    for group in groups:
        paths = list(name_videos(group, views, names).videos.values())
        name = recording_name(paths)
        if name in found:
            name = f"{paths[0].resolve().parent.name}_{name}"
        base, number = name, 2
        while name in found:
            name, number = f"{base}_{number}", number + 1
        found[name] = group
    return found


def recording_name(videos: Sequence[Path]) -> str:
    """What videos of one recording are called together: a file's name, what all names begin with, or their folder's name."""
    stems = [path.name.removesuffix(path.suffix) for path in videos]
    words = [re.split(r"[-_. ]+", stem) for stem in stems]
    shared = [word[0] for word in takewhile(lambda word: len(set(word)) == 1, zip(*words, strict=False))]
    folders = {path.resolve().parent for path in videos}
    if len(set(stems)) == 1:
        name = stems[0]
    elif shared:
        name = "_".join(shared)
    else:
        name = folders.pop().name if len(folders) == 1 else stems[0]
    # As the store and a folder of results can name it.
    return safe_name(name).lstrip("._") or "recording"
