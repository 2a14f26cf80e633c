"""What a trained model costs: weights, operations, and its speed on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actionprep.training.checkpoints import Checkpoint
from actionprep.training.models.model_size import count_flops, count_parameters

if TYPE_CHECKING:
    import torch

    from actionprep.training.datasets import SnippetDataset


@dataclass(frozen=True)
class Cost:
    """Cost of one snippet with all its views, read and ready: the model alone.

    flops: of one forward pass (see `models.model_size.count_flops`). latency_ms: median of one snippet at a time;
    clips_per_s: snippets a second in batches of `batch`; both on `device`, with `threads` CPU threads.
    """

    parameters: int
    flops: int
    latency_ms: float
    clips_per_s: float
    batch: int
    device: str
    threads: int


def measure_cost(checkpoint: Checkpoint, dataset: SnippetDataset, *, batch: int = 16, seconds: float = 0.5) -> Cost:
    """Count and time a model on snippets of a dataset, on the device where it is.

    batch: snippets in a batch for clips/s, as far as there are so many. seconds: how long each of the two is timed.
    """
    import torch

    from actionprep.training.datasets import model_inputs, to_device

    model = checkpoint.model
    device = next(model.parameters()).device
    rows = dataset.rows[:batch].tolist()
    with torch.inference_mode():
        one, many = (
            model_inputs(model, to_device(dataset.batch(chosen, augment=True), device)) for chosen in (rows[:1], rows)
        )
        latency = _median_seconds(lambda: model(**one), device, seconds)
        together = _median_seconds(lambda: model(**many), device, seconds)
    return Cost(
        parameters=count_parameters(model),
        flops=count_flops(model, **one),
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
