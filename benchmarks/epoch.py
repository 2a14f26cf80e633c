"""One epoch of view-transformer from stored tracks beside tracking the points again in the loop, as the original did."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import Results, interleaved, speed_ratio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from actionprep.api import Study, make_demo
from actionprep.training.datasets import SnippetDataset, SnippetLoader, model_inputs
from actionprep.training.models.registry import build_model
from actionprep.training.optimizers import make_optimizer
from actionprep.training.recipes import find_recipe


class Training:
    """A model that goes through the snippets of a study once a call."""

    def __init__(self, study: Study, views: list[str]) -> None:
        self.study = study
        self.views = views
        self.recipe = find_recipe("view-transformer")
        self.epoch = 0
        self.model: torch.nn.Module | None = None

    def from_store(self) -> None:
        """Read the stored tracks, once for all epochs, and train on them."""
        if self.epoch == 0 or self.model is None:
            self._open()
        self._train()

    def tracking_again(self) -> None:
        """Decode the videos, find what moves, follow the points, and train on what came out."""
        for key in [*self.study.store.items("tracks"), *self.study.store.items("masks")]:
            self.study.store.remove(key)
        self.study.build("tracks", views=self.views, workers=0)
        self._open()
        self._train()

    def _open(self) -> None:
        self.dataset = SnippetDataset(self.study.store, inputs=self.recipe.input, train=True)
        self.loader = SnippetLoader(self.dataset, batch=self.recipe.batch, shuffle=True)
        if self.model is None:
            sizes = {"num_views": len(self.dataset.views)}
            self.model = build_model("view-transformer", num_classes=len(self.dataset.labels), **sizes)
            self.optimizer = make_optimizer(self.model, self.recipe.optimizer)

    def _train(self) -> None:
        assert self.model is not None
        self.loader.epoch = self.epoch
        for batch in self.loader:
            batch = self.dataset.augmented(batch, epoch=self.epoch)
            logits = self.model(**model_inputs(self.model, batch))
            loss = torch.nn.functional.cross_entropy(logits, batch["label"])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.epoch += 1


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=16)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    results = Results("epoch", settings=vars(options) | {"tracker": "lk", "recipe": "view-transformer"})
    with tempfile.TemporaryDirectory() as folder:
        study = make_demo(Path(folder) / "study", recordings=options.recordings, workers=1)
        views = [str(view) for view in range(options.views)]
        study.build("tracks", "snippets", views=views, workers=0)
        stored, again = Training(study, views), Training(study, views)
        num_views = len(study.store.items("tracks"))
        # The side that tracks again replaces the store's items by equal ones: the other has read its own before.
        stored.from_store()
        sides = interleaved(
            {"from stored tracks": stored.from_store, "tracking in the loop": again.tracking_again},
            rounds=options.rounds,
            work=options.recordings,
            unit="snippets",
            clock=clock,
        )
    results.add("epoch", sides)
    ratio = speed_ratio(sides["from stored tracks"], sides["tracking in the loop"])
    results.mark("epoch: from the store / tracking in the loop", ratio, at_least=1.0)
    results.notes.append(
        f"{num_views} videos of {options.recordings} recordings; {options.clock} clock. Stored tracks are read once and "
        "held for all epochs"
    )
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    sys.exit(main())
