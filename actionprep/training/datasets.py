"""Snippets as training samples: a dataset for any loop, and the loader of the built-in loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from actionprep.datasets.frame_labels import FrameLabels
from actionprep.datasets.products.snippets import SnippetTable
from actionprep.datasets.splits import Part, SplitAssignment
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from actionprep.datasets.view_ids import views_of_ids
from actionprep.errors import UserError, nearest
from actionprep.training.inputs.base import Batch, InputSettings, ProductReader, find_input, input_settings
from actionprep.training.inputs.rng import Draws, balanced_order, epoch_order

Index = int | tuple[int, int]


class SnippetDataset(Dataset[Batch]):
    """Snippets of a store as samples, for a `torch.utils.data.DataLoader` or any other loop.

    A sample is a dictionary: the arrays of the input (see its reader, e.g. `inputs.tracks.TracksReader`) without the
    batch axis, label () int64 (-2: none of the labels), target (C) float32 and row () int64, the snippet's row of
    `table`. With labels per time step also frame_target (T, C) float32 and frame_known (T) bool, for the times that the
    sample shows after cropping and time warping; where the labels are unknown, the target is zeros.

    Args:
        store: A store, or its path or URL.
        snippets: Name of the table (snippets/<name>), or a table.
        inputs: A product ("tracks"), or its settings (`TracksInput(frames=16)`).
        views: Names of views, in this order; None for all views of the product.
        split: "train", "val" or "test" of the stored or default split, or of a `SplitAssignment` as (split, part).
        rows: Rows of the table instead of a split; None without a split for all rows that are not ignored.
        train: Sample and augment at random, as a function of (seed, epoch, snippet) only, in any worker. False returns
            the same sample each time.
        seed: Seed of the random numbers.
        targets: "frame" adds labels per time step, from the segments behind the table.
        reader: Reader of the product; None makes one from `inputs` and `views`.

    Raises:
        UserError: If the store does not have the product or the views.
    """

    def __init__(
        self,
        store: Store | str | Path,
        snippets: str | SnippetTable = "default",
        inputs: str | InputSettings = "tracks",
        *,
        views: Sequence[str | int] | None = None,
        split: Part | tuple[SplitAssignment, Part] | None = None,
        rows: Sequence[int] | np.ndarray | None = None,
        train: bool = False,
        seed: int = 0,
        targets: Literal["snippet", "frame"] = "snippet",
        reader: ProductReader | None = None,
    ) -> None:
        self.store = open_store(store).snapshot()
        self.table = read_table(self.store, snippets) if isinstance(snippets, str) else snippets
        if reader is None:
            reader = make_reader(self.store, self.table, inputs, views=views)
        self.reader = reader
        self.rows = self._chosen_rows(split, rows)
        self.train = train
        self.seed = seed
        self.epoch = 0
        self.variant = 0
        self._target = torch.from_numpy(self.table.target.astype(np.float32))
        self._label = torch.from_numpy(self.table.label.astype(np.int64))
        self.instants = FrameLabels.of(self.table) if targets == "frame" else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Index) -> Batch:
        """Return one sample; an index (epoch, number) sets the epoch and leaves out the augmentation on the device."""
        epoch, number = index if isinstance(index, tuple) else (self.epoch, index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"Sample {number} of {len(self)}.")
        batch = self.batch([int(self.rows[number])], epoch=epoch, augment=not isinstance(index, tuple))
        return {name: values[0] for name, values in batch.items()}

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their codes."""
        return self.table.labels

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views, in the order of the view axis."""
        return self.reader.views

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the random numbers; workers that are already running do not see it."""
        self.epoch = epoch

    def batch(self, rows: Sequence[int], *, epoch: int = 0, augment: bool = False) -> Batch:
        """Read rows of the table as one batch.

        Args:
            rows: Rows of the table.
            epoch: Epoch of the random numbers.
            augment: Whether to apply the augmentation that runs on the device; False leaves it to the training step.

        Returns:
            The arrays of the input with label (B), target (B, C) and row (B).
        """
        draws = self.draws(rows, epoch=epoch)
        batch = self.reader.read(rows, draws)
        batch |= self.targets(rows)
        if self.instants is not None:
            batch |= self.frame_targets(rows, self.draws(rows, epoch=epoch))
        return self.augmented(batch, epoch=epoch) if augment else batch

    def batch_as(self, rows: Sequence[int], samples: Sequence[int], *, epoch: int = 0) -> Batch:
        """Read rows as one batch with the random numbers of other samples, so that both are augmented in the same way."""
        batch = {**self.reader.read(rows, self.draws(samples, epoch=epoch)), **self.targets(rows)}
        batch["row"] = torch.as_tensor(np.asarray(samples, np.int64))
        return self.augmented(batch, epoch=epoch)

    def draws(self, rows: Sequence[int], *, epoch: int = 0) -> Draws | None:
        """Return the random numbers of these samples; None if there is no randomness."""
        if self.train:
            return Draws(self.seed, epoch, rows)
        return Draws(0, 0, rows, variant=self.variant) if self.variant else None

    def targets(self, rows: Sequence[int]) -> Batch:
        """Return label (B), target (B, C) and row (B) of these rows."""
        index = torch.as_tensor(np.asarray(rows, np.int64))
        return {"label": self._label[index], "target": self._target[index], "row": index}

    def frame_targets(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:
        """Return the labels per time step of these rows.

        Args:
            rows: Rows of the table.
            draws: New random numbers, equal to those that the rows are read with.

        Returns:
            frame_target (B, T, C), and frame_known (B, T): whether the labels are known.
        """
        assert self.instants is not None
        labeled = [
            self.instants.at(int(self.table.recording[row]), times)
            for row, times in zip(rows, self.reader.times(rows, draws), strict=True)
        ]
        target = np.stack([frames for frames, _ in labeled]).astype(np.float32)
        return {
            "frame_target": torch.from_numpy(target),
            "frame_known": torch.from_numpy(np.stack([known for _, known in labeled])),
        }

    def all_targets(self) -> np.ndarray:
        """Return all targets, zeros and ones of shape (n, C): per sample, or per time step with a known label."""
        if self.instants is None:
            return self.table.target[self.rows]
        parts = []
        for start in range(0, len(self.rows), 256):
            labeled = self.frame_targets(self.rows[start : start + 256].tolist())
            parts.append(labeled["frame_target"][labeled["frame_known"]].numpy().astype(np.uint8))
        return np.concatenate(parts)

    def augmented(self, batch: Batch, *, epoch: int = 0) -> Batch:
        """Augment a batch of `batch` on its device, including its targets if they change (mirrored labels)."""
        rows = batch["row"].tolist()
        # `read` has consumed the reader's stream of random numbers: augmentation uses a separate one.
        if self.train:
            draws = Draws(self.seed ^ 0xA06, epoch, rows)
        elif self.variant:
            draws = Draws(0xA06, 0, rows, variant=self.variant)
        else:
            return batch
        batch = self.reader.augment(batch, draws)
        codes = self.reader.mirror_codes()
        if codes is not None and self.train:
            mirrored = self.reader.mirrored(draws).to(batch["label"].device)
            to = torch.from_numpy(codes).to(batch["label"].device)
            label = batch["label"]
            swapped = torch.where(label >= 0, to[label.clamp(min=0)], label)
            batch["label"] = torch.where(mirrored, swapped, label)
            # Column to[c] of a mirrored target is column c of the original.
            back = torch.argsort(to)
            batch["target"] = torch.where(mirrored[:, None], batch["target"][:, back], batch["target"])
            if "frame_target" in batch:
                target = batch["frame_target"]
                batch["frame_target"] = torch.where(mirrored[:, None, None], target[..., back], target)
        return batch

    def _chosen_rows(
        self, split: Part | tuple[SplitAssignment, Part] | None, rows: Sequence[int] | np.ndarray | None
    ) -> np.ndarray:
        if rows is not None:
            if split is not None:
                raise UserError("Give either rows or a split, not both.")
            return np.asarray(rows, np.int64)
        if split is None:
            return np.flatnonzero(self.table.used)
        if isinstance(split, tuple):
            return split[0].rows(split[1])
        from actionprep.datasets.split_choice import SplitChoice, choose_parts

        return choose_parts(self.store, self.table, SplitChoice()).split.rows(split)


class SnippetLoader:
    """Batches of a dataset in an order that is a function of (seed, epoch).

    Products in memory are read in this process, other products by worker processes. Several processes of a training
    share each batch. Besides the dataset's arrays, a batch has weight (B) float32, which is 0 for a sample that only pads
    a process without samples and 1 otherwise, and total (), the number of samples of the batch in all processes.

    Args:
        dataset: The dataset.
        batch: Samples per batch, over all processes.
        shuffle: Whether to shuffle in each epoch.
        balanced: With `shuffle`, draw every class equally often.
        rank: Number of this process.
        world: Number of processes.
        workers: Number of worker processes for reading.

    Attributes:
        epoch: Epoch of the next iteration.
        skip: Number of batches to skip at the start of the next iteration, to resume an interrupted epoch.
    """

    def __init__(
        self,
        dataset: SnippetDataset,
        *,
        batch: int,
        shuffle: bool = False,
        balanced: bool = False,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.batch = batch
        self.shuffle = shuffle
        self.weights = class_share_weights(dataset.table.target[dataset.rows]) if balanced else None
        self.rank, self.world = rank, world
        self.epoch = 0
        self.skip = 0
        self._loader: DataLoader[Batch] | None = None
        if not dataset.reader.in_memory:
            self._loader = DataLoader(
                dataset,
                batch_sampler=_Indices(self),
                num_workers=workers,
                collate_fn=_Collate(dataset.reader),
                persistent_workers=workers > 0,
                pin_memory=torch.cuda.is_available(),
            )

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch)

    def __iter__(self) -> Iterator[Batch]:
        plan = self.plan()[self.skip :]
        if self._loader is None:
            batches: Iterator[Batch] = (
                self.dataset.batch(self.dataset.rows[mine].tolist(), epoch=self.epoch)
                for mine, _ in map(self._share, plan)
            )
        else:
            batches = iter(self._loader)
        self.skip = 0
        for numbers, values in zip(plan, batches, strict=True):
            mine, filling = self._share(numbers)
            weight = torch.full((len(mine),), 0.0 if filling else 1.0)
            yield {**values, "weight": weight, "total": torch.tensor(len(numbers))}

    def plan(self) -> list[np.ndarray]:
        """Return the sample numbers of each batch of this epoch, over all processes."""
        size = len(self.dataset)
        order = np.arange(size)
        if self.shuffle and self.weights is not None:
            order = balanced_order(self.dataset.seed, self.epoch, self.weights)
        elif self.shuffle:
            order = epoch_order(self.dataset.seed, self.epoch, size)
        return [order[start : start + self.batch] for start in range(0, size, self.batch)]

    def samples_of_step(self, number: int, *, accumulate: int) -> int:
        """Return the number of samples, over all processes, of the optimizer step that batch `number` belongs to.

        Args:
            number: Number of the batch in the epoch.
            accumulate: Maximum number of batches per optimizer step.
        """
        first = number // accumulate * accumulate * self.batch
        return min(first + accumulate * self.batch, len(self.dataset)) - first

    def _share(self, numbers: np.ndarray) -> tuple[np.ndarray, bool]:
        mine = numbers[self.rank :: self.world]
        return (mine, False) if len(mine) else (numbers[:1], True)


class _Indices:
    """Batch sampler for torch's DataLoader with the indices of the loader's next iteration."""

    def __init__(self, loader: SnippetLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        loader = self.loader
        for numbers in loader.plan()[loader.skip :]:
            yield [(loader.epoch, int(number)) for number in loader._share(numbers)[0]]


class _Collate:
    """Join samples with the collate function of the reader."""

    def __init__(self, reader: ProductReader) -> None:
        self.join = reader.collate

    def __call__(self, samples: list[Batch]) -> Batch:
        own = ("label", "target", "row")
        joined = self.join([{k: v[None] for k, v in sample.items() if k not in own} for sample in samples])
        return {**joined, **{name: torch.stack([sample[name] for sample in samples]) for name in own}}


def class_share_weights(target: np.ndarray) -> np.ndarray:
    """Compute sampling weights that make classes equally frequent.

    Args:
        target: Targets, zeros and ones of shape (S, C).

    Returns:
        Weight of each sample, shape (S,). A sample with several labels has the mean of their weights, a sample without
        labels the mean over all samples.
    """
    count = target.sum(axis=0, dtype=np.float64)
    share = np.divide(1.0, count, out=np.zeros_like(count), where=count > 0)
    labels = target.sum(axis=1)
    weights = np.divide(target @ share, labels, out=np.zeros(len(target)), where=labels > 0)
    weights[labels == 0] = weights[labels > 0].mean() if (labels > 0).any() else 1.0
    return weights


def read_table(store: Store, name: str) -> SnippetTable:
    """Read the table snippets/<name>; raises UserError with the available tables."""
    if not store.has("snippets", name):
        have = sorted(key.recording for key in store.items("snippets"))
        if not have:
            raise UserError(
                f"The store {store.url} has no snippets to train on. Make them with 'actionprep snippets' in the study "
                "folder."
            )
        raise UserError(f"No snippets '{name}' in {store.url}.{nearest(name, have)} Available: {', '.join(have)}.")
    return SnippetTable.read(store.item("snippets", name))


def make_reader(
    store: Store, table: SnippetTable, inputs: str | InputSettings, *, views: Sequence[str | int] | None = None
) -> ProductReader:
    """Make the reader of a product.

    Args:
        store: Store with the product.
        table: Table of snippets.
        inputs: A product, or its settings.
        views: Names or numbers of views; None for all.

    Returns:
        The reader.

    Raises:
        UserError: If the store does not have the product or the views.
    """
    product = inputs if isinstance(inputs, str) else type(inputs).__module__.rsplit(".", 1)[-1]
    model = find_input(product)
    settings = input_settings(product, {} if isinstance(inputs, str) else inputs)
    model.check_store(settings, store)
    return model(settings, store, table, choose_views(store, model.reads(settings), table, views))


def choose_views(
    store: Store, product: str, table: SnippetTable, views: Sequence[str | int] | None = None
) -> tuple[str, ...]:
    """Choose the views to read.

    Args:
        store: Store with the product.
        product: Name of the product.
        table: Table of snippets.
        views: Names or numbers of views, as for the pipeline; None for all views that the product has of the table's
            recordings, in natural order.

    Returns:
        Names of the views.

    Raises:
        UserError: If a view does not exist; the message lists the available views.
    """
    from actionprep.datasets.natural_order import natural_key

    recordings = {table.recordings[code] for code in np.unique(table.recording)}
    available = sorted({key.view for key in store.items(product) if key.recording in recordings}, key=natural_key)
    if not available:
        raise UserError(
            f"The store {store.url} has {product}, but for none of the recordings of the snippets. Build "
            "both in the same study: actionprep build."
        )
    if not views:
        return tuple(available)

    def no_view(id: str) -> str:
        return f"No view '{id}' in {product} of {store.url}.{nearest(id, available)} Available: {', '.join(available)}."

    return tuple(views_of_ids(views, available, no_view=no_view))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move all arrays of a batch to a device."""
    return {name: values.to(device, non_blocking=True) for name, values in batch.items()}


def model_inputs(model: Any, batch: Batch) -> dict[str, Tensor]:
    """Select the arrays of a batch that are parameters of the model's forward; raises UserError if one is missing."""
    import inspect

    forward = inspect.signature(getattr(model, "_orig_mod", model).forward).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in forward.values()):
        # A model with several inputs receives the arrays of all of them.
        return {name: values for name, values in batch.items() if name.startswith("part")}
    taken = {name: batch[name] for name in forward if name in batch}
    missing = [
        name
        for name, parameter in forward.items()
        if name not in batch and parameter.default is parameter.empty and name != "self"
    ]
    if missing:
        raise UserError(
            f"{type(model).__name__} needs {', '.join(missing)}, but its input provides {', '.join(batch)}. The recipe "
            "combines a model with the input of another product: choose a product that fits the model."
        )
    return taken
