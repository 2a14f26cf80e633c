"""Lightning callbacks: metrics.csv, checkpoints, loggers and early stopping (imports Lightning)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from actionprep.datasets.paths import below, no_link
from actionprep.errors import SetupError, UserError
from actionprep.training.loop import memory
from actionprep.training.loop.progress import EpochReport
from actionprep.training.loop.wandb_logging import check_wandb
from actionprep.training.recipes import Recipe
from actionprep.training.run import Phase, Run, keep_file

if TYPE_CHECKING:
    from pathlib import Path


class Averaging(pl.Callback):
    """Updates the running mean of the weights."""

    def on_train_batch_end(  # noqa: D102
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        task.average_weights(batch_idx)


class Patience(pl.callbacks.EarlyStopping):
    """Stops a run whose monitored metric no longer improves."""

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.patience is not None
        super().__init__(
            recipe.monitor,
            patience=-(-recipe.patience // recipe.validate_every),
            mode="min" if recipe.monitor == "val_loss" else "max",
            check_on_train_epoch_end=False,
            # A NaN metric (average precision of classes that are missing in val) is no improvement and does not stop.
            check_finite=False,
        )

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:  # noqa: D102
        # A run that was killed right after its last epoch has nothing left to train.
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class StopBelow(pl.Callback):
    """Stops a run after the first epoch whose validation loss is below a value.

    Args:
        loss: The value.
    """

    def __init__(self, loss: float) -> None:
        self.loss = loss
        self.reached = False

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"reached": self.reached}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.reached = state["reached"]

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:  # noqa: D102
        # A run that was killed right after its last epoch has nothing left to train.
        trainer.should_stop = trainer.should_stop or self.reached

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:  # noqa: D102
        value = trainer.callback_metrics.get("val_loss")
        if value is not None and float(value) < self.loss:
            self.reached = trainer.should_stop = True


class LastValidated(pl.Callback):
    """Validates in the last epoch too, whatever the validation interval is."""

    def on_train_batch_start(self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: D102
        # Checked before each batch, because an epoch that is resumed in the middle has no start.
        if trainer.max_epochs is not None and trainer.current_epoch + 1 >= trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


class History(Checkpoint):
    """Writes metrics.csv with one row per epoch. Epochs that a resumed run repeats replace the earlier rows.

    It is a Lightning `Checkpoint`, because those are called after the task has logged the metrics of the epoch.
    """

    def __init__(self, run: Run, phase: Phase, num_epochs: int, on_epoch: Callable[[EpochReport], None] | None) -> None:
        self.run = run
        self.phase = phase
        self.num_epochs = num_epochs
        self.on_epoch = on_epoch
        self.rows: list[dict[str, Any]] = []
        self._other_phases = [row for row in run.metrics if row.get("phase") != phase]
        self._started = time.monotonic()

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.rows = list(state["rows"])

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:  # noqa: D102
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:  # noqa: D102
        values = dict(task.epoch_metrics)
        epoch = trainer.current_epoch
        row = {"phase": self.phase, "epoch": epoch, **values, "seconds": round(time.monotonic() - self._started, 3)}
        self.rows = [old for old in self.rows if old["epoch"] != epoch] + [row]
        if trainer.is_global_zero:
            self.run.write_metrics([*self._other_phases, *self.rows])
            if self.on_epoch is not None:
                self.on_epoch(EpochReport(self.phase, epoch, self.num_epochs, values))


class Checkpoints(Checkpoint):
    """Writes last.ckpt, from which a run is resumed, and best.ckpt, which tests use. Each is replaced atomically.

    The best epoch is the one with the best monitored metric, the earlier one in a tie. Without val, as in a refit, or
    if the metric is NaN in all epochs, it is the last epoch. With `keep_epochs`, the checkpoint of every epoch before a
    refit is kept too.
    """

    def __init__(self, run: Run, recipe: Recipe, phase: Phase, *, has_val: bool) -> None:
        self.run = run
        self.keeps_epochs = recipe.keep_epochs and phase == "validate"
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
        # While gradients are being accumulated, a training cannot be resumed.
        is_step_complete = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.world_size > 1:
            is_due = bool(trainer.strategy.broadcast(is_due))
        if is_due and is_step_complete and batch_idx + 1 < trainer.num_training_batches:
            self._save(trainer, self.run.last)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:  # noqa: D102
        is_best = self.monitor is None
        if self.monitor is not None and self.monitor in task.epoch_metrics:
            value = task.epoch_metrics[self.monitor]
            is_better = value == value and (
                self.best is None or (value < self.best if self.monitor == "val_loss" else value > self.best)
            )
            if is_better:
                self.best, is_best = value, True
        if self.best is None:
            # No metric yet, or only NaN: use the latest epoch.
            is_best = True
        copies = [self.run.best] if is_best else []
        if self.keeps_epochs:
            copies.append(self.run.epoch_checkpoint(trainer.current_epoch + 1))
        self._save(trainer, self.run.last, copies)

    def _save(self, trainer: pl.Trainer, path: Path, copies: Sequence[Path] = ()) -> None:
        """Save a checkpoint, with copies of it.

        The copies come first. After a kill in between, a resumed run repeats the epoch and makes them again; it would not
        make copies that are missing beside the state of a finished epoch.
        """
        draft = path.with_name(f".{path.name}.draft")
        try:
            # False also saves the state of the optimizer. The file is read with weights_only=True.
            trainer.save_checkpoint(no_link(draft), weights_only=False)
            if trainer.is_global_zero:
                for copy in copies:
                    copy.parent.mkdir(exist_ok=True)
                    keep_file(draft, copy)
                os.replace(draft, path)
        except OSError as error:
            raise SetupError(
                f"Cannot write the checkpoint {path}: {error.strerror or error}. Free disk space, then resume with --resume."
            ) from error
        finally:
            if trainer.is_global_zero:
                draft.unlink(missing_ok=True)
        self._saved_at = time.monotonic()


def loggers(run: Run, recipe: Recipe, phase: Phase, *, tensorboard: bool, wandb: bool | Mapping[str, Any]) -> Any:
    """Create the loggers of Lightning: TensorBoard in the folder of the run, and Weights & Biases on request.

    Args:
        run: The run.
        recipe: Its recipe; both loggers get the values.
        phase: Phase of the training.
        tensorboard: Whether to log to TensorBoard.
        wandb: Whether to log to Weights & Biases; a mapping has its project, entity or tags.

    Raises:
        SetupError: If the package of Weights & Biases is missing.
    """
    active: list[Any] = []
    values = recipe.model_dump(mode="json", exclude={"doc"})
    if tensorboard:
        # No link may lead the curves elsewhere; the logger opens hparams.yaml for writing.
        no_link(below(run.folder, f"tensorboard/{phase}") / "hparams.yaml")
        logger = pl.loggers.TensorBoardLogger(
            str(run.folder), name="tensorboard", version=phase, default_hp_metric=False
        )
        _log_hyperparameters(logger, values, recipe.monitor)
        active.append(logger)
    if wandb:
        check_wandb()
        given = dict(wandb) if isinstance(wandb, Mapping) else {}
        name = f"{run.folder.name}-{phase}"
        active.append(pl.loggers.WandbLogger(name=name, save_dir=str(run.folder), config=values, **given))
    return active or False


def _log_hyperparameters(logger: pl.loggers.TensorBoardLogger, values: Mapping[str, Any], monitor: str) -> None:
    """Add a recipe to the table of hyperparameters of TensorBoard, with the monitored metric as its result."""
    from torch.utils.tensorboard.summary import hparams

    from actionprep.training.loop.processes import is_first_process

    if not is_first_process():
        return
    for summary in hparams(_flat(values), {monitor: 0.0}):
        logger.experiment.file_writer.add_summary(summary)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | float | str]:
    """Join the names of nested tables with dots; lists and missing values become text."""
    flat: dict[str, bool | float | str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat


@contextlib.contextmanager
def explain_memory_errors(recipe: Recipe, device: str = "this device") -> Iterator[None]:
    """Turn an out-of-memory error into a UserError with remedies.

    Args:
        recipe: Recipe of the training.
        device: Device that ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        raise UserError(_memory_message(recipe, error, device)) from None


def _memory_message(recipe: Recipe, error: BaseException, device: str) -> str:
    frames = getattr(recipe.input, "frames", None)
    remedies = []
    if recipe.batch > 1:
        smaller, accumulate = recipe.batch // 2, recipe.accumulate * 2
        remedies.append(f"--set batch={smaller} accumulate={accumulate}, which gives the same steps")
    if recipe.precision == "32-true":
        remedies.append("--set precision=bf16-mixed")
    if frames is not None and frames > 1:
        remedies.append(f"--set input.frames={frames // 2}")
    frames_text = f", {frames} frames per snippet" if frames is not None else ""
    return (
        f"Out of memory on {device} with batch {recipe.batch}{frames_text}, precision {recipe.precision} "
        f"({memory.reason(error)}).\n"
        f"Try one of: {'; '.join(remedies) or 'a smaller model (see [sizes] of the recipe)'}."
    )
