"""Generate one command per stage, with an option per setting of the stage."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand

from actionprep.cli.options import DebugOption, JsonOption, StudyOption, settings_parameters
from actionprep.cli.prep.build import carry_out
from actionprep.cli.prep.build_output import save_or_offer
from actionprep.cli.prep.options import (
    RecordingsOption,
    RetryOption,
    SaveOption,
    SchedulerOption,
    SkipOption,
    SlurmOption,
    ViewsOption,
    WorkersOption,
    opened_study,
    workers_of,
)
from actionprep.cli.prep.split_check import CheckOption, check_split
from actionprep.cli.program import HELP_NAMES, ManyValuesCommand, PlainGroup, guarded

STAGES = "Stages (each builds what it needs first)"


class StageGroup(PlainGroup):
    """Adds one command per stage. A stage is imported only when its command is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands, with the stages before "plan"."""
        from actionprep.pipeline.index import stage_index

        names = super().list_commands(ctx)
        stages = [entry.command for entry in stage_index().values() if entry.command not in names]
        at = names.index("plan") if "plan" in names else 0
        return [*names[:at], *stages, *names[at:]]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command. For a stage, only its name and help line. The name of a product also selects its stage."""
        from actionprep.pipeline.index import stage_index

        command = super().get_command(ctx, cmd_name)
        if command is None:
            for entry in stage_index().values():
                if cmd_name in (entry.command, entry.name):
                    return TyperCommand(entry.command, help=entry.help, rich_help_panel=STAGES)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command to run. The options of a stage are generated from its settings here."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name not in self.commands:
            command = stage_command(name)
        return name, command, rest


def stage_command(command: str) -> Any:
    """Generate the command of a stage, with an option per setting."""
    from actionprep.pipeline.index import find_stage, stage_index
    from actionprep.pipeline.stage import ArrayStage

    entry = next(entry for entry in stage_index().values() if command in (entry.command, entry.name))
    stage = find_stage(entry.name)

    def run(
        study: StudyOption = None,
        views: ViewsOption = None,
        recordings: RecordingsOption = None,
        workers: WorkersOption = None,
        scheduler: SchedulerOption = None,
        slurm: SlurmOption = None,
        retry: RetryOption = False,
        save: SaveOption = False,
        check: CheckOption = False,
        skip_incomplete: SkipOption = None,
        json: JsonOption = False,
        debug: DebugOption = False,
        **overrides: Any,
    ) -> None:
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
        given = {key: value for key, value in given.items() if value is not None and value != ()}
        if views and "views" in stage.Settings.model_fields:
            given["views"] = tuple(views)
        opened = opened_study(study)
        if check:
            check_split(opened, given, json=json, named=study)
            return
        overrides_of_stage = {entry.name: given}
        plan = opened.plan(
            entry.name,
            views=views or (),
            recordings=recordings or (),
            overrides=overrides_of_stage,
            retry=retry,
            skip_incomplete=skip_incomplete,
        )
        save_or_offer(opened, opened.stage_settings(overrides_of_stage)[entry.name], entry.name, save=save, quiet=json)
        carry_out(opened, plan, workers=workers_of(workers, scheduler, slurm), json=json, named=study)

    signature = inspect.signature(run)
    named = [
        parameter for parameter in signature.parameters.values() if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    common = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in named]
    if issubclass(stage, ArrayStage):
        not_used = ("workers", "scheduler", "slurm", "retry", "recordings")
        common = [parameter for parameter in common if parameter.name not in not_used]
    if entry.name != "split":
        common = [parameter for parameter in common if parameter.name != "check"]
    # Annotations are strings in this file. Typer needs the types.
    hints = get_type_hints(run, include_extras=True)
    common = [parameter.replace(annotation=hints[parameter.name]) for parameter in common]
    own = settings_parameters(stage.Settings, panel="Settings", taken={parameter.name for parameter in common})
    wrapped = guarded(run)
    wrapped.__signature__ = signature.replace(parameters=[*own, *common], return_annotation=None)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *common)}
    del wrapped.__wrapped__  # type: ignore[attr-defined]  # Typer would use the signature of the wrapped function
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    help = f"{entry.help}.\n\n{_stage_help(stage)}"
    single.command(entry.command, cls=ManyValuesCommand, context_settings=HELP_NAMES, help=help)(wrapped)
    return typer.main.get_command(single)


def _stage_help(stage: Any) -> str:
    """First paragraph of the stage's docstring. The arrays are documented in the specification of the store."""
    first = (stage.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(line.strip() for line in first.splitlines())
