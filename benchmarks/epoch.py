"""Compare one epoch of view-transformer on stored tracks with tracking inside the training loop."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import Results, interleaved, speed_ratio

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fixtures"))

from recordings import moving_square, write_video

from actionprep.api import Study, make_study
from actionprep.datasets.store.zarr_store import Store
from actionprep.training.datasets import SnippetDataset, SnippetLoader, model_inputs, read_table
from actionprep.training.models.registry import build_model
from actionprep.training.recipes import find_recipe

RECORDINGS, FRAMES = 16, 48


def make_recordings(root: Path) -> Study:
    """Short clips of a moving square, 320 x 240, of two classes."""
    for number in range(RECORDINGS):
        label = "slow" if number % 2 else "fast"
        frames = moving_square(FRAMES, height=240, width=320, speed=1 if number % 2 else 4, seed=number)
        write_video(root / "videos" / label / f"clip_{number:02d}.mp4", frames)
    study, _ = make_study(root, {})
    study.build("tracks", "snippets")
    return study


def one_epoch(store: Store, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A plain loop over all snippets of a store."""
    recipe = find_recipe("view-transformer")
    table = read_table(store, "default")
    dataset = SnippetDataset(store, table, recipe.input, rows=np.arange(len(table.label)))
    for batch in SnippetLoader(dataset, batch=recipe.batch):
        inputs: dict[str, Any] = dataset.augmented(batch, epoch=0)
        loss = torch.nn.functional.cross_entropy(model(**model_inputs(model, inputs)), inputs["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> int:
    """Run."""
    results = Results(
        "epoch", settings={"recordings": RECORDINGS, "frames": FRAMES, "size": "320x240", "tracker": "lk"}
    )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        study = make_recordings(Path(folder))
        model = build_model("view-transformer", num_classes=2)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        rounds = iter(range(1000))

        def recomputed() -> None:
            # A loop that calls the tracker on every clip: decode, detect motion, track, then train.
            again = Path(folder) / f"again{next(rounds)}"
            study.folder.change("study", "store", str(again))
            study.__dict__.pop("store", None)
            study.build("tracks", "snippets")
            one_epoch(study.store, model, optimizer)

        stored = Store(Path(folder) / "store")
        sides = interleaved(
            {"stored tracks": lambda: one_epoch(stored, model, optimizer), "tracking in the loop": recomputed},
            rounds=5,
            unit="epochs",
        )
    results.add("one epoch", sides)
    ratio = speed_ratio(sides["stored tracks"], sides["tracking in the loop"])
    results.mark("epoch of view-transformer: stored tracks / tracking in the loop (lk)", ratio, at_least=1)
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
