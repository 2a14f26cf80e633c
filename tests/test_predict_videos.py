"""From raw videos to a timeline, with one run and with several fused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from picture_fakes import moving_square, tiny_pixels
from recordings import write_video
from training_fakes import MOTIONS, table_of, write_snippets

from actionprep import api
from actionprep.api import predict_videos
from actionprep.datasets.store import Store
from actionprep.pipeline.index import load_stages
from actionprep.training.fit import fit
from actionprep.training.fusion import fuse
from actionprep.training.parts import SplitChoice

OPTIONS = {"length_ms": 1200, "stride_ms": 400, "device": "cpu"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on small frames, which differ in their seed."""
    folder = tmp_path_factory.mktemp("runs")
    store = Store(folder / "store", create=True)
    settings = load_stages()["lowres"].Settings(sizes=(24,)).model_dump(mode="json")
    made = {"stage": "lowres", "version": 1, "settings": settings, "inputs": {}}
    names, labels = [], []
    for subject in range(3):
        for label in MOTIONS:
            names.append(f"s{subject}_{label}")
            labels.append(label)
            pictures = moving_square(MOTIONS[label], size=(48, 64), seed=len(names))[:, ::2, ::2]
            with store.write("lowres", names[-1], "0", fingerprint=names[-1], provenance=made) as item:
                item.write("rgb_24", pictures, axes=("time", "y", "x", "channel"))
                item.write("time", np.arange(12) / 10, axes=("time",))
    write_snippets(store, table_of(names, labels, [name[:2] for name in names], seconds=1.2))
    split = SplitChoice(train=("s0", "s1"), test=("s2",), val_share=0.0)
    return [
        fit(store, tiny_pixels(epochs=1, input__frames=8, seed=seed), folder / f"run-{seed}", split=split, tensorboard=False)
        for seed in (0, 1)
    ]  # fmt: skip


def filmed(path: Path, motion: str = "right") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.concatenate([moving_square(MOTIONS[motion], size=(48, 64), seed=seed) for seed in range(2)])
    return write_video(path, pictures, rate=10, codec="mpeg4")


def test_fused_runs_answer_with_their_weighted_mean_from_one_store(runs, tmp_path, monkeypatch):
    made = fuse(runs, tmp_path / "fused", weights=(1, 3))
    video = filmed(tmp_path / "new.avi")
    alone = [predict_videos(run.folder, [video], out=tmp_path / "out", **OPTIONS).timeline for run in runs]
    built, build = [], api._store_of_videos
    monkeypatch.setattr(api, "_store_of_videos", lambda *words, **named: built.append(words) or build(*words, **named))
    found = predict_videos(made.folder, [video], out=tmp_path / "out", **OPTIONS)
    mean = 0.25 * alone[0].probabilities + 0.75 * alone[1].probabilities
    np.testing.assert_allclose(found.timeline.probabilities, mean, rtol=1e-6)
    assert len(built) == 1
    with open(tmp_path / "out/windows.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(mean) > 1
