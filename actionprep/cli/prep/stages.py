"""One command for each stage file, with an option for each of the stage's settings."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand

from actionprep.cli.options import DebugOption, JsonOption, StudyOption, settings_parameters
from actionprep.cli.prep.build import carry_out
from actionprep.cli.prep.build_output import save_or_offer
from actionprep.cli.prep.options import (
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
from actionprep.cli.program import ManyValuesCommand, PlainGroup, guarded

STAGES = "Stages (each builds what it needs first)"


class StageGroup(PlainGroup):
    """Adds one command for each stage file, and imports a stage only when its command is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, the stages' after those of the study."""
        from actionprep.pipeline.index import stage_index

        names = super().list_commands(ctx)
        stages = [entry.command for entry in stage_index().values() if entry.command not in names]
        at = names.index("plan")
        return [*names[:at], *stages, *names[at:]]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command, or for a stage what help lists: its name and line. A product's name means its stage too."""
        from actionprep.pipeline.index import stage_index

        found = super().get_command(ctx, cmd_name)
        if found is None:
            for entry in stage_index().values():
                if cmd_name in (entry.command, entry.name):
                    return TyperCommand(entry.command, help=entry.help, rich_help_panel=STAGES)
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is to run; a stage's options are made from its settings here."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name not in self.commands:
            command = stage_command(name)
        return name, command, rest


def stage_command(command: str) -> Any:
    """The command of one stage, with an option for each of its settings."""
    from actionprep.pipeline.index import find_stage, stage_index
    from actionprep.pipeline.stage import ArrayStage

    entry = next(entry for entry in stage_index().values() if command in (entry.command, entry.name))
    stage = find_stage(entry.name)

    def run(
        study: StudyOption = None,
        views: ViewsOption = None,
        workers: WorkersOption = None,
        scheduler: SchedulerOption = None,
        slurm: SlurmOption = None,
        retry: RetryOption = False,
        save: SaveOption = False,
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
        overrides_of_stage = {entry.name: given}
        plan = opened.plan(
            entry.name, views=views or (), overrides=overrides_of_stage, retry=retry, skip_incomplete=skip_incomplete
        )
        save_or_offer(opened, opened.stage_settings(overrides_of_stage)[entry.name], entry.name, save=save, quiet=json)
        carry_out(opened, plan, workers=workers_of(workers, scheduler, slurm), json=json, named=study)

    signature = inspect.signature(run)
    common = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    common = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in common]
    if issubclass(stage, ArrayStage):
        common = [one for one in common if one.name not in ("workers", "scheduler", "slurm", "retry")]
    # Annotations are text in this file; Typer needs the types themselves.
    hints = get_type_hints(run, include_extras=True)
    common = [one.replace(annotation=hints[one.name]) for one in common]
    own = settings_parameters(stage.Settings, panel="Settings", taken={one.name for one in common})
    wrapped = guarded(run)
    wrapped.__signature__ = signature.replace(parameters=[*own, *common], return_annotation=None)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in (*own, *common)}
    del wrapped.__wrapped__  # type: ignore[attr-defined]  # Typer would look at the signature behind it
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    single.command(entry.command, cls=ManyValuesCommand, help=f"{entry.help}.\n\n{_stage_help(stage)}")(wrapped)
    return typer.main.get_command(single)


def _stage_help(stage: Any) -> str:
    """What the stage makes, in a paragraph; lists of arrays stand in the specification of the store."""
    first = (stage.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(line.strip() for line in first.splitlines())
