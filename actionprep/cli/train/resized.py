"""Command `actiontrain resized`."""

from __future__ import annotations

from typing import Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, Number, StudyOption, Text, Where
from actionprep.cli.train.folders import find_run, store_of_study, store_or_study
from actionprep.cli.train.options import RunArgument, RunOption, chosen_run


def resized(
    run: RunArgument = None,
    named: RunOption = None,
    row: Annotated[
        Number, typer.Option("--row", help="Row of the snippet in split.csv. (default: first of test)")
    ] = None,
    out: Annotated[Where, typer.Option("--out", "-o", help="PNG file. (default: in the folder of the run)")] = None,
    store: Annotated[Text, typer.Option("--store", help="Store of the training, if it moved.")] = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw the frames of a snippet before and after the learned resizer of a run, and theta."""
    from actionprep.show.files import write_image
    from actionprep.show.resized import draw_resized
    from actionprep.training.resized import resized_frames

    opened_run = find_run(chosen_run(run, named), study)
    opened = store_of_study(opened_run, study) if store is None else store_or_study(store)
    frames = resized_frames(opened_run, opened, row=row)
    theta = None if frames.theta is None else frames.theta.tolist()
    details = [
        f"{frames.stored.shape[2]} x {frames.stored.shape[1]} px to {frames.resized.shape[2]} x {frames.resized.shape[1]} px"
    ]
    if frames.theta is not None:
        details.append(f"theta is computed at {frames.read_point}")
        details.append(f"theta is applied at {frames.apply_point}")
    image = draw_resized(frames.stored, frames.resized, frames.theta, title=frames.title, details=details)
    path = write_image(image, out or opened_run.folder / f"resized-{frames.row}.png")
    if json:
        output.print_json({"run": str(opened_run.folder), "row": frames.row, "theta": theta, "path": str(path)})
        return
    if frames.theta is not None:
        maps = frames.theta if frames.theta.ndim == 3 else frames.theta[None]
        output.print_table(
            "Theta" if len(maps) == 1 else "Theta of each frame",
            ("a11", "a12", "shift x", "a21", "a22", "shift y"),
            [[f"{value:.3f}" for value in values.ravel()] for values in maps],
        )
    output.note(f"Wrote {path}")
