"""The command `actiontrain export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Where, with_study
from actionprep.cli.train.folders import find_run, run_folder
from actionprep.cli.train.options import RunArgument, RunOption, chosen_run
from actionprep.json_values import counted

if TYPE_CHECKING:
    from actionprep.training.fusion import Mixture


def export(
    run: RunArgument = None,
    named: RunOption = None,
    to: Annotated[str, typer.Option("--to", help="Format: onnx or torch-export.")] = "onnx",
    out: Annotated[Where, typer.Option("--out", "-o", help="Output file. (default: in the folder of the run)")] = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Export the model of a run as one file for other programs, and check that its logits are equal."""
    from actionprep.errors import UserError
    from actionprep.training.export import export_run
    from actionprep.training.fusion import read_fusion

    run = chosen_run(run, named)
    fused = None if run is None else read_fusion(run_folder(run, study))
    if fused is not None:
        raise UserError(_how_to_pool(str(run), fused))
    made = export_run(find_run(run, study), to, out=out)  # type: ignore[arg-type]
    if json:
        output.print_json(made.document())
        return
    rows = [(name, " x ".join(map(str, spec.shape)), spec.dtype) for name, spec in made.inputs.items()]
    output.print_table("Inputs", ("name", "shape", "type"), rows)
    if made.state is not None:
        output.warn(f"State: {made.state[0].lower()}{made.state[1:]}")
    if made.fixed_batch is not None:
        size = next(iter(made.inputs.values())).shape[0]
        output.warn(
            f"The exported model only accepts batches of {counted(int(size), 'snippet')}, because torch.export fixed "
            f"the batch size ({made.fixed_batch})."
        )
    output.note(f"Maximum difference to the logits of the model, relative to the largest logit: {made.difference:.1e}.")
    output.note(f"Wrote {made.path} and {made.description}")
    output.print_next(with_study("actiontrain compare", study), "compares all runs of the study")


def _how_to_pool(folder: str, fused: Mixture) -> str:
    """Explain how other programs can pool the runs of a fusion, as `pooling.pooled` does."""
    from actionprep.training.run import FUSION

    runs = ", ".join(
        f"{run.folder} (temperature {temperature:.4g}, weight {weight:.4g})"
        for run, temperature, weight in zip(fused.runs, fused.temperatures, fused.weights, strict=True)
    )
    pool = (
        "the product of p^weight over the runs, normalized to sum to 1 (multi-label: p and 1 - p of each label, normalized "
        "to sum to 1)"
        if fused.pool == "log"
        else "the sum of weight * p over the runs"
    )
    return (
        f"{folder} is a fusion. Fusions cannot be exported. Export each of its runs, {runs}, and pool their outputs: for "
        f"each run, p = softmax(logits / temperature), or the sigmoid for multi-label models, at least 1e-6; combined, "
        f"{pool}. {folder}/{FUSION} has all digits."
    )
