"""Accuracy of the small skeleton models on JHMDB and MSR Action3D, as the published protocols want it.

    python benchmarks/skeleton_accuracy.py --set msr --validate            # choose settings: on training data only
    python benchmarks/skeleton_accuracy.py --set msr jhmdb --seeds 0 1 2   # test: once, with settings that are fixed here

MSR Action3D: 20 classes, odd subjects train, even ones test; validation on the training subjects 5 and 9. JHMDB: 14 classes,
hand-annotated joints, mean of 3 official splits; validation on a contiguous quarter of the training clips of each class. All
training clips are used for the test fit, for a fixed number of epochs; nothing is chosen on the test part. One thread.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from actionprep.datasets.heatmaps import compact_boxes, joint_heatmaps, project, to_grid
from actionprep.datasets.pose_formats import read_poses
from actionprep.datasets.skeletons import Skeleton, skeleton
from actionprep.training.models.poseconv3d import PoseConv3D
from actionprep.training.models.skeleton_tcn import SkeletonTCN
from actionprep.training.models.skeleton_transformer import SkeletonTransformer
from actionprep.training.pose_transforms import (
    PoseAugmentation,
    body_frame,
    flip,
    random_box,
    resample,
    sample_arrays,
    sample_rng,
    warped_times,
)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
RESULTS = Path(__file__).parent / "results" / "skeleton_accuracy.json"
STORED = 64


@dataclass(frozen=True)
class Recipe:
    """What a model is trained with. T frames; crop and warp of time; mixup on half of the batches, of centred joints."""

    epochs: int = 160
    frames: int = 32
    rate: float = 2e-3
    decay: float = 0.01
    smoothing: float = 0.1
    mixup: float = 0.4
    ema: float = 0.99
    batch: int = 32
    crop: tuple[float, float] = (0.75, 1.0)
    warp: float = 0.5
    augment: dict = field(default_factory=dict)
    grid: int = 24


# About half the augmentation for heatmaps, which start slowly.
MILD = {"rotate": 0.2, "scale": 0.08, "noise": 0.006, "bones": 0.08, "joint_dropout": 0.02}
RECIPES = {
    "skeleton-tcn": Recipe(),
    "skeleton-transformer": Recipe(rate=1e-3),
    "poseconv3d": Recipe(epochs=80, frames=24, rate=3e-3, mixup=0.0, warp=0.4, augment=MILD),
}


@dataclass(frozen=True)
class Part:
    keypoints: np.ndarray
    score: np.ndarray
    label: np.ndarray

    def take(self, rows):
        return Part(self.keypoints[rows], self.score[rows], self.label[rows])


@dataclass(frozen=True)
class Task:
    name: str
    train: Part
    test: Part
    held_out: np.ndarray
    layout: Skeleton
    classes: int

    @property
    def dims(self):
        return self.train.keypoints.shape[-1]


def load(which, data):
    if which == "msr":
        items = [item for item in read_poses(data / "msr_action3d" / "msr_action3d.npz") if not item.extra["empty"]]
        layout = skeleton("kinect20")
    else:
        items = list(read_poses(data / "jhmdb_gt2d" / f"{which}.npz"))
        layout = skeleton("jhmdb15")
    classes = sorted({item.label for item in items})
    train = [item for item in items if item.splits[0].endswith("train")]
    test = [item for item in items if item.splits[0].endswith("test")]
    if which == "msr":
        held_out = np.array([item.subject in ("s05", "s09") for item in train])
    else:
        labels = np.array([item.label for item in train])
        held_out = np.zeros(len(train), bool)
        for label in classes:
            rows = np.flatnonzero(labels == label)
            quarter = len(rows) // 4
            start = (len(rows) - quarter) // 2
            held_out[rows[start : start + quarter]] = True

    def pack(part):
        arrays = []
        for item in part:
            keypoints, score = sample_arrays(item.poses)
            arrays.append(resample(keypoints, score, np.linspace(0, keypoints.shape[1] - 1, STORED)))
        label = np.array([classes.index(item.label) for item in part])
        return Part(np.stack([k for k, _ in arrays]), np.stack([s for _, s in arrays]), label)

    return Task(which, pack(train), pack(test), held_out, layout, len(classes))


def volumes(keypoints, score, grid, rngs=None):
    """Joint volumes of 2D clips; of 3D clips, those of the three projections one after the other."""
    out = []
    for view in ("xy", "xz", "yz") if keypoints.shape[-1] == 3 else (None,):
        xy, seen = project(keypoints, score, view) if view else (keypoints, score)
        boxes = compact_boxes(xy, seen, padding=0.1, least_side=0)
        if rngs is not None:
            parts = [
                random_box(box.numpy(), rng, area=(0.64, 1), aspect=(0.85, 1.18))
                for box, rng in zip(boxes, rngs, strict=True)
            ]
            boxes = torch.from_numpy(np.stack(parts)).float()
        out.append(joint_heatmaps(to_grid(xy, boxes, (grid, grid)), seen, size=(grid, grid)))
    return torch.cat(out, 1)


def build(model, task):
    if model == "poseconv3d":
        channels = task.layout.num_joints * (3 if task.dims == 3 else 1)
        return PoseConv3D(
            num_classes=task.classes, in_channels=channels, base_channels=16, stage_blocks=(1, 1, 1), stem_kernel=3
        )
    return {"skeleton-tcn": SkeletonTCN, "skeleton-transformer": SkeletonTransformer}[model](
        task.classes, task.layout, task.dims
    )


def fit(model, part, task, recipe, seed):
    torch.manual_seed(seed)
    net = build(model, task)
    average = copy.deepcopy(net).eval()
    heavy = [p for p in net.parameters() if p.ndim > 1]
    light = [p for p in net.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": heavy, "weight_decay": recipe.decay}, {"params": light, "weight_decay": 0}], recipe.rate
    )
    per_epoch = len(part.label) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=per_epoch * recipe.epochs)
    # Mirroring would exchange left and right, which MSR Action3D's one-sided actions need; JHMDB's do not.
    options = {"flip": 0.0 if task.dims == 3 else 0.5, "rotate": 0.5 if task.dims == 3 else 0.3}
    augment = PoseAugmentation(**{**options, **recipe.augment})
    step = 0
    for epoch in range(recipe.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(part.label))
        for rows in order[: per_epoch * recipe.batch].reshape(per_epoch, recipe.batch):
            rngs = [sample_rng(seed, epoch, int(row)) for row in rows]
            clips = []
            for row, rng in zip(rows, rngs, strict=True):
                times = warped_times(STORED, recipe.frames, rng, crop=recipe.crop, warp=recipe.warp)
                keypoints, score = resample(part.keypoints[row], part.score[row], times)
                keypoints, score = augment(keypoints, score, task.layout, rng)
                centre, size = body_frame(keypoints, score)
                clips.append((np.where(score[..., None] > 0, (keypoints - centre) / size, 0).astype(np.float32), score))
            inputs = tuple(torch.from_numpy(np.stack(arrays)) for arrays in zip(*clips, strict=True))
            if model == "poseconv3d":
                inputs = (volumes(*inputs, recipe.grid, rngs),)
            label = torch.from_numpy(part.label[rows])
            net.train()
            share, other = 1.0, np.arange(len(rows))
            mixing = np.random.default_rng([seed, epoch, step])
            if recipe.mixup and mixing.random() < 0.5:
                share, other = float(mixing.beta(recipe.mixup, recipe.mixup)), mixing.permutation(len(rows))
                inputs = tuple(share * array + (1 - share) * array[other] for array in inputs)
            logits = net(*inputs)
            loss = share * F.cross_entropy(logits, label, label_smoothing=recipe.smoothing)
            loss = loss + (1 - share) * F.cross_entropy(logits, label[other], label_smoothing=recipe.smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            keep = min(recipe.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                for mean, now in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
                    if mean.dtype.is_floating_point:
                        mean.lerp_(now, 1 - keep)
                    else:
                        mean.copy_(now)
    return average


@torch.inference_mode()
def predict(model, net, part, task, recipe):
    """Class probabilities of whole clips; averaged with those of the mirrored clip in 2D."""
    times = np.linspace(0, STORED - 1, recipe.frames)
    clips = [resample(k, s, times) for k, s in zip(part.keypoints, part.score, strict=True)]
    passes = [clips]
    if task.dims == 2:
        passes.append([flip(k, s, task.layout, float(body_frame(k, s)[0][0])) for k, s in clips])
    total = 0
    for one in passes:
        keypoints, score = (
            torch.from_numpy(np.ascontiguousarray(np.stack(arrays))) for arrays in zip(*one, strict=True)
        )
        for_net = (volumes(keypoints, score, recipe.grid),) if model == "poseconv3d" else (keypoints, score)
        total = total + net(*for_net).softmax(-1).numpy()
    return total / len(passes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs="+", choices=("msr", "jhmdb"), default=["msr", "jhmdb"])
    parser.add_argument("--model", nargs="+", choices=tuple(RECIPES), default=["skeleton-tcn"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int)
    parser.add_argument(
        "--validate", action="store_true", help="fit without the validation part and report it; no test"
    )
    parser.add_argument("--data", type=Path, default=DATA)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for model in args.model:
        recipe = replace(RECIPES[model], epochs=args.epochs) if args.epochs else RECIPES[model]
        for which in args.set:
            names = ["msr"] if which == "msr" else ["split1", "split2", "split3"]
            table = []
            for name in names:
                task = load(name, args.data)
                train = task.train.take(~task.held_out) if args.validate else task.train
                judged = task.train.take(task.held_out) if args.validate else task.test
                row = []
                for seed in args.seeds:
                    start = time.perf_counter()
                    net = fit(model, train, task, recipe, seed)
                    right = predict(model, net, judged, task, recipe).argmax(1) == judged.label
                    row.append(100 * float(right.mean()))
                    size = sum(p.numel() for p in net.parameters())
                    took = time.perf_counter() - start
                    part = "validation" if args.validate else "test"
                    print(
                        f"{model} {name} seed {seed}: {part} {row[-1]:.2f} % ({size / 1e6:.2f} M, {took:.0f} s)",
                        flush=True,
                    )
                table.append(row)
            means = np.mean(table, 0)
            print(f"{model} {which}: {means.mean():.2f} ± {means.std():.2f} % over seeds {args.seeds}")
            if not args.validate:
                results[f"{model} {which}"] = {
                    "accuracy_by_seed": [round(float(mean), 2) for mean in means],
                    "mean": round(float(means.mean()), 2),
                    "std": round(float(means.std()), 2),
                    "parts": dict(zip(names, [[round(value, 2) for value in row] for row in table], strict=True)),
                    "parameters": size,
                    "epochs": recipe.epochs,
                    "torch": torch.__version__,
                }
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
