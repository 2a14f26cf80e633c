"""Settings of the stages behind a trained model, from what its checkpoint records and what the user sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actionprep.datasets.study import StudyFolder, find_study
from actionprep.errors import SetupError, UserError, nearest
from actionprep.pipeline.index import find_stage, load_stages
from actionprep.pipeline.plan import other_content
from actionprep.settings import StageSettings, read_recorded, references


@dataclass(frozen=True)
class OwnSettings:
    """Settings of the user for the stages behind a model; a checkpoint cannot set them.

    Attributes:
        study: Folder of the study whose settings file counts; None for the study that contains the current folder, if any.
        given: Values from the command line by table, such as {"tracks": {"repo": "co-tracker"}}. They override all others.
        warn: Called with a sentence for each recorded setting that is ignored.
    """

    study: str | Path | None = None
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warn: Callable[[str], None] = lambda sentence: None

    @property
    def root(self) -> Path:
        """Folder that relative paths in settings start from."""
        return Path.cwd() if self._folder is None else self._folder.root.resolve()

    @property
    def _folder(self) -> StudyFolder | None:
        try:
            return find_study(study=self.study)
        except UserError:
            if self.study is not None:
                raise
            return None

    def stage_settings(
        self, recorded: Mapping[str, Mapping[str, Any]], made: Mapping[str, Sequence[Mapping[str, Any]]], *, where: str
    ) -> dict[str, StageSettings]:
        """Read the recorded settings of stages. Code, programs and files are taken only from the user's settings.

        Args:
            recorded: Settings by product, as the checkpoint records them.
            made: Records of the items used in training, by product, with the hashes of their code and weights.
            where: Source of the settings, for messages.

        Returns:
            Settings by product. Relative paths start at the user's study, or at the current folder outside of one.

        Raises:
            UserError: If a value is wrong, or if a setting that was ignored is needed.
            SetupError: If code or weights are missing; the error names the settings that give them.
        """
        self.check_given()
        return {
            product: self._settings_of(product, values, made.get(product, ()), where)
            for product, values in recorded.items()
        }

    def check_given(self) -> None:
        """Raise UserError for given values of settings that the training decides."""
        known = {name: references(stage.Settings) for name, stage in load_stages().items()}
        names = [f"{table}.{name}" for table, marks in known.items() for name in marks]
        for table, values in self.given.items():
            for name in values:
                if f"{table}.{name}" not in names:
                    raise UserError(
                        f"--set {table}.{name} is not possible here: the training decides how its input is made."
                        f"{nearest(f'{table}.{name}', names)} Settings to give: {', '.join(names)}."
                    )

    def _settings_of(
        self, product: str, recorded: Mapping[str, Any], made: Sequence[Mapping[str, Any]], where: str
    ) -> StageSettings:
        stage = find_stage(product)
        folder = self._folder
        own = stage.Settings() if folder is None else folder.settings_for(product, stage.Settings)
        given = {name: str(value) for name, value in self.given.get(product, {}).items()}
        restored = read_recorded(own.model_copy(update=given), recorded, table=product, where=where)
        for ignored in restored.ignored:
            self.warn(str(ignored))
        try:
            values = {**restored.settings.model_dump(), **given}
            settings = stage.Settings.read(values, where=where).at(self.root)
        except UserError as error:
            ways = "".join(
                f"\nIt was ignored: {_give(ignored.setting)}." for ignored in restored.ignored if not ignored.is_set
            )
            raise UserError(f"{error}{ways}") from None
        if references(stage.Settings):
            try:
                identity = stage.identity(settings)
            except SetupError as problem:
                named = [name for name in references(stage.Settings) if f"{product}.{name}" in str(problem)]
                ways = "".join(f"\n  here         {_give(f'{product}.{name}')}" for name in named)
                raise SetupError(f"{problem}{ways}") from None
            differing = [other_content(product, record.get("identity"), identity) for record in made]
            for sentence in min(differing, key=len, default=[]):
                self.warn(sentence)
        return settings


def _give(setting: str) -> str:
    return f"give your own with --set {setting}=PATH, or in your study's settings file"
