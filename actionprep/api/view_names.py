"""Which of a run's views each video of a recording shows: as was said, by the files' names, or by their order."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
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
    by:       view → how that was found; "given" for view=path.
    left_out: files whose names say that they are of cameras which the run never saw.
    """

    videos: dict[str, Path]
    views: tuple[str, ...]
    by: Mapping[str, By]
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
        how = {"given": "as given", "names": "by the files' names", "order": "in the order of the run's views"}
        found = []
        for by, said in how.items():
            some = [f"view {view} ← {path.name}" for view, path in self.videos.items() if self.by[view] == by]
            if some:
                found.append(f"{', '.join(some)} ({said})")
        found = ["; ".join(found)]
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
    words:   the words in which the files of a recording differ → the view that they are of, also of views that the run did
             not look at.
    ids:     whether the ids of views and the numbers of cameras may be looked for in names: not where the study's own
             names say otherwise, as where a table numbers cam1.mp4, cam2.mp4, … from 0.
    """

    pattern: re.Pattern[str] | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    ids: bool = True


def names_of_study(checkpoint: Checkpoint) -> StudyNames:
    """How files tell their views in the study that a checkpoint's run lies in; outside of studies by ids alone.

    Raises UserError where the study's settings or its catalog are damaged.
    """
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.study import find_study
    from actionprep.datasets.video_layouts import pattern_of_paths

    try:
        folder = find_study(checkpoint.path.expanduser().absolute().parent)
    except UserError:
        return StudyNames()  # in no study
    if folder.study.layout == "views" and "{view}" in folder.study.pattern:
        try:
            pattern = pattern_of_paths(folder.study.pattern)
        except UserError as error:
            raise UserError(f"{error} Mend it in {folder.settings_file}.") from None
        return StudyNames(re.compile(f"(?:.*/)?{pattern.pattern}"))
    if not folder.catalog.is_dir():
        return StudyNames()
    catalog = Catalog.read(folder.catalog)
    of_word: dict[str, Counter[str]] = defaultdict(Counter)
    for recording in catalog.recordings:
        own = catalog.views_of(recording.id)
        for word, view in zip(_own_words([folder.resolve(one.path) for one in own]), own, strict=True):
            if word:
                of_word[word][view.id] += 1
    words: dict[str, str] = {}
    as_read = other = 0
    for word, counts in of_word.items():
        [(view_id, count)] = counts.most_common(1)
        if count >= _CONSISTENT * counts.total():
            words[word] = view_id
        read = _read([word], catalog.view_names, StudyNames())
        if read and len(read[0]) < 2:
            agreeing = sum(counts[view] for view in read[0])
            as_read += agreeing
            other += counts.total() - agreeing
    return StudyNames(words=words, ids=as_read >= _CONSISTENT * (as_read + other))


_CONSISTENT = 0.8
"""In this share of its recordings a word has to be of one view, so that a few odd recordings do not undo it."""


def name_videos(videos: Sequence[str | Path], views: Sequence[str], names: StudyNames | None = None) -> NamedVideos:
    """The view of each video of one recording.

    videos: paths, or "view=path", which always holds.
    views:  of the run. Of a run of one view the video is of that one, whatever its name.
    names:  how names tell views in the run's study.

    The other videos are of the views that their names tell (`_told`): all of them, or none. Where none tells, they are taken
    in order for the views that are left; where names in the run's study contradict ids, only if that fills all views.

    Raises UserError for two videos of one view, where all are of cameras that the run never saw, where the names of some
    tell their view and those of others do not or tell several, and where the order cannot be taken.
    """
    names = names or StudyNames()
    named: dict[str, Path] = {}
    by: dict[str, By] = {}
    rest: list[Path] = []
    for video in videos:
        view, equals, path = str(video).partition("=")
        if equals and view in views:
            _place(named, view, Path(path))
            by[view] = "given"
        elif equals and not Path(video).exists() and Path(path).exists():
            raise UserError(f"'{video}' names view '{view}', and this run has view {', '.join(views)}.")
        else:
            rest.append(Path(video))
    told = _told(rest, views, names) if len(views) > 1 else {}
    left_out = tuple(rest[at] for at, shown in told.items() if not shown)
    open_views = [view for view in views if view not in named]
    if told and (len(told) < len(rest) or any(len(shown) > 1 for shown in told.values())):
        raise UserError(_told_some(rest, told, views))
    if not told and len(views) > 1 and len(rest) > len(open_views):
        raise UserError(
            f"This run looks at {len(views)} views, {', '.join(views)}, and got {len(videos)} videos whose names do not "
            f"tell which is which: {', '.join(map(str, videos))}. Give those of one recording, as VIEW=PATH."
        )
    if not told and rest and not names.ids and len(rest) < len(open_views):
        raise UserError(
            f"By its name the view of {', '.join(map(str, rest))} is not clear: files in the run's study show other views "
            f"than such names say. The order tells only where all views are given, {', '.join(views)}. Say which view "
            f"each video shows, as VIEW=PATH: {open_views[0]}={rest[0]}."
        )
    for at, file in enumerate(rest):
        # A run of one view that is given two videos is told so where these are read.
        for view in told[at] if told else (open_views[at] if at < len(open_views) else str(at),):
            _place(named, view, file)
            by[view] = "names" if told else "order"
    if left_out and not named:
        raise UserError(
            f"By their names none of these videos is of a camera that the run saw: {', '.join(map(str, left_out))}. It saw "
            f"view {', '.join(views)}. Give those, or say which view one is to be taken for: {views[0]}={left_out[0]}."
        )
    ordered = sorted(named, key=[*views, *named].index)
    return NamedVideos(
        {view: named[view] for view in ordered}, tuple(views), {view: by[view] for view in ordered}, left_out
    )


def _place(named: dict[str, Path], view: str, path: Path) -> None:
    if view in named:
        raise UserError(
            f"Two videos for view '{view}': {named[view]} and {path}. Give one for each view, as VIEW=PATH where their "
            "names do not tell it."
        )
    named[view] = path


def _told_some(paths: Sequence[Path], told: Mapping[int, tuple[str, ...]], views: Sequence[str]) -> str:
    said = [
        f"{paths[at]} is of " + (f"view {' or '.join(shown)}" if shown else "a camera that the run never saw")
        for at, shown in told.items()
    ]
    silent = ", ".join(str(path) for at, path in enumerate(paths) if at not in told)
    return (
        f"By the files' names {', '.join(said)}{f'; {silent} cannot be placed' if silent else ''}. The run has view "
        f"{', '.join(views)}. Say which view each shows, as VIEW=PATH, and leave out files of other cameras."
    )


def _told(paths: Sequence[Path], views: Sequence[str], names: StudyNames) -> dict[int, tuple[str, ...]]:
    """The views that names tell, by the places of the files; none for a camera that is not among the views.

    The study's pattern comes first, where all files have its form. Else the files' names without their endings are read,
    and, where these are one and tell no view, those of their folders (cam0/take.mp4, cam1/take.mp4). They are held against
    the words of the study and the ids of views; "cam3", "Camera_03" and "view 3" are one word, and one with the id 3. A name
    tells a view as

    1. the whole name is its word;
    2. the name has its word, and no longer one around it; of several views it may be each;
    3. the name has another camera's number, and all views have such;
    4. the files differ in one number alone, and that is its id.

    Numbers that stand alone may as well be those of recordings: a single file is told by one only as its whole name.
    """
    if not paths:
        return {}
    if names.pattern is not None:
        matches = [names.pattern.fullmatch(path.absolute().as_posix()) for path in paths]
        said = [match["view"] for match in matches if match is not None]
        known = {_plain(view): view for view in views}
        found = [known.get(_plain(one)) for one in said]
        # Numbers none of which is a view's are other cameras; words none of which is one may be anything.
        if len(said) == len(paths) and (any(found) or all(one.isdecimal() for one in (*said, *views))):
            return {at: () if view is None else (view,) for at, view in enumerate(found)}
    stems, folders = _texts(paths)
    told = _read(stems, views, names)
    if len(set(stems)) == 1 and all(len(shown) > 1 for shown in told.values()):
        told = _read(folders, views, names, numbers=len(paths) > 1) or told
    return told


def _read(
    texts: Sequence[str], views: Sequence[str], names: StudyNames, *, numbers: bool = True
) -> dict[int, tuple[str, ...]]:
    """`_told` of names that are read by words; numbers: whether a name may be a number and nothing else."""
    words: dict[str, str] = {}
    if names.ids:
        words = {f"cam{int(view)}": view for view in views if view.isdecimal()} | {_plain(view): view for view in views}
    words |= names.words
    numbered = {view for word, view in words.items() if _CAMERA.fullmatch(word)}
    differing = _differing_numbers(texts)
    told: dict[int, tuple[str, ...]] = {}
    for at, text in enumerate(texts):
        plain = _plain(text)
        inside = [word for word in words if not word.isdecimal() and _has_word(plain, word)]
        shown = {words[word] for word in inside if not any(one != word and _has_word(one, word) for one in inside)}
        if plain in words and (numbers or not plain.isdecimal()):
            told[at] = (words[plain],)
        elif shown:
            told[at] = tuple(sorted(shown))
        elif numbered.issuperset(views) and len(_CAMERA.findall(plain)) == 1:
            told[at] = ()
        elif differing and differing[at] in words:
            told[at] = (words[differing[at]],)
    return {at: shown if len(shown) > 1 or set(shown) <= set(views) else () for at, shown in told.items()}


_CAMERA = re.compile(r"(?<![^\W\d_])(?:camera|cam|view)[-_. ]*(\d+)", re.IGNORECASE)
"""Where a text names a camera or a view by its number."""


def _has_word(text: str, word: str) -> bool:
    """Whether a text has a word that no letter (or digit, where it ends in one) continues."""
    start, end = (r"\d" if edge.isdecimal() else r"[^\W\d_]" for edge in (word[0], word[-1]))
    return word in text and re.search(f"(?<!{start}){re.escape(word)}(?!{end})", text) is not None


def _differing_numbers(texts: Sequence[str]) -> list[str]:
    """The number of each text, where texts of as many numbers differ in a single one; else none."""
    numbers = [[str(int(number)) for number in re.findall(r"\d+", text)] for text in texts]
    if len({len(each) for each in numbers}) != 1:
        return []
    differing = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    return list(differing[0]) if len(differing) == 1 else []


def _own_words(paths: Sequence[Path]) -> list[str]:
    """What the name of each file of a recording has between the words that all begin and end with; "" where they are one."""
    stems, folders = _texts(paths)
    whole = [_plain(text).split("_") for text in (stems if len(set(stems)) > 1 or len(paths) < 2 else folders)]
    own = [each[_num_shared(whole) :] for each in whole]
    end = _num_shared([each[::-1] for each in own])
    own = [each[: len(each) - end] for each in own]
    # "front" and "front-left" stay whole, and so does a single name.
    found = ["_".join(each) for each in (own if all(own) else whole)]
    return found if len(set(found)) == len(found) else [""] * len(found)


def _num_shared(texts: Sequence[Sequence[str]]) -> int:
    """How many words all texts begin with."""
    return sum(1 for _ in takewhile(lambda words: len(set(words)) == 1, zip(*texts, strict=False)))


def _texts(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """The names of files without their endings, and those of their folders."""
    return [path.name.removesuffix(path.suffix) for path in paths], [path.absolute().parent.name for path in paths]


def _plain(text: str) -> str:
    """A text without what names write otherwise: case, what stands between words, zeros before a number, "camera_3"."""
    words = re.split(r"[-_. ]+", _CAMERA.sub(lambda match: f"cam{int(match[1])}", text.casefold()))
    return "_".join(str(int(word)) if word.isdecimal() else word for word in words)
