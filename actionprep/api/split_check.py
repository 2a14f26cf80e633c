"""Check that a stored split does not leak: nothing that test measures may be known from training."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from actionprep.datasets.name_spellings import same_names
from actionprep.errors import InputError, UserError, explained_read_errors, name_list, nearest
from actionprep.pipeline.near_duplicates import (
    SIMILARITY,
    ClipPrint,
    CropSearch,
    NearDuplicate,
    better,
    shrunk,
    threshold,
)

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.recordings import View

_MAX_OTHERS = 20
# Below it, threshold() does not depend on the similarity.
_LEAST = 0.7

LeakKind = Literal["video file", "subject", "session", "near-duplicate"]


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that is in two parts of a split.

    Attributes:
        kind: What is in both parts.
        name: Name of the file, subject or session in the first part; the recording for near-duplicates.
        part: Part with `name`.
        other: The same in the other part; another spelling for subjects and sessions.
        other_part: Part with `other`.
        detail: How the two match, for near-duplicates.
        fold: Number of the fold, from 1; None for a single split.
        similarity: Similarity of near-duplicates; 1 for other kinds.
    """

    kind: LeakKind
    name: str
    part: str
    other: str
    other_part: str
    detail: str = ""
    fold: int | None = None
    similarity: float = 1.0


@dataclass(frozen=True)
class SplitCheck:
    """Result of the check of a split.

    Attributes:
        name: Name of the split.
        by: What the split keeps together.
        leaks: Everything that is in two parts.
        notes: What the split does not promise to keep together, such as subjects of a split by recording.
        parts: Number of recordings by part, for each fold.
        num_compared: Number of views that were compared as images.
        not_compared: Views that were not, with the reason.
        similarity: Similarity from which views were near-duplicates.
    """

    name: str
    by: str
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]
    parts: tuple[Mapping[str, int], ...]
    num_compared: int = 0
    not_compared: Mapping[str, str] = field(default_factory=dict)
    similarity: float = 0.0


def check_stored_split(
    study: Study,
    name: str = "default",
    *,
    similarity: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> SplitCheck:
    """Check a stored split for leaks.

    Every recording, with all of its windows, is in one part by construction. In addition, these must not be in two
    parts: a video file, a subject or session that the split keeps together (also in two spellings), and near-duplicate
    clips. The latter are found by comparing the changes between frames; see `actionprep.pipeline.near_duplicates`. All
    videos of the parts are decoded.

    Args:
        study: The study.
        name: Name of the split.
        similarity: Similarity from which two clips are near-duplicates; None chooses it from the similarity of clips
            within the parts.
        progress: Called with the number of videos that were decoded since the last call.

    Returns:
        The leaks, and what could not be compared.

    Raises:
        UserError: If there is no such split, or it was made for other recordings.
    """
    from actionprep.datasets.products.split import stored_parts
    from actionprep.datasets.store.keys import ItemKey

    stored = sorted(item.recording for item in study.store.items() if item.product == "split")
    if name not in stored:
        known = ", ".join(stored) or "none"
        raise UserError(f"No split '{name}' in the store.{nearest(name, stored)} Splits: {known}.")
    item = study.store.item("split", name)
    catalog, folds = study.catalog, stored_parts(item)
    unknown = sorted({id for parts in folds for id in parts} - {recording.id for recording in catalog.recordings})
    if unknown:
        raise UserError(
            f"The split '{name}' names recording '{unknown[0]}', which is not in the catalog. Run 'actionprep split' again."
        )
    settings = (study.store.metadata(ItemKey("split", name)) or {})["provenance"]["settings"]
    by, val_by = str(settings["by"]), settings.get("val_by")
    leaks: list[Leak] = []
    notes: list[str] = []
    for number, parts in enumerate(folds, start=1):
        fold = number if len(folds) > 1 else None
        leaks += _shared_files(catalog, parts, fold)
        leaks += _crossing_names(catalog, parts, fold, by, val_by)
    if by in ("recording", "session"):
        crossing = {leak.name for parts in folds for leak in _crossing_names(catalog, parts, None, "subject", None)}
        if crossing:
            notes.append(
                f"{len(crossing)} of {len({recording.subject for recording in catalog.recordings} - {None})} subjects "
                f"are in several parts, as a split by {by} allows. For results on unseen people, split by subject."
            )
    with tempfile.TemporaryDirectory(prefix="actionprep-") as folder:
        clips, failed = _prints(study, {id for parts in folds for id in parts}, Path(folder), progress)
        within = None
        if similarity is None:
            within = _most_similar_within_parts(clips, folds, catalog)
            similarity = threshold(0.0 if within is None else within.similarity)
        near = _near_duplicates(clips, folds, similarity if within is None else SIMILARITY[0])
        leaks += [leak for leak in near if leak.similarity >= similarity]
        possible = [leak for leak in near if leak.similarity < similarity]
        if possible:
            assert within is not None
            pairs = [f"{leak.name} and {leak.other} ({leak.similarity:.3f})" for leak in possible]
            notes.append(
                f"{within.first} and {within.second}, in one part, have a similarity of {within.similarity:.3f}, so clips "
                f"of two parts count as near-duplicates from {similarity:.3f}. If those two are copies of one clip, these "
                f"pairs in different parts may be copies too: {name_list(pairs, 3)}."
            )
    still = {str(clip): "no motion to compare" for clip in clips if not clip.print.moves}
    counts = tuple({part: list(parts.values()).count(part) for part in ("train", "val", "test")} for parts in folds)
    return SplitCheck(
        name, by, tuple(leaks), tuple(notes), counts, len(clips) - len(still), {**failed, **still}, similarity
    )


@dataclass(frozen=True)
class _Clip:
    """The print of a view."""

    recording: str
    view: str
    digest: str
    print: ClipPrint

    def __str__(self) -> str:
        return f"{self.recording}/{self.view}"


def num_videos(study: Study) -> int:
    """Return the number of videos that a check decodes at most, for progress bars."""
    return sum(view.has_video and view.status == "ok" for view in study.catalog.views)


def _shared_files(catalog: Catalog, parts: Mapping[str, str], fold: int | None) -> list[Leak]:
    """Find video files that are in two parts."""
    first: dict[str, tuple[str, str]] = {}
    leaks = []
    for recording, part in parts.items():
        for view in catalog.views_of(recording):
            owner, its_part = first.setdefault(view.digest or view.path, (view.path, part))
            if its_part != part:
                leaks.append(Leak("video file", owner, its_part, view.path, part, "same bytes", fold))
    return leaks


def _crossing_names(
    catalog: Catalog, parts: Mapping[str, str], fold: int | None, by: str, val_by: str | None
) -> list[Leak]:
    """Find subjects (sessions) in two parts that the split keeps together, in any spelling."""
    kind: LeakKind = "session" if by == "session" else "subject"
    if by == "recording":
        return []
    parts_of: dict[str, set[str]] = {}
    for recording in catalog.recordings:
        name = recording.session if kind == "session" else recording.subject
        if name and recording.id in parts:
            parts_of.setdefault(name, set()).add(parts[recording.id])
    # Val may share subjects with train if it was taken from train by recording, and by choice in given splits.
    val_is_apart = by != "column" and val_by in (None, by)
    leaks = []
    for names in [*((name,) for name in parts_of), *same_names(parts_of)]:
        spelled = [(name, part) for name in names for part in sorted(parts_of[name])]
        for (name, part), (other, other_part) in combinations(spelled, 2):
            if part == other_part or (len(names) > 1 and name == other):
                continue
            if val_is_apart or "test" in (part, other_part):
                detail = "" if name == other else "two spellings of one name"
                leaks.append(Leak(kind, name, part, other, other_part, detail, fold))
    return leaks


def _prints(
    study: Study, recordings: Iterable[str], folder: Path, progress: Callable[[int], None] | None
) -> tuple[list[_Clip], dict[str, str]]:
    """Decode the views of recordings; return their prints, with arrays in a folder, and the reasons of failures."""
    clips: list[_Clip] = []
    failed: dict[str, str] = {}
    made: dict[tuple[str, str], ClipPrint] = {}
    for recording in sorted(recordings):
        for view in study.catalog.views_of(recording):
            if view.status != "ok" or not view.has_video:
                failed[f"{recording}/{view.id}"] = view.reason or "no video"
                continue
            key = (view.digest or view.path, view.reading.to_json())
            try:
                if key not in made:
                    made[key] = _print(study, view, folder / f"{len(made)}.npy")
                clips.append(_Clip(recording, view.id, view.digest, made[key]))
            except InputError as error:
                failed[f"{recording}/{view.id}"] = error.reason
            if progress is not None:
                progress(1)
    return clips, failed


def _print(study: Study, view: View, file: Path) -> ClipPrint:
    from actionprep.pipeline.readers import open_reader

    path = study.catalog.resolve(view.path, study.root)
    with explained_read_errors(path), open_reader(path, view.reading.at(study.root), times=view.frame_times) as reader:
        small = np.concatenate([shrunk(block) for block in reader.blocks()])
    made = ClipPrint.of_frames(small, view.frame_times)
    np.save(file, made.change)
    # On disk, because a print takes about 220 MB per hour of video.
    return ClipPrint(np.load(file, mmap_mode="r"), made.moves)


@dataclass(frozen=True)
class _Pair:
    """Two views of different recordings of one part."""

    first: str
    second: str
    similarity: float


def _most_similar_within_parts(
    clips: Sequence[_Clip], folds: Sequence[Mapping[str, str]], catalog: Catalog
) -> _Pair | None:
    """Return the most similar different recordings of one part, seen by the same view; None if there are none.

    Each view is compared with at most 20 others, first those of the same subject and label.
    """
    labels = {
        recording.id: (recording.label, *sorted({segment.label for segment in catalog.segments_of(recording.id)}))
        for recording in catalog.recordings
    }
    largest: _Pair | None = None
    for row, clip in enumerate(clips):
        others = [
            other
            for other in clips[row + 1 :]
            if other.view == clip.view
            and other.digest != clip.digest
            and other.recording != clip.recording
            and not _apart(clip, other, folds)
        ]
        mine = catalog.recording(clip.recording)

        def is_unlike(
            other: _Clip, subject: str | None = mine.subject, own: tuple[str | None, ...] = labels[mine.id]
        ) -> tuple[bool, bool]:
            return catalog.recording(other.recording).subject != subject, labels[other.recording] != own

        search = CropSearch(clip.print) if clip.print.moves and others else None
        for other in sorted(others, key=is_unlike)[:_MAX_OTHERS]:
            match = search.find(other.print, similarity=_LEAST) if search is not None and other.print.moves else None
            # Copies within a part are allowed; they must not hide others.
            if match is not None and match.similarity < SIMILARITY[1]:
                pair = _Pair(clip.recording, other.recording, match.similarity)
                largest = pair if largest is None or pair.similarity > largest.similarity else largest
    return largest


def _near_duplicates(clips: Sequence[_Clip], folds: Sequence[Mapping[str, str]], similarity: float) -> list[Leak]:
    """Find the best match of each two recordings that are in different parts of a fold."""
    moving = [clip for clip in clips if clip.print.moves]
    matches: dict[tuple[int, int], NearDuplicate] = {}
    for row, clip in enumerate(moving):
        search = CropSearch(clip.print)
        for column, other in enumerate(moving):
            if clip.digest == other.digest or not _apart(clip, other, folds):
                continue
            match = search.find(other.print, similarity=similarity)
            if match is None:
                continue
            key = (min(row, column), max(row, column))
            best = better(matches.get(key), match) if row > column else match
            assert best is not None
            matches[key] = best
    of_recordings: dict[tuple[str, str], tuple[NearDuplicate, _Clip, _Clip]] = {}
    for (row, column), match in matches.items():
        clip, other = moving[row], moving[column]
        pair = (clip.recording, other.recording)
        if pair not in of_recordings or of_recordings[pair][0].similarity < match.similarity:
            of_recordings[pair] = match, clip, other
    leaks = []
    for (first, second), (match, clip, other) in sorted(of_recordings.items()):
        for number, parts in enumerate(folds, start=1):
            if first in parts and second in parts and parts[first] != parts[second]:
                fold = number if len(folds) > 1 else None
                detail = _described(match, clip, other)
                leaks.append(
                    Leak("near-duplicate", first, parts[first], second, parts[second], detail, fold, match.similarity)
                )
    return leaks


def _apart(clip: _Clip, other: _Clip, folds: Sequence[Mapping[str, str]]) -> bool:
    """Whether two views are of recordings in different parts of a fold."""
    return any(
        parts.get(clip.recording, "") != parts.get(other.recording, "")
        for parts in folds
        if clip.recording in parts and other.recording in parts
    )


def _described(match: NearDuplicate, clip: _Clip, other: _Clip) -> str:
    text = f"views {clip.view} and {other.view}: similarity {match.similarity:.3f} over {match.overlap:.1f} s"
    if abs(match.shift) >= 0.05:
        text += f", shifted by {abs(match.shift):.1f} s"
    left, top, right, bottom = match.crop
    if min(right - left, bottom - top) < 0.97:
        text += f", cropped to {right - left:.0%} x {bottom - top:.0%}"
    return text
