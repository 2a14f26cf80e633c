"""Train one phase of a run with Lightning."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionprep.training.loop.devices import lightning_devices
from actionprep.training.loop.make_task import make_task
from actionprep.training.loop.progress import EpochReport
from actionprep.training.loop.training_plan import Plan
from actionprep.training.run import START, Phase, Run

if TYPE_CHECKING:
    from actionprep.training.inputs.base import ProductReader


def train_phase(
    run: Run,
    plan: Plan,
    reader: ProductReader,
    phase: Phase,
    options: TrainerOptions,
    *,
    resume: Path | None,
    on_epoch: Callable[[EpochReport], None] | None,
) -> None:
    """Train from fresh weights, or go on from the checkpoint `resume`."""
    with quiet_lightning():
        import lightning.pytorch as pl

        from actionprep.training.loop import callbacks

        recipe = plan.recipe
        task = make_task(plan, reader, phase, start=run.folder / START)
        has_val = task.val_loader is not None
        shown = callbacks.History(run, phase, task.num_epochs, on_epoch)
        wanted: list[Any] = [callbacks.LastValidated(), callbacks.Averaging(), shown]
        wanted.append(callbacks.Checkpoints(run, recipe, has_val=has_val))
        if recipe.patience is not None and has_val:
            wanted.insert(0, callbacks.Patience(recipe))
        accelerator, chosen = lightning_devices(options.device, options.devices)
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=chosen,
            num_nodes=options.num_nodes,
            strategy="ddp" if options.devices * options.num_nodes > 1 else "auto",
            precision=recipe.precision,
            max_epochs=task.num_epochs,
            check_val_every_n_epoch=recipe.validate_every,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.optimizer.gradient_clip,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            logger=callbacks.loggers(run, phase, tensorboard=options.tensorboard, wandb=options.wandb),
            callbacks=wanted,
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            # Else each process would norm its own share of a batch. PyTorch can do it on GPUs alone.
            sync_batchnorm=accelerator == "cuda" and options.devices * options.num_nodes > 1,
            enable_autolog_hparams=False,
            default_root_dir=str(run.folder),
        )
        with callbacks.memory_explained(recipe, accelerator), _interruptible(trainer):
            trainer.fit(task, ckpt_path=resume, weights_only=True)


@dataclass(frozen=True)
class TrainerOptions:
    """On what a training computes, and what it logs beside its own files; see `fit`."""

    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    threads: int | None = None
    wandb: bool = False
    tensorboard: bool = True


class TerminatedError(KeyboardInterrupt):
    """A training was told to end by SIGTERM, as schedulers do; it can be gone on with as after Ctrl-C."""


@contextlib.contextmanager
def _interruptible(trainer: Any) -> Iterator[None]:
    """Ctrl-C as KeyboardInterrupt, which Lightning turns into an exit with code 1 and a deaf ear for a second one.

    SIGTERM, which it turns into an exit with code 0, becomes TerminatedError.
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
    """Lightning's hints are for people who write loops; what concerns a user, `fit` says itself."""
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
