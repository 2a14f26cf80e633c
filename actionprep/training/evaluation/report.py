"""Report page of a run: a single HTML file that needs neither a network nor a server.

`report.html` is the template. Everything that it inserts is escaped, except the charts, which are SVG.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.study_colors import colors_near
from actionprep.errors import name_list
from actionprep.json_values import counted
from actionprep.training.evaluation.metrics import metric_name
from actionprep.training.evaluation.report_charts import COLORS, line_chart, percent, reliability_chart, svg
from actionprep.training.evaluation.report_recordings import Thumbnails, css, timelines_section, wrong_clips_section
from actionprep.training.run import FUSION, Run, early_best_warning, placed, validation_sentence, write_text

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

    from actionprep.datasets.label_colors import Color


def write_report(run: Run, thumbnails: Thumbnails | None = None) -> None:
    """Write report.html into the folder of a run; see `report_html`."""
    write_text(run.report, report_html(run, thumbnails))


def report_html(run: Run, thumbnails: Thumbnails | None = None) -> str:
    """Render the report page of a run or fusion.

    It shows metrics, curves, the confusion matrix, tables by class, subject and view, true over predicted labels of
    per-frame models, wrong clips, the split and the settings. Before a test, only the training is shown.

    Args:
        run: Run or fusion.
        thumbnails: Gives images of the wrong clips.
    """
    page = _fusion_page(run, thumbnails) if (run.folder / FUSION).is_file() else _run_page(run, thumbnails)
    return _template().render(folder=run.folder.name, **page)


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = percent
    source = resources.files("actionprep.training.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(source)


def _run_page(run: Run, thumbnails: Thumbnails | None) -> dict[str, Any]:
    facts, tested, recipe = run.facts, run.tested, run.recipe
    versions = " · ".join(f"{name} {version}" for name, version in facts["versions"].items())
    data = (
        f"store {facts['store']} · digest {str(facts['store_digest'])[:16]} · snippets {facts['snippets']} · seed "
        f"{facts['seed']}"
    )
    return {
        "name": recipe.name,
        "doc": recipe.doc,
        "cards": [*(_test_cards(tested) if tested else [_card("–", "not tested yet", "run actiontrain test")])]
        + _training_cards(facts),
        "members": None,
        "curves": _curves(run),
        **_test_sections(run, run.labels, tested, thumbnails),
        "split": _split(facts),
        "settings": recipe.to_toml(comments=False),
        "origin": {"data": data, "versions": f"{versions} · started {facts['started']}"},
    }


def _fusion_page(run: Run, thumbnails: Thumbnails | None) -> dict[str, Any]:
    fusion = json.loads((run.folder / FUSION).read_text(encoding="utf-8"))
    runs = [Run(placed(run.folder, path)) for path in fusion["runs"]]
    tested = run.tested
    assert tested is not None
    rows = [
        (
            Path(alone["run"]).name,
            member.recipe.name,
            f"{alone['temperature']:.2f}",
            f"{alone['weight']:.3f}",
            alone["accuracy"],
        )
        for alone, member in zip(tested["alone"], runs, strict=True)
    ]
    return {
        "name": "fusion",
        "doc": f"Fusion of {' + '.join(member.recipe.name for member in runs)}, created {fusion['when']}.",
        "cards": _test_cards(tested),
        "members": {"why": fusion["why"], "rows": rows},
        "curves": None,
        **_test_sections(run, runs[0].labels, tested, thumbnails),
        "split": _split(runs[0].facts),
        "settings": None,
        "origin": None,
    }


def _card(value: str, name: str, note: str, *, strong: bool = False) -> dict[str, Any]:
    return {"value": value, "name": name, "note": note, "strong": strong}


def _test_cards(tested: Mapping[str, Any]) -> list[dict[str, Any]]:
    values, intervals = tested["metrics"], tested["intervals"]
    accuracy = "exact match" if "exact_match" in values else "accuracy"
    cards = [
        _card(percent(values["accuracy"]), accuracy, _interval(intervals["accuracy"]), strong=True),
        _card(percent(values["macro_f1"]), "macro F1", _interval(intervals["macro_f1"])),
        _card(percent(values["map"]), "mean average precision", _interval(intervals["map"])),
    ]
    if "top5" in values:
        cards.append(_card(percent(values["top5"]), "top 5", _interval(intervals["top5"])))
    if tested.get("frames"):
        frames = tested["frames"]
        interval = _interval(frames["intervals"]["accuracy"])
        cards.append(_card(percent(frames["metrics"]["accuracy"]), "accuracy of frames", interval))
    if "samples_f1" in values:
        cards.append(_card(percent(values["samples_f1"]), "samples F1", _interval(intervals["samples_f1"])))
    cards.append(
        _card(
            str(tested["num_samples"]),
            "tested on",
            f"{'snippet' if tested['num_samples'] == 1 else 'snippets'} of {counted(tested['num_recordings'], 'recording')}",
        )
    )
    return cards


def _training_cards(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    num_train, num_val = (len(facts["split"]["rows"][part]) for part in ("train", "val"))
    if facts["state"]["phase"] == "refit":
        note = f"snippets, {num_val} of them held out for val before"
        cards = [_card(str(num_train + num_val), "trained on", note)]
    else:
        cards = [
            _card(
                str(num_train),
                "trained on",
                f"snippets, {f'validated on {num_val}' if num_val else 'without validation'}",
            )
        ]
    if facts.get("train_seconds") is not None:
        cards.append(_card(_duration(facts["train_seconds"]), "training time", f"seed {facts['seed']}"))
    return cards


def _test_sections(
    run: Run, labels: Sequence[str], tested: Mapping[str, Any] | None, thumbnails: Thumbnails | None
) -> dict[str, Any]:
    names = (
        "confusion",
        "label_confusion",
        "classes",
        "frames",
        "timelines",
        "views",
        "calibration",
        "thresholds",
        "wrong",
    )
    sections: dict[str, Any] = {**dict.fromkeys(names), "groups": []}
    if tested is None:
        return sections
    colors = colors_near(run.folder, labels)
    confusion = np.load(run.folder / "confusion.npy", allow_pickle=False)
    if confusion.ndim == 3:
        sections["label_confusion"] = [
            (label, *(int(cell[at]) for at in ((1, 1), (1, 0), (0, 1), (0, 0))))
            for label, cell in zip(labels, confusion, strict=True)
        ]
    else:
        sections["confusion"] = confusion_section(confusion, labels, colors)
    sections["classes"] = [
        (
            row["label"],
            row["support"],
            row["f1"],
            percent(row["precision"]),
            percent(row["recall"]),
            percent(row["average_precision"]),
        )
        for row in tested["classes"]
    ]
    sections["groups"] = [
        {
            "title": f"{name.capitalize()}s",
            "name": name,
            "rows": [
                (row["name"], row["snippets"], row["accuracy"], percent(row["macro_f1"])) for row in tested[f"{name}s"]
            ],
        }
        for name in ("subject", "session")
        if tested.get(f"{name}s")
    ]
    sections["frames"] = _frames(tested["frames"]) if tested.get("frames") else None
    sections["timelines"] = timelines_section(run.folder / "frames.csv", colors) if tested.get("frames") else None
    sections["wrong"] = wrong_clips_section(run.folder / "samples.csv", colors, thumbnails)
    sections["views"] = views_section(tested["views"]) if tested.get("views") else None
    sections["calibration"] = _calibration(tested["calibration"]) if tested.get("calibration") else None
    sections["thresholds"] = _thresholds(tested) if tested.get("thresholds") else None
    return sections


def _curves(run: Run) -> dict[str, Any] | None:
    rows = run.metrics
    if not rows:
        return None
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    charts = []
    for title, names in (("Loss", ("train_loss", "val_loss")), ("Validation", ("val_accuracy", "val_macro_f1"))):
        for phase in phases:
            lines = [
                (name, [(row["epoch"] + 1, float(row[name])) for row in rows if row["phase"] == phase and name in row])
                for name in names
            ]
            lines = [(name, points) for name, points in lines if points]
            if lines:
                chart = line_chart(lines, share=title == "Validation")
                charts.append(_chart(title if len(phases) == 1 else f"{title} · {phase}", chart))
    sentence = validation_sentence(run) or "Nothing was validated: the weights are those of the last epoch."
    warning = early_best_warning(run)
    if warning is not None:
        sentence += f" {warning}"
    return {"sentence": sentence, "charts": charts}


def _chart(title: str, figure: Figure) -> dict[str, Any]:
    return {"title": title, "svg": svg(figure, title)}


def confusion_section(confusion: np.ndarray, labels: Sequence[str], colors: Mapping[str, Color]) -> dict[str, Any]:
    """Prepare the confusion matrix: cells with count and share of their row, and the recall of each row."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    rows = []
    for row, label in enumerate(labels):
        cells = [
            {
                "count": int(confusion[row, column]),
                "share": float(share[row, column]),
                # Correct predictions are green and wrong ones red, as strong as their share of the row.
                "color": "42,157,99" if row == column else "217,72,43",
                "hint": f"{label} → {other}: {confusion[row, column]} ({share[row, column] * 100:.0f} %)",
            }
            for column, other in enumerate(labels)
        ]
        recall = f"{share[row, row] * 100:.0f} %" if confusion[row].sum() else "–"
        rows.append({"label": label, "swatch": css(colors.get(label, colors[""])), "cells": cells, "recall": recall})
    return {"labels": list(labels), "rows": rows, "cell_width": _cell_width(labels)}


def _cell_width(labels: Sequence[str]) -> int:
    """Width in pixels of a column of the confusion matrix, so that as many classes as possible fit on the page."""
    names = 7 * max(map(len, labels), default=0) + 14
    return min(46, max(24, (938 - names - 64) // max(len(labels), 1)))


def _frames(frames: Mapping[str, Any]) -> dict[str, Any]:
    names = {"accuracy": "accuracy of frames", "macro_f1": "macro F1 of frames", "edit": "edit score"}
    return {
        "num_frames": frames["num_frames"],
        "num_recordings": frames["num_recordings"],
        "carry": frames["carry"],
        "metrics": [
            (names.get(name, f"segments, F1@{name.rpartition('_')[2]}"), value, _interval(frames["intervals"][name]))
            for name, value in frames["metrics"].items()
        ],
        "classes": [
            (row["label"], row["frames"], row["f1"], percent(row["precision"]), percent(row["recall"]))
            for row in frames["classes"]
        ],
    }


def views_section(views: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Prepare the table of view subsets, with a sentence that compares all views with the best single one."""
    all_views = max(views, key=lambda row: row["num_views"])
    singles = [row for row in views if row["num_views"] == 1]
    highest = max(row["accuracy"] for row in singles)
    best = [row["views"] for row in singles if row["accuracy"] == highest]
    gain = (all_views["accuracy"] - highest) * 100
    difference = "as much as" if abs(gain) < 0.05 else f"{abs(gain):.1f} points {'above' if gain > 0 else 'below'}"
    return {
        "sentence": (
            f"The same model with a subset of its views. All views together reach {percent(all_views['accuracy'])}, "
            f"{difference} the best single view{'s' if len(best) > 1 else ''} ({', '.join(best)})."
        ),
        "rows": [
            (row["views"], row["accuracy"], percent(row["macro_f1"]))
            for row in sorted(views, key=lambda row: (row["num_views"], -row["accuracy"]))
        ],
    }


def _calibration(calibration: Mapping[str, Any]) -> dict[str, Any]:
    error = _points(calibration["error"])
    sentence = f"Accuracy by confidence: on the diagonal they are equal. The mean gap is {error}"
    charts = [_chart("As trained", reliability_chart(calibration["bins"], COLORS[0]))]
    if "scaled_error" in calibration:
        scaled = _points(calibration["scaled_error"])
        if scaled == error:
            change = f"stays {scaled}"
        elif calibration["scaled_error"] > calibration["error"]:
            change = f"increases to {scaled}"
        else:
            change = f"falls to {scaled}"
        sentence += (
            f"; with the temperature {calibration['temperature']:.2f}, fitted by {calibration['from']}, it {change}"
        )
        charts.append(_chart("With temperature scaling", reliability_chart(calibration["scaled_bins"], COLORS[2])))
    return {"sentence": f"{sentence}.", "charts": charts}


def _thresholds(tested: Mapping[str, Any]) -> dict[str, Any]:
    before, after = tested["metrics"], tested["metrics_at_thresholds"]
    names = [name for name in ("exact_match", "macro_f1", "micro_f1", "weighted_f1", "samples_f1") if name in after]
    return {
        "metrics": [(metric_name(name), percent(before[name]), percent(after[name])) for name in names],
        "labels": [(label, f"{value:.2f}") for label, value in tested["thresholds"].items()],
    }


def _split(facts: Mapping[str, Any]) -> dict[str, Any]:
    split = facts["split"]
    shown = split.get("shown") or {
        part: {"by": split["by"], "names": split["groups"].get(part, [])} for part in ("train", "val", "test")
    }
    return {
        "why": split["why"],
        "by": next((groups["by"] for groups in shown.values() if groups["names"]), split["by"]),
        "rows": [(part, len(split["rows"][part]), name_list(groups["names"], 12)) for part, groups in shown.items()],
        "notes": split["notes"],
    }


def _points(share: float) -> str:
    return f"{share * 100:.1f} points"


def _interval(interval: Mapping[str, float | None]) -> str:
    low, high = interval["low"], interval["high"]
    if low is None or high is None or low != low or high != high:
        return "too little variation for an interval"
    return f"95 % interval {low * 100:.1f} to {high * 100:.1f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
