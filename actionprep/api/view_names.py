"""Which of a run's views each video of a recording shows: as was said, by the files' names, or by their order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.training.checkpoints import Checkpoint

By = Literal["given", "names", "order"]


@dataclass(frozen=True)
class NamedVideos:
    """The videos of one recording by the views of a run that they show.

    videos:   view → file, in the order of the run's views.
    views:    all views of the run, in their order.
    by:       how that was found; "given" where every video was named view=path.
    left_out: files whose names say that they are of cameras which the run never saw.
    """

    videos: dict[str, Path]
    views: tuple[str, ...]
    by: By
    left_out: tuple[Path, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Views of the run without a video."""
        return tuple(view for view in self.views if view not in self.videos)

    @property
    def sentences(self) -> list[str]:
        """Which file became which view, what was left out and what is missing; none for a run of one view."""
        if len(self.views) < 2:
            return []
        how = {"given": "as given", "names": "by the files' names", "order": "in the order of the run's views"}[self.by]
        found = [f"{', '.join(f'view {view} ← {path.name}' for view, path in self.videos.items())} ({how})"]
        if self.left_out:
            names = ", ".join(path.name for path in self.left_out)
            found.append(f"Left out: {names}, of cameras that the run never saw.")
        if self.missing:
            found.append(
                f"No video of view {', '.join(self.missing)}: the answer is from {len(self.videos)} of the run's "
                f"{len(self.views)} views."
            )
        return found


@dataclass(frozen=True)
class StudyNames:
    """How the files of a study tell their views.

    pattern: what a whole path looks like, with a group `view`; None where the layout has no such pattern.
    words:   whether words and numbers in file names may be taken for views: not where the study's own say otherwise, as
             where a table numbers cam1.mp4, cam2.mp4, … from 0.
    """

    pattern: re.Pattern[str] | None = None
    words: bool = True


def names_of_study(checkpoint: Checkpoint) -> StudyNames:
    """How files tell their views in the study that a checkpoint's run lies in; outside of studies by words alone."""
    from actionprep.datasets.catalogue import Catalogue
    from actionprep.datasets.layouts import pattern_of_paths
    from actionprep.datasets.study import find_study

    try:
        folder = find_study(checkpoint.path.expanduser().absolute().parent)
        study = folder.study
        if study.layout == "views" and "{view}" in study.pattern:
            return StudyNames(re.compile(f"(?:.*/)?{pattern_of_paths(study.pattern).pattern}"))
        catalogue = Catalogue.read(folder.catalogue)
    except UserError:
        return StudyNames()
    for recording in catalogue.recordings:
        own = [view for view in catalogue.views_of(recording.id) if view.id in checkpoint.views]
        told = _told([folder.resolve(view.path) for view in own], checkpoint.views, StudyNames()) if own else None
        if told is not None and told != [view.id for view in own]:
            return StudyNames(words=False)
    return StudyNames()


def name_videos(videos: Sequence[str | Path], views: Sequence[str], names: StudyNames | None = None) -> NamedVideos:
    """The view of each video of one recording.

    videos: paths, or "view=path", which always holds.
    views:  of the run. Of a run of one view the video is of that one, whatever its name.
    names:  how names tell views in the run's study.

    Names that tell nothing leave the order of the views.

    Raises UserError for two videos of one view, and where all are of cameras that the run never saw.
    """
    named: dict[str, Path] = {}
    rest: list[tuple[int, Path]] = []
    for at, video in enumerate(videos):
        view, equals, path = str(video).partition("=")
        if equals and view in views:
            _place(named, view, Path(path))
        elif equals and not Path(video).exists() and Path(path).exists():
            raise UserError(f"'{video}' names view '{view}', and this run has view {', '.join(views)}.")
        else:
            rest.append((at, Path(video)))
    told = _told([path for _, path in rest], views, names or StudyNames()) if len(views) > 1 and rest else None
    if told is None and len(views) > 1 and len(videos) > len(views):
        raise UserError(
            f"This run looks at {len(views)} views, {', '.join(views)}, and got {len(videos)} videos whose names do not "
            f"tell which is which: {', '.join(str(video) for video in videos)}. Give those of one recording, as VIEW=PATH."
        )
    left_out: list[Path] = []
    for number, (at, file) in enumerate(rest):
        shown = (views[at] if at < len(views) else str(at)) if told is None else told[number]
        if shown is None:
            left_out.append(file)
        else:
            _place(named, shown, file)
    if left_out and not named:
        raise UserError(
            f"By their names none of these videos is of a camera that the run saw: {', '.join(map(str, left_out))}. It saw "
            f"view {', '.join(views)}. Give those, or say which view one is to be taken for: {views[0]}={left_out[0]}."
        )
    order = {view: at for at, view in enumerate(views)}
    ordered = dict(sorted(named.items(), key=lambda pair: order.get(pair[0], len(order))))
    by: By = "given" if not rest else "order" if told is None else "names"
    return NamedVideos(ordered, tuple(views), by, tuple(left_out))


def _place(named: dict[str, Path], view: str, path: Path) -> None:
    if view in named:
        raise UserError(
            f"Two videos for view '{view}': {named[view]} and {path}. Give one for each view, as VIEW=PATH where their "
            "names do not tell it."
        )
    named[view] = path


def _told(paths: Sequence[Path], views: Sequence[str], names: StudyNames) -> list[str | None] | None:
    """The view of each file, None for a camera that is not among the views; None for all when the names do not tell.

    Read first by the study's pattern; then by "cam3", "camera_3" or "view3"; then by the words and numbers that are ids of
    views and that not all files have. Numbers that stand alone may as well be those of recordings: a single file is not
    told by them, and several only when all of them, or all views, are.
    """
    known = {_plain(view): view for view in views}
    texts = [[path.name.removesuffix(path.suffix) for path in paths]]
    if len(paths) > 1 and len(set(texts[0])) == 1:
        texts.append([path.absolute().parent.name for path in paths])  # cam0/take.mp4, cam1/take.mp4
    readings: list[list[list[str]]] = []
    if names.pattern is not None:
        matches = [names.pattern.fullmatch(path.absolute().as_posix()) for path in paths]
        readings.append([[] if match is None else [match["view"]] for match in matches])
    if names.words:
        readings += [[_CAMERA.findall(text) for text in each] for each in texts]
    for each in readings:
        if any(len(one) != 1 for one in each):
            continue
        said = [one for [one] in each]
        found = [known.get(_plain(one)) for one in said]
        # Numbers none of which is a view's are other cameras; words none of which is one may be anything.
        if any(found) or all(one.isdecimal() for one in (*said, *views)):
            return found
    return _by_words(texts[-1], views) if names.words else None


_CAMERA = re.compile(r"(?<![^\W\d_])(?:camera|cam|view)[-_. ]*(\d+)", re.IGNORECASE)
"""Where a text names a camera or a view by its number."""


def _by_words(texts: Sequence[str], views: Sequence[str]) -> list[str | None] | None:
    mentions = [{view for view in views if _mentions(text, view)} for text in texts]
    if len(texts) == 1:
        mentions = [{view for view in mentions[0] if not view.isdecimal() or _plain(view) == _plain(texts[0])}]
    else:
        shared = set.intersection(*mentions)
        mentions = [one - shared for one in mentions]
    if any(len(one) > 1 for one in mentions):
        return None
    found = [next(iter(one), None) for one in mentions]
    return found if None not in found or set(found) >= set(views) else None


def _mentions(text: str, view: str) -> bool:
    """Whether a text has the id of a view as a whole word or number."""
    if view.isdecimal():
        return any(_plain(number) == _plain(view) for number in re.findall(r"\d+", text))
    return re.search(rf"(?<![^\W\d_]){re.escape(view)}(?![^\W\d_])", text, re.I) is not None


def _plain(id: str) -> str:
    """An id without what names write otherwise: case, and zeros before a number."""
    return str(int(id)) if id.isdecimal() else id.casefold()
