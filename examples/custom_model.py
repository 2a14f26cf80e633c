"""Your own PyTorch model on stored tracks, in a plain training loop, on the rendered sample study."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from actionprep.api import make_demo
from actionprep.datasets.splits import Part
from actionprep.training.datasets import SnippetDataset
from actionprep.training.inputs.tracks import TracksInput


class MeanMotion(nn.Module):
    """Mean motion of the visible points per time step and view → class logits.

    velocity (B, T, V, N, 2), valid (B, T, V, N) bool → (B, num_classes).
    """

    def __init__(self, num_frames: int, num_views: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_frames * num_views * 4, 64), nn.ReLU(), nn.Linear(64, num_classes))

    def forward(self, velocity: Tensor, valid: Tensor) -> Tensor:
        """Return the logits of a batch."""
        visible = valid[..., None].float()
        motion = torch.cat([velocity, velocity.abs()], -1)
        mean = (motion * visible).sum(3) / visible.sum(3).clamp(min=1)
        return self.layers(mean.flatten(1))


def main(folder: Path, *, recordings: int = 24, epochs: int = 20) -> float:
    """Build tracks and snippets, train the model, and return its accuracy on the test part of the split."""
    study = make_demo(folder, recordings=recordings)
    study.build("tracks", views=[0, 1], overrides={"tracks": {"grid": 12}})
    study.build("snippets", overrides={"snippets": {"length": 1000, "iou": 0.5}})
    study.build("split", overrides={"split": {"allow_single": True}})

    def part(name: Part) -> SnippetDataset:
        inputs = TracksInput(frames=16, points=64)
        return SnippetDataset(study.store, "default", inputs, views=["0", "1"], split=name, train=name == "train")

    torch.manual_seed(0)
    train, test = part("train"), part("test")
    model = MeanMotion(num_frames=16, num_views=2, num_classes=len(train.labels))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    for epoch in range(epochs):
        train.set_epoch(epoch)
        for batch in DataLoader(train, batch_size=16, shuffle=True):
            loss = functional.cross_entropy(model(batch["velocity"], batch["valid"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    model.eval()
    with torch.no_grad():
        correct = [
            (model(batch["velocity"], batch["valid"]).argmax(-1) == batch["label"]).float()
            for batch in DataLoader(test, batch_size=16)
        ]
    return float(torch.cat(correct).mean())


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else Path(tempfile.mkdtemp()) / "sample"
    print(f"accuracy {main(target):.1%}")
