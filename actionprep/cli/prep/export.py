"""The commands that write snippets and stores in formats of other programs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Text, Texts
from actionprep.cli.prep.options import ViewsOption, opened_study
from actionprep.cli.program import add_command, program
from actionprep.datasets.poses.writers import WRITERS
from actionprep.json_values import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from actionprep.api.export import Hdf5Export, NpzExport, PosesExport

app = program(
    help="Write snippets, poses, tracks, annotations, predictions or the store in formats of other programs.",
    epilog="Train on the result of npz and hdf5 with [bold]actiontrain fit FOLDER_OR_FILE[/].",
)

OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an export of other content.")]


def npz(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; the snippets go to a folder in it.")],
    snippets: Annotated[str, typer.Option(help="Which table of snippets: snippets/<name>.")] = "default",
    split: Annotated[
        Text, typer.Option(help="A stored split: split/<name>. (default: the one that training would use)")
    ] = None,
    size: Annotated[int, typer.Option(help="Height and width of the frames in px.", min=8)] = 320,
    product: Annotated[Text, typer.Option(help="frames or lowres. (default: frames where there are some)")] = None,
    sample_rate: Annotated[int, typer.Option("--sample-rate", help="Write every n-th frame.", min=1)] = 1,
    name: Annotated[Text, typer.Option(help="First part of the folder's name. (default: the study's name)")] = None,
    compress: Annotated[bool, typer.Option("--compress/--no-compress", help="Compress the files.")] = True,
    overwrite: OverwriteOption = False,
    views: ViewsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write each snippet and view as an npz file, in a folder per part and class."""
    from actionprep.api.export import export_npz

    opened = opened_study(study)
    with output.progress_of_steps("exporting", "files", quiet=json) as step:
        made = export_npz(
            opened.store, folder, snippets=snippets, split=split, size=size, product=product, sample_rate=sample_rate,
            name=name or opened.folder.name, compress=compress, overwrite=overwrite, views=views,
            progress=lambda done, total: step(total),
        )  # fmt: skip
    if json:
        output.print_json({**vars(made), "folder": str(made.folder)})
        return
    _print_npz(made)


def hdf5(
    file: Annotated[Path, typer.Argument(help="File to write, such as store.h5.")],
    products: Annotated[
        Texts, typer.Option("--products", help="Products to write. (default: all that training reads)")
    ] = None,
    compress: Annotated[bool, typer.Option("--compress/--no-compress", help="Compress the arrays with gzip.")] = False,
    overwrite: OverwriteOption = False,
    views: ViewsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the store, or some of its products, as one HDF5 file."""
    from actionprep.api.export import export_hdf5

    with output.progress_of_steps("exporting", "items", quiet=json) as step:
        made = export_hdf5(
            opened_study(study).store, file, products=products, views=views, compress=compress, overwrite=overwrite,
            progress=lambda done, total: step(total),
        )  # fmt: skip
    if json:
        output.print_json({**vars(made), "path": str(made.path)})
        return
    _print_hdf5(made)


add_command(app, npz, "Formats")
add_command(app, hdf5, "Formats")


def tapvid(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")],
    video: Annotated[bool, typer.Option("--video", help="Add the stored frames of each clip.")] = False,
    overwrite: OverwriteOption = False,
    views: ViewsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write point tracks as TAP-Vid pickles, one file per view."""
    from actionprep.api.export import export_tapvid

    with output.progress_of_steps("exporting", "views", quiet=json) as step:
        made = export_tapvid(
            opened_study(study), folder, views=views, video=video, overwrite=overwrite,
            progress=lambda done, total: step(total),
        )  # fmt: skip
    _print_poses(made, json)


def _pose_command(format: str) -> Callable[..., None]:
    """Return the command that writes poses in a format."""

    def command(
        folder: Annotated[Path, typer.Argument(help="Folder to write to.")],
        overwrite: OverwriteOption = False,
        views: ViewsOption = None,
        study: StudyOption = None,
        json: JsonOption = False,
        debug: DebugOption = False,
    ) -> None:
        from actionprep.api.export import export_poses

        with output.progress_of_steps("exporting", "views", quiet=json) as step:
            made = export_poses(
                opened_study(study), folder, format, views=views, overwrite=overwrite,
                progress=lambda done, total: step(total),
            )  # fmt: skip
        _print_poses(made, json)

    command.__name__ = format
    command.__doc__ = f"Write poses as {WRITERS[format].title}."
    return command


for _format in WRITERS:
    add_command(app, _pose_command(_format), "Poses and tracks")
add_command(app, tapvid, "Poses and tracks")


def _print_poses(made: PosesExport, json: bool) -> None:
    if json:
        output.print_json({**vars(made), "folder": str(made.folder)})
        return
    if made.without:
        output.warn(f"{counted(made.without, 'view')} without points, or with clips without stored frames.")
    done = "Wrote" if made.written else "Unchanged, the folder has the same content:"
    output.note(
        f"{done} {counted(made.files, 'file')} of {counted(made.views, 'view')}, "
        f"{output.bytes_text(made.num_bytes)} in {made.folder}"
    )
    if made.reads:
        output.print_next(f"actionprep import {made.reads} {shlex.quote(made.pattern)}", "reads these files")


def _print_npz(made: NpzExport) -> None:
    labels = list(dict.fromkeys(label for counts in made.snippets.values() for label in counts))
    rows = [(label, *(made.snippets[part].get(label, 0) for part in made.snippets)) for label in labels]
    output.print_table("Snippets", ("label", *made.snippets), rows)
    if made.unused:
        output.note(f"{counted(made.unused, 'snippet')} left out, in no part of the split.")
    if made.without_frames:
        output.warn(f"{counted(made.without_frames, 'snippet')} left out, without stored frames.")
    if made.without_keypoints:
        output.warn(
            f"{counted(made.without_keypoints, 'file')} without keypoints: these views have no 2D poses in pixels."
        )
    kept = f", {made.kept} were there already" if made.kept else ""
    output.note(
        f"Wrote {counted(made.written, 'file')}{kept}; views {', '.join(made.views)}; from {made.product}; "
        f"{output.bytes_text(made.num_bytes)} in {made.folder}"
    )
    output.print_next(f"actiontrain fit {shlex.quote(str(made.folder))}", "trains on these files")


def _print_hdf5(made: Hdf5Export) -> None:
    output.print_table("Items", ("product", "items"), list(made.items.items()))
    done = "Wrote" if made.written else "Unchanged, it has these items already:"
    output.note(f"{done} {made.path}, {output.bytes_text(made.num_bytes)}")
    output.print_next(f"actiontrain fit {shlex.quote(str(made.path))}", "trains on this file")
