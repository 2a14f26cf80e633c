"""Charts: timelines of segments and snippets, and the parts of a split."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.label_colors import Color
from actionprep.datasets.study_colors import colors_of_store
from actionprep.errors import UserError, nearest
from actionprep.json_values import counted
from actionprep.show.colors import LIGHT, text_on, unit
from actionprep.show.files import atomic_write
from actionprep.show.products import video_scene
from actionprep.show.timeline import Bar, TimelineRow, bars_of, draw_timeline, fitting_images

if TYPE_CHECKING:
    from actionprep.api import Study
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.products.snippets import SnippetTable

_MOST_RECORDINGS = 60
_MOST_FOLDS = 12


def draw_chart(
    study: Study,
    kind: str,
    name: str,
    recording: str | None,
    path: Path,
    *,
    views: Sequence[str | int] = (),
    start: float | None = None,
    stop: float | None = None,
) -> Path:
    """Draw segments, snippets or a split as a chart.

    Args:
        study: The study.
        kind: segments, snippets or split.
        name: Name of the snippet table or split.
        recording: Id of the recording. Default: all recordings.
        path: File to write.
        views: Views of which the first one's frames are shown above a timeline.
        start: Start in seconds on the recording's clock.
        stop: End in seconds on the recording's clock.

    Returns:
        The path.

    Raises:
        UserError: If there is nothing to draw.
    """
    if kind == "split":
        return _draw_split(study, name, path)
    table = _table(study, name) if kind == "snippets" else None
    if recording is None and len(study.catalog) != 1:
        return _draw_overview(study, table, name, path)
    recording = study.catalog.recording(recording or study.catalog.recordings[0].id).id
    return _draw_recording(study, recording, table, name, path, views=views, start=start, stop=stop)


def rows_of(study: Study, recording: str, *, snippets: str | None = None) -> list[TimelineRow]:
    """Timeline rows of a recording: its segments, one row per layer, and the windows of a snippet table.

    Args:
        study: The study.
        recording: Id of the recording.
        snippets: Name of a snippet table; None for segments only.
    """
    rows: list[TimelineRow] = []
    if recording not in {item.id for item in study.catalog.recordings}:
        return rows
    segments = study.catalog.segments_of(recording)
    layers = list(dict.fromkeys(segment.layer for segment in segments))
    for layer in layers:
        rows.append(TimelineRow(layer or "segments", bars_of(item for item in segments if item.layer == layer)))
    label, span = study.catalog.recording(recording).label, study.catalog.span(recording)
    if not segments and label is not None and span is not None:
        rows.append(TimelineRow("recording", (Bar(*span, label),)))
    if snippets is not None:
        bars = _bars_by_recording(_table(study, snippets)).get(recording, [])
        rows.append(TimelineRow("snippets" if snippets == "default" else f"snippets/{snippets}", tuple(bars)))
    return rows


def _draw_recording(
    study: Study,
    recording: str,
    table: SnippetTable | None,
    name: str,
    path: Path,
    *,
    views: Sequence[str | int],
    start: float | None,
    stop: float | None,
) -> Path:
    rows = rows_of(study, recording, snippets=None if table is None else name)
    bars = [bar for row in rows for bar in row.bars]
    if not bars or (table is not None and not rows[-1].bars):
        what = "snippets" if table is not None else "segments or label"
        raise UserError(f"Recording '{recording}' has no {what}.")
    first, last = _span_of(study, recording, bars)
    low, high = first if start is None else start, last if stop is None else stop
    if not high > low:
        raise UserError(
            f"Empty time interval for recording '{recording}': --from {low:g} s is not before --to {high:g} s."
        )
    if table is not None:
        drawn = table.recording == table.recordings.index(recording)
        details = [_rule(table, name, drawn & (table.onset < high) & (table.offset > low))]
    else:
        counts = Counter(bar.label for bar in bars if bar.onset < high and bar.offset > low)
        details = [_counts(counts, "segment")]
    return draw_timeline(
        rows,
        (low, high),
        path,
        title=recording,
        details=details,
        colors=colors_of(study),
        images=_images(study, recording, views, (low, high)),
    )


def _draw_overview(study: Study, table: SnippetTable | None, name: str, path: Path) -> Path:
    if table is not None:
        by_recording = _bars_by_recording(table)
    else:
        by_recording = {
            item.id: [bar for row in rows_of(study, item.id) for bar in row.bars] for item in study.catalog.recordings
        }
    shown = [(recording, bars) for recording, bars in by_recording.items() if bars]
    if not shown:
        what = f"snippets/{name} has no windows" if table is not None else "No recording has segments or a label"
        raise UserError(f"{what}.")
    num_recordings, shown = len(shown), shown[:_MOST_RECORDINGS]
    bars = [bar for _, of_one in shown for bar in of_one]
    counts = Counter(bar.label for bar in bars if not bar.ignored)
    details = [_counts(counts, "snippet" if table is not None else "segment")]
    if table is not None:
        codes = [table.recordings.index(recording) for recording, _ in shown]
        details.insert(0, _rule(table, name, np.isin(table.recording, codes)))
    if num_recordings > len(shown):
        details.append(f"the first {len(shown)} of {num_recordings} recordings; name one to draw it alone")
    rows = [TimelineRow(recording, tuple(of_one), _span_of(study, recording, of_one)) for recording, of_one in shown]
    spans = [row.span for row in rows if row.span is not None]
    span = (min(low for low, _ in spans), max(high for _, high in spans))
    title = f"{study.folder.name}  ·  {'snippets' if table is not None else 'segments'}"
    return draw_timeline(rows, span, path, title=title, details=details, colors=colors_of(study))


def _span_of(study: Study, recording: str, bars: Sequence[Bar]) -> tuple[float, float]:
    """Interval from the first frame or bar to the last, over all views."""
    views = study.catalog.views_of(recording)
    spans = [view.span for view in views if view.status == "ok" and view.num_frames]
    spans += [(bar.onset, bar.offset) for bar in bars]
    return min(low for low, _ in spans), max(high for _, high in spans)


def _table(study: Study, name: str) -> SnippetTable:
    from actionprep.datasets.products.snippets import SnippetTable

    known = [key.recording for key in study.store.items("snippets")]
    if name not in known:
        what = f"no snippets/{name}.{nearest(name, known)} Available: {', '.join(known)}" if known else "no snippets"
        raise UserError(f"The store has {what}. Run 'actionprep snippets --length 1000 --iou 0.5' to make snippets.")
    return SnippetTable.read(study.store.item("snippets", name))


def _bars_by_recording(table: SnippetTable) -> dict[str, list[Bar]]:
    """Bars of the windows per recording, one bar per label."""
    by_recording: dict[str, list[Bar]] = {}
    used = table.used
    for row in range(len(table)):
        onset, offset = float(table.onset[row]), float(table.offset[row])
        labels = [table.labels[code] for code in np.flatnonzero(table.target[row])] or [""]
        bars = by_recording.setdefault(table.recordings[table.recording[row]], [])
        bars += [Bar(onset, offset, label, ignored=not used[row]) for label in labels]
    return by_recording


def _rule(table: SnippetTable, name: str, drawn: np.ndarray) -> str:
    """Describe how the windows were made and labeled, and how many of the drawn ones (mask of shape (S,)) are ignored."""
    settings = table.settings
    length = settings.get("length_s")
    stride = settings.get("stride_s")
    every = f" every {stride * 1000:g} ms" if length and stride and stride != length else ""
    windows = f"windows of {length * 1000:g} ms{every}" if length else "one window per segment or recording"
    rule = {"coverage": "coverage of the window", "iou": "temporal IoU", "segment": "share of the segment"}
    measure = rule.get(str(settings.get("rule")), str(settings.get("rule")))
    parts = [f"snippets/{name}", windows, f"label from {measure} ≥ {settings.get('threshold', 0):g}"]
    ignored = int((~table.used & drawn).sum())
    return "  ·  ".join([*parts, *([f"{ignored} ignored (hatched)"] if ignored else [])])


def _counts(counts: Counter[str], what: str) -> str:
    common = [f"{label or 'none'} {count}" for label, count in counts.most_common(12)]
    more = f" and {len(counts) - 12} more" if len(counts) > 12 else ""
    return f"{counted(counts.total(), what)}{': ' if common else ''}{', '.join(common)}{more}"


def colors_of(study: Study, catalog: Catalog | None = None) -> dict[str, Color]:
    """Colors of the labels of a study; see `colors_of_store`.

    Args:
        study: The study.
        catalog: Its catalog. Default: the current one, which may start a scan.
    """
    return colors_of_store(study.store, catalog or study.catalog)


def _images(
    study: Study, recording: str, views: Sequence[str | int], span: tuple[float, float]
) -> list[tuple[float, np.ndarray]]:
    """Evenly spaced frames of the first view."""
    if views:
        names = [study.catalog.view(recording, views[0]).id]
    else:
        names = [view.id for view in study.catalog.views_of(recording) if view.status == "ok" and view.num_frames]
    if not names:
        return []
    [scene] = video_scene(study, recording, names[0])
    return scene.near(fitting_images(scene.aspect, span), height=200)


def _draw_split(study: Study, name: str, path: Path) -> Path:
    """Draw how the recordings of each label are distributed over the parts, one panel per fold."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from actionprep.datasets.products.split import stored_parts

    if path.suffix.lower() != ".png":
        raise UserError(f"Splits are drawn as .png files; got {path.name}.")
    known = [key.recording for key in study.store.items("split")]
    if name not in known:
        what = f"no split/{name}.{nearest(name, known)} Available: {', '.join(known)}" if known else "no split"
        raise UserError(f"The store has {what}. Run 'actionprep split' to make one.")
    item = study.store.item("split", name)
    folds = stored_parts(item)
    if not any(folds):
        raise UserError(f"split/{name} has no recordings in any part.")
    labels = {entry.id: _labels(study, entry.id) for entry in study.catalog.recordings}
    names = sorted({label for of_one in labels.values() for label in of_one}) or ["recordings"]
    shown = folds[:_MOST_FOLDS]
    across = min(len(shown), 4)
    down = -(-len(shown) // across)
    high = 0.55 + 0.24 * len(names)
    figure = Figure(figsize=(12, 1.25 + down * (high + 0.35)), dpi=150, facecolor=unit(LIGHT.ground))
    FigureCanvasAgg(figure)
    colors = {"train": (52, 120, 207), "val": (240, 142, 43), "test": (46, 160, 100)}
    sizes = Counter(shown[0].values())
    grid = figure.subplots(down, across, squeeze=False, sharey=True, sharex=True)
    for at, axes in enumerate(grid.flat):
        if at >= len(shown):
            axes.axis("off")
            continue
        left = np.zeros(len(names))
        for part, color in colors.items():
            if not sizes[part]:
                continue
            members = [recording for recording, of_one in shown[at].items() if of_one == part]
            counted = Counter(label for member in members for label in labels.get(member, ()) or ("recordings",))
            counts = np.array([counted[label] for label in names], float)
            axes.barh(np.arange(len(names)), counts, left=left, color=unit(color), height=0.74, label=part, zorder=2)
            for row, count in enumerate(counts):
                if count:
                    middle = left[row] + count / 2
                    axes.text(
                        middle,
                        row,
                        f"{count:g}",
                        ha="center",
                        va="center",
                        fontsize=7.5,
                        color=unit(text_on(color)),
                        zorder=3,
                    )
            left += counts
        axes.set_yticks(np.arange(len(names)), names, fontsize=9, color=unit(LIGHT.ink), parse_math=False)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", length=3, color=unit(LIGHT.line), labelcolor=unit(LIGHT.quiet), labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="x", color=unit(LIGHT.line), lw=0.7)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        if len(shown) > 1:
            axes.set_title(f"fold {at + 1}", fontsize=9, loc="left", color=unit(LIGHT.quiet))
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.14, right=0.975, top=1 - 0.95 / height, bottom=0.5 / height, hspace=0.35, wspace=0.08)
    figure.text(
        0.3 / 12,
        1 - 0.3 / height,
        f"{study.folder.name}  ·  split/{name}",
        fontsize=13,
        weight="bold",
        va="center",
        color=unit(LIGHT.ink),
    )
    first = ", ".join(f"{part} {sizes[part]}" for part in colors if sizes[part])
    more = (
        f"; the first {len(shown)} of {len(folds)} folds"
        if len(folds) > len(shown)
        else f"; {len(folds)} folds"
        if len(folds) > 1
        else ""
    )
    figure.text(
        0.3 / 12,
        1 - 0.6 / height,
        f"recordings, grouped by {item.attributes.get('by', 'recording')}: {first}{more}",
        fontsize=9,
        va="center",
        color=unit(LIGHT.quiet),
    )
    figure.legend(
        *grid.flat[0].get_legend_handles_labels(),
        loc="upper right",
        ncols=3,
        frameon=False,
        fontsize=9,
        bbox_to_anchor=(0.98, 1 - 0.1 / height),
        handlelength=0.9,
        handleheight=0.9,
    )
    with atomic_write(path) as draft, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(draft, dpi=150, format="png", facecolor=figure.get_facecolor())
    return path


def _labels(study: Study, recording: str) -> tuple[str, ...]:
    """Distinct labels of a recording."""
    label = study.catalog.recording(recording).label
    segments = study.catalog.segments_of(recording)
    return tuple(dict.fromkeys(segment.label for segment in segments)) if segments else (label,) if label else ()
