"""Checks before a long training: a learning-rate range test, and overfitting one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.paths import no_link
from actionprep.datasets.split_choice import Parts, SplitChoice
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.recipes import Recipe
from actionprep.training.run import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from actionprep.datasets.splits import SplitAssignment
    from actionprep.training.inputs.base import Batch
    from actionprep.training.loop.task import ClassifierTask


@dataclass(frozen=True)
class RateSearch:
    """Loss as a function of a learning rate that rises from step to step.

    Attributes:
        rates: Learning rate of each step, float64 of shape (S,).
        losses: Smoothed loss of each step, float64 of shape (S,).
        suggestion: Suggested learning rate: a tenth of `highest`.
        highest: Rate from which the loss rises. If it falls to the end, the last rate that was tried; then a good rate is
            above a tenth of it.
        turned: Whether the loss rises at all.
        repeats: Number of searches that the curve averages.
    """

    rates: np.ndarray
    losses: np.ndarray
    suggestion: float
    highest: float
    turned: bool = True
    repeats: int = 1

    def write(self, folder: str | Path) -> list[Path]:
        """Write learning_rate.csv and learning_rate.png to a folder and return their paths."""
        folder = Path(folder)
        paths = [folder / "learning_rate.csv", folder / "learning_rate.png"]
        rows = (f"{rate:.6g},{loss:.6g}" for rate, loss in zip(self.rates, self.losses, strict=True))
        write_text(paths[0], "\n".join(["learning_rate,loss", *rows]) + "\n")
        self.figure().savefig(no_link(paths[1]), dpi=150)
        return paths

    def figure(self) -> Figure:
        """Plot the loss over the learning rate, with the suggestion."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses)
        axes.axvline(self.suggestion, linestyle="--", color="tab:green", label=f"suggested {self.suggestion:.2g}")
        axes.axvline(
            self.highest,
            linestyle=":",
            color="tab:red",
            label=f"rises from {self.highest:.2g}" if self.turned else f"falls up to {self.highest:.2g}",
        )
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        return figure


@dataclass(frozen=True)
class OneBatch:
    """Result of overfitting one batch: loss of each step (S,), final accuracy on the batch, number of samples."""

    losses: np.ndarray
    accuracy: float
    samples: int

    @property
    def learnt(self) -> bool:
        """Whether every sample is correct and the loss fell below a fifth of its first value."""
        return self.accuracy == 1.0 and bool(self.losses[-1] < 0.2 * self.losses[0])


def find_learning_rate(
    store: Store | str | Path,
    recipe: Recipe | str = "auto",
    *,
    snippets: str = "default",
    split: SplitChoice | SplitAssignment | Parts = SplitChoice(),
    views: Sequence[str | int] | None = None,
    weights: Callable[[nn.Module], object] | None = None,
    device: str = "auto",
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
) -> RateSearch:
    """Run a learning-rate range test: train while the learning rate rises by the same factor at every step.

    The search ends early when the loss reaches four times its minimum. With few snippets, the curve is the mean of several
    searches with different augmentation. The trained weights are discarded.

    Args:
        store: A store, or its path or URL.
        recipe: A recipe or its name; "auto" chooses one for the store.
        snippets: Name of the table of snippets.
        split: How to split the snippets.
        views: Views to read, by name or number; None for all.
        weights: Function that loads weights into the model; None for new weights.
        device: Device to train on.
        lowest: First learning rate (`optimizer.learning_rate`). A head with its own rate keeps its ratio.
        highest: Last learning rate.
        steps: Number of steps.

    Returns:
        The curve and the suggested rate: a tenth of the rate from which the loss rises.

    Raises:
        UserError: As `fit`, and if the loss never falls.

    References:
        Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3.
    """
    if not 0 < lowest < highest or steps < 10:
        raise UserError(
            f"Expected rates from a lower to a higher one and at least 10 steps, got {lowest:g} to {highest:g} in {steps}."
        )
    task, recipe = _task(store, recipe, snippets, split, views, weights, device)
    fresh = {name: values.clone() for name, values in task.model.state_dict().items()}
    tried = np.geomspace(lowest, highest, steps)
    repeats = _repeats(len(task.train_loader.dataset.rows), recipe.batch)
    curves = []
    for repeat in range(repeats):
        task.model.load_state_dict(fresh)
        curves.append(_losses(task, tried, first_epoch=repeat * steps, seed=recipe.seed + repeat * steps))
    # Average only the steps that every search reached.
    common = min(map(len, curves))
    losses = _smooth(np.mean([curve[:common] for curve in curves], axis=0)) if common else np.zeros(0)
    far = np.flatnonzero(losses > 4 * np.minimum.accumulate(losses))
    common = int(far[0]) + 1 if len(far) else common
    return replace(_search(tried[:common], losses[:common], broke_off=common < steps), repeats=repeats)


def _repeats(num_snippets: int, batch: int) -> int:
    """Return the number of searches to average, at most 4, so that each point of the curve averages about 32 samples."""
    return min(4, max(1, round(32 / min(batch, num_snippets))))


def _losses(task: ClassifierTask, tried: np.ndarray, *, first_epoch: int, seed: int) -> np.ndarray:
    """Return the loss of each step, until it is not finite or its running mean is four times its minimum."""
    import torch

    task.train()
    optimizer = _optimizer(task)
    base = task.recipe.optimizer.learning_rate
    shares = [group["lr"] / base for group in optimizer.param_groups]
    losses: list[float] = []
    smooth, least = 0.0, math.inf
    for step, (rate, (epoch, batch)) in enumerate(zip(tried, _batches(task, first_epoch), strict=False)):
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = rate * share
        torch.manual_seed(seed + step)
        loss = _loss(task, task.train_loader.dataset.augmented(batch, epoch=epoch))
        value = float(loss.detach())
        if not math.isfinite(value):
            break
        losses.append(value)
        smooth = 0.9 * smooth + 0.1 * value
        now = smooth / (1 - 0.9 ** (step + 1))
        least = min(least, now)
        if now > 4 * least:
            break
        _step(task, optimizer, loss)
    return np.array(losses)


def _smooth(losses: np.ndarray) -> np.ndarray:
    """Return the exponential moving average with decay 0.9, with bias correction."""
    smoothed, mean = np.zeros(len(losses)), 0.0
    for step, value in enumerate(losses):
        mean = 0.9 * mean + 0.1 * value
        smoothed[step] = mean / (1 - 0.9 ** (step + 1))
    return smoothed


def overfit_one_batch(
    store: Store | str | Path,
    recipe: Recipe | str = "auto",
    *,
    snippets: str = "default",
    split: SplitChoice | SplitAssignment | Parts = SplitChoice(),
    views: Sequence[str | int] | None = None,
    weights: Callable[[nn.Module], object] | None = None,
    device: str = "auto",
    steps: int = 200,
) -> OneBatch:
    """Overfit one batch, without augmentation, dropout, mixup or weight decay.

    A model that fits its input and loss memorizes the batch. If it does not, no training will help. The check ends early
    once the batch is memorized. The batch contains as many classes as possible.

    Args:
        store: A store, or its path or URL.
        recipe: A recipe or its name; "auto" chooses one for the store.
        snippets: Name of the table of snippets.
        split: How to split the snippets.
        views: Views to read, by name or number; None for all.
        weights: Function that loads weights into the model; None for new weights.
        device: Device to train on.
        steps: Maximum number of steps.

    Returns:
        The losses and the final accuracy.

    Raises:
        UserError: As `fit`.
    """
    import torch

    store = open_store(store).snapshot()
    task, recipe = _task(store, _plain(recipe, store), snippets, split, views, weights, device)
    _disable_dropout(task.model)
    optimizer = _optimizer(task)
    dataset = task.train_loader.dataset
    # Use the samples of validation, without augmentation.
    dataset.train = False
    rows = _mixed_rows(dataset, recipe.batch)
    batch = _to(dataset.batch(rows), task)
    several = task.multi_label
    losses, accuracy = [], 0.0
    for step in range(steps):
        torch.manual_seed(recipe.seed + step)
        loss = _loss(task, batch)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            break
        _step(task, optimizer, loss)
        if step % 10 == 9 or step + 1 == steps:
            accuracy = _accuracy(task, batch, several=several)
            if OneBatch(np.array(losses), accuracy, len(rows)).learnt:
                break
    return OneBatch(np.array(losses), accuracy, len(rows))


def _plain(recipe: Recipe | str, store: Store) -> Recipe:
    """Return the recipe without the regularization that keeps a model from memorizing."""
    from actionprep.training.recipes import choose_recipe, find_recipe

    if isinstance(recipe, str):
        recipe = choose_recipe(store).recipe if recipe == "auto" else find_recipe(recipe)
    return recipe.changed(
        {"mixup": None, "loss.label_smoothing": 0.0, "optimizer.weight_decay": 0.0, "schedule.warmup": 0.0}
    )


def _disable_dropout(model: nn.Module) -> None:
    """Turn off dropout and stochastic depth of a model that still trains."""
    from torch import nn

    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.train()
        elif isinstance(module, nn.RNNBase):
            # Recurrent layers on the GPU have gradients only in training mode.
            module.train()
            module.dropout = 0.0


def _task(
    store: Store | str | Path,
    recipe: Recipe | str,
    snippets: str,
    split: SplitChoice | SplitAssignment | Parts,
    views: Sequence[str | int] | None,
    weights: Callable[[nn.Module], object] | None,
    device: str,
) -> tuple[ClassifierTask, Recipe]:
    """Return the task of the first phase of a training, on its device, and the recipe."""
    from actionprep.training.fit import first_task
    from actionprep.training.loop.devices import torch_device

    task = first_task(store, recipe, snippets=snippets, split=split, views=views, weights=weights, device=device)
    task.to(torch_device(device))
    task.train_loader.dataset.reader.to(torch_device(device))
    return task, task.recipe


def _optimizer(task: ClassifierTask) -> Any:
    from actionprep.training.loop.optimizers import make_optimizer

    return make_optimizer(task.model, task.recipe.optimizer)


def _batches(task: ClassifierTask, first_epoch: int = 0) -> Iterator[tuple[int, Batch]]:
    """Yield epoch number and batch, epoch after epoch, endlessly."""
    epoch = first_epoch
    while True:
        task.train_loader.epoch = epoch
        for batch in task.train_loader:
            yield epoch, _to(batch, task)
        epoch += 1


def _to(batch: Batch, task: ClassifierTask) -> Batch:
    from actionprep.training.datasets import to_device

    return to_device(batch, next(task.model.parameters()).device)


def _loss(task: ClassifierTask, batch: Batch) -> Tensor:
    import torch

    from actionprep.training.datasets import model_inputs
    from actionprep.training.loop import callbacks
    from actionprep.training.loop.losses import batch_loss

    device = next(task.model.parameters()).device.type
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.bfloat16}.get(task.recipe.precision)
    with callbacks.explain_memory_errors(task.recipe, device), torch.autocast(device, half, enabled=half is not None):
        logits = task.model(**model_inputs(task.model, batch))
        each = batch_loss(task.loss, logits, batch)
    return each.mean()


def _step(task: ClassifierTask, optimizer: Any, loss: Tensor) -> None:
    import torch

    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if task.recipe.optimizer.gradient_clip is not None:
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), task.recipe.optimizer.gradient_clip)
    optimizer.step()


def _accuracy(task: ClassifierTask, batch: Batch, *, several: bool) -> float:
    """Return the share of samples with all labels correct; with labels per time step, correct in 90 % of the steps."""
    import torch

    from actionprep.training.datasets import model_inputs
    from actionprep.training.loop.losses import clip_logits, counted_frames

    # Batch norm, if any, uses the statistics of this batch, as in training.
    with torch.no_grad():
        logits = task.model(**model_inputs(task.model, batch)).float()
    in_frames = "frame_target" in batch
    target = batch["frame_target" if in_frames else "target"]
    if not in_frames:
        logits = clip_logits(logits, batch.get("frame_valid"))
    right = ((logits >= 0) == (target > 0.5)).all(-1) if several else logits.argmax(-1) == target.argmax(-1)
    if in_frames:
        counted = counted_frames(batch)
        right = ((right & counted).sum(1) >= 0.9 * counted.sum(1))[counted.any(1)]
    return float(right.float().mean())


def _mixed_rows(dataset: Any, size: int) -> list[int]:
    """Choose rows so that the classes alternate."""
    labels = dataset.table.label[dataset.rows]
    turn = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        turn[of_label] = np.arange(len(of_label))
    order = np.lexsort((labels, turn))
    return dataset.rows[order[:size]].tolist()


def _search(rates: np.ndarray, losses: np.ndarray, *, broke_off: bool = False) -> RateSearch:
    """Suggest a tenth of the rate from which the loss of a curve rises.

    Howard and Gugger, "Deep Learning for Coders with fastai and PyTorch", 2020, chapter 5, suggest a tenth of the rate with
    the lowest loss, because a full training diverges at rates that a few steps tolerate. With few snippets the curve has no
    sharp minimum, and noise can move it by several decades. So here the minimum extends as far as the loss is at most 2 %
    of its first value, or a quarter of its fall if that is less, above the lowest loss.

    Args:
        rates: Learning rates, shape (S,).
        losses: Smoothed losses, shape (S,).
        broke_off: Whether the search ended early because the loss grew too much.
    """
    if len(rates) < 10:
        raise UserError(
            f"The loss diverged (not finite, or four times its minimum) after {len(rates)} steps up to a rate of "
            f"{rates[-1] if len(rates) else 0:.2g}. The cause is the input or the loss, not the rate. Check with "
            "'actiontrain fit --overfit'."
        )
    # The first values average only a few batches.
    first = max(3, len(losses) // 10)
    start = float(np.median(losses[: 2 * first]))
    wide = _over_half_a_decade(rates, losses)
    lowest = first + int(wide[first:].argmin())
    fall = start - float(wide[lowest])
    if fall < 0.01 * start:
        raise UserError(
            f"The loss falls at no learning rate from {rates[0]:.2g} to {rates[-1]:.2g}: it stays at {start:.3g}. Check "
            "whether the model can learn one batch, with 'actiontrain fit --overfit'."
        )
    risen = wide[lowest:] > wide[lowest] + min(0.02 * start, 0.25 * fall)
    turned = bool(risen.any()) or broke_off
    highest = float(rates[lowest + int(risen.argmax()) - 1]) if risen.any() else float(rates[-1])
    return RateSearch(rates, losses, highest / 10, highest, turned)


def _over_half_a_decade(rates: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return the mean loss within a quarter decade of each rate, shape (S,), so that a single low loss has no effect."""
    near = np.abs(np.log10(rates)[:, None] - np.log10(rates)) < 0.25
    return near @ losses / near.sum(axis=1)
