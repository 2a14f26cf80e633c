"""Settings that speed up training: bf16 and channels last compared with float32, forward and backward.

    python -m benchmarks.precision [--device cpu] [--threads 1] [--rounds 5] [--clock wall]

One model of each kind: 3D convolutions (I3D and PoseConv3D, small), a video transformer, a transformer over tracks. All
variants of a model have the same weights and the same clip, and run alternately.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from actionprep.training.loop.make_task import channels_last
from actionprep.training.models.registry import build_model
from benchmarks.common import Results, interleaved, speed_ratio

CLASSES = 12
MODELS: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {
    "i3d-small": ({}, (3, 16, 48, 48)),
    "poseconv3d-small": ({}, (17, 24, 24, 24)),
    "poseconv3d": ({}, (17, 48, 56, 56)),
    "timesformer": ({"num_frames": 8, "image_size": 112, "width": 192, "depth": 4, "heads": 3}, (3, 8, 112, 112)),
    "track-lstm": ({"hidden": 256, "num_views": 2, "num_points": 200}, (32, 2, 200, 2)),
}
WAYS = {
    "float32": (torch.float32, False),
    "channels last": (torch.float32, True),
    "bf16": (torch.bfloat16, False),
    "bf16, channels last": (torch.bfloat16, True),
}


def step(model: nn.Module, clip: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """One forward and backward pass after resetting gradients."""
    name = next(iter(inspect.signature(model.forward).parameters))

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(clip.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits = model(**{name: clip})
        logits.float().square().mean().backward()
        if clip.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    on_gpu = arguments.device == "cuda"
    results = Results("precision-gpu" if on_gpu else "precision", settings=vars(arguments))
    for name, (sizes, shape) in MODELS.items():
        torch.manual_seed(0)
        model = build_model(name, num_classes=CLASSES, **sizes).to(arguments.device).train()
        clip = torch.randn(arguments.batch, *shape, device=arguments.device)
        sides = {}
        for way, (dtype, last) in WAYS.items():
            one = copy.deepcopy(model)
            if last:
                channels_last(one)
            if not last or any(isinstance(m, (nn.Conv2d, nn.Conv3d)) for m in one.modules()):
                sides[way] = step(one, clip, dtype)
        clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
        timed = interleaved(sides, rounds=arguments.rounds, work=arguments.batch, unit="clips", clock=clock)
        results.add(name, timed)
        plain = timed["float32"]
        ratios = (f"{way} {speed_ratio(side, plain):.2f}" for way, side in timed.items() if way != "float32")
        results.notes.append(f"{name}, clips/s over those of float32: {', '.join(ratios)}")
    results.save()
    print("\n".join(results.notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
