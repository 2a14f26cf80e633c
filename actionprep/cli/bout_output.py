"""Print bouts, their statistics and agreement."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

from actionprep.cli import output
from actionprep.json_values import counted, plain

if TYPE_CHECKING:
    from actionprep.api.bouts import BoutReport
    from actionprep.training.evaluation.agreement import Agreement


def print_bouts(report: BoutReport, *, json: bool) -> None:
    """Print the statistics by group and label, the rules, and the files."""
    if json:
        output.print_json(report.document())
        return
    several = {
        name: len({getattr(row, name) for row in report.groups}) > 1
        for name in ("group", "layer", "annotator", "source")
    }
    shown = [name for name, is_shown in several.items() if is_shown]
    columns = (*shown, "label", "bouts", "total (s)", "share", "per min", "mean (s)", "latency (s)")
    rows = [
        (
            *(getattr(row, name) for name in shown),
            row.label,
            str(row.count),
            f"{row.total_s:.1f}",
            f"{100 * row.share_mean:.1f} %",
            f"{row.per_min_mean:.2f}",
            _number(row.bout_s_mean),
            _number(row.latency_s_mean),
        )
        for row in report.groups
    ]
    recordings = counted(len(report.recordings), "recording")
    subjects = len({observation.subject for observation in report.observations if observation.subject})
    whose = f" of {counted(subjects, 'subject')}" if subjects else ""
    names = ("label", *shown, "bouts", "share", "total (s)", "mean (s)", "per min", "latency (s)")
    left_out = output.print_table(f"Bouts in {recordings}{whose}", columns, rows, importance=names)
    if left_out:
        output.note(f"Not shown at this width: {', '.join(left_out)}. The tables have all columns.")
    if report.tuned is not None:
        rules = report.tuned.rules
        output.note(
            f"None of {report.tuned.tried} rules improves F1@50 on val ({100 * report.tuned.f1:.1f} %), so bouts are the "
            "segments that 'actiontrain predict' writes."
            if report.tuned.f1 <= report.tuned.f1_before
            else f"Rules chosen on val among {report.tuned.tried}: begin at a probability of {rules.enter:g}, end below "
            f"{rules.leave:g}, join gaps up to {1000 * rules.max_gap_s:.0f} ms, at least "
            f"{1000 * rules.min_length_s:.0f} ms. "
            f"F1@50 on val {100 * report.tuned.f1:.1f} %, without rules {100 * report.tuned.f1_before:.1f} %."
        )
    if report.score is not None:
        output.note(
            f"F1@50 of the predicted bouts {100 * report.score.f1:.1f} %, without rules "
            f"{100 * report.score.f1_before:.1f} %, in {counted(report.score.recordings, 'annotated recording')}"
        )
    if report.without_span:
        output.warn(
            f"{counted(len(report.without_span), 'recording')} without a video: the observed time is taken from 0 s to the "
            "last bout, so shares and rates are too high."
        )
    for path in report.files:
        output.note(f"Wrote {path}")


def print_agreement(agreement: Agreement, folder: Path, *, json: bool) -> None:
    """Print kappa and F1 of every pair and label, and Fleiss' kappa of all raters."""
    if json:
        output.print_json(plain(dataclasses.asdict(agreement)))
        return
    rows = [
        (
            f"{pair.first} / {pair.second}",
            pair.label or "(all)",
            f"{pair.compared_s:.1f}",
            f"{100 * pair.agreement:.1f} %",
            _number(pair.kappa),
            f"{pair.bouts} / {pair.other_bouts}",
            _percent(pair.f1[2]),
        )
        for pair in agreement.pairs
    ]
    columns = ("raters", "label", "compared (s)", "agreement", "kappa", "bouts", "F1@50")
    output.print_table(f"Agreement in {counted(len(agreement.recordings), 'recording')}", columns, rows)
    if len({name for pair in agreement.pairs for name in (pair.first, pair.second)}) > 2:
        all_labels = agreement.fleiss.get("")
        if all_labels is not None:
            output.note(f"Fleiss' kappa of all raters: {_number(all_labels)}")
    if agreement.overlapping:
        output.warn(
            f"{', '.join(agreement.overlapping)}: segments of different labels overlap, so labels are compared one by one."
        )
    if agreement.partial:
        output.note(f"{counted(len(agreement.partial), 'recording')} not rated by all raters")
    output.note(f"Wrote {folder / 'agreement.csv'}")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"
