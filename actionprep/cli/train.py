"""The `actiontrain` command: every sub-command parses, calls the public functions of training, and prints."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from actionprep.cli import train_runs
from actionprep.cli.options import WORDS, DebugOption, JsonOption, ManyValuesCommand, PlainGroup, StudyOption, guarded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actionprep.datasets.store import Store
    from actionprep.training.recipes import TrainSettings

WORK, KNOW = "Train and use", "Know what there is"

app = typer.Typer(
    cls=PlainGroup,
    help="Train action classifiers on a store that actionprep built.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Start with [bold]actiontrain fit[/] in a study folder that has tracks and snippets.",
)


class FitCommand(ManyValuesCommand):
    """`fit`, whose groups may be called subjects; a second long name would cut all names of the help at 80 columns."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the options' own names in, then parse as usual."""
        end = args.index("--") if "--" in args else len(args)
        renamed = [re.sub(r"^--(train|val|test)-subjects(?=$|=)", r"--\1-groups", word) for word in args[:end]]
        return super().parse_args(ctx, [*renamed, *args[end:]])


Text = Optional[str]  # noqa: UP045 - typer reads this form in every version that we allow
Texts = Optional[list[str]]  # noqa: UP045
Number = Optional[int]  # noqa: UP045

SetOption = Annotated[
    Texts, typer.Option("--set", help="Settings of the recipe as name=value: --set epochs=30 input.rotation=0.3.")
]
DeviceOption = Annotated[Text, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
CarryOption = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--carry/--no-carry", help="Carry the model's state from window to window. (default: as the recipe)"),
]
ThreadsOption = Annotated[Number, typer.Option("--threads", help="CPU threads of the computation.", min=1)]


@app.command(rich_help_panel=WORK, cls=FitCommand)
@guarded
def fit(
    context: typer.Context,
    store: Annotated[Optional[Path], typer.Argument(help="A store; the study's when left out.")] = None,  # noqa: UP045
    recipe: Annotated[Text, typer.Option(help="Name of a recipe or path of one in TOML. (default: what suits)")] = None,
    run: Annotated[Text, typer.Option("--run", help="Name of the run's folder. (default: recipe and time)")] = None,
    snippets: Annotated[Text, typer.Option(help="Which table of snippets: snippets/<name>.")] = None,
    views: Annotated[Texts, typer.Option(help="Views to train on, by name or index: --views 0 1 3 6.")] = None,
    by: Annotated[
        Text, typer.Option(help="What no two parts share: auto, subject, session, recording, column.")
    ] = None,
    val: Annotated[Optional[float], typer.Option(help="Share of the snippets for val.", min=0, max=0.9)] = None,  # noqa: UP045
    test_share: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--test", help="Share of the snippets for test.", min=0, max=0.9),
    ] = None,
    train_groups: Annotated[
        Texts, typer.Option("--train-groups", help="Subjects (sessions, recordings) for train; or --train-subjects.")
    ] = None,
    val_groups: Annotated[Texts, typer.Option("--val-groups", help="Those for val; or --val-subjects.")] = None,
    test_groups: Annotated[Texts, typer.Option("--test-groups", help="Those for test; or --test-subjects.")] = None,
    split: Annotated[Text, typer.Option(help="Use this stored split: split/<name>.")] = None,
    allow_single: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--allow-single/--no-allow-single", help="Accept classes with a single sample."),
    ] = None,
    folds: Annotated[
        Text, typer.Option(help="Cross-validate, leaving out one subject, session or recording at a time.")
    ] = None,
    num_folds: Annotated[
        Number, typer.Option(help="With --folds: so many folds instead of one a group.", min=2)
    ] = None,
    weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Start from these weights: a published checkpoint, or best.ckpt of another run."),
    ] = None,
    epochs: Annotated[Number, typer.Option(help="Passes over the training snippets.", min=1)] = None,
    seed: Annotated[Number, typer.Option(help="Seed of the split and of the training.", min=0)] = None,
    changes: SetOption = None,
    device: DeviceOption = None,
    devices: Annotated[int, typer.Option(help="Processes of one training on this machine.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Machines of one training.", min=1)] = 1,
    threads: ThreadsOption = None,
    wandb: Annotated[Optional[bool], typer.Option("--wandb/--no-wandb", help="Log to Weights & Biases too.")] = None,  # noqa: UP045
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Only find which learning rate suits: a curve and a suggestion, no run.")
    ] = False,
    overfit: Annotated[
        bool, typer.Option("--overfit", help="Only check that the model can learn one batch by heart, no run.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run of that name, or with the last one.")
    ] = False,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train the recipe that suits what the store holds, on a checked split."""
    from actionprep.cli import output
    from actionprep.settings import COMMAND_LINE
    from actionprep.training.fit import Terminated, fit_folds, parts_of_run
    from actionprep.training.fit import fit as train
    from actionprep.training.run import Run
    from actionprep.training.weights import starting_weights

    where = _Place.find(store, study)
    settings = where.settings.with_changes(
        {
            "recipe": recipe, "snippets": snippets, "split": split, "by": by, "val": val, "test": test_share, "seed": seed,
            "device": device, "threads": threads, "wandb": wandb, "allow_single": allow_single,
            **{name: tuple(given) if given else None for name, given in
               (("views", views), ("train_groups", train_groups), ("val_groups", val_groups), ("test_groups", test_groups))},
        },
        where=COMMAND_LINE,
    )  # fmt: skip
    given = _changes(changes)
    if epochs is not None:
        given["epochs"] = epochs
    tell = (lambda _: None) if json else output.note
    choice = split_of(settings)
    asked: dict[str, Any] = {"snippets": settings.snippets, "split": choice, "views": settings.views or None}
    if find_lr or overfit:
        _check_first(context, where, settings, given, choice, weights, overfit=overfit, run=run, tell=tell, json=json)
        return
    _check_name(run, devices * nodes)
    begun = where.begun(run, folds=folds is not None) if resume else None
    if begun is not None and folds is None and (begun / "run.json").exists():
        # What the command line does not name stays as the run began, whatever the study's file says by now.
        chosen = _recipe_of(begun, recipe, {**_changes(changes), **_given(epochs=epochs, seed=seed)})
        about_split = any(one is not None for one in (by, val, test_share, split, allow_single)) or any(
            (train_groups, val_groups, test_groups)
        )
        asked = {"snippets": snippets, "views": tuple(views) if views else None}
        if about_split:
            asked["split"] = parts_of_run(begun, where.store, choice)
        model_name = Run.open(begun).recipe.model
    else:
        chosen = _recipe(where.store, settings, given, tell)
        model_name = chosen.model
    options: dict[str, Any] = {
        **asked,
        "device": settings.device,
        "devices": devices,
        "num_nodes": nodes,
        "threads": settings.threads,
        "wandb": settings.wandb,
        "weights": None
        if weights is None
        else starting_weights(weights, model_name=model_name, tell=tell, labels=lambda: _labels(where, asked, begun)),
        "resume": resume,
        "tell": tell,
    }
    named = begun if begun is not None else None if run is None else where.runs / run
    kind = getattr(chosen, "name", "run")
    with _new_folder(where.runs, kind, named) as folder:
        try:
            with _epochs(quiet=json) as on_epoch:
                if folds is not None:
                    found = fit_folds(
                        where.store,
                        chosen,
                        folder,
                        by=group_of(folds),
                        num_folds=num_folds,
                        on_epoch=on_epoch,
                        **options,
                    )
                else:
                    made = train(where.store, chosen, folder, on_epoch=on_epoch, **options)
        except KeyboardInterrupt as error:
            _say_how_to_go_on(context, folder, where.runs)
            raise typer.Exit(143 if isinstance(error, Terminated) else 130) from None
    if folds is not None:
        document = {"run": str(found.folder), "folds": list(found.rows), "summary": found.summary}
        if json:
            output.print_json(document)
            return
        _print_folds(found.rows, found.summary)
        return
    if json:
        output.print_json({"run": str(made.folder), **made.facts, "metrics": made.metrics})
        return
    output.note(f"Report {made.report}")
    output.print_next("actiontrain test", "tests it once on the part that it has not seen")


@app.command("test", rich_help_panel=WORK, cls=ManyValuesCommand)
@guarded
def score(
    run: Annotated[Text, typer.Argument(help="Run, by name or folder; the last one when left out.")] = None,
    store: Annotated[Optional[Path], typer.Option("--store", help="Another store than the run was trained on.")] = None,  # noqa: UP045
    part: Annotated[str, typer.Option(help="Part of the split: test, val or train.")] = "test",
    carry: CarryOption = None,
    device: DeviceOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Test a run once, deterministically, and write its predictions, tables and report."""
    from actionprep.cli import output
    from actionprep.training.test import run_test

    if run is not None and (_run_folder(run, study) / "fusion.json").is_file():
        _show_fusion(_run_folder(run, study), part=part, store=store, json=json)
        return
    found = _run(run, study)
    before = found.tested if part == "test" else None
    tested = run_test(found, store, part=_part(part), carry=carry, device=device or "auto")
    if json:
        output.print_json({"run": str(found.folder), **tested})
        return
    _print_test(tested)
    if before is not None:
        output.warn(
            f"This run was tested already, {before['when']}. A test part is there to be looked at once: choose recipes and "
            "settings on val, or the figure flatters."
        )
    output.note(f"Report {found.report}")
    output.print_next("actiontrain predict VIDEO …", "labels new recordings with this run")


@app.command(rich_help_panel=WORK, cls=ManyValuesCommand)
@guarded
def fuse(
    runs: Annotated[list[str], typer.Argument(help="Two runs or more, or cross-validations, by name or folder.")],
    out: Annotated[Text, typer.Option("--out", "-o", help="Name of the folder. (default: fusion and time)")] = None,
    weights: Annotated[
        Texts, typer.Option(help="val: chosen on val; equal; or one number a run. (default: val)")
    ] = None,
    device: DeviceOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Average the probabilities of several runs on the same snippets and split, whatever they read."""
    from actionprep.cli import output
    from actionprep.training.fusion import fold_names, fuse_folds
    from actionprep.training.fusion import fuse as fuse_runs

    places = [_run_folder(one, study) for one in runs]
    beside = places[0].parent
    tell = (lambda _: None) if json else output.note
    weighting = _weighting(weights or ["val"])
    named = None if out is None else beside / out
    if all(fold_names(place) for place in places):
        with _new_folder(beside, "fusion", named) as folder:
            document = fuse_folds(places, folder, weights=weighting, device=device or "auto", tell=tell)
        if json:
            output.print_json({"run": str(folder), **document})
            return
        _print_folds(document["folds"], document["summary"])
        return
    with _new_folder(beside, "fusion", named) as folder:
        made = fuse_runs(places, folder, weights=weighting, device=device or "auto", tell=tell)
    if json:
        output.print_json({"run": str(folder), "weights": made.weights, **made.tested})
        return
    _print_test(made.tested)
    output.note(f"Wrote {made.folder}")
    output.note(f"Report {made.folder / 'report.html'}")


@app.command(rich_help_panel=WORK, cls=ManyValuesCommand)
@guarded
def predict(
    videos: Annotated[
        Texts,
        typer.Argument(
            help="Videos of one recording, in the order of the run's views, or view=path; or folders of such. For a run of "
            "one view each video is a recording."
        ),
    ] = None,
    live: Annotated[
        Text,
        typer.Option(
            "--live", help="Instead: a camera's number or device, a stream's address, or a video as it comes."
        ),
    ] = None,
    seconds: Annotated[Optional[float], typer.Option(help="With --live: end after so long.", min=0)] = None,  # noqa: UP045
    run: Annotated[
        Text, typer.Option("--run", help="Run or fusion, by name or folder; the last run when left out.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the timeline.")] = Path("prediction"),
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write a film with the labels.")] = False,
    length: Annotated[Optional[float], typer.Option(help="Window in ms. (default: as trained)", min=1)] = None,  # noqa: UP045
    threshold: Annotated[
        float,
        typer.Option(help="Least probability of a label to be said; with several labels at least 0.5.", min=0, max=1),
    ] = 0.0,
    min_length: Annotated[float, typer.Option(help="Shorter segments, in ms, are left out.", min=0)] = 0.0,
    stride: Annotated[
        float | None, typer.Option(help="From window to window in ms. (default: a quarter)", min=1)
    ] = None,
    offset: Annotated[
        Texts, typer.Option("--offset", help="Seconds to add to a view's clock, as view=seconds. (default: as trained)")
    ] = None,
    tolerance: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Frames of one instant lie this close, in s. (default: as trained)", min=0),
    ] = None,
    carry: CarryOption = None,
    device: DeviceOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """From raw videos to a labelled timeline (csv and picture) of each recording, or live from a camera or stream."""
    from actionprep.api import group_videos, predict_videos
    from actionprep.cli import output
    from actionprep.errors import UserError

    if bool(videos) == (live is not None):
        raise UserError("Give videos of one recording, or --live with a camera, a stream or a video: one of the two.")
    if live is not None:
        _predict_live(_run(run, study).folder, live, length, stride, seconds, device or "auto", json=json)
        return
    assert videos is not None
    folder = _last_run(runs_folder(study)) if run is None else _run_folder(run, study)
    recordings = group_videos(folder, videos)
    documents = []
    for name, paths in recordings.items():
        found = predict_videos(
            folder,
            paths,
            recording=name,
            out=out / name if len(recordings) > 1 else out,
            overlay=overlay,
            length_ms=length,
            stride_ms=stride,
            threshold=threshold,
            min_length_ms=min_length,
            offsets=_offsets(offset or []),
            tolerance=tolerance,
            carry=carry,
            device=device or "auto",
        )
        documents.append(found.document())
        if json:
            continue
        rows = [(f"{one.onset:.2f}", f"{one.offset:.2f}", one.label, f"{score:.2f}") for one, score in found.segments]
        output.print_table(f"Timeline of {name}", ("onset", "offset", "label", "probability"), rows)
        if found.unseen:
            output.warn(f"Nothing moves before view {', '.join(found.unseen)}: it took no part, as in training.")
        for path in found.files:
            output.note(f"Wrote {path}")
    if json:
        output.print_json(documents[0] if len(documents) == 1 else documents)


for _command in (train_runs.compare, train_runs.sweep, train_runs.export, train_runs.slurm):
    app.command(rich_help_panel=WORK, cls=ManyValuesCommand)(_command)


@app.command(rich_help_panel=KNOW, cls=ManyValuesCommand)
@guarded
def models(json: JsonOption = False, debug: DebugOption = False) -> None:
    """List every model with what it reads, its size and its source."""
    from actionprep.cli import output
    from actionprep.training.models.registry import MODELS, load_model_files, model_size

    load_model_files()
    sizes = {name: model_size(name) for name in MODELS}
    if json:
        output.print_json(
            [
                {
                    "name": name,
                    "product": card.product,
                    "input_shape": card.shape_text,
                    "num_classes": card.num_classes,
                    "parameters": sizes[name].parameters,
                    "flops": sizes[name].flops,
                    "source": card.source,
                    "faults_fixed": list(card.faults_fixed),
                }
                for name, card in MODELS.items()
            ]
        )
        return
    output.print_table(
        "Models",
        ("name", "product", "input", "parameters", "GFLOPs", "source"),
        [
            (
                name,
                card.product,
                card.shape_text,
                f"{sizes[name].parameters:,}",
                f"{sizes[name].flops / 1e9:,.1f}",
                card.source,
            )
            for name, card in MODELS.items()
        ],
    )


@app.command(rich_help_panel=KNOW, cls=ManyValuesCommand)
@guarded
def recipes(
    name: Annotated[
        Text, typer.Argument(help="Print this recipe as TOML, ready to change and give to --recipe.")
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the recipes, or print one."""
    from actionprep.cli import output
    from actionprep.training.recipes import find_recipe, recipe_names

    if name is not None:
        recipe = find_recipe(name)
        if json:
            output.print_json(recipe.to_tables())
        else:
            print(recipe.to_toml(), end="")
        return
    found = [find_recipe(one) for one in recipe_names()]
    if json:
        output.print_json(
            [{"name": one.name, "model": one.model, "product": one.product, "doc": one.doc} for one in found]
        )
    else:
        output.print_table("Recipes", ("name", "product", "what"), [(one.name, one.product, one.doc) for one in found])


class _Place:
    """The store to train on, with the settings and the folder of runs that belong to it."""

    def __init__(self, store: Store, settings: TrainSettings, runs: Path) -> None:
        self.store, self.settings, self.runs = store, settings, runs

    @classmethod
    def find(cls, store: Path | None, study: Path | None) -> _Place:
        from actionprep.api import open_study
        from actionprep.datasets.store import Store
        from actionprep.training.recipes import TrainSettings

        if store is not None and study is None:
            # A store without a study: the runs go beside the shell.
            return cls(Store(store), TrainSettings(), Path("runs"))
        opened = open_study(study)
        settings = opened.folder.settings_for("train", TrainSettings)
        return cls(opened.store if store is None else Store(store), settings, opened.folder.runs)

    def begun(self, run: str | None, *, folds: bool) -> Path:
        """The folder of the run to go on with, which may not be there yet when it is named."""
        return self.runs / run if run is not None else _last_run(self.runs, folds=folds)


def split_of(settings: TrainSettings) -> Any:
    """The split that the settings ask for."""
    from actionprep.training.parts import SplitChoice

    return SplitChoice(
        by=settings.by,
        val_share=settings.val,
        test_share=settings.test,
        train=settings.train_groups,
        val=settings.val_groups,
        test=settings.test_groups,
        stored=settings.split,
        allow_single=settings.allow_single,
        seed=settings.seed,
    )


_CHANGES = "the changes to the recipe (--set, or changes under [train])"


def _recipe(store: Store, settings: TrainSettings, changes: dict[str, Any], tell: Any) -> Any:
    """The recipe that is asked for, with the study's changes as far as it has such settings, and those asked for now."""
    from actionprep.training.recipes import choose_recipe, find_recipe, suited

    if settings.recipe == "auto":
        choice = choose_recipe(store)
        chosen, why = choice.recipe, f"chosen because {choice.why}"
    else:
        chosen, why = find_recipe(settings.recipe), "as asked for"
    tell(f"Recipe {chosen.name}: {why}")
    of_study, others = suited(chosen, settings.changes)
    if others:
        tell(f"Of the study's changes these are for other recipes: {', '.join(others)}")
    return chosen.changed({"seed": settings.seed, **of_study, **changes}, where=_CHANGES)


def _recipe_of(run: Path, name: str | None, changes: dict[str, Any]) -> Any:
    """The recipe to hold against that of a run which goes on; "auto" where nothing was said of it."""
    from actionprep.training.recipes import find_recipe
    from actionprep.training.run import FACTS, Run

    if not (run / FACTS).exists() or (name is not None and name != Run.open(run).recipe.name):
        return "auto" if name is None else find_recipe(name).changed(changes, where=_CHANGES)
    begun = Run.open(run).recipe
    # Epochs that were asked for take min_steps with them, and so they did when the run began.
    return begun.changed({"min_steps": begun.min_steps, **changes}, where=_CHANGES) if changes else "auto"


def _check_name(run: str | None, processes: int) -> None:
    """Processes that torchrun or srun started each name the run by their own clock."""
    import os

    from actionprep.errors import UserError

    started = "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1
    if run is None and processes > 1 and started:
        raise UserError(
            "Several processes of one training need one folder: name the run with --run. 'actiontrain slurm' writes a "
            "job script that does."
        )


def _check_first(
    context: typer.Context,
    where: _Place,
    settings: TrainSettings,
    changes: dict[str, Any],
    choice: Any,
    weights: Path | None,
    *,
    overfit: bool,
    run: str | None,
    tell: Any,
    json: bool,
) -> None:
    """`fit --find-lr` and `fit --overfit`: look before training."""
    from actionprep.cli import output
    from actionprep.training.checks import find_learning_rate, overfit_one_batch
    from actionprep.training.weights import starting_weights

    recipe = _recipe(where.store, settings, changes, tell)
    train_runs._use_threads(settings.threads)
    options: dict[str, Any] = {
        "snippets": settings.snippets, "split": choice, "views": settings.views or None, "device": settings.device,
        "weights": None if weights is None else starting_weights(
            weights, model_name=recipe.model, tell=tell, labels=lambda: _labels(where, {"snippets": settings.snippets}, None)
        ),
    }  # fmt: skip
    if overfit:
        one = overfit_one_batch(where.store, recipe, **options)
        document = {
            "learnt": one.learnt, "accuracy": one.accuracy, "steps": len(one.losses), "samples": one.samples,
            "first_loss": float(one.losses[0]), "last_loss": float(one.losses[-1]),
        }  # fmt: skip
        if json:
            output.print_json(document)
        else:
            output.print_table(
                "One batch", ("figure", "value"), [(k.replace("_", " "), _shown(v)) for k, v in document.items()]
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
        return
    found = find_learning_rate(where.store, recipe, **options)
    paths = found.write(where.runs / (run or f"{recipe.name}-learning-rate"))
    if json:
        output.print_json(
            {"suggestion": found.suggestion, "highest": found.highest, "rates": found.rates.tolist(),
             "losses": found.losses.tolist(), "files": [str(path) for path in paths]}
        )  # fmt: skip
        return
    output.note(f"The loss falls fastest at {found.suggestion:.2g}, and no longer from {found.highest:.2g}.")
    if found.repeats > 1:
        output.note(f"Few snippets: the curve is the mean of {found.repeats} searches.")
    for path in paths:
        output.note(f"Wrote {path}")
    rate = f"optimizer.learning_rate={found.suggestion:.2g}"
    # --run named the folder of the curve.
    command = same_command(context, "--set", rate, without=("--run",), flags=("--find-lr",))
    output.print_next(command, "trains with it")


def _say_how_to_go_on(context: typer.Context, folder: Path, runs: Path) -> None:
    """What a training that was stopped has kept, and the command that goes on with it."""
    from actionprep.cli import output
    from actionprep.training.fit import is_first_process

    if not is_first_process():
        return
    if not any(folder.rglob("run.json")):
        output.warn("Stopped before the training began: nothing was kept.")
        return
    name = str(folder.relative_to(runs)) if folder.is_relative_to(runs) else str(folder)
    command = same_command(context, "--run", name, "--resume", without=("--run",), flags=("--resume",))
    output.warn(f"Stopped. What was finished is whole. Go on with:\n  {command}")


def same_command(context: typer.Context, *more: str, without: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> str:
    """The command line that this is, for a shell, with more words; without some options and their values, and flags."""
    import shlex

    words: list[str] = []
    given = iter(context.meta.get(WORDS, ()))
    for word in given:
        if word in without:
            next(given, None)
        elif word not in flags and word.partition("=")[0] not in without:
            words.append(word)
    return shlex.join([*context.command_path.split(), *words, *more])


def _labels(where: _Place, asked: dict[str, Any], begun: Path | None) -> tuple[str, ...]:
    """The classes of a training: those of the snippets that are asked for, else of the run that goes on."""
    from actionprep.training.datasets import read_table
    from actionprep.training.run import Run

    if asked["snippets"] is None and begun is not None:
        return Run.open(begun).labels
    return read_table(where.store, asked["snippets"] or "default").labels


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _changes(given: list[str] | None) -> dict[str, Any]:
    """`["epochs=30", "input.rotation=0.3"]` → plain values; what is no TOML value is taken as text."""
    import tomllib

    from actionprep.errors import UserError

    found: dict[str, Any] = {}
    for one in given or []:
        name, equals, value = one.partition("=")
        if not equals:
            raise UserError(f"--set takes name=value, such as epochs=30; got {one!r}.")
        try:
            found[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[name] = value
    return found


def group_of(name: str) -> Any:
    """What --folds names, checked."""
    from actionprep.errors import UserError, nearest

    known = ("subject", "session", "recording")
    if name not in known:
        raise UserError(f"--folds takes {', '.join(known)}; got {name!r}.{nearest(name, known)}")
    return name


def _part(name: str) -> Any:
    from actionprep.errors import UserError, nearest

    known = ("test", "val", "train")
    if name not in known:
        raise UserError(f"--part takes {', '.join(known)}; got {name!r}.{nearest(name, known)}")
    return name


def _run(name: str | None, study: Path | None) -> Any:
    from actionprep.training.run import Run

    if name is not None and Path(name).is_dir():
        return Run.open(name)
    runs = runs_folder(study)
    return Run.open(_last_run(runs) if name is None else runs / name)


def runs_folder(study: Path | None) -> Path:
    """The folder of runs of the study, or runs here, where stores without a study were trained on."""
    from actionprep.api import open_study
    from actionprep.errors import UserError

    try:
        return open_study(study).folder.runs
    except UserError:
        if study is not None or not Path("runs").is_dir():
            raise
        return Path("runs")


def _predict_live(
    run: Path,
    source: str,
    length: float | None,
    stride: float | None,
    seconds: float | None,
    device: str,
    *,
    json: bool,
) -> None:
    from actionprep.cli import output
    from actionprep.live import predict_live

    def say(one: Any) -> None:
        print(
            f"{one.onset:8.2f} to {one.offset:8.2f} s  {one.label:<20} {one.probabilities.max():.2f}  latency "
            f"{one.latency_s * 1000:.0f} ms, {one.behind_s:.2f} s behind the newest frame",
            flush=True,
        )

    found = predict_live(
        run,
        source,
        length_s=None if length is None else length / 1000,
        stride_s=None if stride is None else stride / 1000,
        seconds=seconds,
        device=device,
        on_prediction=(lambda _: None) if json else say,
    )
    if json:
        output.print_json(found.document())
        return
    rate = found.num_frames / found.seconds if found.seconds else float("nan")
    output.note(
        f"{len(found.predictions)} answers from {found.num_frames} frames, {rate:.1f} frames/s, {found.num_dropped} left "
        f"out to keep up; latency {found.latency(0.5) * 1000:.0f} ms (median), {found.latency(0.95) * 1000:.0f} ms (95 %)."
    )


def _show_fusion(folder: Path, *, part: str, store: Path | None, json: bool) -> None:
    """`test` of fused runs: they were tested when they were fused."""
    from actionprep.cli import output
    from actionprep.errors import UserError
    from actionprep.training.fusion import run_tested
    from actionprep.training.run import Run

    if part != "test" or store is not None:
        raise UserError(
            f"{folder} is a fusion, and fusions are tested on the test part of their runs' store. Test its runs one by one "
            "for another part or store."
        )
    tested = run_tested(Run(folder))
    if json:
        output.print_json({"run": str(folder), **tested})
        return
    _print_test(tested)
    output.note(
        f"{folder} is a fusion: it was tested when it was made, {tested['when']}, and these are its figures. Fuse anew with "
        "'actiontrain fuse' when its runs have changed."
    )


def _run_folder(name: str, study: Path | None) -> Path:
    """The folder of a run, or of a cross-validation, by its path or its name in the study."""
    return Path(name) if Path(name).is_dir() else runs_folder(study) / name


def _offsets(given: list[str]) -> dict[str, float]:
    from actionprep.errors import UserError

    found = {}
    for one in given:
        view, _, seconds = one.rpartition("=")
        try:
            found[view] = float(seconds)
        except ValueError:
            view = ""
        if not view:
            raise UserError(f"--offset takes view=seconds, such as --offset 6=0.12; got '{one}'.")
    return found


def _weighting(given: list[str]) -> Any:
    from actionprep.errors import UserError

    if given in (["val"], ["equal"]):
        return given[0]
    try:
        return tuple(float(one) for one in given)
    except ValueError:
        raise UserError(f"--weights takes val, equal, or one number a run; got {' '.join(given)}.") from None


def _last_run(runs: Path, *, folds: bool = False) -> Path:
    from actionprep.errors import UserError

    found = sorted((path.stat().st_mtime, path) for path in runs.glob("*/fold-*/run.json" if folds else "*/run.json"))
    if not found:
        raise UserError(
            f"No {'cross-validation' if folds else 'runs'} in {runs}. Train one with 'actiontrain "
            f"fit{' --folds subject' if folds else ''}'."
        )
    return found[-1][1].parents[1] if folds else found[-1][1].parent


def _new_folder(runs: Path, kind: str, named: Path | None) -> AbstractContextManager[Path]:
    """The folder that was named, or one of this kind and time which nobody else has."""
    import time

    from actionprep.training.fit import is_first_process
    from actionprep.training.run import claimed_folder

    if named is not None:
        return nullcontext(named)
    stamped = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    # The other processes of a training take the folder of the first.
    return claimed_folder(runs, stamped) if is_first_process() else nullcontext(runs / stamped)


def _epochs(*, quiet: bool) -> Any:
    """A context that gives a function for each epoch's figures, shown on one live line."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    from actionprep.cli import output

    @contextmanager
    def show() -> Any:
        bar = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", style="cyan", table_column=Column(no_wrap=True)),
            console=output.error_console,
            disable=quiet,
        )
        tasks: dict[Any, Any] = {}
        known: dict[str, float] = {}

        def on_epoch(report: Any) -> None:
            bar.start()  # not before, or an error of the beginning would stand below an empty line
            if report.phase not in tasks or report.epoch == 0:
                tasks[report.phase] = bar.add_task(report.phase, total=report.num_epochs, figures="")
                known.clear()
            known.update(report.figures)  # validation's stay until the next one
            taken = len(report.phase) + 20 + 2 * len(str(report.num_epochs)) + 1 + 7 + 4
            figures = progress_figures(known, output.error_console.width - taken)
            bar.update(tasks[report.phase], completed=report.epoch + 1, figures=figures)

        try:
            yield on_epoch
        finally:
            if tasks:
                bar.stop()

    return show()


def progress_figures(figures: Mapping[str, float], room: int) -> str:
    """Loss and accuracy in val, as far as they are known and fit into so many characters."""
    shown = ""
    for name, called in (("train_loss", "loss"), ("val_accuracy", "val accuracy")):
        if name in figures:
            longer = f"{shown}  {called} {figures[name]:.3f}".strip()
            shown = longer if len(longer) <= room else shown
    return shown


def _print_test(tested: dict[str, Any]) -> None:
    from actionprep.cli import output
    from actionprep.training.metrics import figure_name

    intervals = tested["intervals"]
    rows = []
    for name, value in tested["figures"].items():
        one = intervals.get(name)
        rows.append((figure_name(name), _shown(value), _between(one)))
    title = f"Test on {tested['num_samples']} snippets of {tested['num_recordings']} recordings"
    output.print_table(title, ("figure", "value", "95 % interval"), rows)
    for sentence in _mended(tested):
        output.note(sentence)
    frames = tested.get("frames")
    if frames:
        rows = [
            (name.replace("_", " "), _shown(value), "{low:.3f} to {high:.3f}".format(**frames["intervals"][name]))
            for name, value in frames["figures"].items()
        ]
        output.print_table(f"And on their {frames['num_frames']} frames", ("figure", "value", "95 % interval"), rows)
    for name in ("classes", "subjects", "sessions", "views"):
        if tested.get(name):
            columns = list(tested[name][0])
            output.print_table(name.capitalize(), [figure_name(column) for column in columns],
                               [[_shown(row.get(column)) for column in columns] for row in tested[name]])  # fmt: skip


def _print_folds(folds: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """A row a fold, and the figures over all of their test snippets."""
    from actionprep.cli import output
    from actionprep.training.metrics import figure_name

    columns = list(folds[0])
    rows = [[_shown(row.get(name)) for name in columns] for row in folds]
    output.print_table("Folds", [figure_name(name) for name in columns], rows)
    over, accuracy = summary["over_folds"], summary["accuracy"]
    figures = {"accuracy": (accuracy["value"], _between(accuracy)), "macro_f1": (summary["macro_f1"], "")}
    output.print_table(
        f"Together, on {summary['num_samples']} snippets",
        ("figure", "value", "95 % interval", "mean of the folds", "their spread"),
        [
            (figure_name(name), _shown(value), between, _shown(over[name]["mean"]), _shown(over[name]["std"]))
            for name, (value, between) in figures.items()
        ],
    )


def _mended(tested: dict[str, Any]) -> list[str]:
    """What validation snippets mend of the probabilities, in sentences."""
    found = []
    calibration = tested.get("calibration") or {}
    if "from" in calibration:
        found.append(
            f"Temperature {calibration['temperature']:.2f}, of {calibration['from']}: with it the calibration error is "
            f"{calibration['scaled_error']:.3f}, not {calibration['error']:.3f}."
        )
    if "figures_at_thresholds" in tested:
        at_half, at_own = (tested[name]["macro_f1"] for name in ("figures", "figures_at_thresholds"))
        found.append(
            f"With the threshold that val gives each label (test.json lists them) macro F1 is {at_own:.3f}, not "
            f"{at_half:.3f}."
        )
    return found


def _between(interval: dict[str, float | None] | None) -> str:
    """The bounds of a figure; nothing where it has none, "–" where the test cannot tell them."""
    if interval is None:
        return ""
    low, high = (_shown(float("nan") if interval[end] is None else interval[end]) for end in ("low", "high"))
    return f"{low} to {high}" if "–" not in (low, high) else "–"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value == value else "–"
    if isinstance(value, (list, tuple)):
        return " to ".join(_shown(one) for one in value)
    return "" if value is None else str(value)
