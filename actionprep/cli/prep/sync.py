"""The command `actionprep sync`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Text, Where, with_study
from actionprep.cli.prep.options import RecordingsOption, ViewsOption, opened_study

if TYPE_CHECKING:
    from actionprep.api.sync import Sync


def sync(
    recording: RecordingsOption = None,
    views: ViewsOption = None,
    signal: Annotated[
        str,
        typer.Option(
            help="Compare audio, joints (of the product pose), motion or brightness; auto tries them in this order."
        ),
    ] = "auto",
    reference: Annotated[Text, typer.Option(help="View that keeps its clock. (default: the first)")] = None,
    max_offset: Annotated[
        float, typer.Option("--max-offset", help="Largest change of an offset to search, in s.", min=0.1, max=600)
    ] = 5.0,
    save: Annotated[bool, typer.Option("--save", help="Write sure clocks into the table of offsets.")] = False,
    out: Annotated[
        Where, typer.Option("--out", "-o", help="Folder for the images. (default: show/sync in the study)")
    ] = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Estimate the offset and drift of each view's clock from sound, motion or brightness."""
    from actionprep.api.sync import save_sync, sync_views

    opened = opened_study(study)
    if recording:
        names = [opened.catalog.recording(name).id for name in recording]
    else:
        names = [item.id for item in opened.catalog.recordings if len(opened.catalog.views_of(item.id)) > 1]
    folder = out or opened.root / "show" / "sync"
    results, images = [], []
    with output.progress_bar("comparing", len(names), "recordings", quiet=json) as advance:
        for name in names:
            result = sync_views(
                opened, name, views=views or (), signal=signal, reference=reference, max_offset=max_offset  # type: ignore[arg-type]
            )  # fmt: skip
            results.append(result)
            images.append(_draw(result, folder))
            advance(1)
    table = save_sync(opened, results) if save else None
    if json:
        output.print_json(
            {
                "recordings": [_document(result, image) for result, image in zip(results, images, strict=True)],
                "saved": None if table is None else str(table),
            }
        )
        return
    for result in results:
        _print(result)
    output.note(f"Wrote {len(images)} images to {folder}" if len(images) != 1 else f"Wrote {images[0]}")
    if table is not None:
        output.note(f"Wrote {table}")
        output.print_next(with_study("actionprep scan", study), "applies the offsets")
    elif any(view.sure for result in results for view in result.views):
        output.print_next(
            with_study("actionprep sync --save", study), "writes the sure clocks into the table of offsets"
        )


def _draw(result: Sync, folder: Path) -> Path:
    from actionprep.show.sync import draw_sync

    return draw_sync(
        result.signals,
        result.changes,
        result.pairs,
        folder / f"{result.recording.replace('/', '_')}.png",
        title=f"{result.recording}: {result.signal}",
    )


def _document(result: Sync, image: Path) -> dict[str, Any]:
    return {
        "recording": result.recording,
        "signal": result.signal,
        "reference": result.reference,
        "image": str(image),
        "views": [
            {
                "view": view.view,
                "offset": view.offset,
                "drift": view.drift,
                "change": view.change,
                "confidence": view.confidence,
                "sure": view.sure,
                "reason": view.reason,
            }
            for view in result.views
        ],
        "rejected_pairs": [list(pair) for pair in result.rejected],
    }


def _print(result: Sync) -> None:
    rows = [
        (
            view.view,
            "unsure" if view.offset is None else f"{view.offset:.4f}",
            "" if view.change is None else f"{view.change:+.4f}",
            "" if view.drift is None else f"{view.drift:+.1f}",
            f"{view.confidence:.2f}",
            "reference" if view.view == result.reference else view.reason,
        )
        for view in result.views
    ]
    output.print_table(
        f"{result.recording}: compared by {result.signal}",
        ("view", "offset (s)", "change (s)", "drift (ppm)", "confidence", ""),
        rows,
    )
    for a, b in result.rejected:
        output.warn(f"The pair {a}, {b} contradicts the others and was left out.")
