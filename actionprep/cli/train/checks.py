"""Look before training: can the model learn one batch, and which learning rate suits?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from actionprep.cli import output
from actionprep.cli.program import same_command
from actionprep.cli.train.print_metrics import shown

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store


def learn_one_batch(store: Store, recipe: Any, options: dict[str, Any], *, json: bool) -> None:
    """`fit --overfit`: say whether the model can learn one batch by heart; exit code 1 when it cannot."""
    from actionprep.training.checks import overfit_one_batch

    one = overfit_one_batch(store, recipe, **options)
    document = {
        "learnt": one.learnt, "accuracy": one.accuracy, "steps": len(one.losses), "samples": one.samples,
        "first_loss": float(one.losses[0]), "last_loss": float(one.losses[-1]),
    }  # fmt: skip
    if json:
        output.print_json(document)
    else:
        output.print_table(
            "One batch", ("figure", "value"), [(k.replace("_", " "), shown(v)) for k, v in document.items()]
        )
        if one.learnt:
            output.note("The model learns this batch by heart: model, input and loss fit each other.")
        else:
            output.warn(
                "The model does not learn one batch by heart. Try another rate (--set optimizer.learning_rate=1e-3, or "
                "--find-lr); look at the input with 'actionprep show'; make sure that labels are those of the snippets."
            )
    if not one.learnt:
        raise typer.Exit(1)


def suggest_learning_rate(
    context: typer.Context, store: Store, recipe: Any, options: dict[str, Any], *, into: Path, json: bool
) -> None:
    """`fit --find-lr`: a curve of the loss over learning rates, and the command that trains with the one it suggests."""
    from actionprep.training.checks import find_learning_rate

    found = find_learning_rate(store, recipe, **options)
    paths = found.write(into)
    if json:
        output.print_json(
            {"suggestion": found.suggestion, "highest": found.highest, "turned": found.turned, "rates": found.rates.tolist(),
             "losses": found.losses.tolist(), "files": [str(path) for path in paths]}
        )  # fmt: skip
        return
    if found.turned:
        output.note(
            f"The loss rises from a learning rate of {found.highest:.2g}; try a tenth of it, {found.suggestion:.2g}."
        )
    else:
        output.warn(
            f"The loss falls up to the highest learning rate that was tried, {found.highest:.2g}. Such rates are seldom "
            f"right: see with --overfit whether model and input fit each other. A tenth of it is {found.suggestion:.2g}."
        )
    if found.repeats > 1:
        output.note(f"Few snippets: the curve is the mean of {found.repeats} searches.")
    for path in paths:
        output.note(f"Wrote {path}")
    rate = f"optimizer.learning_rate={found.suggestion:.2g}"
    # --run named the folder of the curve.
    command = same_command(context, "--set", rate, without=("--run",), flags=("--find-lr",))
    output.print_next(command, "trains with it")
