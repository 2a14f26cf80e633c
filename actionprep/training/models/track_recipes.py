"""Recipes of the models that read point tracks (imports no torch)."""

from __future__ import annotations

from typing import Any

from actionprep.training.models.recipe_tables import SMOOTHED_COSINE
from actionprep.training.recipes import register

register(
    "view-transformer",
    "Points seeded on what moves, as pictures of flow, in a transformer over views and time: our default on tracks. "
    "Validated on a part of train, then trained anew on all of it with the same schedule.",
    model="view-transformer",
    product="tracks",
    epochs=60,
    min_steps=240,
    batch=16,
    ema=0.98,
    refit=True,
    test_variants=8,
    tables={
        **SMOOTHED_COSINE,
        "optimizer": {"learning_rate": 2e-3, "weight_decay": 0.05, "gradient_clip": 2.0},
    },
)

_LSTM: dict[str, Any] = {
    "product": "tracks",
    "targets": "frame",
    "epochs": 60,
    "batch": 16,
    "ema": 0.98,
    "refit": True,
    "test_variants": 8,
    "tables": {
        "sizes": {"hidden": 256, "layers": 2, "dropout": 0.3},
        "input": {"points": 200, "overlap": 1},
        **SMOOTHED_COSINE,
        "optimizer": {"learning_rate": 1e-3, "weight_decay": 0.05, "gradient_clip": 1.0},
    },
}

register(
    "track-lstm",
    "Points of all views side by side in an LSTM that labels every frame, trained on the label of every frame; carry = true "
    "carries its state along a recording. Mended: points that are not visible take no part, and coordinates are relative to "
    "what moves, x and y weighted apart (raw pixels, averaged, saturated the view attention); a recording's end is a mask, "
    "not a frame of zeros; any number of snippets shares a batch; the epoch is chosen on val.",
    model="track-lstm",
    **_LSTM,
)

register(
    "track-cnn-lstm",
    "The same LSTM behind a small CNN that sees the views as channels; takes any number of points. Mended as there, and its "
    "residual blocks have their skip.",
    model="track-cnn-lstm",
    **_LSTM,
)

register(
    "view-transformer-maaf",
    "The published multi-view transformer, size for size: 500 points a view, view attention, a CNN for each instant. "
    "Mended: it reads tracked points (its 500 inputs were one padding point over and over), and points that are not "
    "visible and frames that are not there take no part; coordinates are relative to what moves, and x and y are weighted "
    "apart (raw pixels, averaged, saturated the view attention); time is encoded and every step is read, not the last "
    "alone; clips of unequal length share a batch; splits are by subject or recording, never by overlapping windows, and "
    "the epoch is chosen on val. sizes.faithful = true is the original again.",
    model="view-transformer-maaf",
    product="tracks",
    epochs=40,
    batch=4,
    refit=False,
    patience=10,
    tables={
        "input": {"points": 500, "overlap": 1},
        **SMOOTHED_COSINE,
        "optimizer": {"learning_rate": 1e-4, "weight_decay": 0.01, "gradient_clip": 1.0},
    },
)
