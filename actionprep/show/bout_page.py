"""Page with bouts and their statistics: a single HTML file that needs neither a network nor a server."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from actionprep.show.ethogram import draw_ethogram

if TYPE_CHECKING:
    from jinja2 import Template

    from actionprep.api.bouts import BoutReport
    from actionprep.datasets.label_colors import Color

_MOST_ROWS = 400
_TITLES = {"groups": "Groups", "statistics": "Recordings", "transitions": "Transitions", "bins": "Time bins"}
_NAMES = {
    "total_s": "total (s)",
    "mean_s": "mean (s)",
    "median_s": "median (s)",
    "latency_s": "latency (s)",
    "per_min": "per minute",
    "share_mean": "share",
    "share_sd": "± SD",
    "per_min_mean": "per minute",
    "per_min_sd": "± SD",
    "bout_s_mean": "bout (s)",
    "bout_s_sd": "± SD",
    "latency_s_mean": "latency (s)",
    "latency_s_sd": "± SD",
}


def bout_page(report: BoutReport, title: str, colors: Mapping[str, Color]) -> str:
    """Render bouts as HTML: the ethogram, and tables of groups, recordings, transitions and time bins.

    Columns without any value are left out. Long tables are cut; the csv files contain all rows.
    """
    with TemporaryDirectory() as folder:
        image = draw_ethogram(report.observations, Path(folder) / "ethogram.png", colors=colors).read_bytes()
    tables = report.tables()
    bouts = tables.pop("bouts")
    rules = [f"{name.replace('_', ' ')}: {value}" for name, value in report.rules.items() if value not in (None, False)]
    tuned = report.tuned
    return _template().render(
        title=title,
        num_bouts=len(bouts),
        num_recordings=len(report.recordings),
        hours=sum(report.recordings.values()) / 3600,
        rules=rules,
        tuned=None if tuned is None else {"f1": tuned.f1, "before": tuned.f1_before, "tried": tuned.tried},
        score=report.score,
        image=base64.b64encode(image).decode(),
        tables=[_table(_TITLES[name], rows) for name, rows in tables.items() if name in _TITLES and rows],
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("actionprep.show").joinpath("bout_page.html").read_text(encoding="utf-8")
    return environment.from_string(source)


def _table(title: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    columns = [name for name in rows[0] if any(row[name] not in ("", None) for row in rows)]
    return {
        "title": title,
        "head": [_NAMES.get(name, name.replace("_", " ")) for name in columns],
        "rows": [[_text(row[name], name) for name in columns] for row in rows[:_MOST_ROWS]],
        "more": max(0, len(rows) - _MOST_ROWS),
    }


def _text(value: Any, column: str) -> str:
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "–"
    if column.startswith("share"):
        return f"{100 * value:.1f} %"
    return f"{value:.2f}"
