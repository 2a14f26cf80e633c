"""The commands of `actiontrain` that work on whole runs: compare, sweep, export, slurm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from actionprep.cli.options import DebugOption, JsonOption, StudyOption, guarded

Text = Optional[str]  # noqa: UP045 - typer reads this form in every version that we allow
Texts = Optional[list[str]]  # noqa: UP045
Number = Optional[int]  # noqa: UP045
Folder = Optional[Path]  # noqa: UP045


@guarded
def compare(
    runs: Annotated[
        Texts, typer.Argument(help="Runs, or folders that hold some (folds, a sweep); all of the study when left out.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the table (csv, md, json) and its picture.")
    ] = Path("comparison"),
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Time one model of each row on this machine.")
    ] = True,
    device: Annotated[Text, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = None,
    threads: Annotated[Number, typer.Option("--threads", help="CPU threads of what is timed.", min=1)] = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """One table over tested runs: accuracy, macro F1, size, operations, training time, latency, clips/s; and a picture."""
    from actionprep.cli import output
    from actionprep.cli.train import runs_folder
    from actionprep.training.compare import compare as put_side_by_side

    _use_threads(threads)
    if runs:
        folders = [Path(name) if Path(name).is_dir() else runs_folder(study) / name for name in runs]
    else:
        folders = [runs_folder(study)]
    found = put_side_by_side(folders, measure=measure, device=device or "auto")
    paths = found.write(out)
    if json:
        output.print_json({**found.document(), "files": [str(path) for path in paths]})
        return
    _print_comparison(found)
    for path in paths:
        output.note(f"Wrote {path}")


@guarded
def sweep(
    store: Annotated[Folder, typer.Argument(help="A store; the study's when left out.")] = None,
    recipes: Annotated[Texts, typer.Option("--recipes", help="Recipes to train, by name or path.")] = None,
    grid: Annotated[
        Texts, typer.Option("--grid", help="Settings with values to try: --grid epochs=20,40 input.frames=16,32.")
    ] = None,
    changes: Annotated[Texts, typer.Option("--set", help="Settings that all have, as name=value.")] = None,
    seeds: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option("--seeds", help="Seeds of weights, order and augmentation: --seeds 0 1 2."),
    ] = None,
    folds: Annotated[
        Text, typer.Option(help="Cross-validate, leaving out one subject, session or recording at a time.")
    ] = None,
    num_folds: Annotated[
        Number, typer.Option(help="With --folds: so many folds instead of one a group.", min=2)
    ] = None,
    split: Annotated[Text, typer.Option("--split", help="Use this stored split: split/<name>.")] = None,
    splits: Annotated[
        Texts, typer.Option("--splits", help="Train and test on each of these stored splits: --splits split1 split2.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the sweep's folder; the same again goes on.")] = "sweep",
    jobs: Annotated[int, typer.Option("--jobs", help="Trainings at a time.", min=1)] = 1,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Time one model of each row on this machine.")
    ] = True,
    device: Annotated[Text, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = None,
    threads: Annotated[Number, typer.Option("--threads", help="CPU threads of each training.", min=1)] = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train and test recipes × settings × seeds (× folds or splits) and compare them; what is done is not done again."""
    from actionprep.cli import output
    from actionprep.cli.train import _Place, group_of, split_of
    from actionprep.settings import COMMAND_LINE
    from actionprep.training.recipes import choose_recipe
    from actionprep.training.sweep import sweep as train_all

    _check_parts(folds=folds, split=split, splits=splits)
    where = _Place.find(store, study)
    settings = where.settings.with_changes({"device": device, "threads": threads, "split": split}, where=COMMAND_LINE)
    chosen = recipes or [choose_recipe(where.store).recipe.name if settings.recipe == "auto" else settings.recipe]
    tell = (lambda _: None) if json else output.note
    found = train_all(
        where.store,
        chosen,
        where.runs / name,
        grid=_grid(grid),
        changes=_named(changes),
        of_study=settings.changes,
        seeds=seeds or [settings.seed],
        folds=None if folds is None else group_of(folds),
        num_folds=num_folds,
        splits=splits or (),
        snippets=settings.snippets,
        split=split_of(settings),
        views=settings.views or None,
        device=settings.device,
        jobs=jobs,
        threads=settings.threads,
        measure=measure,
        tell=tell,
    )
    failures = [{"run": str(job.folder), "reason": reason} for job, reason in found.failures]
    if json:
        table = None if found.comparison is None else found.comparison.document()
        output.print_json({"folder": str(found.folder), "comparison": table, "failures": failures})
    else:
        if found.comparison is not None:
            _print_comparison(found.comparison)
            output.note(f"Wrote compare.csv, compare.md, compare.json and compare.png into {found.folder}")
        for one in failures:
            output.warn(f"{one['run']}: {one['reason']}")
    if failures:
        raise typer.Exit(1)


@guarded
def export(
    run: Annotated[Text, typer.Argument(help="Run, by name or folder; the last one when left out.")] = None,
    to: Annotated[str, typer.Option("--to", help="onnx or torch-export.")] = "onnx",
    out: Annotated[Folder, typer.Option("--out", "-o", help="The file. (default: in the run's folder)")] = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a run's model as one file for other programs, checked to give the same logits."""
    from actionprep.cli import output
    from actionprep.cli.train import _run, _run_folder
    from actionprep.errors import UserError
    from actionprep.training.export import export_run
    from actionprep.training.fusion import read_fusion

    fused = None if run is None else read_fusion(_run_folder(run, study))
    if fused is not None:
        raise UserError(
            f"{run} is a fusion, and fusions are not exported: export its runs one by one, {', '.join(map(str, fused[0]))}, "
            "and average their probabilities."
        )
    made = export_run(_run(run, study), to, out=out)  # type: ignore[arg-type]
    if json:
        output.print_json(made.document())
        return
    rows = [(name, " x ".join(map(str, shape))) for name, shape in made.inputs.items()]
    output.print_table("Inputs", ("name", "shape"), rows)
    output.note(f"Logits differ from the model's by {made.difference:.1e} of the largest one at most.")
    output.note(f"Wrote {made.path} and {made.path.with_suffix('.json')}")


@guarded
def slurm(
    words: Annotated[
        Texts, typer.Argument(help="Options of 'actiontrain fit', after two dashes: -- --recipe i3d.")
    ] = None,
    run: Annotated[str, typer.Option("--run", help="Name of the run, and of the job.")] = "slurm-run",
    nodes: Annotated[int, typer.Option("--nodes", help="Machines.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus", help="GPUs, and processes, on each; 0 trains on CPUs.")] = 1,
    cpus: Annotated[int, typer.Option("--cpus", help="CPU cores of each process.")] = 4,
    time: Annotated[Text, typer.Option("--time", help="Longest time, as 12:00:00 or 2-00:00:00.")] = None,
    memory: Annotated[Text, typer.Option("--memory", help="Memory of each machine, as 64G.")] = None,
    partition: Annotated[Text, typer.Option("--partition", help="Partition of the cluster.")] = None,
    account: Annotated[Text, typer.Option("--account", help="Account that pays.")] = None,
    setup: Annotated[
        Texts, typer.Option("--setup", help="A shell line before the training: --setup 'source venv/bin/activate'.")
    ] = None,
    option: Annotated[
        Texts, typer.Option("--option", help="One more #SBATCH line: --option=--constraint=a100.")
    ] = None,
    out: Annotated[Folder, typer.Option("--out", "-o", help="The file. (default: it is printed)")] = None,
    debug: DebugOption = False,
) -> None:
    """Write a SLURM job script that trains with torchrun, on one or several machines, and goes on when requeued."""
    from actionprep.cli import output
    from actionprep.training.run import write_text
    from actionprep.training.slurm import SlurmJob, job_script

    job = SlurmJob(
        run, nodes, gpus, cpus, time, memory, partition, account, tuple(setup or ()), tuple(option or ())
    )  # fmt: skip
    text = job_script(job, words or [])
    if out is None:
        print(text, end="")
        return
    write_text(out, text)
    output.note(f"Wrote {out}")
    output.print_next(f"sbatch {out}", "hands it to the cluster, in the study's folder")


def _check_parts(**given: Any) -> None:
    """Folds, one stored split and several are three ways to say what is tested."""
    from actionprep.errors import UserError

    asked = [f"--{name}" for name, value in given.items() if value]
    if len(asked) > 1:
        raise UserError(
            f"{' and '.join(asked)} were given, and a sweep takes one of them: --folds splits the snippets anew, --split "
            "takes one stored split, and --splits trains and tests on each of several stored splits."
        )


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _print_comparison(found: Any) -> None:
    from actionprep.cli import output
    from actionprep.training.compare import IMPORTANCE

    columns, rows = found.cells()
    out = output.print_table("Comparison", columns, rows, importance=IMPORTANCE)
    if out:
        output.note(f"No room at this width for {', '.join(out)}: compare.csv holds them.")
    for note in found.notes:
        output.note(note)


def _named(given: list[str] | None) -> dict[str, Any]:
    from actionprep.cli.train import _changes

    return _changes(given)


def _grid(given: list[str] | None) -> dict[str, list[Any]]:
    """`["epochs=20,40"]` → {"epochs": [20, 40]}; a list or table in TOML's form is one value a semicolon apart."""
    from actionprep.errors import UserError

    found: dict[str, list[Any]] = {}
    for one in given or []:
        name, equals, values = one.partition("=")
        if not equals or not values:
            raise UserError(f"--grid takes name=value,value, such as epochs=20,40; got {one!r}.")
        apart = ";" if any(bracket in values for bracket in "[{") else ","
        found[name] = [_named([f"{name}={value}"])[name] for value in values.split(apart)]
    return found
