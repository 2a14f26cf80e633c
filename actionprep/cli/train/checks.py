"""Checks before training: can the model overfit one batch, and which learning rate is suitable?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from actionprep.cli import output
from actionprep.cli.program import same_command
from actionprep.cli.train.print_metrics import shown
from actionprep.json_values import counted

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store


def learn_one_batch(store: Store, recipe: Any, options: dict[str, Any], *, json: bool) -> None:
    """`fit --overfit`: check whether the model can overfit one batch. Exit code 1 if it cannot."""
    from actionprep.training.sanity_checks import overfit_one_batch

    result = overfit_one_batch(store, recipe, **options)
    document = {
        "learnt": result.learnt, "accuracy": result.accuracy, "steps": len(result.losses), "samples": result.samples,
        "first_loss": float(result.losses[0]), "last_loss": float(result.losses[-1]),
    }  # fmt: skip
    if json:
        output.print_json(document)
    else:
        output.print_table(
            "One batch", ("metric", "value"), [(k.replace("_", " "), shown(v)) for k, v in document.items()]
        )
        if result.learnt:
            output.note("The model overfits this batch: model, input and loss fit each other.")
        else:
            output.warn(
                "The model cannot overfit one batch. Try another learning rate (--set optimizer.learning_rate=1e-3 or "
                "--find-lr), check the input with 'actionprep show', and check the labels of the snippets."
            )
    if not result.learnt:
        raise typer.Exit(1)


def suggest_learning_rate(
    context: typer.Context, store: Store, recipe: Any, options: dict[str, Any], *, into: Path, json: bool
) -> None:
    """`fit --find-lr`: plot the loss over learning rates, and print the command that trains with the suggested one."""
    from actionprep.training.sanity_checks import find_learning_rate

    search = find_learning_rate(store, recipe, **options)
    paths = search.write(into)
    if json:
        output.print_json(
            {"suggestion": search.suggestion, "highest": search.highest, "turned": search.turned,
             "rates": search.rates.tolist(), "losses": search.losses.tolist(), "files": [str(path) for path in paths]}
        )  # fmt: skip
        return
    if search.turned:
        output.note(
            f"The loss increases from a learning rate of {search.highest:.2g}. Suggested: a tenth, {search.suggestion:.2g}."
        )
    else:
        output.warn(
            f"The loss decreases up to the highest learning rate tried, {search.highest:.2g}. Such rates "
            f"are rarely suitable. Use --overfit to check model and input. One tenth of it is {search.suggestion:.2g}."
        )
    if search.repeats > 1:
        output.note(f"The curve is the mean of {counted(search.repeats, 'search')}: there are few snippets.")
    for path in paths:
        output.note(f"Wrote {path}")
    rate = f"optimizer.learning_rate={search.suggestion:.2g}"
    # --run was the folder of the curve.
    command = same_command(context, "--set", rate, without=("--run",), flags=("--find-lr",))
    output.print_next(command, "trains with this learning rate")
