"""The commands `actionprep show` and `actionprep skeletons`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, Real, StudyOption, Text, Texts, Where, with_study
from actionprep.cli.prep.options import ViewsOption, opened_study


def show(
    product: Annotated[
        str,
        typer.Argument(
            help="Product: video, frames, keyframes, lowres, masks, tracks, pose, heatmaps, segments, snippets or split."
        ),
    ],
    recording: Annotated[
        Text, typer.Argument(help="Recording. (default: all for segments and snippets, otherwise the first one)")
    ] = None,
    study: StudyOption = None,
    views: ViewsOption = None,
    out: Annotated[
        Where, typer.Option("--out", "-o", help="Contact sheet (.png) or video (.mp4). (default: show/<name>.png)")
    ] = None,
    columns: Annotated[int, typer.Option(help="Images per row of a contact sheet.", min=1, max=20)] = 6,
    rows: Annotated[
        int, typer.Option(help="Rows of a contact sheet, one time each with several views.", min=1, max=50)
    ] = 4,
    start: Annotated[Real, typer.Option("--from", help="Start time in seconds.")] = None,
    stop: Annotated[Real, typer.Option("--to", help="End time in seconds.")] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Show full frames instead of cropping them to the action.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Draw an item as a contact sheet (.png) or a video (.mp4)."""
    from actionprep.show import show_item

    replaced: list[Path] = []
    with output.progress_of_steps("writing", "frames") as step:
        path = show_item(
            opened_study(study), product, recording, views=views or (), out=out, columns=columns, rows=rows,
            start=start, stop=stop, whole=whole, progress=lambda done, total: step(total), replacing=replaced.append,
        )  # fmt: skip
    output.note(f"{'Replaced' if replaced else 'Wrote'} {path}")
    if path.suffix == ".png" and product.partition("/")[0] != "split":
        command = shlex.join(["actionprep", "show", product, *([recording] if recording else []), "-o", "show.mp4"])
        output.print_next(with_study(command, study), "draws it as a video")
    else:
        output.print_next(with_study("actionprep status", study), "lists all products")


def skeletons(
    names: Annotated[
        Texts,
        typer.Argument(help="Layouts to draw: names or TOML files. (default: list all; with --out draw all)"),
    ] = None,
    out: Annotated[Where, typer.Option("--out", "-o", help="Output file. (default: skeletons.png)")] = None,
    to: Annotated[
        Text,
        typer.Option(
            "--to", help="Also draw this layout, and list which joints a conversion keeps, derives and drops."
        ),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the skeleton layouts, or draw some of them."""
    from actionprep.api import list_skeletons
    from actionprep.datasets.poses.skeletons import conversion, skeleton_names
    from actionprep.errors import UserError
    from actionprep.show.skeletons import draw_layouts

    if not names and to is not None:
        raise UserError("Name the layouts to convert, such as 'actionprep skeletons mediapipe33 --to coco17'.")
    if names or out is not None:
        losses = [str(conversion(name, to)) for name in names or ()] if to else []
        target = out or Path("skeletons.png")
        replaced = target.exists()
        drawn = [*(names or skeleton_names()), *([to] if to else [])]
        path = draw_layouts(list(dict.fromkeys(drawn)), target)
        if json:
            output.print_json({"image": str(path), "conversions": losses})
            return
        for line in losses:
            output.note(line)
        output.note(f"{'Replaced' if replaced else 'Wrote'} {path}")
        if names and to is None:
            command = shlex.join(["actionprep", "skeletons", *names, "--to", "coco17"])
            output.print_next(command, "lists what a conversion keeps, derives and drops")
        else:
            output.print_next("actionprep skeletons", "lists all layouts")
        return
    layouts = list_skeletons()
    if json:
        output.print_json(layouts)
        return
    rows = [
        (row["name"], len(row["joints"]), row["limbs"], row["pairs"], f"{row['dimensions']}D", row["title"])
        for row in layouts
    ]
    output.print_table("Skeletons", ("name", "joints", "limbs", "pairs", "", "description"), rows)
    output.print_next("actionprep skeletons coco17", "draws a layout; TOML files work too")
