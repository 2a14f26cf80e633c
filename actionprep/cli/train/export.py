"""The command that writes a model for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Where
from actionprep.cli.train.folders import find_run, run_folder
from actionprep.cli.train.options import RunArgument

if TYPE_CHECKING:
    from actionprep.training.fusion import Mixture


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
        raise UserError(_how_to_pool(str(run), fused))
    made = export_run(find_run(run, study), to, out=out)  # type: ignore[arg-type]
    if json:
        output.print_json(made.document())
        return
    rows = [(name, " x ".join(map(str, one.shape)), one.dtype) for name, one in made.inputs.items()]
    output.print_table("Inputs", ("name", "shape", "type"), rows)
    if made.state is not None:
        output.warn(f"State: {made.state[0].lower()}{made.state[1:]}")
    if made.fixed_batch is not None:
        size = next(iter(made.inputs.values())).shape[0]
        output.warn(
            f"The file takes batches of {size} snippets alone: torch.export did not free it ({made.fixed_batch})."
        )
    output.note(f"Logits differ from the model's by {made.difference:.1e} of the largest one at most.")
    output.note(f"Wrote {made.path} and {made.description}")


def _how_to_pool(folder: str, fused: Mixture) -> str:
    """What to do instead of exporting a fusion: what `pooling.pooled` does, for other programs."""
    from actionprep.training.run import FUSION

    runs = ", ".join(
        f"{run.folder} (temperature {temperature:.4g}, weight {weight:.4g})"
        for run, temperature, weight in zip(fused.runs, fused.temperatures, fused.weights, strict=True)
    )
    pool = (
        "the product of p^weight over the runs, made to sum to 1 (with several labels, per label: p and 1 - p each so, made "
        "to sum to 1)"
        if fused.pool == "log"
        else "the sum of weight * p over the runs"
    )
    return (
        f"{folder} is a fusion, and fusions are not exported. Export its runs one by one, {runs}, and pool what the "
        f"files say. Of each run p = softmax(logits / temperature), with several labels the sigmoid, at least 1e-6; "
        f"together {pool}. {folder}/{FUSION} has the numbers in full."
    )
