"""The commands that draw: show and skeletons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, Real, StudyOption, Text, Texts, Where
from actionprep.cli.prep.options import ViewsOption, opened_study


def show(
    product: Annotated[
        str,
        typer.Argument(
            help="video, frames, keyframes, lowres, masks, tracks, pose, heatmaps, segments, snippets or split."
        ),
    ],
    recording: Annotated[
        Text, typer.Argument(help="Recording; the first that has it, or for segments and snippets all, when left out.")
    ] = None,
    study: StudyOption = None,
    views: ViewsOption = None,
    out: Annotated[
        Where, typer.Option("--out", "-o", help="A .png contact sheet or a .mp4. (default: show/<name>.png)")
    ] = None,
    columns: Annotated[int, typer.Option(help="Pictures beside each other on a contact sheet.", min=1, max=20)] = 6,
    rows: Annotated[int, typer.Option(help="Moments shown, one a row for several views.", min=1, max=50)] = 4,
    start: Annotated[Real, typer.Option("--from", help="Begin at this time of the recording, in s.")] = None,
    stop: Annotated[Real, typer.Option("--to", help="End before this time of the recording, in s.")] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Whole pictures, not cut to where something is drawn.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Draw an item: a contact sheet (.png) or a film (.mp4)."""
    from actionprep.show import show_item

    replaced: list[Path] = []
    with output.progress_of_steps("filming", "frames") as step:
        path = show_item(
            opened_study(study), product, recording, views=views or (), out=out, columns=columns, rows=rows,
            start=start, stop=stop, whole=whole, progress=lambda done, total: step(total), replacing=replaced.append,
        )  # fmt: skip
    output.note(f"{'Replaced' if replaced else 'Wrote'} {path}")


def skeletons(
    names: Annotated[
        Texts,
        typer.Argument(
            help="Layouts to draw, by name or as TOML files; without any, all are listed, or drawn with --out."
        ),
    ] = None,
    out: Annotated[Where, typer.Option("--out", "-o", help="The picture. (default: skeletons.png)")] = None,
    to: Annotated[
        Text,
        typer.Option("--to", help="Draw this layout beside, and say what a conversion to it keeps, derives and loses."),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the skeleton layouts; draw those that are named."""
    from actionprep.api import list_skeletons
    from actionprep.datasets.poses.skeletons import conversion, skeleton_names
    from actionprep.errors import UserError
    from actionprep.show.skeletons import draw_layouts

    if not names and to is not None:
        raise UserError("Name the layouts to convert, such as 'actionprep skeletons mediapipe33 --to coco17'.")
    if names or out is not None:
        losses = [str(conversion(name, to)) for name in names or ()] if to else []
        place = out or Path("skeletons.png")
        replaced = place.exists()
        drawn = [*(names or skeleton_names()), *([to] if to else [])]
        path = draw_layouts(list(dict.fromkeys(drawn)), place)
        if json:
            output.print_json({"image": str(path), "conversions": losses})
            return
        for line in losses:
            output.note(line)
        output.note(f"{'Replaced' if replaced else 'Wrote'} {path}")
        return
    layouts = list_skeletons()
    if json:
        output.print_json(layouts)
        return
    rows = [
        (one["name"], len(one["joints"]), one["limbs"], one["pairs"], f"{one['dimensions']}D", one["title"])
        for one in layouts
    ]
    output.print_table("Skeletons", ("name", "joints", "limbs", "pairs", "", "what"), rows)
    output.print_next("actionprep skeletons coco17", "draws that one; a TOML file of your own is drawn too")
