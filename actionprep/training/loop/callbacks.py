"""What happens beside the training steps: metrics.csv, checkpoints, loggers, explained errors (imports Lightning)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from actionprep.datasets.paths import below, no_link
from actionprep.errors import SetupError, UserError
from actionprep.training.loop import memory
from actionprep.training.loop.progress import EpochReport
from actionprep.training.recipes import Recipe
from actionprep.training.run import Phase, Run, keep_file

if TYPE_CHECKING:
    from pathlib import Path


class Averaging(pl.Callback):
    """Keeps the running mean of the weights up to date."""

    def on_train_batch_end(  # noqa: D102
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        task.average_weights(batch_idx)


class Patience(pl.callbacks.EarlyStopping):
    """Ends a run whose figure no longer gets better."""

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.patience is not None
        super().__init__(
            recipe.monitor,
            patience=-(-recipe.patience // recipe.validate_every),
            mode="min" if recipe.monitor == "val_loss" else "max",
            check_on_train_epoch_end=False,
            # A figure that is no number (precision of classes that val lacks) is no improvement, and no end either.
            check_finite=False,
        )

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:  # noqa: D102
        # A run that was killed just after its last epoch has nothing more to train.
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class LastValidated(pl.Callback):
    """Validates in the last epoch too, whatever number of epochs lies between two validations."""

    def on_train_batch_start(self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: D102
        # Before each batch, because an epoch that goes on in its middle has no start.
        if trainer.max_epochs is not None and trainer.current_epoch + 1 >= trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


class History(Checkpoint):
    """Writes metrics.csv, a row an epoch; what a resumed run does again replaces what was there.

    A `Checkpoint` to Lightning, because those are called after the task has logged the figures of the epoch.
    """

    def __init__(self, run: Run, phase: Phase, num_epochs: int, on_epoch: Callable[[EpochReport], None] | None) -> None:
        self.run = run
        self.phase = phase
        self.num_epochs = num_epochs
        self.on_epoch = on_epoch
        self.rows: list[dict[str, Any]] = []
        self._before = [row for row in run.metrics if row.get("phase") != phase]
        self._began = time.monotonic()

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.rows = list(state["rows"])

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:  # noqa: D102
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:  # noqa: D102
        figures = dict(task.figures)
        epoch = trainer.current_epoch
        row = {"phase": self.phase, "epoch": epoch, **figures, "seconds": round(time.monotonic() - self._began, 3)}
        self.rows = [one for one in self.rows if one["epoch"] != epoch] + [row]
        if trainer.is_global_zero:
            self.run.write_metrics([*self._before, *self.rows])
            if self.on_epoch is not None:
                self.on_epoch(EpochReport(self.phase, epoch, self.num_epochs, figures))


class Checkpoints(Checkpoint):
    """Keeps last.ckpt, from which a run goes on, and best.ckpt, which tests use; each is replaced at once.

    Best is the epoch with the best figure of the recipe, the earlier of equal ones; without val, as in a refit, or where no
    figure is a number, the last.
    """

    def __init__(self, run: Run, recipe: Recipe, *, has_val: bool) -> None:
        self.run = run
        self.monitor = recipe.monitor if has_val else None
        self.every_seconds = recipe.checkpoint_minutes * 60
        self.best: float | None = None
        self._saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.best = state["best"]

    def on_train_batch_end(  # noqa: D102
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_due = time.monotonic() - self._saved_at > self.every_seconds
        # A step whose gradients are still being added up cannot be gone on from.
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.world_size > 1:
            is_due = bool(trainer.strategy.broadcast(is_due))
        if is_due and whole and batch_idx + 1 < trainer.num_training_batches:
            self._save(trainer, self.run.last)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:  # noqa: D102
        is_best = self.monitor is None
        if self.monitor is not None and self.monitor in task.figures:
            value = task.figures[self.monitor]
            better = value == value and (
                self.best is None or (value < self.best if self.monitor == "val_loss" else value > self.best)
            )
            if better:
                self.best, is_best = value, True
        if self.best is None:
            # No figure yet, or none that is a number: the latest epoch has to do.
            is_best = True
        self._save(trainer, self.run.last)
        if is_best and trainer.is_global_zero:
            keep_file(self.run.last, self.run.best)

    def _save(self, trainer: pl.Trainer, path: Path) -> None:
        draft = path.with_name(f".{path.name}.draft")
        try:
            # In Lightning's saving this asks for the optimizer's state too; it is read again with weights_only=True.
            trainer.save_checkpoint(no_link(draft), weights_only=False)
            if trainer.is_global_zero:
                os.replace(draft, path)
        except OSError as error:
            raise SetupError(
                f"Cannot write the checkpoint {path}: {error.strerror or error}. Free some room, then go on with "
                "--resume."
            ) from error
        finally:
            if trainer.is_global_zero:
                draft.unlink(missing_ok=True)
        self._saved_at = time.monotonic()


def loggers(run: Run, phase: Phase, *, tensorboard: bool, wandb: bool) -> Any:
    """Lightning's loggers: TensorBoard in the run's folder, Weights & Biases where asked for."""
    found: list[Any] = []
    if tensorboard:
        # No link may lead the curves elsewhere; the logger opens hparams.yaml for writing.
        no_link(below(run.folder, f"tensorboard/{phase}") / "hparams.yaml")
        found.append(pl.loggers.TensorBoardLogger(str(run.folder), name="tensorboard", version=phase))
    if wandb:
        try:
            import wandb as _  # noqa: F401
        except ImportError:
            raise SetupError(
                "Logging to Weights & Biases needs its package: pip install 'actionprep[wandb]', then 'wandb login'. "
                "Without it, metrics.csv and TensorBoard hold the same curves."
            ) from None
        found.append(pl.loggers.WandbLogger(name=f"{run.folder.name}-{phase}", save_dir=str(run.folder)))
    return found or False


@contextlib.contextmanager
def memory_explained(recipe: Recipe, where: str = "this device") -> Iterator[None]:
    """An error that says what to change when memory runs out; where: the device."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        raise UserError(_no_memory(recipe, error, where)) from None


def _no_memory(recipe: Recipe, error: BaseException, where: str) -> str:
    frames = getattr(recipe.input, "frames", None)
    tries = []
    if recipe.batch > 1:
        smaller, times = recipe.batch // 2, recipe.accumulate * 2
        tries.append(f"--set batch={smaller} accumulate={times}, which takes the same steps")
    if recipe.precision == "32-true":
        tries.append("--set precision=bf16-mixed")
    if frames is not None and frames > 1:
        tries.append(f"--set input.frames={frames // 2}")
    held = f", {frames} frames a snippet" if frames is not None else ""
    return (
        f"Out of memory on {where} with batch {recipe.batch}{held}, precision {recipe.precision} ({memory.reason(error)}).\n"
        f"Try one of: {'; '.join(tries) or 'a smaller model (its sizes are in [sizes] of the recipe)'}."
    )
