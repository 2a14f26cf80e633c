"""Train one phase of a run with Lightning."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.training.loop.devices import lightning_devices
from actionprep.training.loop.make_task import make_task
from actionprep.training.loop.progress import EpochReport
from actionprep.training.loop.training_plan import TrainingPlan
from actionprep.training.run import START, Phase, Run

if TYPE_CHECKING:
    from actionprep.training.inputs.base import ProductReader


def train_phase(
    run: Run,
    plan: TrainingPlan,
    reader: ProductReader,
    phase: Phase,
    options: TrainerOptions,
    *,
    resume: Path | None,
    on_epoch: Callable[[EpochReport], None] | None,
) -> None:
    """Train one phase from fresh weights, or resume it.

    Args:
        run: Run to write to.
        plan: Plan of the training.
        reader: Reader of the input product.
        phase: Phase to train.
        options: Devices and loggers.
        resume: Checkpoint to resume from; None: start the phase.
        on_epoch: Function that is called after each epoch.
    """
    with quiet_lightning():
        import lightning.pytorch as pl

        from actionprep.training.loop import callbacks

        recipe = plan.recipe
        task = make_task(plan, reader, phase, start=run.folder / START)
        has_val = task.val_loader is not None
        history = callbacks.History(run, phase, task.num_epochs, on_epoch)
        active: list[Any] = [callbacks.LastValidated(), callbacks.Averaging(), history]
        active.append(callbacks.Checkpoints(run, recipe, phase, has_val=has_val))
        if recipe.patience is not None and has_val:
            active.insert(0, callbacks.Patience(recipe))
        if recipe.stop_below is not None and has_val:
            active.insert(0, callbacks.StopBelow(recipe.stop_below))
        accelerator, devices = lightning_devices(options.device, options.devices)
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=options.num_nodes,
            strategy="ddp" if options.devices * options.num_nodes > 1 else "auto",
            precision=recipe.precision,
            max_epochs=task.num_epochs,
            check_val_every_n_epoch=recipe.validate_every,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.optimizer.gradient_clip,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            logger=callbacks.loggers(run, recipe, phase, tensorboard=options.tensorboard, wandb=options.wandb),
            callbacks=active,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            # Otherwise each process normalizes its share of a batch separately. PyTorch supports this only on GPUs.
            sync_batchnorm=accelerator == "cuda" and options.devices * options.num_nodes > 1,
            enable_autolog_hparams=False,
            default_root_dir=str(run.folder),
        )
        with callbacks.explain_memory_errors(recipe, accelerator), _interruptible(trainer):
            trainer.fit(task, ckpt_path=resume, weights_only=True)


@dataclass(frozen=True)
class TrainerOptions:
    """Devices and loggers of a training; see `fit`."""

    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    threads: int | None = None
    wandb: bool | Mapping[str, Any] = False
    tensorboard: bool = True


class TerminatedError(KeyboardInterrupt):
    """Raised when training is interrupted by SIGTERM, as schedulers send it. The run can be resumed as after Ctrl-C."""


@contextlib.contextmanager
def _interruptible(trainer: Any) -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C, and TerminatedError on SIGTERM.

    Lightning itself exits with code 1 on Ctrl-C and then ignores a second one, and exits with code 0 on SIGTERM.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit:
        if trainer.received_sigterm:
            raise TerminatedError from None
        if not trainer.interrupted:
            raise
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
    if trainer.interrupted:
        raise KeyboardInterrupt


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence hints of Lightning, which address authors of training loops. `fit` reports what matters to users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning.pytorch  # noqa: F401 - before the levels are set: its import sets them too

    levels = {}
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logger = logging.getLogger(name)
        levels[logger] = logger.level
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*treespec.*")
            warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step\(\).*")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
