"""The Lightning task that trains every model (importing it imports Lightning, which takes seconds)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.datasets import SnippetDataset, SnippetLoader, model_inputs, to_device
from actionprep.training.evaluation import metrics
from actionprep.training.inputs.base import Batch
from actionprep.training.inputs.rng import Draws, step_seed
from actionprep.training.loop.losses import ClassificationLoss, batch_loss, clip_logits, counted_frames
from actionprep.training.loop.optimizers import freeze, make_optimizer, rate_factor
from actionprep.training.loop.recurrent_state import DEPTH, chains_before, windows_before
from actionprep.training.recipes import Recipe


class ClassifierTask(pl.LightningModule):
    """Trains a model on snippets: one label, several labels, or a label for every frame.

    The model's forward takes the arrays of the batch by name and gives logits (B, C), or (B, T, C) for every frame.
    Everything drawn is a function of (seed, epoch, sample) or of (seed, step), so a run that was interrupted and
    resumed gives the numbers of one that was not.

    card:    what a checkpoint tells of itself (recipe, labels, views, …), plain values.
    num_epochs: over which the learning rate goes its way; the recipe's when None.
    figures: train_loss, learning_rate, val_loss, val_accuracy, val_macro_f1, val_map of the epoch, once it is over; with
             labels of every instant also val_frame_accuracy and val_frame_macro_f1.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        train: SnippetLoader,
        val: SnippetLoader | None,
        *,
        several: bool,
        card: Mapping[str, Any],
        num_epochs: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._still = freeze(model, recipe.optimizer.freeze)
        self.average = Average(model, recipe.ema) if recipe.ema is not None else None
        weighed = recipe.loss.class_weights != "none"
        target = train.dataset.all_targets() if weighed else train.dataset.table.target
        self.loss = ClassificationLoss(recipe.loss, target, several=several)
        self.recipe = recipe
        self.several = several
        self.card = dict(card)
        self.num_epochs = recipe.epochs if num_epochs is None else num_epochs
        self.train_loader, self.val_loader = train, val
        self.figures: dict[str, float] = {}
        self._sum, self._count = 0.0, 0.0
        self._evaluated: list[_Evaluated] = []
        self._chains: dict[int, dict[int, np.ndarray]] = {}

    @property
    def tested(self) -> nn.Module:
        """The model that validation and tests use: the running mean of the weights where there is one."""
        return self.model if self.average is None else self.average.model

    def train_dataloader(self) -> SnippetLoader:  # noqa: D102
        return self.train_loader

    def val_dataloader(self) -> SnippetLoader | list[Any]:  # noqa: D102
        return [] if self.val_loader is None else self.val_loader

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:  # noqa: D102
        return to_device(batch, device)

    def setup(self, stage: str) -> None:  # noqa: D102
        for loader in (self.train_loader, self.val_loader):
            if loader is not None:
                loader.rank, loader.world = self.trainer.global_rank, self.trainer.world_size

    def on_fit_start(self) -> None:  # noqa: D102
        self.train_loader.dataset.reader.to(self.device)

    def on_train_epoch_start(self) -> None:  # noqa: D102
        self.train_loader.epoch = self.current_epoch
        self.figures = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: D102
        recipe, epoch = self.recipe, self.current_epoch
        if batch_idx == 0:
            self._sum, self._count = 0.0, 0.0
        step = epoch * len(self.train_loader) + batch_idx
        torch.manual_seed(step_seed(recipe.seed, step) + self.global_rank)
        for module in self._still:
            # Lightning sets everything to training; frozen figures of batch norms would go on moving.
            module.eval()
        dataset = self.train_loader.dataset
        # Positions are not to be turned and shifted in the few digits of mixed precision.
        with torch.autocast(self.device.type, enabled=False):
            batch = dataset.augmented(batch, epoch=epoch)
            if recipe.mixup is not None or recipe.cutmix is not None:
                batch = self._mixed(dataset, batch, step)
        logits = self._logits(self.model, dataset, batch, epoch=epoch)
        each = batch_loss(self.loss, logits, batch)
        total = (each * batch["weight"]).sum()
        # Processes average their gradients, and accumulation those of its batches: each sample weighs by its share of
        # the whole step, also in the last one of an epoch, which may have fewer batches and samples.
        samples = self.train_loader.samples_of_step(batch_idx, accumulate=recipe.accumulate)
        loss = total * (self.trainer.world_size * recipe.accumulate / samples)
        if not bool(torch.isfinite(loss)):
            raise UserError(self._not_finite(batch, batch_idx))
        self._sum += float(total.detach())
        self._count += float(batch["weight"].sum())
        return loss

    def average_weights(self, batch_idx: int) -> None:
        """Take in the weights after the step that this batch ended, if it ended one.

        For a callback: Lightning calls those before the task's own hook, and a checkpoint must come after.
        """
        ended = (batch_idx + 1) % self.recipe.accumulate == 0 or batch_idx + 1 == len(self.train_loader)
        if self.average is not None and ended:
            self.average.update(self.model)

    def on_train_epoch_end(self) -> None:  # noqa: D102
        total, count = self._over_processes(self._sum, self._count)
        rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self._show(train_loss=total / max(count, 1.0), learning_rate=rate)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: D102
        assert self.val_loader is not None
        logits = self._logits(self.tested, self.val_loader.dataset, batch)
        each = batch_loss(self.loss, logits, batch)
        keep = batch["weight"] > 0
        frames = self._of_frames(logits, batch, keep) if "frame_target" in batch else None
        logits = clip_logits(logits.float(), batch.get("frame_valid"))
        rows = batch["row"][keep].cpu().numpy()
        self._evaluated.append(_Evaluated(rows, logits[keep].cpu().numpy(), float(each[keep].sum()), frames))

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        parts, self._evaluated = self._evaluated, []
        if self.trainer.world_size > 1:
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, parts)
            parts = [part for one in gathered for part in one]
        rows = np.concatenate([part.rows for part in parts])
        logits = np.concatenate([part.logits for part in parts])
        table = self.train_loader.dataset.table
        figures = evaluate(table.label[rows], table.target[rows], logits, several=self.several)
        self._show(
            val_loss=sum(part.loss for part in parts) / max(len(rows), 1),
            **{f"val_{name}": figures[name] for name in ("accuracy", "macro_f1", "map")},
        )
        frames = [part.frames for part in parts if part.frames is not None]
        if frames:
            right, counted = sum(one[0] for one in frames), sum(one[1] for one in frames)
            hits = np.sum([one[2] for one in frames], axis=0)
            accuracy = right / counted if counted else math.nan
            self._show(val_frame_accuracy=accuracy, val_frame_macro_f1=metrics.macro_f1(hits))

    def _of_frames(self, logits: Tensor, batch: Batch, keep: Tensor) -> tuple[int, int, np.ndarray]:
        """Instants that are right in all labels, instants with labels, and `metrics.hits` of them."""
        counted = counted_frames(batch) & keep[:, None]
        actual, said = batch["frame_target"][counted] > 0.5, logits[counted].float()
        if self.several:
            predicted = said >= 0
        else:
            predicted = torch.nn.functional.one_hot(said.argmax(-1), said.shape[-1]).bool()
        right = (actual == predicted).all(-1).sum()
        return int(right), len(actual), metrics.hits(actual.cpu().numpy(), predicted.cpu().numpy())

    def configure_optimizers(self) -> Any:  # noqa: D102
        recipe = self.recipe
        optimizer = make_optimizer(self.model, recipe.optimizer)
        per_epoch = -(-len(self.train_loader) // recipe.accumulate)
        factor = rate_factor(recipe.schedule, num_steps=per_epoch * self.num_epochs, steps_per_epoch=per_epoch)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        checkpoint["actionprep"] = self.card
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        checkpoint["actionprep_progress"] = {"sum": self._sum, "count": self._count, "batches": int(done)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        progress = checkpoint["actionprep_progress"]
        # An epoch that goes on in its middle has no start of which this would be told.
        self.train_loader.epoch = checkpoint["epoch"]
        self._sum, self._count = progress["sum"], progress["count"]
        self.train_loader.skip = progress["batches"] % len(self.train_loader)

    def _logits(self, model: Any, dataset: SnippetDataset, batch: Batch, *, epoch: int = 0) -> Tensor:
        if not self.recipe.carry:
            logits: Tensor = model(**model_inputs(model, batch))
            return logits
        state = self._state_before(model, dataset, batch["row"].cpu().numpy(), epoch=epoch)
        logits, _ = model.advance(**model_inputs(model, batch), state=state)
        return logits

    @torch.no_grad()
    def _state_before(self, model: Any, dataset: SnippetDataset, samples: np.ndarray, *, epoch: int) -> Any:
        """The model's state after the windows before these samples, each of its own part of the split."""
        if id(dataset) not in self._chains:
            numbers = chains_before(windows_before(dataset.table, dataset.rows), DEPTH)
            rows = np.where(numbers >= 0, dataset.rows[numbers], -1)
            self._chains[id(dataset)] = dict(zip(dataset.rows.tolist(), rows, strict=True))
        chains = np.array([self._chains[id(dataset)][one] for one in samples.tolist()])
        state = None
        for rows in chains.T[::-1]:
            there = rows >= 0
            if there.any():
                with torch.autocast(self.device.type, enabled=False):
                    # The same random numbers turn and mirror a sample and what was before it.
                    batch = dataset.batch_as(np.where(there, rows, samples).tolist(), samples.tolist(), epoch=epoch)
                batch = to_device(batch, self.device)
                starts = torch.from_numpy(there).to(self.device)[:, None]
                valid = batch["frame_valid"] & starts
                _, state = model.advance(**model_inputs(model, {**batch, "frame_valid": valid}), state=state)
        return state

    def _show(self, **figures: float) -> None:
        self.figures |= figures
        for name, value in figures.items():
            self.log(name, value)

    def _mixed(self, dataset: SnippetDataset, batch: Batch, step: int) -> Batch:
        recipe = self.recipe
        draws = Draws(recipe.seed ^ 0x313, step, [self.global_rank])
        if float(draws.uniform()) >= recipe.mixup_share:
            return batch
        size = len(batch["row"])
        partner = draws.order(size)[0].to(self.device)
        alpha, cutting = recipe.mixup or 0.0, False
        if recipe.cutmix is not None and (recipe.mixup is None or float(draws.uniform()) < 0.5):
            alpha, cutting = recipe.cutmix, True
        generator = np.random.default_rng([recipe.seed, step, self.global_rank])
        share = torch.full((size,), float(generator.beta(alpha, alpha)), device=self.device)
        own = ("label", "target", "row", "weight", "total")
        of_frames = [name for name in ("frame_target", "frame_known") if name in batch]
        arrays = {name: value for name, value in batch.items() if name not in own}
        if cutting:
            pieces = Draws(recipe.seed ^ 0xC07, step, batch["row"].tolist())
            # A span of time brings the labels of its instants with it.
            mixed, share = dataset.reader.cut(arrays, partner, share, pieces)
        else:
            mixed = dataset.reader.mix(arrays, partner, share)
        result: Batch = {**{name: batch[name] for name in own}, **mixed}
        blended = ["target"]
        if of_frames and not (cutting and dataset.reader.cuts_time):
            blended.append("frame_target")
            # Half of a label says nothing of what the other half shows.
            result["frame_known"] = batch["frame_known"] & batch["frame_known"][partner]
        for name in blended:
            keep = share.view(-1, *[1] * (batch[name].ndim - 1))
            result[name] = keep * batch[name] + (1 - keep) * batch[name][partner]
        return result

    def _not_finite(self, batch: Batch, batch_idx: int) -> str:
        table = self.train_loader.dataset.table
        rows = batch["row"].tolist()
        named = [f"{table.recordings[table.recording[row]]} at {table.onset[row]:.2f} s" for row in rows]
        bad = [
            name
            for name, values in batch.items()
            if values.is_floating_point() and not bool(torch.isfinite(values).all())
        ]
        cause = (
            f"The input holds numbers that are not finite, in {', '.join(bad)}: look at these items with 'actionprep "
            "verify'."
            if bad
            else "The input is finite: lower optimizer.learning_rate, set optimizer.gradient_clip, or use precision "
            "32-true."
        )
        return (
            f"The loss is not a number in epoch {self.current_epoch + 1}, batch {batch_idx + 1}, snippets {rows} of the "
            f"table: {'; '.join(named[:8])}{' …' if len(named) > 8 else ''}.\n{cause}"
        )

    def _over_processes(self, *numbers: float) -> list[float]:
        if self.trainer.world_size == 1:
            return list(numbers)
        together = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(together)
        return together.tolist()


class _Evaluated(NamedTuple):
    """A batch of validation: rows (B), logits (B, C), the sum of its losses, and what `_of_frames` gives."""

    rows: np.ndarray
    logits: np.ndarray
    loss: float
    frames: tuple[int, int, np.ndarray] | None


class Average(nn.Module):
    """A running mean of a model's weights: after each step w ← d·w + (1 - d)·new, buffers too.

    d rises to `decay` as (1 + n) / (10 + n) over the first steps n, so that the fresh weights are soon forgotten.
    """

    steps: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> Average:
        """Stays in evaluation, whatever is asked for."""
        return super().train(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights after a step."""
        count = int(self.steps)
        decay = min(self.decay, (1 + count) / (10 + count))
        mine, theirs = list(self.model.state_dict().values()), list(model.state_dict().values())
        moving = [(own, new) for own, new in zip(mine, theirs, strict=True) if own.is_floating_point()]
        torch._foreach_lerp_([own for own, _ in moving], [new for _, new in moving], 1 - decay)
        for own, new in zip(mine, theirs, strict=True):
            if not own.is_floating_point():
                own.copy_(new)
        self.steps += 1


def evaluate(label: np.ndarray, target: np.ndarray, logits: np.ndarray, *, several: bool) -> dict[str, float]:
    """The summary of `metrics.summary` from logits (S, C); with several labels the threshold is one half."""
    if several:
        probabilities = metrics.sigmoid(logits)
        return metrics.summary(target, (probabilities >= 0.5).astype(np.uint8), probabilities)
    probabilities = metrics.softmax(logits)
    return metrics.summary(label, probabilities.argmax(axis=1), probabilities)
