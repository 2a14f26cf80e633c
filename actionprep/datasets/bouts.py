"""Bouts of behavior: join and filter segments, and compute the statistics that studies of behavior publish.

All arithmetic is in whole microseconds, so that bouts which touch are never split by rounding.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.segments import Segment
from actionprep.datasets.windows import microseconds

Track = tuple[str, str]
"""Layer and annotator: bouts of one track are compared with each other only."""


@dataclass(frozen=True)
class BoutRules:
    """How segments become bouts. The gap is closed first, then short bouts are dropped.

    Attributes:
        max_gap_s: Join bouts of one label that are at most this far apart, in seconds. 0 joins bouts that touch or
            overlap; None keeps each segment as it is.
        min_length_s: Drop bouts that are shorter, in seconds.
        across_others: Whether a gap may contain bouts of other labels, which then overlap the joined bout.
    """

    max_gap_s: float | None = None
    min_length_s: float = 0.0
    across_others: bool = True


@dataclass(frozen=True)
class Observation:
    """The observed time of a recording, and its bouts.

    Attributes:
        recording: Id of the recording.
        span: Start and end of the observed time in seconds on the recording's clock.
        bouts: Bouts in it.
        subject: Person or animal; "" if unknown.
        group: Group of the recording, such as a treatment; "" without groups.
        source: Where the bouts come from: "annotated" or "predicted".
        part: Part of the split that the recording is in; "" if unknown.
    """

    recording: str
    span: tuple[float, float]
    bouts: tuple[Segment, ...]
    subject: str = ""
    group: str = ""
    source: str = "annotated"
    part: str = ""

    @property
    def observed_s(self) -> float:
        """Length of the observed time in seconds."""
        return self.span[1] - self.span[0]


def join_bouts(segments: Iterable[Segment], rules: BoutRules) -> list[Segment]:
    """Join segments of one label, layer and annotator, and drop short ones.

    Args:
        segments: Segments of one recording, in any order. They may overlap.
        rules: Largest gap to close and shortest bout to keep.

    Returns:
        Bouts ordered by onset.
    """
    tracks: dict[Track, list[Segment]] = defaultdict(list)
    for segment in sorted(segments, key=_order):
        tracks[segment.layer, segment.annotator].append(segment)
    bouts: list[Segment] = []
    for track in tracks.values():
        joined: list[Segment] = []
        last: dict[str, int] = {}  # index of the last bout of each label
        for segment in track:
            index = last.get(segment.label)
            if (
                index is not None
                and (rules.across_others or index == len(joined) - 1)
                and _is_near(joined[index], segment, rules)
            ):
                joined[index] = replace(joined[index], offset=max(joined[index].offset, segment.offset))
            else:
                last[segment.label] = len(joined)
                joined.append(segment)
        bouts += [bout for bout in joined if _length(bout) >= _us(rules.min_length_s)]
    return sorted(bouts, key=_order)


def clip_bouts(bouts: Iterable[Segment], span: tuple[float, float]) -> tuple[Segment, ...]:
    """Cut bouts to the observed time. Bouts outside are left out."""
    clipped = [
        replace(bout, onset=max(bout.onset, span[0]), offset=min(bout.offset, span[1]))
        for bout in bouts
        if bout.onset < span[1] and (bout.offset > span[0] or span[0] <= bout.onset == bout.offset)
    ]
    return tuple(sorted(clipped, key=_order))


@dataclass(frozen=True)
class BoutStatistics:
    """Statistics of one label in one recording, or in one time bin of it.

    Attributes:
        recording: Id of the recording.
        subject: Person or animal; "" if unknown.
        group: Group of the recording; "" without groups.
        layer: Layer of the annotation; "" if it has none.
        annotator: Annotator; "" if unknown.
        source: Where the bouts come from.
        part: Part of the split that the recording is in; "" if unknown.
        label: The label.
        start: Start of the observed time in seconds.
        stop: End of the observed time in seconds.
        count: Number of bouts that begin in it. A bout that began before a bin is not counted in it.
        total_s: Time covered by bouts in seconds; time that several bouts cover counts once.
        mean_s: Mean length of the counted bouts in seconds, at their full length; NaN without any.
        median_s: Their median length in seconds; NaN without any.
        latency_s: Time from the start to the first onset in seconds; NaN without any.
        share: Share of the observed time that bouts cover.
        per_min: Number of bouts per minute.
    """

    recording: str
    subject: str
    group: str
    layer: str
    annotator: str
    source: str
    part: str
    label: str
    start: float
    stop: float
    count: int
    total_s: float
    mean_s: float
    median_s: float
    latency_s: float
    share: float
    per_min: float


def bout_statistics(
    observations: Sequence[Observation], *, bin_s: float | None = None, labels: Iterable[str] = ()
) -> list[BoutStatistics]:
    """Compute count, durations, latency, share of time and rate of every label in every recording.

    A label that occurs in some recordings gets rows of zeros in the others: an animal that never did something belongs
    into the mean. Labels, layers and annotators without any bout in all recordings have no rows.

    Args:
        observations: Recordings with their bouts.
        bin_s: Length of time bins in seconds, counted from the start of each recording. The last bin may be shorter. None:
            one row for the full recording.
        labels: Labels that get rows in any case, such as those of a model, which may predict some of them never.

    Returns:
        Rows by recording, layer, annotator, label and bin.
    """
    labels_of: dict[Track, set[str]] = defaultdict(set)
    for observation in observations:
        for bout in observation.bouts:
            labels_of[bout.layer, bout.annotator].add(bout.label)
    given = set(labels)
    if given and not labels_of:
        labels_of["", ""] = set()
    rows = []
    for observation in observations:
        present = {(bout.layer, bout.annotator) for bout in observation.bouts}
        tracks = [track for track in labels_of if track in present] or list(labels_of)
        for layer, annotator in sorted(tracks, key=_track_key):
            for label in sorted(labels_of[layer, annotator] | given, key=natural_key):
                bouts = [
                    bout
                    for bout in observation.bouts
                    if (bout.layer, bout.annotator, bout.label) == (layer, annotator, label)
                ]
                for start, stop in _bins(observation.span, bin_s):
                    rows.append(_statistics_of(observation, layer, annotator, label, bouts, start, stop))
    return rows


@dataclass(frozen=True)
class Transition:
    """How often one bout follows another in a recording.

    Attributes:
        recording: Id of the recording.
        subject: Person or animal; "" if unknown.
        group: Group of the recording; "" without groups.
        layer: Layer of the annotation.
        annotator: Annotator.
        source: Where the bouts come from.
        before: Label of the earlier bout.
        after: Label of the next bout, by onset.
        count: Number of such pairs.
        share: Share of all pairs of the recording that begin with the same label.
    """

    recording: str
    subject: str
    group: str
    layer: str
    annotator: str
    source: str
    before: str
    after: str
    count: int
    share: float


def transitions(observations: Sequence[Observation]) -> list[Transition]:
    """Count pairs of consecutive bouts, ordered by onset, in every recording, layer and annotator."""
    rows = []
    for observation in observations:
        tracks: dict[Track, list[Segment]] = defaultdict(list)
        for bout in observation.bouts:
            tracks[bout.layer, bout.annotator].append(bout)
        for (layer, annotator), bouts in sorted(tracks.items(), key=lambda item: _track_key(item[0])):
            ordered = sorted(bouts, key=_order)
            pairs = Counter((first.label, second.label) for first, second in itertools.pairwise(ordered))
            begin = Counter(first.label for first in ordered[:-1])
            for (before, after), count in sorted(pairs.items(), key=lambda item: (*map(natural_key, item[0]),)):
                rows.append(
                    Transition(
                        observation.recording, observation.subject, observation.group, layer, annotator,
                        observation.source, before, after, count, count / begin[before],
                    )
                )  # fmt: skip
    return rows


@dataclass(frozen=True)
class GroupSummary:
    """Mean and standard deviation of one label over the subjects of a group.

    Attributes:
        group: Group; "" without groups.
        layer: Layer of the annotation.
        annotator: Annotator.
        source: Where the bouts come from.
        label: The label.
        subjects: Number of subjects; recordings without a subject count as one each.
        recordings: Number of recordings.
        count: Number of bouts.
        total_s: Time covered by bouts in seconds.
        share_mean: Mean share of the observed time.
        share_sd: Its standard deviation over subjects (n - 1); NaN with fewer than two.
        per_min_mean: Mean number of bouts per minute.
        per_min_sd: Its standard deviation.
        bout_s_mean: Mean over subjects of their mean bout length in seconds; subjects without bouts are left out.
        bout_s_sd: Its standard deviation.
        latency_s_mean: Mean latency in seconds over subjects; subjects without bouts are left out.
        latency_s_sd: Its standard deviation.
        never: Number of subjects without a bout.
    """

    group: str
    layer: str
    annotator: str
    source: str
    label: str
    subjects: int
    recordings: int
    count: int
    total_s: float
    share_mean: float
    share_sd: float
    per_min_mean: float
    per_min_sd: float
    bout_s_mean: float
    bout_s_sd: float
    latency_s_mean: float
    latency_s_sd: float
    never: int


def summarize_groups(rows: Sequence[BoutStatistics]) -> list[GroupSummary]:
    """Summarize statistics of recordings by group and label, with the subject as the unit.

    Recordings of one subject are pooled: their times and counts are added, and their latency is averaged. Statistics over
    recordings instead would count a subject with many recordings several times.

    Args:
        rows: Statistics of full recordings, from `bout_statistics` without bins.
    """
    groups: dict[tuple[str, str, str, str, str], list[BoutStatistics]] = defaultdict(list)
    for row in rows:
        groups[row.group, row.layer, row.annotator, row.source, row.label].append(row)
    summaries = []
    for (group, layer, annotator, source, label), members in groups.items():
        by_subject: dict[tuple[str, str], list[BoutStatistics]] = defaultdict(list)
        for row in members:
            by_subject[(row.subject, "") if row.subject else ("", row.recording)].append(row)
        shares, rates, lengths, latencies = [], [], [], []
        for own in by_subject.values():
            observed = sum(row.stop - row.start for row in own)
            count = sum(row.count for row in own)
            shares.append(sum(row.total_s for row in own) / observed)
            rates.append(60 * count / observed)
            if count:
                lengths.append(sum(row.mean_s * row.count for row in own if row.count) / count)
                latencies.append(statistics.fmean(row.latency_s for row in own if row.count))
        summaries.append(
            GroupSummary(
                group, layer, annotator, source, label,
                subjects=len(by_subject),
                recordings=len(members),
                count=sum(row.count for row in members),
                total_s=sum(row.total_s for row in members),
                share_mean=_mean(shares), share_sd=_deviation(shares),
                per_min_mean=_mean(rates), per_min_sd=_deviation(rates),
                bout_s_mean=_mean(lengths), bout_s_sd=_deviation(lengths),
                latency_s_mean=_mean(latencies), latency_s_sd=_deviation(latencies),
                never=len(by_subject) - len(lengths),
            )
        )  # fmt: skip
    return sorted(
        summaries,
        key=lambda row: tuple(map(natural_key, (row.group, row.layer, row.annotator, row.label, row.source))),
    )


def covered_microseconds(bouts: Iterable[Segment], start: float, stop: float) -> int:
    """Return how much of an interval bouts cover, in microseconds; time that several bouts cover counts once."""
    low, high = _us(start), _us(stop)
    intervals = sorted((max(_us(bout.onset), low), min(_us(bout.offset), high)) for bout in bouts)
    total, end = 0, low
    for first, last in intervals:
        total += max(0, last - max(first, end))
        end = max(end, last)
    return total


def _statistics_of(
    observation: Observation,
    layer: str,
    annotator: str,
    label: str,
    bouts: Sequence[Segment],
    start: float,
    stop: float,
) -> BoutStatistics:
    low, high = _us(start), _us(stop)
    begun = [bout for bout in bouts if low <= _us(bout.onset) < high]
    lengths = [_length(bout) / 1e6 for bout in begun]
    total = covered_microseconds(bouts, start, stop)
    observed = high - low
    return BoutStatistics(
        observation.recording, observation.subject, observation.group, layer, annotator,
        observation.source, observation.part, label, start, stop,
        count=len(begun),
        total_s=total / 1e6,
        mean_s=_mean(lengths),
        median_s=statistics.median(lengths) if lengths else math.nan,
        latency_s=min(_us(bout.onset) for bout in begun) / 1e6 - low / 1e6 if begun else math.nan,
        share=total / observed,
        per_min=60e6 * len(begun) / observed,
    )  # fmt: skip


def _bins(span: tuple[float, float], bin_s: float | None) -> list[tuple[float, float]]:
    if bin_s is None:
        return [span]
    low, high, step = _us(span[0]), _us(span[1]), _us(bin_s)
    return [(edge / 1e6, min(edge + step, high) / 1e6) for edge in range(low, high, step)]


def _is_near(bout: Segment, segment: Segment, rules: BoutRules) -> bool:
    return rules.max_gap_s is not None and _us(segment.onset) - _us(bout.offset) <= _us(rules.max_gap_s)


def _us(seconds: float) -> int:
    return int(microseconds(seconds))


def _length(segment: Segment) -> int:
    return _us(segment.offset) - _us(segment.onset)


def _order(segment: Segment) -> tuple[float, float, str, str, str]:
    return (segment.onset, segment.offset, segment.label, segment.layer, segment.annotator)


def _track_key(track: Track) -> tuple[object, ...]:
    return tuple(map(natural_key, track))


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan
