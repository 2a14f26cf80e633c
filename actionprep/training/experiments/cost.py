"""Cost of a trained model: parameters, operations, and speed on this machine."""

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
    """Cost of one forward pass of the model alone, with all views of a snippet loaded.

    The fields after `flops` are None if the model was not timed.

    Attributes:
        parameters: Number of parameters.
        flops: Floating-point operations of one snippet; see `models.model_size.count_flops`.
        latency_ms: Median time of a batch of one snippet, in milliseconds.
        clips_per_s: Snippets per second in batches of `batch`.
        batch: Batch size of `clips_per_s`.
        device: Device of the timing.
        threads: Number of CPU threads of the timing.
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
    """Count the parameters and operations of a model, and time it on its current device.

    Args:
        checkpoint: Checkpoint with its model.
        dataset: Snippets to use as input.
        timed: Whether to measure time.
        batch: Batch size of `clips_per_s`, at most the size of the dataset.
        seconds: Duration of each of the two measurements.

    Returns:
        The cost.
    """
    import torch

    from actionprep.training.datasets import model_inputs, to_device

    model = checkpoint.model
    device = next(model.parameters()).device
    rows = dataset.rows[:batch].tolist()

    def inputs(batch_rows: list[int]) -> dict[str, torch.Tensor]:
        return model_inputs(model, to_device(dataset.batch(batch_rows, augment=True), device))

    with torch.inference_mode():
        single = inputs(rows[:1])
    counted = Cost(count_parameters(model), count_flops(model, **single))
    if not timed:
        return counted
    with torch.inference_mode():
        batched = inputs(rows)
        latency = _median_seconds(lambda: model(**single), device, seconds)
        batch_seconds = _median_seconds(lambda: model(**batched), device, seconds)
    return replace(
        counted,
        latency_ms=latency * 1000,
        clips_per_s=len(rows) / batch_seconds,
        batch=len(rows),
        device=str(device),
        threads=torch.get_num_threads(),
    )


def _median_seconds(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median duration of a call. It is made at least three times, after two calls to warm up."""
    import torch

    def timed() -> float:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    for _ in range(2):
        timed()
    durations = [timed() for _ in range(3)]
    while sum(durations) < seconds and len(durations) < 1000:
        durations.append(timed())
    return statistics.median(durations)
