"""Read projects of BORIS (.boris, json): the events of all observations.

Times are seconds from the start of the first media file of player 1, plus the time offset of the observation. The files
of a player play one after the other; each segment belongs to the file in which it begins. Other players show the same
time with their offset. Two state events of the same behavior, subject and modifiers are the start and the stop of a
segment. The subject is the layer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actionprep.datasets.annotations import AnnotatedRow, RowError, SegmentFormat
from actionprep.datasets.tables import read_text

MODIFIERS = "modifiers, which are not part of the label; the formats with '-modifiers' in their name add them"
NO_SUBJECT = ("No focal subject", "")


def with_modifiers(label: str, modifiers: Sequence[str], *, used: bool) -> tuple[str, str]:
    """Return the label, and what it leaves out.

    Args:
        label: The behavior.
        modifiers: Its modifiers; empty ones and "None" mean none.
        used: Whether the modifiers become part of the label.
    """
    chosen = [modifier.strip() for modifier in modifiers if modifier.strip() not in ("", "None", "NA")]
    if not chosen:
        return label, ""
    return (f"{label}: {', '.join(chosen)}", "") if used else (label, MODIFIERS)


@dataclass(frozen=True)
class _Media:
    """Files of an observation.

    Attributes:
        files: Files of the first player with the start and end of each on the time line, in s.
        others: Files of the other players, each with the seconds to add to the times of the observation.
    """

    files: tuple[tuple[str, float, float], ...]
    others: tuple[tuple[str, float], ...]


def _recognizes(path: Path, head: str) -> bool:
    return head.lstrip().startswith("{") and ('"behaviors_conf"' in head or '"subjects_conf"' in head)


def _read(path: Path, *, modifiers: bool) -> Iterator[AnnotatedRow | RowError]:
    project = json.loads(read_text(path))
    if not isinstance(project, dict) or not isinstance(project.get("observations"), dict):
        raise ValueError("it has no 'observations', as projects of BORIS have")
    states = _state_behaviors(project.get("behaviors_conf"))
    for name, observation in project["observations"].items():
        try:
            yield from _observation(str(name), observation, states, modifiers=modifiers)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            yield RowError(f"observation '{name}' is damaged: {error!r}")


def _state_behaviors(conf: Any) -> dict[str, bool]:
    """Whether each behavior is a state, by its code."""
    if not isinstance(conf, dict):
        raise ValueError("it has no 'behaviors_conf', as projects of BORIS have")
    return {
        str(behavior["code"]): "state" in str(behavior["type"]).lower()
        for behavior in conf.values()
        if isinstance(behavior, dict) and "code" in behavior and "type" in behavior
    }


def _observation(
    name: str, observation: Mapping[str, Any], states: Mapping[str, bool], *, modifiers: bool
) -> Iterator[AnnotatedRow | RowError]:
    media = _media(name, observation)
    # BORIS adds the offset of an observation to the times of its events.
    shift = float(observation.get("time offset") or 0.0)
    is_paired: dict[tuple[str, str, str], float] = {}
    for event in sorted(observation["events"], key=lambda row: float(row[0])):
        time, subject, code = float(event[0]) - shift, str(event[1]), str(event[2])
        details = str(event[3]) if len(event) > 3 else ""
        if code not in states:
            yield RowError(f"observation '{name}' has '{code}' at {time:g} s, which the project does not define")
            continue
        if not states[code]:
            yield _row(media, name, time, time, subject, code, details, modifiers=modifiers, is_point=True)
            continue
        key = (subject, code, details)
        if key not in is_paired:
            is_paired[key] = time
            continue
        yield _row(media, name, is_paired.pop(key), time, subject, code, details, modifiers=modifiers)
    for (subject, code, _), time in is_paired.items():
        who = f" of {subject}" if subject not in NO_SUBJECT else ""
        yield RowError(f"'{code}'{who} starts at {time:g} s of observation '{name}' and has no stop")


def _media(name: str, observation: Mapping[str, Any]) -> _Media:
    """The files of an observation; a live observation has none and is called by its own name."""
    players = observation.get("file")
    if not isinstance(players, dict):
        players = {}
    first = list(players.get("1", ()))
    if not first:
        return _Media(((name, 0.0, float("inf")),), ())
    info = observation.get("media_info") or {}
    lengths = info.get("length") or {}
    begin = 0.0
    files = []
    for index, file in enumerate(first):
        if file not in lengths and index < len(first) - 1:
            raise ValueError(f"no length of the media file '{file}', after which '{first[index + 1]}' plays")
        end = begin + float(lengths[file]) if index < len(first) - 1 else float("inf")
        files.append((str(file), begin, end))
        begin = end
    offsets = info.get("offset") or {}
    others = [
        (str(own[0]), -float(offsets.get(player, 0.0) or 0.0))
        for player, own in players.items()
        if player != "1" and len(own) == 1
    ]
    return _Media(tuple(files), tuple(others))


def _row(
    media: _Media,
    name: str,
    onset: float,
    offset: float,
    subject: str,
    code: str,
    details: str,
    *,
    modifiers: bool,
    is_point: bool = False,
) -> AnnotatedRow | RowError:
    file, begin, end = next(part for part in media.files if onset < part[2])
    if offset > end:
        return RowError(
            f"'{code}' from {onset:g} to {offset:g} s of observation '{name}' continues from the media file '{file}' into "
            f"the next one at {end:g} s. Split it there in BORIS"
        )
    label, not_used = with_modifiers(code, details.split("|"), used=modifiers)
    # The other players show the same event; the name of a recording may be that of the observation.
    others = [(other, begin + shift) for other, shift in media.others]
    if len(media.files) == 1:
        others.append((name, 0.0))
    return AnnotatedRow(
        file,
        onset - begin,
        offset - begin,
        label,
        layer="" if subject in NO_SUBJECT else subject,
        alternatives=tuple(others),
        is_point=is_point,
        not_used=not_used,
    )


PROJECT = SegmentFormat(
    "boris",
    "project of BORIS",
    (".boris",),
    _recognizes,
    lambda path, columns: _read(path, modifiers=False),
    times="seconds from the start of the first media file of player 1, plus the time offset",
)
PROJECT_WITH_MODIFIERS = SegmentFormat(
    "boris-modifiers",
    "project of BORIS, with modifiers in the labels",
    (".boris",),
    lambda path, head: False,
    lambda path, columns: _read(path, modifiers=True),
    times="seconds from the start of the first media file of player 1, plus the time offset",
)
