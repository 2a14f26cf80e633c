"""The card and the recipe of mid fusion, which need no torch to be listed."""

from __future__ import annotations

from actionprep.training.models.recipe_tables import SMOOTHED_COSINE
from actionprep.training.models.registry import ModelCard, axes, register
from actionprep.training.recipes import register as register_recipe

register(
    ModelCard(
        "fusion",
        "fusion",
        axes("P2"),
        5,
        None,
        "ours: features of several models, joined",
        "actionprep.training.models.fusion:MidFusion",
    )
)
register_recipe(
    "fusion",
    "Several recipes on the same snippets, joined where their heads would be and trained together: input.recipes names them "
    "(tracks and small frames; add skeleton-tcn where there are poses). Trained runs are pooled by 'actiontrain fuse'.",
    model="fusion",
    product="fusion",
    epochs=40,
    min_steps=240,
    batch=16,
    ema=0.98,
    refit=True,
    test_variants=4,
    tables={
        **SMOOTHED_COSINE,
        "optimizer": {"learning_rate": 2e-3, "weight_decay": 0.05, "gradient_clip": 2.0},
    },
)
