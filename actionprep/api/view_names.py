"""Which view of a run each video of a recording shows: by the pattern of the run's study, or as given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from actionprep.datasets.view_ids import view_of, views_with_number
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.training.checkpoints import Checkpoint

By = Literal["given", "pattern", "only view"]


@dataclass(frozen=True)
class ViewPattern:
    """Pattern of the paths of videos in a study.

    Attributes:
        text: The pattern as the study's settings have it.
        form: The same as a regular expression of a full path, with a group `view`.
    """

    text: str
    form: re.Pattern[str]

    def fields(self, path: Path) -> Mapping[str, str] | None:
        """Return the fields of a path, such as view and recording; None if it does not match."""
        match = self.form.fullmatch(path.absolute().as_posix())
        return None if match is None else match.groupdict()


@dataclass(frozen=True)
class NamedVideos:
    """Videos of one recording by the views of a run that they show.

    Attributes:
        videos: View → file, in the order of the run's views.
        views: All views of the run, in their order.
        by: View → how it was found: "given" as VIEW=PATH, by the study's "pattern", or as the run's "only view".
        left_out: Files of views that the run was not trained on.
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
        """Assignment of files to views, ignored files and missing views; empty for a run of one view."""
        if len(self.views) < 2:
            return []
        labels = {"given": "as given", "pattern": "by the pattern of the study"}
        groups = []
        for by, label in labels.items():
            files = [f"view {view} ← {path.name}" for view, path in self.videos.items() if self.by[view] == by]
            if files:
                groups.append(f"{', '.join(files)} ({label})")
        sentences = ["; ".join(groups)]
        if self.left_out:
            names = ", ".join(path.name for path in self.left_out)
            sentences.append(f"Ignored: {names}. The run was not trained on these views.")
        if self.missing:
            sentences.append(
                f"No video of view {', '.join(self.missing)}: the prediction uses {len(self.videos)} of the run's "
                f"{len(self.views)} views."
            )
        return sentences


def pattern_of_study(checkpoint: Checkpoint) -> ViewPattern | None:
    """Return the pattern of the study that a checkpoint's run is in; None if there is no study or no such pattern.

    Raises:
        UserError: If the study's settings are damaged.
    """
    from actionprep.datasets.file_names import pattern_of_paths
    from actionprep.datasets.study import find_study

    try:
        folder = find_study(checkpoint.path.expanduser().absolute().parent)
    except UserError:
        return None  # in no study
    if folder.study.layout != "views" or not any(field in folder.study.pattern for field in ("{view}", "{recording}")):
        return None
    try:
        form = pattern_of_paths(folder.study.pattern)
    except UserError as error:
        raise UserError(f"{error} Correct it in {folder.settings_file}.") from None
    return ViewPattern(folder.study.pattern, re.compile(f"(?:.*/)?{form.pattern}"))


def refuse_crops(checkpoint: Checkpoint, views: Sequence[str]) -> None:
    """Refuse videos for a model whose views are rectangles of files: full frames would give wrong labels.

    Raises:
        UserError: If the study of the checkpoint's run makes one of the views by `study.crops`.
    """
    from actionprep.datasets.study import find_study

    try:
        folder = find_study(checkpoint.path.expanduser().absolute().parent)
        crops = folder.study.crops
    except UserError:
        return  # in no study
    cropped = [view for view in views if view in crops]
    if cropped:
        raise UserError(
            f"View '{cropped[0]}' of this run is a rectangle of a file ([study.crops] in {folder.settings_file}), and "
            "videos given here are read in full. Add the video to the study, run 'actionprep build', and predict the "
            "recording: actiontrain predict --recording ID."
        )


def name_videos(videos: Sequence[str | Path], views: Sequence[str], pattern: ViewPattern | None = None) -> NamedVideos:
    """Find the view of each video of one recording. No view is guessed from a file's name or from the order.

    Args:
        videos: Paths that match the pattern, or "view=path".
        views: Views of the run. A run of one view takes a video whatever its name.
        pattern: Pattern of the run's study.

    Raises:
        UserError: If a video's view is not known, two videos show one view, or all videos show other views.
    """
    named: dict[str, Path] = {}
    by: dict[str, By] = {}
    left_out: list[Path] = []
    unknown: list[Path] = []

    def add(view: str, path: Path, how: By) -> None:
        if view in named:
            raise UserError(f"Two videos for view '{view}': {named[view]} and {path}. Give one for each view.")
        named[view] = path
        by[view] = how

    for video in videos:
        view, _, path = str(video).partition("=")
        given = view_of(view, views) if path else None
        if given is not None:
            add(given, Path(path), "given")
            continue
        if path and not Path(video).exists() and Path(path).exists():
            raise UserError(f"'{video}' names view '{view}', and this run has view {', '.join(views)}.")
        fields = None if pattern is None else pattern.fields(Path(video))
        if len(views) < 2:
            add(views[0] if not named else str(len(named)), Path(video), "only view")
        elif fields is None or "view" not in fields:
            unknown.append(Path(video))
        elif (shown := view_of_field(fields["view"], views)) is None:
            left_out.append(Path(video))
        else:
            add(shown, Path(video), "pattern")
    if unknown:
        raise UserError(_unknown_views(unknown, views, pattern, named))
    if left_out and not named:
        raise UserError(
            f"None of these videos shows a view of the run: {', '.join(map(str, left_out))}. It has view "
            f"{', '.join(views)}. Give videos of these views, or assign one with VIEW=PATH: {views[0]}={left_out[0]}."
        )
    ordered = sorted(named, key=[*views, *named].index)
    return NamedVideos(
        {view: named[view] for view in ordered}, tuple(views), {view: by[view] for view in ordered}, tuple(left_out)
    )


def view_of_field(text: str, views: Sequence[str]) -> str | None:
    """Return the view that a field of a path names: exactly, or by the same number; None if there is none."""
    if text in views:
        return text
    matching = views_with_number(text, views)
    return matching[0] if len(matching) == 1 else None


def _unknown_views(
    paths: Sequence[Path], views: Sequence[str], pattern: ViewPattern | None, named: Mapping[str, Path]
) -> str:
    """The error for videos of unknown views, with both ways to name them."""
    if pattern is None:
        why = "the run is in no study with a pattern for the paths of videos"
        way = (
            'the study\'s pattern under [study] in actionprep.toml, such as layout = "views", pattern = "cam{view}.mp4"'
        )
    else:
        why = f"the paths do not match the pattern '{pattern.text}' of the run's study"
        way = f"paths that match '{pattern.text}'"
    missing = [view for view in views if view not in named]
    assigned = " ".join(f"{view}={path}" for view, path in zip(missing or views, paths, strict=False))
    return (
        f"The view of {', '.join(map(str, paths))} is not known: {why}. The run has view {', '.join(views)}.\n"
        f"Views are known by {way};\nor assign each video with VIEW=PATH, for example: {assigned}"
    )
