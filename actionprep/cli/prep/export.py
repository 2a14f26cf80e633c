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
from actionprep.json_values import counted

if TYPE_CHECKING:
    from actionprep.api.export import Hdf5Export, NpzExport

app = program(
    help="Write snippets, the store, annotations or predictions in formats of other programs.",
    epilog="Train on the result with [bold]actiontrain fit FOLDER_OR_FILE[/].",
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
