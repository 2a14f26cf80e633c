"""Command `actiontrain fit`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import (
    DebugOption,
    JsonOption,
    Number,
    Real,
    StudyOption,
    Text,
    Texts,
    Where,
    YesNo,
    with_study,
)
from actionprep.cli.program import ManyValuesCommand, same_command
from actionprep.cli.train.checks import learn_one_batch, suggest_learning_rate
from actionprep.cli.train.choices import ask_how_to_split, labels_of, recipe_of, recipe_of_run, split_of
from actionprep.cli.train.folders import Place, new_folder
from actionprep.cli.train.options import (
    DeviceOption,
    FoldsOption,
    NumFoldsOption,
    SetOption,
    StoreArgument,
    ThreadsOption,
    changes_of,
    given_of,
    group_of,
    use_threads,
)
from actionprep.cli.train.print_metrics import note_folds, print_folds
from actionprep.cli.train.progress import progress_of_epochs


class FitCommand(ManyValuesCommand):
    """`fit` with --train-subjects for --train-groups. A second option name would not fit into the help at 80 columns."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Replace the alternative names of options, then parse."""
        end = args.index("--") if "--" in args else len(args)
        renamed = [re.sub(r"^--(train|val|test)-subjects(?=$|=)", r"--\1-groups", word) for word in args[:end]]
        return super().parse_args(ctx, [*renamed, *args[end:]])


def fit(
    context: typer.Context,
    store: StoreArgument = None,
    recipe: Annotated[Text, typer.Option(help="Name or TOML file of a recipe. (default: chosen for the store)")] = None,
    run: Annotated[Text, typer.Option("--run", help="Name of the run's folder. (default: recipe and time)")] = None,
    snippets: Annotated[Text, typer.Option(help="Table of snippets: snippets/<name>.")] = None,
    views: Annotated[Texts, typer.Option(help="Views to train on, by name or number: --views 0 1 3 6.")] = None,
    by: Annotated[
        Text, typer.Option(help="Split unit, which no two parts share: auto, subject, session, recording, column.")
    ] = None,
    val: Annotated[Real, typer.Option(help="Share of the snippets for val.", min=0, max=0.9)] = None,
    test_share: Annotated[Real, typer.Option("--test", help="Share of the snippets for test.", min=0, max=0.9)] = None,
    train_groups: Annotated[
        Texts, typer.Option("--train-groups", help="Subjects (sessions, recordings) for train; or --train-subjects.")
    ] = None,
    val_groups: Annotated[Texts, typer.Option("--val-groups", help="Groups for val; or --val-subjects.")] = None,
    test_groups: Annotated[Texts, typer.Option("--test-groups", help="Groups for test; or --test-subjects.")] = None,
    split: Annotated[Text, typer.Option(help="Use this stored split: split/<name>.")] = None,
    allow_single: Annotated[
        YesNo, typer.Option("--allow-single/--no-allow-single", help="Accept classes with a single sample.")
    ] = None,
    folds: FoldsOption = None,
    num_folds: NumFoldsOption = None,
    final: Annotated[
        bool, typer.Option("--final", help="With --folds: also train a model on the recordings of all folds.")
    ] = False,
    weights: Annotated[
        Where, typer.Option(help="Start from these weights: a published checkpoint, or best.ckpt of another run.")
    ] = None,
    epochs: Annotated[Number, typer.Option(help="Passes over the training snippets.", min=1)] = None,
    seed: Annotated[Number, typer.Option(help="Seed of the split and of the training.", min=0)] = None,
    stop_below: Annotated[
        Real, typer.Option("--stop-below", help="Stop after the first epoch with a lower validation loss.", min=0)
    ] = None,
    keep_epochs: Annotated[
        bool, typer.Option("--keep-epochs", help="Keep the checkpoint of each epoch, for 'actiontrain test --epochs'.")
    ] = False,
    changes: SetOption = None,
    device: DeviceOption = None,
    devices: Annotated[int, typer.Option(help="Processes of one training on this machine.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Machines of one training.", min=1)] = 1,
    threads: ThreadsOption = None,
    wandb: Annotated[YesNo, typer.Option("--wandb/--no-wandb", help="Log to Weights & Biases too.")] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Only run a learning-rate range test: a curve and a suggestion, no run.")
    ] = False,
    overfit: Annotated[
        bool, typer.Option("--overfit", help="Only check that the model can overfit one batch, no run.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run of that name, or the last one.")] = False,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a recipe on a store, with a checked split. Without --recipe, one is chosen for the store."""
    from actionprep.errors import UserError, nearest
    from actionprep.settings import COMMAND_LINE
    from actionprep.training.experiments.folds import fit_folds
    from actionprep.training.fit import fit as train
    from actionprep.training.loop.processes import is_first_process
    from actionprep.training.loop.resume import split_of_run
    from actionprep.training.loop.trainer import TerminatedError
    from actionprep.training.run import Run
    from actionprep.training.weights import starting_weights

    if final and folds is None:
        raise UserError("--final requires --folds. Without folds, train on all recordings with --test 0.")
    where = Place.find(store, study)
    given = {
        "recipe": recipe, "snippets": snippets, "split": split, "by": by, "val": val, "test": test_share, "seed": seed,
        "device": device, "threads": threads, "wandb": wandb, "allow_single": allow_single,
        **{name: tuple(values) if values else None for name, values in
           (("views", views), ("train_groups", train_groups), ("val_groups", val_groups), ("test_groups", test_groups))},
    }  # fmt: skip
    settings = where.settings.with_changes(given, where=COMMAND_LINE)
    set_here = {
        **changes_of(changes),
        **given_of(epochs=epochs, stop_below=stop_below, keep_epochs=keep_epochs or None),
    }
    # Other processes of a training run the same command, but print nothing.
    quiet = json or not is_first_process()
    log = (lambda _: None) if quiet else output.note
    choice, not_used = split_of(where.store, where.settings, given, rebuilt_by="--folds" if folds is not None else None)
    asked: dict[str, Any] = {"snippets": settings.snippets, "split": choice, "views": settings.views or None}
    begun: Path | None = None
    if not (find_lr or overfit):
        _check_name(run, devices * nodes)
        begun = where.begun(run, folds=folds is not None) if resume else None
        if begun is not None and not begun.exists():
            # Not an error: a job script must work for a new training and for a resumed one.
            known = [path.name for path in where.runs.glob("*") if path.is_dir()]
            log(f"No run '{run}' yet: starting it.{nearest(str(run), known)}")
    if begun is not None and folds is None and (begun / "run.json").exists():
        # Options that are not given keep the values of the run, even if the settings of the study have changed.
        chosen = recipe_of_run(begun, recipe, {**set_here, **given_of(seed=seed)})
        about_split = any(value is not None for value in (by, val, test_share, split, allow_single)) or any(
            (train_groups, val_groups, test_groups)
        )
        asked = {"snippets": snippets, "views": tuple(views) if views else None}
        if about_split:
            asked["split"] = split_of_run(begun, where.store, choice)
        model_name = Run.open(begun).recipe.model
    else:
        chosen, messages = recipe_of(where.store, settings, set_here)
        for sentence in [*messages, *not_used]:
            log(sentence)
        if folds is None and not quiet:
            asked["split"] = ask_how_to_split(where.store, settings.snippets, choice)
        model_name = chosen.model
    asked["device"] = settings.device
    asked["weights"] = None
    if weights is not None:
        asked["weights"] = starting_weights(
            weights, model_name=model_name, log=log, labels=lambda: labels_of(where.store, asked["snippets"], begun)
        )
    if overfit:
        use_threads(settings.threads)
        learn_one_batch(where.store, chosen, asked, json=json)
        return
    if find_lr:
        use_threads(settings.threads)
        into = where.runs / (run or f"{chosen.name}-learning-rate")
        suggest_learning_rate(context, where.store, chosen, asked, into=into, json=json)
        return
    options: dict[str, Any] = {
        **asked,
        "devices": devices,
        "num_nodes": nodes,
        "threads": settings.threads,
        "wandb": settings.wandb_options,
        "resume": resume,
    }
    named = begun if begun is not None else None if run is None else where.runs / run
    kind = getattr(chosen, "name", "run")
    with new_folder(where.runs, kind, named) as folder:
        try:
            with progress_of_epochs(quiet=quiet) as line:
                options |= {"on_epoch": line.on_epoch, "log": line.log}
                if folds is None:
                    made = train(where.store, chosen, folder, **options)
                else:
                    fold_runs = fit_folds(
                        where.store,
                        chosen,
                        folder,
                        by=group_of(folds),
                        num_folds=num_folds,
                        final=final,
                        **options,
                    )
        except KeyboardInterrupt as error:
            _print_how_to_resume(context, folder, where.runs)
            raise typer.Exit(143 if isinstance(error, TerminatedError) else 130) from None
    if not is_first_process():
        return
    if folds is not None:
        if json:
            output.print_json(
                {"run": str(fold_runs.folder), "folds": list(fold_runs.rows), "summary": fold_runs.summary}
            )
        else:
            print_folds(fold_runs.rows, fold_runs.summary)
            note_folds(fold_runs.folder)
            command = shlex.join(["actiontrain", "compare", str(fold_runs.folder)])
            output.print_next(command, "adds mean average precision, size and speed")
    elif json:
        output.print_json({"run": str(made.folder), **made.facts, "metrics": made.metrics})
    else:
        output.note(f"Report {made.report}")
        if made.facts["split"]["rows"]["test"]:
            output.print_next(with_study("actiontrain test", study), "tests it once on the test part")


def _check_name(run: str | None, processes: int) -> None:
    """Raise UserError if several processes would each name the run by their own clock."""
    import os

    from actionprep.errors import UserError

    started = "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1
    if run is None and processes > 1 and started:
        raise UserError(
            "Several processes of a training need a common folder: name the run with --run. 'actiontrain slurm' writes a "
            "job script that does."
        )


def _print_how_to_resume(context: typer.Context, folder: Path, runs: Path) -> None:
    """Print the command that resumes a stopped training."""
    from actionprep.training.loop.processes import is_first_process

    if not is_first_process():
        return
    if not any(folder.rglob("run.json")):
        output.warn("Stopped before the training started: nothing was written.")
        return
    name = str(folder.relative_to(runs)) if folder.is_relative_to(runs) else str(folder)
    command = same_command(context, "--run", name, "--resume", without=("--run",), flags=("--resume",))
    output.warn(f"Stopped. Finished epochs are saved. Resume with:\n  {command}")
