"""What a trained model costs: weights, operations, and its speed on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from actionprep.training.checkpoints import Checkpoint
from actionprep.training.models.model_size import count_flops, count_parameters

if TYPE_CHECKING:
    import torch

    from actionprep.training.datasets import SnippetDataset


@dataclass(frozen=True)
class Cost:
    """Cost of one pass over one snippet with all its views, read and ready: the model alone.

    flops: see `models.model_size.count_flops`. latency_ms: median of one snippet at a time; clips_per_s: snippets a
    second in batches of `batch`; both on `device`, with `threads` CPU threads. All of these are None where nothing was
    timed.
    """

    parameters: int
    flops: int
    latency_ms: float | None = None
    clips_per_s: float | None = None
    batch: int | None = None
    device: str | None = None
    threads: int | None = None


def measure_cost(
    checkpoint: Checkpoint, dataset: SnippetDataset, *, timed: bool = True, batch: int = 16, seconds: float = 0.5
) -> Cost:
    """Count, and if asked for time, a model on snippets of a dataset, on the device where it is.

    batch: snippets in a batch for clips/s, as far as there are so many. seconds: how long each of the two is timed.
    """
    import torch

    from actionprep.training.datasets import model_inputs, to_device

    model = checkpoint.model
    device = next(model.parameters()).device
    rows = dataset.rows[:batch].tolist()

    def inputs(chosen: list[int]) -> dict[str, torch.Tensor]:
        return model_inputs(model, to_device(dataset.batch(chosen, augment=True), device))

    with torch.inference_mode():
        one = inputs(rows[:1])
    counted = Cost(count_parameters(model), count_flops(model, **one))
    if not timed:
        return counted
    with torch.inference_mode():
        many = inputs(rows)
        latency = _median_seconds(lambda: model(**one), device, seconds)
        together = _median_seconds(lambda: model(**many), device, seconds)
    return replace(
        counted,
        latency_ms=latency * 1000,
        clips_per_s=len(rows) / together,
        batch=len(rows),
        device=str(device),
        threads=torch.get_num_threads(),
    )


def _median_seconds(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median duration of a call, which is made three times at least, after two that warm up."""
    import torch

    def timed() -> float:
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    for _ in range(2):
        timed()
    found = [timed() for _ in range(3)]
    while sum(found) < seconds and len(found) < 1000:
        found.append(timed())
    return statistics.median(found)
