"""Bouts of annotations and of predictions: clean them, compute their statistics, and write tables, a figure and a page."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from actionprep.api.segment_sources import segments_of_file
from actionprep.datasets.bouts import (
    BoutRules,
    BoutStatistics,
    GroupSummary,
    Observation,
    Transition,
    bout_statistics,
    clip_bouts,
    join_bouts,
    summarize_groups,
    transitions,
)
from actionprep.datasets.label_colors import Color
from actionprep.errors import SetupError, UserError, name_list, nearest

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.segments import Segment
    from actionprep.training.evaluation.agreement import Agreement
    from actionprep.training.evaluation.bout_rules import PredictedBoutRules, TunedRules

BOUTS, STATISTICS, BINS, TRANSITIONS, GROUPS = "bouts", "statistics", "bins", "transitions", "groups"


@dataclass(frozen=True)
class BoutScore:
    """Agreement of predicted bouts with the annotated ones.

    Attributes:
        f1: F1@50 over all bouts.
        f1_before: F1@50 of the segments that `predict` writes, without rules.
        recordings: Number of annotated recordings.
    """

    f1: float
    f1_before: float
    recordings: int


@dataclass(frozen=True)
class BoutReport:
    """Bouts of recordings, their statistics, and the written files.

    Attributes:
        observations: Recordings with their bouts. Recordings of a run that are annotated are listed twice: with predicted
            and with annotated bouts.
        statistics: One row per recording and label.
        bins: One row per recording, label and time bin; empty without bins.
        transitions: Pairs of consecutive bouts.
        groups: Means over subjects, per group and label.
        rules: Rules that made the bouts, as plain values.
        tuned: How the rules were chosen; None if they were given.
        without_span: Recordings without a video, which are taken as observed from 0 s to their last bout.
        score: Comparison of predicted with annotated bouts; None for annotations, and without annotated recordings.
        files: Written files.
    """

    observations: tuple[Observation, ...]
    statistics: tuple[BoutStatistics, ...]
    bins: tuple[BoutStatistics, ...]
    transitions: tuple[Transition, ...]
    groups: tuple[GroupSummary, ...]
    rules: Mapping[str, Any]
    tuned: TunedRules | None = None
    without_span: tuple[str, ...] = ()
    score: BoutScore | None = None
    files: tuple[Path, ...] = field(default=())

    @property
    def recordings(self) -> dict[str, float]:
        """Observed time of each recording in seconds."""
        return {observation.recording: observation.observed_s for observation in self.observations}

    def document(self) -> dict[str, Any]:
        """Return the report as plain values; NaN is None."""
        return {
            "rules": dict(self.rules),
            "tuned": None if self.tuned is None else dataclasses.asdict(self.tuned),
            "score": None if self.score is None else dataclasses.asdict(self.score),
            "recordings": list(self.recordings),
            "without_span": list(self.without_span),
            **{name: [_finite(row) for row in rows] for name, rows in self.tables().items()},
            "files": [str(path) for path in self.files],
        }

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return the tables by name, as rows of columns."""
        bouts = [
            {
                "recording": observation.recording,
                "subject": observation.subject,
                "group": observation.group,
                "layer": bout.layer,
                "annotator": bout.annotator,
                "source": observation.source,
                "part": observation.part,
                "label": bout.label,
                "onset": bout.onset,
                "offset": bout.offset,
                "length_s": round(bout.offset - bout.onset, 6),
            }
            for observation in self.observations
            for bout in observation.bouts
        ]
        parts: dict[str, Sequence[Any]] = {
            STATISTICS: self.statistics,
            GROUPS: self.groups,
            TRANSITIONS: self.transitions,
            BINS: self.bins,
        }
        tables = {BOUTS: bouts, **{name: [dataclasses.asdict(row) for row in rows] for name, rows in parts.items()}}
        if not self.bins:
            del tables[BINS]
        return tables


def annotated_bouts(
    study: Study,
    *,
    recordings: Sequence[str] = (),
    rules: BoutRules | None = None,
    group: str | None = None,
    layers: Sequence[str] = (),
    annotators: Sequence[str] = (),
    bin_s: float | None = None,
    out: str | Path | None = "bouts",
    xlsx: bool = False,
) -> BoutReport:
    """Compute the bouts of a study's annotations and their statistics.

    Args:
        study: The study.
        recordings: Recordings to use; empty: all with a segment.
        rules: How segments become bouts; None: each segment is a bout.
        group: Column of the table of recordings that contains the group, or `session`, `split` or `label`.
        layers: Layers to use; empty: all.
        annotators: Annotators to use; empty: all.
        bin_s: Length of time bins in seconds; None: no bins.
        out: Folder for the tables, the figure and the page; None: write nothing.
        xlsx: Whether to write a workbook too.

    Returns:
        The bouts with their statistics.

    Raises:
        UserError: If no recording has a segment, or a name is unknown.
    """
    catalog = study.catalog
    rules = rules or BoutRules()
    _check_known("layer", layers, [segment.layer for each in catalog.segments.values() for segment in each])
    _check_known("annotator", annotators, [segment.annotator for each in catalog.segments.values() for segment in each])
    names = [catalog.recording(name).id for name in recordings] or [
        name for name in catalog.segments if catalog.segments[name]
    ]
    bouts = {
        name: join_bouts(
            (
                segment
                for segment in catalog.segments_of(name)
                if (not layers or segment.layer in layers) and (not annotators or segment.annotator in annotators)
            ),
            rules,
        )
        for name in names
    }
    if not any(bouts.values()):
        raise UserError(
            "The study has no segments, so there are no bouts. Name an annotation file in actionprep.toml: "
            "[study] segments = \"segments.csv\", and run 'actionprep scan'."
            if not catalog.segments
            else "No segment is left with these recordings, layers, annotators and --min-length."
        )
    from actionprep.show.charts import colors_of

    return _report(
        catalog, bouts, dataclasses.asdict(rules), group=group, bin_s=bin_s, out=out, xlsx=xlsx,
        title=f"Bouts of {study.folder.name}", colors=colors_of(study),
    )  # fmt: skip


def predicted_bout_report(
    run: str | Path,
    study: Study,
    *,
    part: Literal["test", "val", "all"] = "test",
    recordings: Sequence[str] = (),
    rules: PredictedBoutRules | None = None,
    group: str | None = None,
    bin_s: float | None = None,
    out: str | Path | None = None,
    xlsx: bool = False,
    device: str = "auto",
) -> BoutReport:
    """Predict recordings with a run, turn the probabilities into bouts, and compute their statistics.

    Recordings with annotated segments are compared with them: the tables have rows of both, and the score is F1@50.

    Args:
        run: Folder of a run.
        study: The study that the run was trained in.
        part: Part of the run's split to predict; "all" predicts every recording with the product.
        recordings: Recordings to predict instead of a part.
        rules: Thresholds, gap and minimum length; None: choose them by F1@50 on the recordings of val, with weights that
            were not trained on them.
        group: Column of the table of recordings that contains the group.
        bin_s: Length of time bins in seconds; None: no bins.
        out: Folder for the results; None: bouts/<run>/<part>, or bouts/<run>/recordings for named recordings.
        xlsx: Whether to write a workbook too.
        device: Device of the model.

    Returns:
        The bouts with their statistics.

    Raises:
        UserError: If the run has no recordings in the part, or val has no segments to choose the rules on.
    """
    from actionprep.datasets.frame_labels import has_segments
    from actionprep.show.charts import colors_of
    from actionprep.training.datasets import read_table
    from actionprep.training.evaluation.bout_rules import f1_at_50, predicted_bouts, segments_without_rules, tune_rules
    from actionprep.training.predict import open_models, predict
    from actionprep.training.run import VALIDATED, Run

    opened = Run.open(run)
    facts = opened.facts
    table = read_table(study.store, facts["snippets"])
    by_part = _recordings_of_parts(table, facts["split"]["rows"])
    background = table.background
    truth: dict[str, list[Segment]] = {}
    if rules is None or has_segments(table):
        truth = _true_segments(table, background)
    tuned = None
    if rules is None:
        held_out = opened.folder / VALIDATED
        val = [name for name in by_part["val"] if truth.get(name)]
        if not val:
            raise UserError(
                f"Run {opened.folder.name} has no recordings only in val that have segments, so thresholds cannot be "
                "chosen there. Give them: --enter 0.5 --leave 0.4 --max-gap 200 --min-length 300."
            )
        models = open_models(_checkpoint(held_out if held_out.exists() else opened.best, device), device=device)
        tuned = tune_rules(predict(models, study.store, recordings=val, device=device), truth, background=background)
        rules = tuned.rules
    names = list(recordings) or (by_part[part] if part != "all" else [])
    if part != "all" and not names:
        raise UserError(
            f"Run {opened.folder.name} has no recordings that are only in {part}. Choose another part with --part, or "
            "recordings with --recording."
        )
    timelines = predict(opened, study.store, recordings=names or None, device=device)
    bouts = {timeline.recording: predicted_bouts(timeline, rules, background=background) for timeline in timelines}
    spans = {
        timeline.recording: (float(timeline.onset.min()), float(timeline.offset.max()))
        for timeline in timelines
        if len(timeline.onset)
    }
    actual = {name: truth[name] for name in bouts if truth.get(name)}
    plain = {
        timeline.recording: segments_without_rules(timeline, background)
        for timeline in timelines
        if timeline.recording in actual
    }
    score = None
    if actual:
        predicted = {name: bouts[name] for name in actual}
        score = BoutScore(f1_at_50(actual, predicted), f1_at_50(actual, plain), len(actual))
    return _report(
        study.catalog, bouts, rules.document(), group=group, bin_s=bin_s,
        out=Path("bouts") / opened.folder.name / ("recordings" if recordings else part) if out is None else out,
        xlsx=xlsx, tuned=tuned, spans=spans, source="predicted", truth=actual, score=score,
        labels=[label for label in facts["labels"] if label != background],
        parts={name: part for part, own in by_part.items() for name in own},
        title=f"Predicted bouts of run {opened.folder.name}", colors=colors_of(study),
    )  # fmt: skip


def annotator_agreement(
    study: Study,
    *,
    by: Literal["annotator", "layer"] = "annotator",
    tables: Mapping[str, str | Path] | None = None,
    out: str | Path | None = "agreement",
) -> Agreement:
    """Compare annotators, layers, or the annotations of the study with other tables, such as predictions of a run.

    Args:
        study: The study.
        by: Compare annotators or layers of the study. With tables, the study's annotations are one rater.
        tables: Annotation files to compare with, by the name of their rater. They are read like those of the study.
        out: Folder for agreement.csv; None: write nothing.

    Returns:
        Kappa over time and F1 of bouts, per pair and label.

    Raises:
        UserError: If there are fewer than two raters, or they have no recording in common.
    """
    from actionprep.training.evaluation.agreement import agreement_of

    catalog = study.catalog
    raters: dict[str, dict[str, list[Segment]]] = {}
    if tables:
        raters["annotations"] = {name: list(segments) for name, segments in catalog.segments.items()}
        for name, path in tables.items():
            raters[name] = segments_of_file(study, path)
    else:
        for recording, segments in catalog.segments.items():
            for segment in segments:
                raters.setdefault(getattr(segment, by) or "(none)", {}).setdefault(recording, []).append(segment)
        if len(raters) < 2:
            only = f"only '{next(iter(raters))}'" if raters else "none"
            raise UserError(
                f"Agreement compares at least two {by}s, and the study has {only}. Compare "
                f"{'layers with --by layer' if by == 'annotator' else 'annotators with --by annotator'}, a run with --run, "
                "or another annotation file with --table NAME=FILE."
            )
        raters = {name: raters[name] for name in sorted(raters)}
    spans = {}
    for recording in {name for rated in raters.values() for name in rated}:
        span = catalog.span(recording)
        last = [rating.offset for rated in raters.values() for rating in rated.get(recording, ())]
        spans[recording] = span if span is not None else (0.0, max(last, default=0.0))
    agreement = agreement_of(raters, spans)
    if not agreement.pairs:
        raise UserError(f"{name_list(list(raters))} have no recording in common, so nothing can be compared.")
    if out is not None:
        rows = []
        for pair in agreement.pairs:
            values = dataclasses.asdict(pair)
            f1 = values.pop("f1")
            rows.append({**values, "label": pair.label or "(all)", "f1_10": f1[0], "f1_25": f1[1], "f1_50": f1[2]})
        _write_csv(Path(out) / "agreement.csv", rows)
        if len(raters) > 2:
            fleiss = [{"label": label or "(all)", "fleiss_kappa": value} for label, value in agreement.fleiss.items()]
            _write_csv(Path(out) / "fleiss.csv", fleiss)
    return agreement


def _report(
    catalog: Catalog,
    bouts: Mapping[str, Sequence[Segment]],
    rules: Mapping[str, Any],
    *,
    group: str | None,
    bin_s: float | None,
    out: str | Path | None,
    xlsx: bool,
    title: str,
    colors: Mapping[str, Color],
    tuned: TunedRules | None = None,
    spans: Mapping[str, tuple[float, float]] | None = None,
    source: str = "annotated",
    truth: Mapping[str, Sequence[Segment]] | None = None,
    score: BoutScore | None = None,
    labels: Sequence[str] = (),
    parts: Mapping[str, str] | None = None,
) -> BoutReport:
    if xlsx and importlib.util.find_spec("openpyxl") is None:
        raise SetupError("A workbook needs the package openpyxl: pip install 'actionprep[formats]'.")
    groups = _groups(catalog, group)
    observations, without_span = [], []
    for name, own in bouts.items():
        span = (spans or {}).get(name) or catalog.span(name)
        if span is None:
            without_span.append(name)
            span = (0.0, max((bout.offset for bout in own), default=0.0))
        if span[1] > span[0]:
            known = {recording.id: recording for recording in catalog.recordings}.get(name)
            subject = "" if known is None else known.subject or ""
            observation = Observation(
                name, span, clip_bouts(own, span), subject, groups.get(name, ""), source, (parts or {}).get(name, "")
            )
            observations.append(observation)
            if name in (truth or {}):
                annotated = clip_bouts((truth or {})[name], span)
                observations.append(dataclasses.replace(observation, bouts=annotated, source="annotated"))
    rows = bout_statistics(observations, labels=labels)
    report = BoutReport(
        tuple(observations), tuple(rows),
        tuple(bout_statistics(observations, bin_s=bin_s, labels=labels)) if bin_s is not None else (),
        tuple(transitions(observations)), tuple(summarize_groups(rows)), rules, tuned, tuple(without_span), score,
    )  # fmt: skip
    if out is None:
        return report
    return dataclasses.replace(report, files=tuple(_write(report, Path(out), title, colors, xlsx=xlsx)))


def _write(report: BoutReport, folder: Path, title: str, colors: Mapping[str, Color], *, xlsx: bool) -> list[Path]:
    from actionprep.show.bout_page import bout_page
    from actionprep.show.ethogram import draw_ethogram
    from actionprep.show.files import atomic_write

    tables = report.tables()
    files = [_write_csv(folder / f"{name}.csv", rows) for name, rows in tables.items()]
    files.append(draw_ethogram(report.observations, folder / "ethogram.png", title=title, colors=colors))
    if xlsx:
        import pandas as pd

        files.append(folder / "bouts.xlsx")
        with atomic_write(files[-1]) as draft, pd.ExcelWriter(draft, engine="openpyxl") as book:
            for name, rows in tables.items():
                pd.DataFrame([_without_formulas(row) for row in rows]).to_excel(book, sheet_name=name, index=False)
    files.append(folder / "bouts.html")
    page = bout_page(report, title, colors)
    with atomic_write(files[-1]) as draft:
        draft.write_text(page, encoding="utf-8")
    return files


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    from actionprep.show.files import atomic_write

    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    with atomic_write(path) as draft:
        draft.write_text(buffer.getvalue(), encoding="utf-8")
    return path


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else round(value, 6)
    return value


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def _without_formulas(row: Mapping[str, Any]) -> dict[str, Any]:
    """Put an apostrophe before texts that a spreadsheet would compute."""
    return {
        name: f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
        for name, value in row.items()
    }


def _groups(catalog: Catalog, column: str | None) -> dict[str, str]:
    """Group of each recording, from a column of the table of recordings."""
    if column is None:
        return {}
    own = ("session", "split", "label")
    values = {
        recording.id: getattr(recording, column) if column in own else recording.extra.get(column, "")
        for recording in catalog.recordings
    }
    if not any(values.values()):
        known = [name for name in own if any(getattr(recording, name) for recording in catalog.recordings)]
        known += dict.fromkeys(
            name for recording in catalog.recordings for name, value in recording.extra.items() if value
        )
        raise UserError(
            f"No recording has a value in the column '{column}'.{nearest(column, known)} Columns of the table of "
            f"recordings with values: {', '.join(known) or 'none'}."
        )
    return {name: value or "" for name, value in values.items()}


def _check_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    available = list(dict.fromkeys(known))
    for name in names:
        if name not in available:
            raise UserError(
                f"No segment has the {what} '{name}'.{nearest(name, available)} Available: {name_list(available)}."
            )


def _recordings_of_parts(table: Any, rows: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
    """Recordings whose snippets are all in one part, by part."""
    codes = {part: set(table.recording[list(own)].tolist()) for part, own in rows.items()}
    return {
        part: [
            table.recordings[code]
            for code in sorted(codes.get(part, set()))
            if not any(code in codes[other] for other in codes if other != part)
        ]
        for part in ("train", "val", "test")
    }


def _true_segments(table: Any, background: str | None) -> dict[str, list[Segment]]:
    """Segments that the snippets were labeled from, by recording; none of the background class."""
    from actionprep.datasets.frame_labels import segments_of
    from actionprep.datasets.segments import Segment

    coded = segments_of(table)
    truth: dict[str, list[Segment]] = {}
    for recording, onset, offset, label in zip(
        coded.recording.tolist(), coded.onset.tolist(), coded.offset.tolist(), coded.label.tolist(), strict=True
    ):
        if label >= 0 and table.labels[label] != background:
            truth.setdefault(table.recordings[recording], []).append(Segment(onset, offset, table.labels[label]))
    return truth


def _checkpoint(path: Path, device: str) -> Any:
    from actionprep.training.checkpoints import load_checkpoint
    from actionprep.training.loop.devices import torch_device

    return load_checkpoint(path, device=str(torch_device(device)))
