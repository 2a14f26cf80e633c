"""Heatmap volumes per second: our batched renderer compared with a loop over frames, persons and joints.

    python -m benchmarks.heatmaps                  # prints the table, writes benchmarks/results/heatmaps.json

Every method runs in a separate process. The processes alternate in each round. The result is the median over rounds of the
fastest repetition in a round. The loop draws each joint's window with numpy, as the published formula is usually
implemented. Both fill float32 volumes of 17 joints or limbs, 48 frames, 56 x 56 px, for a batch of 32 clips. "buffer" draws
into memory that is reused between batches (`out=`). "and read" adds one pass over the finished volume, as a model would,
because untouched memory pages cost nothing until they are read.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

SIZE, FRAMES, BATCH, SIGMA = (56, 56), 48, 32, 0.6
CASES = [("joint", 1), ("joint", 2), ("limb", 1), ("limb", 2)]
METHODS = (
    "loop",
    "ours",
    "ours, 1 thread",
    "ours, buffer",
    "ours, uint8",
    "loop and read",
    "ours and read",
    "ours, GPU",
)


def clips(persons: int) -> tuple[Any, Any]:
    """Persons that walk through the grid, so that windows have realistic positions."""
    import numpy as np

    rng = np.random.default_rng(0)
    center = rng.uniform(18, 38, (BATCH, persons, 1, 1, 2)) + rng.normal(0, 0.3, (BATCH, persons, FRAMES, 1, 2)).cumsum(
        2
    )
    xy = center + rng.normal(0, 9, (BATCH, persons, 1, 17, 2)) + rng.normal(0, 0.5, (BATCH, persons, FRAMES, 17, 2))
    return xy.astype(np.float32), rng.uniform(0.3, 1, (BATCH, persons, FRAMES, 17)).astype(np.float32)


def plain_joint(image: Any, center: Any, score: float) -> None:
    """Draw one joint into `image`, (H, W), in place."""
    import numpy as np

    x, y = center
    left, right = max(int(x - 3 * SIGMA), 0), min(int(x + 3 * SIGMA) + 1, SIZE[1])
    top, bottom = max(int(y - 3 * SIGMA), 0), min(int(y + 3 * SIGMA) + 1, SIZE[0])
    if left >= right or top >= bottom:
        return
    columns, rows = np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)[:, None]
    patch = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2 / SIGMA**2) * score
    image[top:bottom, left:right] = np.maximum(image[top:bottom, left:right], patch)


def plain_limb(image: Any, a: Any, b: Any, score: float) -> None:
    """Draw one limb between `a` and `b` into `image`, (H, W), in place."""
    import numpy as np

    length = ((a - b) ** 2).sum()
    if length < 1:
        plain_joint(image, a, score)
        return
    (low_x, low_y), (high_x, high_y) = np.minimum(a, b), np.maximum(a, b)
    left, right = max(int(low_x - 3 * SIGMA), 0), min(int(high_x + 3 * SIGMA) + 1, SIZE[1])
    top, bottom = max(int(low_y - 3 * SIGMA), 0), min(int(high_y + 3 * SIGMA) + 1, SIZE[0])
    if left >= right or top >= bottom:
        return
    x, y = np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)[:, None]
    share = np.clip(((x - a[0]) * (b[0] - a[0]) + (y - a[1]) * (b[1] - a[1])) / length, 0, 1)
    distance = (x - a[0] - share * (b[0] - a[0])) ** 2 + (y - a[1] - share * (b[1] - a[1])) ** 2
    patch = np.exp(-distance / 2 / SIGMA**2) * score
    image[top:bottom, left:right] = np.maximum(image[top:bottom, left:right], patch)


def plain(xy: Any, score: Any, limbs: Sequence[tuple[int, int]] | None) -> Any:
    """Draw all clips with loops over clips, frames, persons and joints or limbs."""
    import numpy as np

    out = np.zeros((len(xy), len(limbs) if limbs else 17, FRAMES, *SIZE), np.float32)
    for b in range(len(xy)):
        for t in range(FRAMES):
            for m in range(xy.shape[1]):
                if limbs:
                    for n, (first, last) in enumerate(limbs):
                        smaller = min(score[b, m, t, first], score[b, m, t, last])
                        if smaller >= 1e-3:
                            plain_limb(out[b, n, t], xy[b, m, t, first], xy[b, m, t, last], smaller)
                else:
                    for k in range(17):
                        if score[b, m, t, k] >= 1e-3:
                            plain_joint(out[b, k, t], xy[b, m, t, k], score[b, m, t, k])
    return out


def seconds_per_batch(method: str, kind: str, persons: int, repeats: int) -> float:
    """Seconds per batch: the fastest of several repetitions after a warm-up.

    The loop processes 4 of the clips, and its time is multiplied by eight.
    """
    import numpy as np
    import torch

    from actionprep.datasets.poses.heatmaps import joint_heatmaps, limb_heatmaps
    from actionprep.datasets.poses.skeletons import skeleton

    xy, score = clips(persons)
    share = 8 if method.startswith("loop") else 1
    xy, score = xy[: BATCH // share], score[: BATCH // share]
    limbs = list(skeleton("coco17").limbs) if kind == "limb" else None
    device = "cuda" if "GPU" in method else "cpu"
    if method.startswith("loop"):

        def run() -> None:
            volume = plain(xy, score, limbs)
            if "read" in method:
                torch.from_numpy(volume).sum()

    else:
        if "1 thread" in method:
            torch.set_num_threads(1)
        points, seen = torch.from_numpy(xy).to(device), torch.from_numpy(score).to(device)
        dtype = torch.uint8 if "uint8" in method else torch.float32
        how: dict[str, Any] = {"size": SIZE, "sigma": SIGMA, "dtype": dtype}
        if "buffer" in method:
            # numpy requests large pages, which saves address look-ups.
            how["out"] = torch.from_numpy(np.zeros((BATCH, 17, FRAMES, *SIZE), np.float32))

        def run() -> None:
            volume = limb_heatmaps(points, seen, limbs, **how) if limbs else joint_heatmaps(points, seen, **how)
            if "read" in method:
                volume.sum()
            if device == "cuda":
                torch.cuda.synchronize()

    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return share * min(times)


def bytes_a_clip() -> dict[str, int]:
    """Size of one clip: as a float32 volume, as bytes, as stored by `actionprep heatmaps`, and as keypoints."""
    import numpy as np
    import torch
    from numcodecs.zstd import compress

    from actionprep.datasets.poses.heatmaps import joint_heatmaps

    xy, score = (torch.from_numpy(values) for values in clips(1))
    volumes = joint_heatmaps(xy, score, size=SIZE, sigma=SIGMA, dtype=torch.uint8).numpy()
    chunks = [
        np.ascontiguousarray(volume[:, first : first + 16].swapaxes(0, 1))
        for volume in volumes
        for first in (0, 16, 32)
    ]
    return {
        "float32 volume": volumes[0].size * 4,
        "uint8 volume": volumes[0].size,
        "uint8 volume, zstd": round(sum(len(compress(chunk.tobytes(), 3)) for chunk in chunks) / len(volumes)),
        "keypoints and scores, 1 person": FRAMES * 17 * 3 * 4,
    }


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "KIND", "PERSONS"))
    args = parser.parse_args()
    if args.one:
        print(json.dumps(seconds_per_batch(args.one[0], args.one[1], int(args.one[2]), args.repeats)))
        return 0

    import torch

    from benchmarks.common import Results, Side, speed_ratio

    settings = {"channels": 17, "frames": FRAMES, "size": SIZE, "batch": BATCH, "sigma": SIGMA, "rounds": args.rounds}
    results = Results(
        "heatmaps", {**settings, "torch_threads": torch.get_num_threads(), "bytes_a_clip": bytes_a_clip()}
    )
    methods = [method for method in METHODS if "GPU" not in method or torch.cuda.is_available()]
    seconds: dict[tuple[str, str, int], list[float]] = {(method, *case): [] for case in CASES for method in methods}
    for _ in range(args.rounds):
        for key in seconds:
            command = [sys.executable, __file__, "--repeats", str(args.repeats), "--one", *map(str, key)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[key].append(json.loads(done.stdout))
    for kind, persons in CASES:
        sides = {m: Side(m, tuple(seconds[m, kind, persons]), BATCH, "volumes") for m in methods}
        name = f"{kind}, {persons} person{'s' * (persons > 1)}"
        results.add(name, sides)
        for method in methods:
            if not method.startswith("loop"):
                loop = sides["loop and read" if "read" in method else "loop"]
                ratio = speed_ratio(sides[method], loop)
                results.notes.append(f"{name}: {method} is {ratio:.1f} times the loop")
                if method == "ours, buffer":
                    results.mark(f"{name}: {method}, times the loop", ratio, at_least=25)
    if torch.cuda.is_available():
        results.notes.append(f"GPU: {torch.cuda.get_device_name()}")
    print("\n".join(results.notes))
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    sys.exit(main())
