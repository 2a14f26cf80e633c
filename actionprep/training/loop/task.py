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

from actionprep.errors import UserError, name_list
from actionprep.training.datasets import SnippetDataset, SnippetLoader, model_inputs, to_device
from actionprep.training.evaluation import metrics
from actionprep.training.inputs.base import Batch
from actionprep.training.inputs.rng import Draws, step_seed
from actionprep.training.loop.losses import ClassificationLoss, batch_loss, clip_logits, counted_frames
from actionprep.training.loop.optimizers import freeze, make_optimizer, rate_factor
from actionprep.training.loop.recurrent_state import DEPTH, previous_chains, previous_windows
from actionprep.training.recipes import Recipe


class ClassifierTask(pl.LightningModule):
    """Trains a model on snippets with one label, several labels, or labels of every frame.

    The forward method of the model takes the arrays of a batch by name and returns logits (B, C), or (B, T, C) with one
    prediction per frame. All random numbers are functions of (seed, epoch, sample) or of (seed, step), so that a
    resumed run gives the same numbers as an uninterrupted one.

    Args:
        model: Model to train.
        recipe: Recipe.
        train: Loader of the train part.
        val: Loader of the val part; None without one.
        multi_label: Whether a snippet can have several labels.
        card: Description that checkpoints contain (recipe, labels, views, …), plain values.
        num_epochs: Number of epochs of the learning-rate schedule. Default: those of the recipe.

    Attributes:
        epoch_metrics: After an epoch: train_loss, learning_rate, val_loss, val_accuracy, val_macro_f1, val_map and,
            with labels of every frame, val_frame_accuracy and val_frame_macro_f1.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        train: SnippetLoader,
        val: SnippetLoader | None,
        *,
        multi_label: bool,
        card: Mapping[str, Any],
        num_epochs: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._frozen = freeze(model, recipe.optimizer.freeze)
        self.average = Average(model, recipe.ema) if recipe.ema is not None else None
        weighed = recipe.loss.class_weights != "none"
        target = train.dataset.all_targets() if weighed else train.dataset.table.target
        self.loss = ClassificationLoss(recipe.loss, target, multi_label=multi_label)
        self.recipe = recipe
        self.multi_label = multi_label
        self.card = dict(card)
        self.num_epochs = recipe.epochs if num_epochs is None else num_epochs
        self.train_loader, self.val_loader = train, val
        self.epoch_metrics: dict[str, float] = {}
        self._sum, self._count = 0.0, 0.0
        self._validated: list[_ValidationBatch] = []
        self._chains: dict[int, dict[int, np.ndarray]] = {}

    @property
    def tested(self) -> nn.Module:
        """The model that validation and tests use: the running mean of the weights if there is one."""
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
        self.epoch_metrics = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: D102
        recipe, epoch = self.recipe, self.current_epoch
        if batch_idx == 0:
            self._sum, self._count = 0.0, 0.0
        step = epoch * len(self.train_loader) + batch_idx
        torch.manual_seed(step_seed(recipe.seed, step) + self.global_rank)
        for module in self._frozen:
            # Lightning sets all modules to training mode; statistics of frozen batch norms would continue to change.
            module.eval()
        dataset = self.train_loader.dataset
        # Augmentation of positions needs more digits than mixed precision has.
        with torch.autocast(self.device.type, enabled=False):
            batch = dataset.augmented(batch, epoch=epoch)
            if recipe.mixup is not None or recipe.cutmix is not None:
                batch = self._mixed(dataset, batch, step)
        logits = self._logits(self.model, dataset, batch, epoch=epoch)
        sample_loss = batch_loss(self.loss, logits, batch)
        total = (sample_loss * batch["weight"]).sum()
        # Processes average their gradients, and accumulation averages those of its batches. Each sample is weighted by its
        # share of the complete step, also in the last step of an epoch, which may have fewer batches and samples.
        samples = self.train_loader.samples_of_step(batch_idx, accumulate=recipe.accumulate)
        loss = total * (self.trainer.world_size * recipe.accumulate / samples)
        if not bool(torch.isfinite(loss)):
            raise UserError(self._not_finite(batch, batch_idx))
        self._sum += float(total.detach())
        self._count += float(batch["weight"].sum())
        return loss

    def average_weights(self, batch_idx: int) -> None:
        """Update the running mean of the weights if this batch ended an optimizer step.

        A callback calls this, because Lightning runs callbacks before the hook of the task, and checkpoints must come
        after it.
        """
        step_ended = (batch_idx + 1) % self.recipe.accumulate == 0 or batch_idx + 1 == len(self.train_loader)
        if self.average is not None and step_ended:
            self.average.update(self.model)

    def on_train_epoch_end(self) -> None:  # noqa: D102
        total, count = self._over_processes(self._sum, self._count)
        rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self._log_metrics(train_loss=total / max(count, 1.0), learning_rate=rate)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: D102
        assert self.val_loader is not None
        logits = self._logits(self.tested, self.val_loader.dataset, batch)
        sample_loss = batch_loss(self.loss, logits, batch)
        keep = batch["weight"] > 0
        frames = self._count_frames(logits, batch, keep) if "frame_target" in batch else None
        logits = clip_logits(logits.float(), batch.get("frame_valid"))
        rows = batch["row"][keep].cpu().numpy()
        self._validated.append(
            _ValidationBatch(rows, logits[keep].cpu().numpy(), float(sample_loss[keep].sum()), frames)
        )

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        parts, self._validated = self._validated, []
        if self.trainer.world_size > 1:
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, parts)
            parts = [part for counts in gathered for part in counts]
        rows = np.concatenate([part.rows for part in parts])
        logits = np.concatenate([part.logits for part in parts])
        table = self.train_loader.dataset.table
        values = evaluate(table.label[rows], table.target[rows], logits, multi_label=self.multi_label)
        self._log_metrics(
            val_loss=sum(part.loss for part in parts) / max(len(rows), 1),
            **{f"val_{name}": values[name] for name in ("accuracy", "macro_f1", "map")},
        )
        frames = [part.frames for part in parts if part.frames is not None]
        if frames:
            correct, total = sum(counts[0] for counts in frames), sum(counts[1] for counts in frames)
            labels = np.sum([counts[2] for counts in frames], axis=0)
            accuracy = correct / total if total else math.nan
            self._log_metrics(val_frame_accuracy=accuracy, val_frame_macro_f1=metrics.macro_f1(labels))

    def _count_frames(self, logits: Tensor, batch: Batch, keep: Tensor) -> tuple[int, int, np.ndarray]:
        """Count frames that are correct in all labels, and frames with labels; return them with `metrics.label_counts`."""
        counted = counted_frames(batch) & keep[:, None]
        actual, predictions = batch["frame_target"][counted] > 0.5, logits[counted].float()
        if self.multi_label:
            predicted = predictions >= 0
        else:
            predicted = torch.nn.functional.one_hot(predictions.argmax(-1), predictions.shape[-1]).bool()
        correct = (actual == predicted).all(-1).sum()
        return int(correct), len(actual), metrics.label_counts(actual.cpu().numpy(), predicted.cpu().numpy())

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
        # The hook for the start of an epoch is not called for an epoch that is resumed in the middle.
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
        """State of the model after the windows before these samples, each window in the same part of the split."""
        if id(dataset) not in self._chains:
            chain_indices = previous_chains(previous_windows(dataset.table, dataset.rows), DEPTH)
            rows = np.where(chain_indices >= 0, dataset.rows[chain_indices], -1)
            self._chains[id(dataset)] = dict(zip(dataset.rows.tolist(), rows, strict=True))
        chains = np.array([self._chains[id(dataset)][row] for row in samples.tolist()])
        state = None
        for rows in chains.T[::-1]:
            exists = rows >= 0
            if exists.any():
                with torch.autocast(self.device.type, enabled=False):
                    # A sample and the windows before it are augmented with the same random numbers.
                    batch = dataset.batch_as(np.where(exists, rows, samples).tolist(), samples.tolist(), epoch=epoch)
                batch = to_device(batch, self.device)
                has_window = torch.from_numpy(exists).to(self.device)[:, None]
                valid = batch["frame_valid"] & has_window
                _, state = model.advance(**model_inputs(model, {**batch, "frame_valid": valid}), state=state)
        return state

    def _log_metrics(self, **values: float) -> None:
        self.epoch_metrics |= values
        for name, value in values.items():
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
        sample_arrays = ("label", "target", "row", "weight", "total")
        frame_arrays = [name for name in ("frame_target", "frame_known") if name in batch]
        arrays = {name: value for name, value in batch.items() if name not in sample_arrays}
        if cutting:
            pieces = Draws(recipe.seed ^ 0xC07, step, batch["row"].tolist())
            # A span of time brings the labels of its frames with it.
            mixed, share = dataset.reader.cut(arrays, partner, share, pieces)
        else:
            mixed = dataset.reader.mix(arrays, partner, share)
        result: Batch = {**{name: batch[name] for name in sample_arrays}, **mixed}
        blended = ["target"]
        if frame_arrays and not (cutting and dataset.reader.cuts_time):
            blended.append("frame_target")
            # Half of a label carries no information about what the other half shows.
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
            f"The input contains non-finite values in {', '.join(bad)}. Check these items with 'actionprep verify'."
            if bad
            else "The input is finite. Lower optimizer.learning_rate, set optimizer.gradient_clip, or use precision 32-true."
        )
        return (
            f"The loss is NaN or infinite in epoch {self.current_epoch + 1}, batch {batch_idx + 1}, table rows {rows}: "
            f"{name_list(named, 8)}.\n{cause}"
        )

    def _over_processes(self, *values: float) -> list[float]:
        if self.trainer.world_size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist()


class _ValidationBatch(NamedTuple):
    """Validation results of a batch: rows (B,), logits (B, C), sum of the losses, and counts of `_count_frames`."""

    rows: np.ndarray
    logits: np.ndarray
    loss: float
    frames: tuple[int, int, np.ndarray] | None


class Average(nn.Module):
    """Running mean of the weights and buffers of a model: after each step w ← d·w + (1 - d)·new.

    d increases to `decay` as (1 + n) / (10 + n) over the first steps n, so that the initial weights are soon forgotten.
    """

    steps: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> Average:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Include the weights of the model after a step."""
        count = int(self.steps)
        decay = min(self.decay, (1 + count) / (10 + count))
        averaged, current = list(self.model.state_dict().values()), list(model.state_dict().values())
        moving = [(old, new) for old, new in zip(averaged, current, strict=True) if old.is_floating_point()]
        torch._foreach_lerp_([old for old, _ in moving], [new for _, new in moving], 1 - decay)
        for old, new in zip(averaged, current, strict=True):
            if not old.is_floating_point():
                old.copy_(new)
        self.steps += 1


def evaluate(label: np.ndarray, target: np.ndarray, logits: np.ndarray, *, multi_label: bool) -> dict[str, float]:
    """Compute `metrics.summary` from logits.

    Args:
        label: Label codes, shape (S,), used with one label per snippet.
        target: Labels as zeros and ones, shape (S, C), used with several labels.
        logits: Logits, shape (S, C).
        multi_label: Whether a snippet can have several labels. A label is then predicted from a probability of 0.5.

    Returns:
        Metrics by name.
    """
    if multi_label:
        probabilities = metrics.sigmoid(logits)
        return metrics.summary(target, (probabilities >= 0.5).astype(np.uint8), probabilities)
    probabilities = metrics.softmax(logits)
    return metrics.summary(label, probabilities.argmax(axis=1), probabilities)
