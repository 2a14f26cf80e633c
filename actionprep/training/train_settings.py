"""The table [train] of a study: recipe, split and device of its trainings."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from actionprep.settings import Settings, option


class TrainSettings(Settings):
    """How this study trains: recipe, split and device."""

    recipe: str = option(
        "auto", "Name of the recipe, or path of a recipe in TOML; auto: the default for the store.", names="file"
    )
    snippets: str = option("default", "Which table of snippets to train on: snippets/<name>.")
    split: str | None = option(None, "Use this stored split: split/<name>. Not set: 'default' if it exists.")
    by: Literal["auto", "subject", "session", "recording", "column"] = option(
        "auto",
        "Kind of group that no two parts share; auto: the given split if every labeled recording has one, else subject if "
        "all are known, else session, else recording.",
    )
    val: float = option(0.15, "Share of the snippets for val.", ge=0, lt=1)
    test: float = option(0.2, "Share of the snippets for test.", ge=0, lt=1)
    train_groups: tuple[str, ...] = option((), "Subjects (sessions, recordings) for train, instead of shares.")
    val_groups: tuple[str, ...] = option((), "Subjects (sessions, recordings) for val.")
    test_groups: tuple[str, ...] = option((), "Subjects (sessions, recordings) for test.")
    allow_single: bool = option(False, "Accept classes with a single sample, which is assigned to train.")
    views: tuple[str, ...] = option((), "Views to train on. Empty: all views of the product.")
    seed: int = option(0, "Seed of the split and of the training.", ge=0, lt=2**32)
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    threads: int | None = option(None, "CPU threads of the computation; not set: PyTorch's choice.", ge=1)
    wandb: bool = option(False, "Log to Weights & Biases too.")
    wandb_project: str | None = option(None, "Project of Weights & Biases; not set: its default.")
    wandb_entity: str | None = option(None, "User or team of Weights & Biases; not set: its default.")
    wandb_tags: tuple[str, ...] = option((), "Tags of the runs in Weights & Biases.")
    changes: dict[str, Any] = option(
        {}, 'Settings to change in each recipe that has them: { epochs = 30, "input.rotation" = 0.3 }.'
    )

    @property
    def wandb_options(self) -> bool | dict[str, Any]:
        """What `fit` takes as `wandb`: False, or the project, entity and tags."""
        if not self.wandb:
            return False
        given = {"project": self.wandb_project, "entity": self.wandb_entity, "tags": list(self.wandb_tags)}
        return {name: value for name, value in given.items() if value} or True

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.by == "column" and (self.train_groups or self.val_groups or self.test_groups):
            raise ValueError(
                "by = column reads the part of each recording from a column; train_groups, val_groups and test_groups set "
                "parts too: use only one of them"
            )
        return self
