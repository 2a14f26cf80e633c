"""Video transformers in training: clips/s and peak memory of forward and backward, compared with Hugging Face transformers.

    python -m benchmarks.models [--device cpu] [--threads 2] [--rounds 7] [--clock wall] [--scale small]

TimeSformer (divided attention, 8 frames) is compared with transformers in eager attention, the only one available there;
ViViT (tubelets of 2 x 16 x 16) and VideoMAE with sdpa, the fastest setting on a CPU. Both sides have the same sizes,
weights, clip and number format. They are built once and run alternately. Peak memory is that of a new process per side. On
a GPU the times include synchronization, and the memory is the peak of its allocator.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actionprep.training.models.published.families import FAMILIES
from actionprep.training.models.registry import build_model
from benchmarks.common import PACKAGES, Results, interleaved, speed_ratio, versions

CLASSES = 12


@dataclass(frozen=True)
class Case:
    """One model at one size, ours and theirs."""

    name: str
    family: str
    config: str
    theirs: str
    attention: str
    frames: int
    size: int
    width: int
    depth: int
    heads: int
    batch: int

    def ours(self) -> nn.Module:
        """Our model, without stochastic depth, which the others do not have."""
        sizes: dict[str, Any] = {"num_frames": self.frames, "image_size": self.size}
        sizes |= {"width": self.width, "depth": self.depth, "heads": self.heads}
        if self.name != "vivit-frames":
            sizes["drop_path"] = 0.0
        torch.manual_seed(0)
        return build_model(self.name, num_classes=CLASSES, **sizes)

    def transformers(self) -> nn.Module:
        """Their model of the same size."""
        import transformers

        transformers.logging.set_verbosity_error()
        config = getattr(transformers, self.config)(
            image_size=self.size,
            num_frames=self.frames,
            hidden_size=self.width,
            num_hidden_layers=self.depth,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            num_labels=CLASSES,
            attn_implementation=self.attention,
        )
        return getattr(transformers, self.theirs)(config)

    def clip(self) -> Tensor:
        """Random numbers of the clip's shape (B, C, T, H, W)."""
        torch.manual_seed(1)
        return torch.randn(self.batch, 3, self.frames, self.size, self.size)


Names = tuple[str, str, str, str, str]
TIMESFORMER: Names = (
    "timesformer",
    "timesformer-transformers",
    "TimesformerConfig",
    "TimesformerForVideoClassification",
    "eager",
)
VIVIT = ("vivit-frames", "vivit-transformers", "VivitConfig", "VivitForVideoClassification", "sdpa")
VIDEOMAE = ("videomae", "videomae-transformers", "VideoMAEConfig", "VideoMAEForVideoClassification", "sdpa")
SCALES: dict[str, dict[str, Any]] = {
    "tiny": {"size": 112, "width": 192, "depth": 4, "heads": 3},
    "small": {"size": 224, "width": 384, "depth": 12, "heads": 6},
    "base": {"size": 224, "width": 768, "depth": 12, "heads": 12},
}


def cases(scale: str, batch: int) -> tuple[Case, ...]:
    """The three models at one scale (ViT-Ti at half depth and size, ViT-S or ViT-B)."""
    sizes = SCALES[scale]
    return (
        Case(*TIMESFORMER, frames=8, batch=batch, **sizes),
        Case(*VIVIT, frames=8, batch=batch, **sizes),
        Case(*VIDEOMAE, frames=16, batch=batch, **sizes),
    )


def step(model: nn.Module, clip: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """One forward and backward pass after resetting gradients."""
    labels = torch.arange(len(clip), device=clip.device) % CLASSES

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(clip.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits = model(clip)
        logits = logits if isinstance(logits, Tensor) else logits.logits
        nn.functional.cross_entropy(logits.float(), labels).backward()
        if clip.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def sides(case: Case, device: str, dtype: torch.dtype) -> dict[str, Callable[[], None]]:
    """Both models with the same weights, after checking that their logits are equal."""
    ours, theirs = case.ours(), case.transformers()
    for p in ours.parameters():
        if p.ndim > 1:
            nn.init.trunc_normal_(p, std=0.02)
    to_theirs = FAMILIES[case.family].to_theirs
    assert to_theirs is not None
    theirs.load_state_dict(to_theirs(dict(ours.state_dict())))
    clip = case.clip()
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(clip), theirs.eval()(clip.transpose(1, 2)).logits, rtol=1e-3, atol=1e-3)
    ours, theirs, clip = ours.to(device).train(), theirs.to(device).train(), clip.to(device)
    return {
        "actionprep": step(ours, clip, dtype),
        f"transformers ({case.attention})": step(theirs, clip.transpose(1, 2).contiguous(), dtype),
    }


def peak_memory(arguments: argparse.Namespace, index: int, side: str) -> float:
    """Peak memory in MiB of a new process that builds one side and trains it for three steps."""
    command = [sys.executable, "-m", "benchmarks.models", "--memory", f"{index}:{side}"]
    command += ["--device", arguments.device, "--threads", str(arguments.threads), "--dtype", arguments.dtype]
    command += ["--scale", arguments.scale, "--batch", str(arguments.batch)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def measure_memory(arguments: argparse.Namespace) -> int:
    """The child process of `peak_memory`."""
    index, side = arguments.memory.split(":")
    case = cases(arguments.scale, arguments.batch)[int(index)]
    # Both sides import both packages, so that imports do not affect the comparison.
    import transformers  # noqa: F401

    ours = side == "ours"
    model = (case.ours() if ours else case.transformers()).to(arguments.device).train()
    clip = case.clip().to(arguments.device)
    run = step(model, clip if ours else clip.transpose(1, 2).contiguous(), getattr(torch, arguments.dtype))
    for _ in range(3):
        run()
    if arguments.device == "cuda":
        print(json.dumps(torch.cuda.max_memory_allocated() / 2**20))
    else:
        print(json.dumps(_peak_mib()))
    return 0


def _peak_mib() -> float:
    """Peak memory of this process. (ru_maxrss would start at the value of the parent process.)"""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--clock",
        default="wall",
        choices=["wall", "cpu"],
        help="cpu: processor time, for one thread on a machine that is busy with other work",
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--scale", default="small", choices=list(SCALES), help="base takes a GPU or half an hour")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        return measure_memory(arguments)
    on_gpu = arguments.device == "cuda"
    results = Results(
        "models-gpu" if on_gpu else "models", settings={k: v for k, v in vars(arguments).items() if k != "memory"}
    )
    for index, case in enumerate(cases(arguments.scale, arguments.batch)):
        both = sides(case, arguments.device, getattr(torch, arguments.dtype))
        clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
        timed = interleaved(both, rounds=arguments.rounds, work=case.batch, unit="clips", clock=clock)
        group = f"{case.name} {case.frames} x {case.size}, width {case.width}, batch {case.batch}, {arguments.dtype}"
        results.add(group, timed)
        ours, theirs = timed.values()
        wanted = 1.5 if on_gpu and case.name == "timesformer" else 1.0
        results.mark(f"{group}: clips/s, ours / transformers", speed_ratio(ours, theirs), at_least=wanted)
        memory = {side: peak_memory(arguments, index, side) for side in ("ours", "theirs")}
        results.mark(f"{group}: peak memory, ours / transformers", memory["ours"] / memory["theirs"], at_most=1.0)
        results.notes.append(
            f"{group}: a process that trains peaks at {memory['ours']:.0f} MiB (ours), {memory['theirs']:.0f} MiB (theirs)"
        )
    results.notes.append(f"transformers {versions([*PACKAGES, 'transformers'])['transformers']}")
    if on_gpu:
        results.notes.append(f"GPU: {torch.cuda.get_device_name()}")
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    sys.exit(main())
