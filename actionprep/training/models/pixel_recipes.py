"""Recipes of the models that read pictures: TimeSformer, VideoMAE, ViViT, I3D and what stands before it."""

from __future__ import annotations

from typing import Any

from actionprep.training.models.recipe_tables import SMOOTHED_COSINE
from actionprep.training.recipes import register

# Video of 30 frames a second, every 32nd, 16th or 4th of which was taken.
_EVERY_32ND, _EVERY_16TH, _EVERY_4TH = 30 / 32, 30 / 16, 30 / 4

_TIMESFORMER: dict[str, Any] = {
    "product": "frames",
    "epochs": 15,
    "batch": 8,
    "accumulate": 8,
    "precision": "auto",
    "workers": 4,
}
_TIMESFORMER_TABLES: dict[str, dict[str, Any]] = {
    "optimizer": {
        "name": "sgd",
        "learning_rate": 0.005,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
    },
    "schedule": {"name": "multistep", "milestones": [11, 14], "gamma": 0.1, "warmup": 0.0},
}


_MENDED = (
    "Mended: validation looks at the middle of each snippet instead of a random crop, a test's single clip is centered, "
    "probabilities (not logits) are averaged, the last batches of an epoch take part in a step, nothing is mirrored unless "
    "labels are said to allow it, and a broken video is never replaced by another one. Weights of any frame count and image "
    "size load, their positions interpolated in two dimensions and in time, and weights that saw blue first are recognized."
)


def _timesformer(
    name: str, what: str, frames: int, size: int, rate: float, crop: tuple[float, float] = (0.7, 0.875), **settings: Any
) -> None:
    """One that reads frames at so many a second."""
    clip = {"frames": frames, "size": size, "sampling": "dense", "rate": rate, "crop": crop, "crops": 3}
    tables = {"input": clip, **_TIMESFORMER_TABLES}
    register(name, f"{what} {_MENDED}", model=name, tables=tables, **{**_TIMESFORMER, **settings})


_timesformer(
    "timesformer",
    "TimeSformer, divided attention, 8 frames a second apart, schedule as published (x0.1 at epochs 11 and 14); give it "
    "weights with --weights.",
    frames=8,
    size=224,
    rate=_EVERY_32ND,
)
_timesformer(
    "timesformer-hr",
    "TimeSformer at 448 pixels, 16 frames half a second apart; frames should be stored at 448 or more.",
    frames=16,
    size=448,
    rate=_EVERY_16TH,
    crop=(0.875, 1.0),
    batch=2,
    accumulate=32,
)
_timesformer(
    "timesformer-l",
    "TimeSformer with 96 frames, 7.5 a second.",
    frames=96,
    size=224,
    rate=_EVERY_4TH,
    batch=1,
    accumulate=64,
)
_timesformer("timesformer-joint", "TimeSformer, all tokens attend to all.", frames=8, size=224, rate=_EVERY_32ND)
_timesformer(
    "timesformer-space",
    "TimeSformer without attention over time: each frame by itself, frames averaged.",
    frames=8,
    size=224,
    rate=_EVERY_32ND,
)
register(
    "timesformer-light",
    "LightTimeSformer for short gestures: 32 frames spread evenly over the whole snippet, where 8 frames a second apart "
    "would mostly repeat the last one, and crops at the bottom of the picture, where a wrist camera sees the hand (move "
    f"input.anchor for other cameras). {_MENDED}",
    model="timesformer-light",
    tables={
        "input": {
            "frames": 32,
            "size": 224,
            "sampling": "segments",
            "crop": (0.8, 0.95),
            "test_crop": 0.875,
            "anchor": (0.5, 1.0),
            "around": 0.2,
        },
        **_TIMESFORMER_TABLES,
    },
    **{**_TIMESFORMER, "batch": 4, "accumulate": 16},
)
register(
    "videomae",
    "VideoMAE, 16 frames spread over the snippet, schedule of the gesture study (x0.2 at epochs 35 and 80); give it "
    "weights with --weights. Mended: pictures are normalized as the weights expect, query and value biases are kept, tests "
    "see the scale that training saw, 16 frames fit the tubelets (39 did not), and classes are balanced without mirroring.",
    model="videomae",
    product="frames",
    epochs=100,
    batch=2,
    accumulate=8,
    precision="auto",
    sampler="balanced",
    workers=4,
    tables={
        # The position table stays that of the weights, whatever comes.
        "sizes": {"num_frames": 16, "image_size": 224},
        "input": {
            "frames": 16,
            "size": 224,
            "crop": (0.7, 1.0),
            "rotation": 0.26,
            "gray": 0.1,
            "brightness": 0.2,
            "contrast": 0.2,
        },
        "optimizer": {"name": "adam", "learning_rate": 5e-5, "weight_decay": 1e-3},
        "schedule": {"name": "multistep", "milestones": [35, 80], "gamma": 0.2, "warmup": 0.0},
    },
)
register(
    "vivit-frames",
    "ViViT model 1 on frames, 32 of them spread over the snippet, from the published weights of Kinetics (--weights) with "
    "lower rates for lower layers. Any frame count and size: positions are interpolated in space and time.",
    model="vivit-frames",
    product="frames",
    epochs=30,
    batch=4,
    accumulate=16,
    precision="auto",
    workers=4,
    tables={
        "input": {"frames": 32, "size": 224, "crop": (0.7, 0.95), "clips": 4},
        "loss": {"label_smoothing": 0.1},
        "optimizer": {
            "name": "sgd",
            "learning_rate": 0.05,
            "weight_decay": 0.0,
            "layer_decay": 0.85,
            "gradient_clip": 1.0,
        },
        "schedule": {"name": "cosine", "warmup": 0.08},
    },
)
# What trains in minutes on a CPU, from nothing, on what moves.
_SMALL: dict[str, Any] = {"batch": 16, "ema": 0.98, "refit": True, "mixup": 0.4, "validate_every": 5}
_MOVING: dict[str, Any] = {
    "region": "motion",
    "channels": "motion",
    "crop": (0.8, 1.2),
    "shift": 0.1,
    "rotation": 0.15,
    "trim": 0.15,
    "time_warp": 0.25,
    "brightness": 0.2,
    "contrast": 0.2,
    "jitters": 4,
}
register(
    "timesformer-small",
    "A TimeSformer that trains in minutes on a CPU, from nothing: 12 frames over the snippet, 56 pixels of what moves, "
    "brightness and its change, patches of 14. Its weights start as fits a narrow model, and its head sees mean and maximum "
    "of all tokens: the published start and class token learn next to nothing from a few hundred steps. Validated on a part "
    "of train, then trained anew on all of it.",
    model="timesformer",
    product="frames",
    epochs=60,
    min_steps=300,
    **_SMALL,
    tables={
        "sizes": {
            "patch_size": 14,
            "width": 64,
            "depth": 3,
            "heads": 4,
            "dropout": 0.1,
            "drop_path": 0.1,
            "pool": "mean-max",
            "start": "scratch",
        },
        "input": {**_MOVING, "frames": 12, "size": 56},
        **SMOOTHED_COSINE,
        "optimizer": {"learning_rate": 2e-3, "weight_decay": 0.05, "gradient_clip": 1.0},
    },
)

_I3D_MENDED = (
    "Mended: frames stand in their order in time (sorted as text, 10 came before 2), colors are RGB, the last start is "
    "drawn too and snippets shorter than a clip are used, validation and tests are never mirrored or cut at random and see "
    "the middle of a snippet, the last batches of an epoch count, rare classes weigh more, and the epoch is chosen on val."
)
_CONSECUTIVE: dict[str, Any] = {"frames": 32, "sampling": "dense", "fit": "squeeze", "crop": (1.0, 1.0)}
_I3D: dict[str, Any] = {
    "product": "lowres",
    "precision": "auto",
    "channels_last": True,
    "monitor": "val_macro_f1",
    "workers": 4,
}
_I3D_TABLES: dict[str, dict[str, Any]] = {
    "loss": {"class_weights": "balanced"},
    "schedule": {"name": "constant", "warmup": 0.0},
}
register(
    "i3d",
    f"I3D on 32 consecutive frames of 112 pixels, from Charades or Kinetics weights (--weights). {_I3D_MENDED}",
    model="i3d",
    **_I3D,
    epochs=60,
    batch=21,
    accumulate=4,
    tables={
        **_I3D_TABLES,
        "input": {**_CONSECUTIVE, "size": 112},
        "optimizer": {"name": "adam", "learning_rate": 1e-4, "weight_decay": 0.0},
    },
)


def _resized(name: str, what: str, **settings: Any) -> None:
    rate = settings.pop("rate", 1e-3)
    sizes = settings.pop("sizes", {})
    register(
        name,
        f"{what} Pictures of 28 pixels become 112 before I3D, both trained together; sizes.blocks is 1, 2 or 3. "
        f"{_I3D_MENDED}",
        model=name,
        **_I3D,
        tables={
            **_I3D_TABLES,
            "sizes": {"blocks": 1, **sizes},
            "input": {**_CONSECUTIVE, "size": 28},
            "optimizer": {"name": "adam", "learning_rate": rate, "head_learning_rate": rate, "weight_decay": 0.0},
        },
        **settings,
    )


_resized("i3d-resizer-3d", "A resizer that learns in space and time, then I3D.", epochs=50, batch=16, accumulate=4)
_resized("i3d-resizer-2d", "A resizer that learns frame by frame, then I3D.", epochs=50, batch=16, accumulate=4)
_resized(
    "i3d-stn-resizer",
    "A spatial transformer, a resizer, I3D. Frames are cut out along time (a reshape took three frames of one color for a "
    "picture), one map a clip, which starts at the identity.",
    epochs=30,
    batch=14,
    accumulate=16,
    rate=1.5e-3,
)
_resized(
    "i3d-transformer-resizer",
    "A resizer with a spatial transformer inside: theta read at sizes.read_at, applied at sizes.apply_at, 0 to 8. theta "
    "starts at the identity (it began with half as much again), one a clip, any input size.",
    epochs=30,
    batch=14,
    accumulate=16,
    rate=1.5e-3,
    sizes={"read_at": 0, "apply_at": 0},
)
register(
    "i3d-small",
    "I3D with an eighth of the channels, which trains in minutes on a CPU, from nothing: 16 frames over the snippet, 48 "
    "pixels of what moves, brightness and its change. Validated on a part of train, then trained anew on all of it.",
    model="i3d-small",
    product="lowres",
    epochs=30,
    min_steps=150,
    precision="auto",
    channels_last=True,
    **_SMALL,
    tables={
        "input": {**_MOVING, "frames": 16, "size": 48},
        **SMOOTHED_COSINE,
        "optimizer": {"learning_rate": 2e-3, "weight_decay": 0.05, "gradient_clip": 2.0},
    },
)
