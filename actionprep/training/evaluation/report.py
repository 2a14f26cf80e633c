"""The report page of a run: one HTML file with everything in it, readable without a network or a server."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.training.evaluation.metrics import metric_name
from actionprep.training.evaluation.report_charts import COLORS, line_chart, percent, reliability_chart
from actionprep.training.run import FUSION, Run, placed, validation_sentence, write_text


def write_report(run: Run) -> None:
    """Write report.html of what the run's folder holds so far."""
    write_text(run.report, report_html(run))


def report_html(run: Run) -> str:
    """The page: figures, curves, confusion matrix, tables by class, subject and view, split, settings."""
    if (run.folder / FUSION).is_file():
        return _fusion_html(run)
    facts, tested = run.facts, run.tested
    recipe = run.recipe
    sections = [_curves(run)]
    if tested is not None:
        sections += _tested_sections(run, run.labels, tested)
    sections += [_split(facts), _settings(recipe.to_toml(comments=False)), _made(facts)]
    return _page(run, recipe.name, recipe.doc, _headline(facts, tested), sections)


def _fusion_html(run: Run) -> str:
    """The page of a fusion: what it gave, its runs with their weights, the split that they share."""
    fusion = json.loads((run.folder / FUSION).read_text(encoding="utf-8"))
    runs = [Run(placed(run.folder, one)) for one in fusion["runs"]]
    facts, tested = runs[0].facts, run.tested
    assert tested is not None
    rows = [
        [
            Path(one["run"]).name,
            member.recipe.name,
            f"{one['temperature']:.2f}",
            f"{one['weight']:.3f}",
            _bar(one["accuracy"]),
        ]
        for one, member in zip(tested["alone"], runs, strict=True)
    ]
    members = (
        "<section><h2>Runs</h2><p>Their probabilities are scaled by these temperatures, then pooled with these weights: "
        f"{html.escape(fusion['why'])}.</p>"
        f"{_table(['run', 'recipe', 'temperature', 'weight', 'accuracy alone'], rows)}</section>"
    )
    sections = [members, *_tested_sections(run, runs[0].labels, tested), _split(facts)]
    doc = f"Fusion of {' + '.join(one.recipe.name for one in runs)}, made {fusion['when']}."
    return _page(run, "fusion", doc, "".join(_tested_cards(tested)), sections)


def _tested_sections(run: Run, labels: Sequence[str], tested: Mapping[str, Any]) -> list[str]:
    confusion = np.load(run.folder / "confusion.npy", allow_pickle=False)
    return [
        _confusion(confusion, labels),
        _classes(tested["classes"]),
        _frames(tested.get("frames")),
        _groups("Subjects", "subject", tested.get("subjects")),
        _groups("Sessions", "session", tested.get("sessions")),
        _views(tested.get("views")),
        _calibration(tested.get("calibration")),
        _thresholds(tested),
    ]


def _page(run: Run, name: str, doc: str, head: str, sections: Sequence[str]) -> str:
    return _PAGE.format(
        title=html.escape(f"{name} · {run.folder.name}"),
        recipe=html.escape(name),
        doc=html.escape(doc),
        head=head,
        sections="\n".join(section for section in sections if section),
    )


def _headline(facts: Mapping[str, Any], tested: Mapping[str, Any] | None) -> str:
    split = facts["split"]
    num_train, num_val = (len(split["rows"][part]) for part in ("train", "val"))
    cards = [] if tested is None else _tested_cards(tested)
    if tested is None:
        cards.append(_card("not tested yet", "–", "run actiontrain test"))
    if facts["state"]["phase"] == "refit":
        cards.append(
            _card("trained on", f"{num_train + num_val}", f"snippets, {num_val} of them held out for val before")
        )
    else:
        cards.append(_card("trained on", f"{num_train}", f"snippets, validated on {num_val or 'none'}"))
    if facts.get("train_seconds") is not None:
        cards.append(_card("training took", _duration(facts["train_seconds"]), f"seed {facts['seed']}"))
    return "".join(cards)


def _tested_cards(tested: Mapping[str, Any]) -> list[str]:
    figures, intervals = tested["figures"], tested["intervals"]
    cards = [
        _card(
            "exact match" if "exact_match" in figures else "accuracy",
            percent(figures["accuracy"]),
            _between(intervals["accuracy"]),
            strong=True,
        ),
        _card("macro F1", percent(figures["macro_f1"]), _between(intervals["macro_f1"])),
        _card("mean average precision", percent(figures["map"]), _between(intervals.get("map"))),
    ]
    if "top5" in figures:
        cards.append(_card("top 5", percent(figures["top5"]), _between(intervals["top5"])))
    if tested.get("frames"):
        frames = tested["frames"]
        accuracy = frames["figures"]["accuracy"]
        cards.append(_card("of frames right", percent(accuracy), _between(frames["intervals"]["accuracy"])))
    if "samples_f1" in figures:
        cards.append(_card("samples F1", percent(figures["samples_f1"]), _between(intervals["samples_f1"])))
    note = f"snippets of {tested['num_recordings']} recordings"
    cards.append(_card("tested on", f"{tested['num_samples']}", note))
    return cards


def _card(name: str, value: str, note: str, *, strong: bool = False) -> str:
    kind = "card strong" if strong else "card"
    value, name, note = html.escape(value), html.escape(name), html.escape(note)
    return f'<div class="{kind}"><b>{value}</b><span>{name}</span><i>{note}</i></div>'


def _curves(run: Run) -> str:
    rows = run.metrics
    if not rows:
        return ""
    sentence = validation_sentence(run) or "Nothing was validated: the weights are those of the last epoch."
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    charts = []
    for title, names in (("Loss", ("train_loss", "val_loss")), ("Validation", ("val_accuracy", "val_macro_f1"))):
        for phase in phases:
            of_phase = [row for row in rows if row["phase"] == phase]
            lines = [
                (name, [(row["epoch"] + 1, float(row[name])) for row in of_phase if row.get(name, "") != ""])
                for name in names
            ]
            lines = [(name, points) for name, points in lines if points]
            if lines:
                named = title if len(phases) == 1 else f"{title} · {phase}"
                charts.append(line_chart(named, lines, share=title == "Validation"))
    return (
        f'<section><h2>Curves</h2><p>{html.escape(sentence)}</p><div class="charts">{"".join(charts)}</div></section>'
    )


def _confusion(confusion: np.ndarray, labels: Sequence[str]) -> str:
    if confusion.ndim == 3:
        rows = [
            [label, *(int(one) for one in (cell[1, 1], cell[1, 0], cell[0, 1], cell[0, 0]))]
            for label, cell in zip(labels, confusion, strict=True)
        ]
        table = _table(["label", "found", "missed", "wrongly found", "rightly left out"], rows)
        return f"<section><h2>Confusion</h2>{table}</section>"
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    head = "".join(f'<th class="turned"><span>{html.escape(label)}</span></th>' for label in labels)
    body = []
    for row, label in enumerate(labels):
        cells = []
        for column, other in enumerate(labels):
            count, part = int(confusion[row, column]), float(share[row, column])
            # Right answers in green, mistakes in red, as strong as their share of the row.
            hue = "42,157,99" if row == column else "217,72,43"
            ink = "#fff" if part > 0.55 else "inherit"
            text = str(count) if count else ""
            hint = html.escape(f"{label} → {other}: {count} ({part * 100:.0f} %)")
            cells.append(f'<td title="{hint}" style="background:rgba({hue},{part:.3f});color:{ink}">{text}</td>')
        recall = f"{share[row, row] * 100:.0f} %" if confusion[row].sum() else "–"
        body.append(f"<tr><th>{html.escape(label)}</th>{''.join(cells)}<td class='side'>{recall}</td></tr>")
    return (
        "<section><h2>Confusion</h2><p>A row is what was, a column what the model said; the last column is recall.</p>"
        f'<div class="wide"><table class="confusion" style="--cell:{_cell_width(labels)}px">'
        f"<tr><th></th>{head}<th></th></tr>{''.join(body)}</table></div></section>"
    )


def _cell_width(labels: Sequence[str]) -> int:
    """Pixels of a column of the confusion matrix, so that as many classes as can fit on the page beside their names."""
    names = 7 * max(map(len, labels), default=0) + 14
    return min(46, max(24, (938 - names - 64) // max(len(labels), 1)))


def _classes(classes: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            one["label"],
            one["support"],
            _bar(one["f1"]),
            percent(one["precision"]),
            percent(one["recall"]),
            percent(one["average_precision"]),
        ]
        for one in classes
    ]
    table = _table(["class", "snippets", "F1", "precision", "recall", "average precision"], rows)
    return f"<section><h2>Classes</h2>{table}</section>"


def _frames(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    names = {"accuracy": "frames that are right", "macro_f1": "macro F1 of frames", "edit": "edit score"}
    figures = [
        [names.get(name, f"segments, F1@{name.rpartition('_')[2]}"), _bar(value), _between(found["intervals"][name])]
        for name, value in found["figures"].items()
    ]
    rows = [
        [one["label"], one["frames"], _bar(one["f1"]), percent(one["precision"]), percent(one["recall"])]
        for one in found["classes"]
    ]
    state = " The model's state was carried from window to window." if found["carry"] else ""
    counts = html.escape(f"{found['num_frames']} frames of {found['num_recordings']} recordings")
    return (
        f"<section><h2>Frames</h2><p>What the model says of each of {counts}, the mean over the windows that cover it. "
        "F1@k counts segments that overlap one of their label by k % of their union; the edit score is how far their "
        f"order is right (Lea et al., CVPR 2017).{state}</p>{_table(['figure', 'value', ''], figures)}"
        f"{_table(['class', 'frames', 'F1', 'precision', 'recall'], rows)}</section>"
    )


def _groups(title: str, name: str, groups: Sequence[Mapping[str, Any]] | None) -> str:
    if not groups:
        return ""
    rows = [[one["name"], one["snippets"], _bar(one["accuracy"]), percent(one["macro_f1"])] for one in groups]
    table = _table([name, "snippets", "accuracy", "macro F1"], rows)
    return f"<section><h2>{title}</h2>{table}</section>"


def _views(views: Sequence[Mapping[str, Any]] | None) -> str:
    if not views:
        return ""
    all_views = max(views, key=lambda one: one["num_views"])
    singles = [one for one in views if one["num_views"] == 1]
    highest = max(one["accuracy"] for one in singles)
    best = [one["views"] for one in singles if one["accuracy"] == highest]
    rows = [
        [one["views"], _bar(one["accuracy"]), percent(one["macro_f1"])]
        for one in sorted(views, key=lambda one: (one["num_views"], -one["accuracy"]))
    ]
    gain = (all_views["accuracy"] - highest) * 100
    against = "as much as" if abs(gain) < 0.05 else f"{abs(gain):.1f} points {'above' if gain > 0 else 'below'}"
    named = f"the best single view{'s' if len(best) > 1 else ''} ({', '.join(best)})"
    return (
        "<section><h2>Views</h2><p>The same model, given only some of its views. All together reach "
        f"{percent(all_views['accuracy'])}, {against} {html.escape(named)}.</p>"
        f"{_table(['views', 'accuracy', 'macro F1'], rows)}</section>"
    )


def _calibration(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    sentence = (
        "How often the model is right, by how sure it is: on the diagonal its probabilities can be taken at their word. "
        f"The mean gap is {_points(found['error'])}"
    )
    charts = [reliability_chart("As trained", found["bins"], COLORS[0])]
    if "scaled_error" in found:
        after = _points(found["scaled_error"])
        if after == _points(found["error"]):
            after = f"stays {after}"
        elif found["scaled_error"] > found["error"]:
            after = f"is worse here, {after}"
        else:
            after = f"is {after}"
        sentence += f"; with the temperature {found['temperature']:.2f}, found by {found['from']}, it {after}"
        charts.append(reliability_chart("With that temperature", found["scaled_bins"], COLORS[2]))
    return (
        f"<section><h2>Calibration</h2><p>{html.escape(sentence)}.</p>"
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def _thresholds(tested: Mapping[str, Any]) -> str:
    thresholds = tested.get("thresholds")
    if not thresholds:
        return ""
    before, after = tested["figures"], tested["figures_at_thresholds"]
    names = [name for name in ("exact_match", "macro_f1", "micro_f1", "weighted_f1", "samples_f1") if name in after]
    figures = _table(
        ["figure", "at one half", "at the thresholds"],
        [[metric_name(name), percent(before[name]), percent(after[name])] for name in names],
    )
    chosen = _table(["label", "threshold"], [[label, f"{value:.2f}"] for label, value in thresholds.items()])
    return (
        "<section><h2>Thresholds</h2><p>From which probability a label is best said, by its F1 on val; and what the test "
        f"gives with them.</p>{figures}{chosen}</section>"
    )


def _points(share: float) -> str:
    return f"{share * 100:.1f} points"


def _split(facts: Mapping[str, Any]) -> str:
    split = facts["split"]
    shown = split.get("shown") or {
        part: {"by": split["by"], "names": split["groups"].get(part, [])} for part in ("train", "val", "test")
    }
    rows = [[part, len(split["rows"][part]), _few(one["names"])] for part, one in shown.items()]
    by = next((one["by"] for one in shown.values() if one["names"]), split["by"])
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in split["notes"])
    table = _table(["part", "snippets", by], rows)
    return f"<section><h2>Split</h2><p>{html.escape(split['why'])}</p>{table}{notes}</section>"


def _few(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _settings(toml: str) -> str:
    details = f"<details><summary>all settings</summary><pre>{html.escape(toml)}</pre></details>"
    return f"<section><h2>Recipe</h2>{details}</section>"


def _made(facts: Mapping[str, Any]) -> str:
    versions = " · ".join(f"{name} {version}" for name, version in facts["versions"].items())
    digest = str(facts["store_digest"])[:16]
    made = f"store {facts['store']} · digest {digest} · snippets {facts['snippets']} · seed {facts['seed']}"
    started = f"{versions} · started {facts['started']}"
    return f"<footer>{html.escape(made)}<br>{html.escape(started)}</footer>"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    columns = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = ""
    for row in rows:
        cells = (cell if isinstance(cell, _Html) else html.escape(str(cell)) for cell in row)
        body += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return f'<div class="wide"><table><tr>{columns}</tr>{body}</table></div>'


class _Html(str):
    """Text that is HTML already."""


def _bar(value: float | None) -> _Html:
    if value is None or value != value:
        return _Html("–")
    return _Html(f'<span class="bar"><i style="width:{value * 100:.1f}%"></i></span>{value * 100:.1f} %')


def _between(interval: Mapping[str, float | None]) -> str:
    if interval["low"] is None or interval["high"] is None:
        return "too little varies for an interval"
    return f"95 % interval {interval['low'] * 100:.1f} to {interval['high'] * 100:.1f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ --ink: #1c2430; --soft: #667085; --line: #e4e7ec; --paper: #ffffff; --ground: #f5f6f8; --accent: #2f6fdb; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e7eaf0; --soft: #98a2b3; --line: #313846; --paper: #1b212b; --ground: #12161d; --accent: #6f9df0; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }}
main {{ max-width: 1020px; margin: 0 auto; padding: 32px 20px 60px; }}
h1 {{ margin: 0; font-size: 28px; letter-spacing: -0.02em; }}
h2 {{ margin: 0 0 12px; font-size: 17px; }}
header p {{ margin: 4px 0 20px; color: var(--soft); max-width: 72ch; }}
section {{ background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 20px;
  margin-top: 16px; }}
section p {{ margin: 0 0 12px; color: var(--soft); }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }}
.card {{ background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }}
.card b {{ display: block; font-size: 24px; letter-spacing: -0.02em; }}
.card span {{ display: block; }}
.card i {{ display: block; min-height: 1.4em; color: var(--soft); font-style: normal; font-size: 12.5px; }}
.card.strong {{ background: var(--accent); border-color: var(--accent); color: #fff; }}
.card.strong i {{ color: rgba(255, 255, 255, 0.85); }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 20px; }}
figure {{ margin: 0; max-width: 560px; }}
figcaption {{ font-weight: 600; }}
figcaption small {{ margin-left: 8px; color: var(--soft); font-weight: 400; }}
figure p {{ display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0; font-size: 13px; }}
figure p i {{ display: inline-block; width: 12px; height: 3px; margin-right: 6px; vertical-align: middle; }}
svg {{ width: 100%; height: auto; }}
svg text {{ font-size: 11px; fill: var(--soft); }}
svg .grid {{ stroke: var(--line); }}
svg polyline {{ fill: none; stroke-width: 2; stroke-linejoin: round; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 6px 14px 6px 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th {{ color: var(--soft); font-weight: 500; font-size: 13px; }}
.confusion td {{ width: var(--cell); min-width: var(--cell); height: min(40px, var(--cell)); padding: 0; text-align: center;
  border: 2px solid var(--paper); border-radius: 6px; background: var(--ground); }}
.confusion th {{ border: 0; color: var(--ink); }}
.confusion .side {{ background: none; color: var(--soft); font-size: 13px; width: 60px; }}
.confusion .turned {{ vertical-align: bottom; padding: 0 0 6px; text-align: center; }}
.confusion .turned span {{ writing-mode: vertical-rl; transform: rotate(180deg); }}
.bar {{ display: inline-block; width: 120px; height: 8px; margin-right: 10px; border-radius: 4px;
  background: var(--ground); overflow: hidden; vertical-align: middle; }}
.bar i {{ display: block; height: 100%; background: var(--accent); }}
pre {{ overflow-x: auto; margin: 10px 0 0; font-size: 13px; }}
summary {{ cursor: pointer; color: var(--accent); }}
footer {{ margin-top: 20px; color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<main>
<header><h1>{recipe}</h1><p>{doc}</p></header>
<div class="cards">{head}</div>
{sections}
</main>
</body>
</html>
"""
