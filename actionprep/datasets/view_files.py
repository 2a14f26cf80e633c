"""Make the views of a study from the files that a layout lists: joined parts, crops, streams and rates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from actionprep.datasets.discovery import Discovery
from actionprep.datasets.findings import Finding
from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.recordings import View
from actionprep.datasets.study import StudyFolder, StudySettings, ViewCrop
from actionprep.datasets.video_suffixes import RAW_SUFFIXES
from actionprep.errors import UserError

_GOPRO = re.compile(r"(?P<group>G[HLX])(?P<part>\d\d)(?P<number>\d{4})", re.I)
_OLD_GOPRO = re.compile(r"GP(?P<part>\d\d)(?P<number>\d{4})", re.I)
_OLD_GOPRO_FIRST = re.compile(r"GOPR(?P<number>\d{4})", re.I)


def add_readings(discovery: Discovery, folder: StudyFolder, settings: StudySettings) -> None:
    """Join chaptered recordings, give streams without a clock their rate, and replace views by their crops.

    Raises:
        UserError: If a part of a recording is missing, or a crop names a view that does not exist.
    """
    _join_parts(discovery, settings)
    discovery.views = [_with_rate(view, folder, settings) for view in discovery.views]
    if settings.crops:
        discovery.views = _cropped(discovery.views, settings.crops)


def _with_rate(view: View, folder: StudyFolder, settings: StudySettings) -> View:
    path = folder.root / view.path
    rate = 0.0
    if settings.image_rate is not None and path.is_dir():
        rate = settings.image_rate
    elif settings.raw_rate is not None and path.suffix.lower() in RAW_SUFFIXES:
        rate = settings.raw_rate
    if not view.has_video or (not rate and settings.stream is None):
        return view
    return replace(view, reading=replace(view.reading, rate=rate, stream=settings.stream))


def _join_parts(discovery: Discovery, settings: StudySettings) -> None:
    """Keep the first part of each chaptered recording, with the paths of the others."""
    match = _part_of_name if settings.chapters in (None, "gopro") else _matcher(settings.chapters)
    groups: dict[tuple[str, ...], list[tuple[int, View]]] = {}
    for view in discovery.views:
        path = PurePosixPath(view.path)
        match_of_name = match(path.stem) if view.has_video else None
        if match_of_name is not None:
            group, part = match_of_name
            groups.setdefault((path.parent.as_posix(), path.suffix.lower(), *group), []).append((part, view))
    joined: dict[tuple[str, str, str], View] = {}
    dropped: set[tuple[str, str, str]] = set()
    for key, members in groups.items():
        members.sort(key=lambda member: (member[0], natural_key(member[1].path)))
        first, *others = [view for _, view in members]
        if settings.chapters is None:
            for view in others:
                message = (
                    f"looks like a part of the recording that begins in {PurePosixPath(first.path).name}; set "
                    'chapters = "gopro" under [study] to read the parts as one video'
                )
                discovery.findings.append(Finding("video warning", view.path, message))
            continue
        _check_parts([part for part, _ in members], [view for _, view in members], settings.chapters, key)
        if others:
            paths = tuple(view.path for view in others)
            joined[_key(first)] = replace(first, reading=replace(first.reading, parts=paths))
            dropped |= {_key(view) for view in others}
    discovery.views = [joined.get(_key(view), view) for view in discovery.views if _key(view) not in dropped]
    left = {view.recording for view in discovery.views}
    discovery.recordings = [recording for recording in discovery.recordings if recording.id in left]


def _key(view: View) -> tuple[str, str, str]:
    return view.recording, view.id, view.path


def _check_parts(numbers: list[int], views: list[View], chapters: str, key: tuple[str, ...]) -> None:
    names = ", ".join(PurePosixPath(view.path).name for view in views)
    first = numbers[0]
    if chapters == "gopro":
        first = 0 if key[2].upper() == "GOPR" else 1
    for expected, number in enumerate(numbers, first):
        if number > expected:
            raise UserError(
                f"Part {expected} of a chaptered recording is missing in {PurePosixPath(views[0].path).parent}: it has "
                f"{names}. Add the file, or move these files out of the study."
            )
        if number < expected:
            raise UserError(
                f"Two files are part {number} of one recording in {PurePosixPath(views[0].path).parent}: {names}. Keep "
                "one of them, or correct study.chapters."
            )


def _part_of_name(stem: str) -> tuple[tuple[str, ...], int] | None:
    """Return the group and number of a part by the names of GoPro cameras: GX020123, GP020123 and GOPR0123."""
    if match := _GOPRO.fullmatch(stem):
        return (match["group"].upper(), match["number"]), int(match["part"])
    if match := _OLD_GOPRO.fullmatch(stem):
        return ("GOPR", match["number"]), int(match["part"])
    if match := _OLD_GOPRO_FIRST.fullmatch(stem):
        return ("GOPR", match["number"]), 0
    return None


def _matcher(pattern: str) -> Callable[[str], tuple[tuple[str, ...], int] | None]:
    """Return a function that finds group and number of a part by a pattern of names."""
    if (
        pattern.count("{recording}") != 1
        or pattern.count("{part}") != 1
        or re.search(r"\{(?!recording\}|part\})", pattern)
    ):
        raise UserError(
            f"study.chapters = '{pattern}' is neither gopro nor a pattern with {{recording}} and {{part}}, such as "
            "'{recording}_{part}'."
        )
    texts = {"{recording}": "(?P<recording>.+?)", "{part}": r"(?P<part>\d{1,9})", "*": ".*"}
    expression = re.compile("".join(texts.get(part, re.escape(part)) for part in re.split(r"(\{\w+\}|\*)", pattern)))

    def match(stem: str) -> tuple[tuple[str, ...], int] | None:
        matched = expression.fullmatch(stem)
        return None if matched is None else ((matched["recording"],), int(matched["part"]))

    return match


def _cropped(views: list[View], crops: Mapping[str, ViewCrop]) -> list[View]:
    """Replace each view that crops name by the views that are rectangles or streams of its file."""
    names = sorted({view.id for view in views}, key=natural_key)
    for crop in crops.values():
        if crop.view and crop.view not in names:
            raise UserError(f"study.crops names view '{crop.view}', which no recording has. Views: {', '.join(names)}.")
    by_recording: dict[str, list[View]] = {}
    for view in views:
        by_recording.setdefault(view.recording, []).append(view)
    result: list[View] = []
    for recording, own in by_recording.items():
        made: list[View] = []
        replaced: set[str] = set()
        for id, crop in crops.items():
            if not crop.view and len(own) > 1:
                raise UserError(
                    f"The crop '{id}' in study.crops names no view, and recording '{recording}' has the views "
                    f'{", ".join(view.id for view in own)}. Write {id} = {{ view = "{own[0].id}", box = [x, y, width, '
                    "height] }."
                )
            source = next((view for view in own if crop.view in ("", view.id)), None)
            if source is None or not source.has_video:
                continue
            replaced.add(source.id)
            reading = replace(
                source.reading,
                crop=crop.box or (),
                stream=source.reading.stream if crop.stream is None else crop.stream,
            )
            made.append(replace(source, id=id, reading=reading))
        result += [*made, *(view for view in own if view.id not in replaced)]
    return result
