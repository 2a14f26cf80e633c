"""The command that writes a model for other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Where
from actionprep.cli.train.options import RunArgument
from actionprep.cli.train.places import found_run, run_folder


def export(
    run: RunArgument = None,
    to: Annotated[str, typer.Option("--to", help="onnx or torch-export.")] = "onnx",
    out: Annotated[Where, typer.Option("--out", "-o", help="The file. (default: in the run's folder)")] = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a run's model as one file for other programs, checked to give the same logits."""
    from actionprep.errors import UserError
    from actionprep.training.export import export_run
    from actionprep.training.fusion import read_fusion

    fused = None if run is None else read_fusion(run_folder(run, study))
    if fused is not None:
        named = ", ".join(str(one.folder) for one in fused.runs)
        raise UserError(
            f"{run} is a fusion, and fusions are not exported: export its runs one by one, {named}, "
            "and average their probabilities."
        )
    made = export_run(found_run(run, study), to, out=out)  # type: ignore[arg-type]
    if json:
        output.print_json(made.document())
        return
    rows = [(name, " x ".join(map(str, shape))) for name, shape in made.inputs.items()]
    output.print_table("Inputs", ("name", "shape"), rows)
    if made.fixed_batch is not None:
        size = next(iter(made.inputs.values()))[0]
        output.warn(
            f"The file takes batches of {size} snippets alone: torch.export did not free it ({made.fixed_batch})."
        )
    output.note(f"Logits differ from the model's by {made.difference:.1e} of the largest one at most.")
    output.note(f"Wrote {made.path} and {made.description}")
