"""Snippets as training samples: a plain dataset for any loop, and the loader that our own loop uses."""

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
    `table`. With labels of every instant also frame_target (T, C) float32 and frame_known (T) bool, for the times that the
    sample really shows, however they are cut and warped; where they are not known, the target is zeros.

    store:    a Store, or its path or URL.
    snippets: name of the table, snippets/<name>, or a table.
    inputs:   a product ("tracks"), or the settings of one (`TracksInput(frames=16)`).
    views:    names of views, in this order; None: all that the product has.
    split:    "train", "val" or "test" of the stored or default split, or of a `SplitAssignment` given as (split, part).
    rows:     rows of the table instead; None and no split: all that are not ignored.
    train:    sample and augment at random: functions of (seed, epoch, snippet) alone, whatever worker reads it.
        Otherwise the same sample each time.
    targets: "frame": also the labels of every instant, from the segments behind the table.

    Raises UserError when the store lacks the product or the views.
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
        """One sample; an index (epoch, number) names its epoch, and leaves undone what is augmented on the device."""
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
        """Choose the random numbers of an epoch; does not reach workers that are running already."""
        self.epoch = epoch

    def batch(self, rows: Sequence[int], *, epoch: int = 0, augment: bool = False) -> Batch:
        """These rows of the table as one batch, with label, target and row.

        augment: also what the input changes on the device; False leaves that to the training step.
        """
        draws = self.draws(rows, epoch=epoch)
        batch = self.reader.read(rows, draws)
        batch |= self.targets(rows)
        if self.instants is not None:
            batch |= self.frame_targets(rows, self.draws(rows, epoch=epoch))
        return self.augmented(batch, epoch=epoch) if augment else batch

    def batch_as(self, rows: Sequence[int], samples: Sequence[int], *, epoch: int = 0) -> Batch:
        """These rows as one batch, read and augmented with the random numbers of other samples: they change alike."""
        batch = {**self.reader.read(rows, self.draws(samples, epoch=epoch)), **self.targets(rows)}
        batch["row"] = torch.as_tensor(np.asarray(samples, np.int64))
        return self.augmented(batch, epoch=epoch)

    def draws(self, rows: Sequence[int], *, epoch: int = 0) -> Draws | None:
        """Random numbers of these samples; None where nothing is drawn."""
        if self.train:
            return Draws(self.seed, epoch, rows)
        return Draws(0, 0, rows, variant=self.variant) if self.variant else None

    def targets(self, rows: Sequence[int]) -> Batch:
        """Label (B), target (B, C) and row (B) of these rows."""
        at = torch.as_tensor(np.asarray(rows, np.int64))
        return {"label": self._label[at], "target": self._target[at], "row": at}

    def frame_targets(self, rows: Sequence[int], draws: Draws | None = None) -> Batch:
        """Labels at every instant of these rows: frame_target (B, T, C) and whether they are known, frame_known (B, T).

        draws: those that the rows are read with, fresh.
        """
        assert self.instants is not None
        found = [
            self.instants.at(int(self.table.recording[row]), times)
            for row, times in zip(rows, self.reader.times(rows, draws), strict=True)
        ]
        target = np.stack([one for one, _ in found]).astype(np.float32)
        return {
            "frame_target": torch.from_numpy(target),
            "frame_known": torch.from_numpy(np.stack([known for _, known in found])),
        }

    def all_targets(self) -> np.ndarray:
        """(n, C) zeros and ones: of all samples, or with labels of every instant of all instants whose label is known."""
        if self.instants is None:
            return self.table.target[self.rows]
        parts = []
        for start in range(0, len(self.rows), 256):
            found = self.frame_targets(self.rows[start : start + 256].tolist())
            parts.append(found["frame_target"][found["frame_known"]].numpy().astype(np.uint8))
        return np.concatenate(parts)

    def augmented(self, batch: Batch, *, epoch: int = 0) -> Batch:
        """A batch of `batch` changed at random on its device, with its targets where the change concerns them."""
        rows = batch["row"].tolist()
        # The reader's draws are a stream that `read` has begun: augmentation has one of its own.
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
            # Column to[c] of a mirrored target holds what column c held.
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
        from actionprep.training.split_choice import SplitChoice, choose_parts

        return choose_parts(self.store, self.table, SplitChoice()).split.rows(split)


class SnippetLoader:
    """Batches of a dataset in an order that is a function of (seed, epoch).

    Products held in memory are read here, a batch at a time; others by worker processes. Several processes of one
    training (rank of world) share each batch out. Besides the dataset's arrays a batch has weight (B) float32: 1, or 0
    for a sample that only fills up a process without any; and total (), the samples of the batch in all processes.

    balanced: with shuffle, draw every class as often as the others.
    epoch:   which epoch the next iteration gives.
    skip:    batches left out at the start of the next iteration, of a training that was interrupted there.
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
        for numbers, found in zip(plan, batches, strict=True):
            mine, filling = self._share(numbers)
            weight = torch.full((len(mine),), 0.0 if filling else 1.0)
            yield {**found, "weight": weight, "total": torch.tensor(len(numbers))}

    def plan(self) -> list[np.ndarray]:
        """Numbers of the samples of each batch of this epoch, over all processes."""
        size = len(self.dataset)
        order = np.arange(size)
        if self.shuffle and self.weights is not None:
            order = balanced_order(self.dataset.seed, self.epoch, self.weights)
        elif self.shuffle:
            order = epoch_order(self.dataset.seed, self.epoch, size)
        return [order[start : start + self.batch] for start in range(0, size, self.batch)]

    def samples_of_step(self, number: int, *, accumulate: int) -> int:
        """Samples, over all processes, of the step that batch `number` has a part in, of so many batches at most."""
        first = number // accumulate * accumulate * self.batch
        return min(first + accumulate * self.batch, len(self.dataset)) - first

    def _share(self, numbers: np.ndarray) -> tuple[np.ndarray, bool]:
        mine = numbers[self.rank :: self.world]
        return (mine, False) if len(mine) else (numbers[:1], True)


class _Indices:
    """The index lists of the loader's next iteration, for torch's DataLoader."""

    def __init__(self, loader: SnippetLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        loader = self.loader
        for numbers in loader.plan()[loader.skip :]:
            yield [(loader.epoch, int(number)) for number in loader._share(numbers)[0]]


class _Collate:
    """Joins samples by the reader's own rule."""

    def __init__(self, reader: ProductReader) -> None:
        self.join = reader.collate

    def __call__(self, samples: list[Batch]) -> Batch:
        own = ("label", "target", "row")
        joined = self.join([{k: v[None] for k, v in sample.items() if k not in own} for sample in samples])
        return {**joined, **{name: torch.stack([sample[name] for sample in samples]) for name in own}}


def class_share_weights(target: np.ndarray) -> np.ndarray:
    """(S,) how often each sample should be drawn so that classes come equally often, from targets (S, C).

    A sample with several labels counts as the mean of them; one without any, as the mean of all samples.
    """
    count = target.sum(axis=0, dtype=np.float64)
    share = np.divide(1.0, count, out=np.zeros_like(count), where=count > 0)
    labels = target.sum(axis=1)
    found = np.divide(target @ share, labels, out=np.zeros(len(target)), where=labels > 0)
    found[labels == 0] = found[labels > 0].mean() if (labels > 0).any() else 1.0
    return found


def read_table(store: Store, name: str) -> SnippetTable:
    """The table snippets/<name>; raises UserError that lists what there is."""
    if not store.has("snippets", name):
        have = sorted(key.recording for key in store.items("snippets"))
        if not have:
            raise UserError(
                f"The store {store.url} has no snippets to train on. Make them with 'actionprep snippets' in the study "
                "folder."
            )
        raise UserError(f"No snippets '{name}' in {store.url}.{nearest(name, have)} There are {', '.join(have)}.")
    return SnippetTable.read(store.item("snippets", name))


def make_reader(
    store: Store, table: SnippetTable, inputs: str | InputSettings, *, views: Sequence[str | int] | None = None
) -> ProductReader:
    """The reader of a product with its settings."""
    product = inputs if isinstance(inputs, str) else type(inputs).__module__.rsplit(".", 1)[-1]
    model = find_input(product)
    settings = input_settings(product, {} if isinstance(inputs, str) else inputs)
    model.check_store(settings, store)
    return model(settings, store, table, choose_views(store, model.reads(settings), table, views))


def choose_views(
    store: Store, product: str, table: SnippetTable, views: Sequence[str | int] | None = None
) -> tuple[str, ...]:
    """Names of the views to read; raises UserError naming those that there are.

    views: by name or number, as for the pipeline; None: all that the product has of the table's
           recordings, in natural order.
    """
    from actionprep.datasets.natural_order import natural_key

    recordings = {table.recordings[code] for code in np.unique(table.recording)}
    there = sorted({key.view for key in store.items(product) if key.recording in recordings}, key=natural_key)
    if not there:
        raise UserError(
            f"The store {store.url} has {product}, but of none of the recordings that the snippets are of. Build "
            "both of the same study: actionprep build."
        )
    if not views:
        return tuple(there)

    def no_view(id: str) -> str:
        return f"No view '{id}' in {product} of {store.url}.{nearest(id, there)} There are {', '.join(there)}."

    return tuple(views_of_ids(views, there, no_view=no_view))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its arrays on that device."""
    return {name: values.to(device, non_blocking=True) for name, values in batch.items()}


def model_inputs(model: Any, batch: Batch) -> dict[str, Tensor]:
    """The arrays of a batch that the model's forward takes, by name; raises UserError when a needed one is missing."""
    import inspect

    forward = inspect.signature(getattr(model, "_orig_mod", model).forward).parameters
    if any(one.kind is one.VAR_KEYWORD for one in forward.values()):
        # A model of several inputs takes the arrays of all of them.
        return {name: values for name, values in batch.items() if name.startswith("part")}
    taken = {name: batch[name] for name in forward if name in batch}
    missing = [
        name for name, one in forward.items() if name not in batch and one.default is one.empty and name != "self"
    ]
    if missing:
        raise UserError(
            f"{type(model).__name__} needs {', '.join(missing)}, and its input gives {', '.join(batch)}. The recipe "
            "binds a model to the input of another product: choose a product that fits the model."
        )
    return taken
