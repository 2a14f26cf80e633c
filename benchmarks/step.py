"""Compare our training step with a PyTorch loop with the same model, batch, loss and optimizer."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import Results, Side, speed_ratio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from actionprep.datasets.products.snippets import SnippetTable
from actionprep.json_values import counted
from actionprep.training.datasets import SnippetLoader
from actionprep.training.inputs.base import Batch
from actionprep.training.loop.optimizers import make_optimizer
from actionprep.training.models.registry import build_model
from actionprep.training.recipes import Recipe

NUM_CLASSES = 5


class OneBatch(SnippetLoader):
    """Yields one batch from memory repeatedly."""

    def __init__(self, batch: Batch, steps: int) -> None:
        self.dataset: Any = _Dataset(len(batch["label"]))
        self.one, self.steps = batch, steps
        self.rank, self.world, self.epoch, self.skip = 0, 1, 0, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.steps):
            yield dict(self.one)


class _Dataset:
    """The dataset interface that the task needs, without reading."""

    def __init__(self, size: int) -> None:
        label = (np.arange(size) % NUM_CLASSES).astype(np.int32)
        target = np.eye(NUM_CLASSES, dtype=np.uint8)[label]
        overlap = target.astype(np.float32)
        names = tuple(f"r{row}" for row in range(size))
        nothing = ("",) * size
        self.table = SnippetTable(
            np.arange(size, dtype=np.int32), np.zeros(size), np.ones(size), label, target, overlap, overlap, overlap,
            tuple("abcde"), names, nothing, nothing, nothing,
        )  # fmt: skip
        self.rows = np.arange(size)
        self.reader = self

    def to(self, device: torch.device) -> None:
        """No data to load."""

    def augmented(self, batch: Batch, *, epoch: int = 0) -> Batch:
        return batch


def make_batch(model: str, size: int) -> Batch:
    """Random points in the published or default shape of a model."""
    shapes = {"view-transformer": (32, 1, 256), "track-lstm": (10, 8, 400), "view-transformer-maaf": (50, 4, 500)}
    frames, views, points = shapes[model]
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(size, frames, views, points, 2, generator=generator) * 2 - 1
    label = torch.arange(size) % NUM_CLASSES
    return {
        "xy": xy,
        "velocity": torch.randn(xy.shape, generator=generator),
        "valid": torch.rand(xy.shape[:-1], generator=generator) < 0.7,
        "frame_valid": torch.ones(size, frames, dtype=torch.bool),
        "label": label,
        "target": torch.nn.functional.one_hot(label, NUM_CLASSES).float(),
        "row": torch.arange(size),
        "weight": torch.ones(size),
        "total": torch.tensor(size),
    }


def ours(model: str, batch: Batch, recipe: Recipe, steps: int, clock: Callable[[], float]) -> float:
    """Seconds of the steps of one epoch after the first three, with Lightning and our task."""
    import lightning.pytorch as pl

    from actionprep.training.loop.callbacks import Averaging
    from actionprep.training.loop.task import ClassifierTask
    from actionprep.training.loop.trainer import quiet_lightning

    marks: list[float] = []

    class Clock(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            marks.append(clock())

        def on_train_epoch_end(self, *_: Any) -> None:
            marks.append(clock())

    folder = tempfile.mkdtemp()
    torch.manual_seed(0)
    task = ClassifierTask(
        build_model(model, num_classes=NUM_CLASSES), recipe, OneBatch(batch, steps), None, multi_label=False, card={}
    )
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            gradient_clip_val=recipe.optimizer.gradient_clip,
            num_sanity_val_steps=0,
            logger=pl.loggers.TensorBoardLogger(folder, name="tensorboard"),
            callbacks=[Averaging(), Clock()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        trainer.fit(task)
    shutil.rmtree(folder)
    return marks[-1] - marks[3]


def bare(model: str, batch: Batch, recipe: Recipe, steps: int, clock: Callable[[], float]) -> float:
    """Seconds of the same steps in a PyTorch loop."""
    torch.manual_seed(0)
    net = build_model(model, num_classes=NUM_CLASSES)
    optimizer = make_optimizer(net, recipe.optimizer)
    inputs = [batch["xy"], batch["valid"], batch["frame_valid"]]
    if model == "view-transformer":
        inputs.append(batch["velocity"])
    label, clip = batch["label"], recipe.optimizer.gradient_clip
    smoothing = recipe.loss.label_smoothing
    start = 0.0
    for step in range(steps):
        if step == 3:
            start = clock()
        logits = net(*inputs)
        if logits.ndim == 3:
            logits = logits.mean(1)
        loss = torch.nn.functional.cross_entropy(logits, label, label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
    return clock() - start


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=23)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--models", nargs="+", default=["view-transformer", "track-lstm"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    results = Results("step", settings=vars(options) | {"batch": 16})
    for model in options.models:
        tables = {
            "recipe": {"model": model, "product": "tracks", "batch": 16, "epochs": 1},
            "loss": {"label_smoothing": 0.1},
            "optimizer": {"gradient_clip": 2.0},
        }
        recipe = Recipe.from_tables(tables, where="the benchmark")
        averaged = recipe.changed({"ema": 0.98})
        batch = make_batch(model, 16)
        runs: dict[str, Callable[[], float]] = {
            "our step": lambda: ours(model, batch, recipe, options.steps, clock),  # noqa: B023 - called in this iteration
            "bare loop": lambda: bare(model, batch, recipe, options.steps, clock),  # noqa: B023
            "our step with averaged weights": lambda: ours(model, batch, averaged, options.steps, clock),  # noqa: B023
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(-1, options.rounds):
            for name in list(runs) if turn % 2 == 0 else list(runs)[::-1]:
                took = runs[name]()
                if turn >= 0:
                    seconds[name].append(took)
        sides = {name: Side(name, tuple(values), options.steps - 3, "steps") for name, values in seconds.items()}
        results.add(model, sides)
        ratio = 1 / speed_ratio(sides["our step"], sides["bare loop"])
        results.mark(f"{model}: our step / bare loop", ratio, at_most=1.05)
    results.notes.append(
        f"{counted(options.threads, 'thread')}, {options.clock} clock; startup of Lightning is excluded"
    )
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    sys.exit(main())
