"""Commands run while the disk is full. Needs the right to mount a tmpfs (root on Linux)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from actionprep.api import open_study
from torture.common import STAGES, Part, Trials, run, small_study

FIT = ("fit", "--recipe", "view-transformer", "--epochs", "1", "--run", "r", "--allow-single", "--by", "recording")


def fill_disk(trials: Trials, folder: Path) -> None:
    """Run build, fit, predict and export with little space, then again with enough."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        raise SystemExit("This part mounts a tmpfs, which needs root. Run it in a container.")
    try:
        _fill(trials, folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(trials: Trials, folder: Path) -> None:
    root = folder / "study"
    small_study(root, recordings=8, frames=40)
    sizes: dict[str, int] = {}
    steps = {
        "build": ("prep", ("build", *STAGES, "--workers", "0"), root / "store"),
        "fit": ("train", FIT, root / "runs"),
        "predict": (
            "train",
            ("predict", str(root / "videos/left/clip_1.mp4"), "--run", "r", "--out", str(root / "predicted")),
            root / "predicted",
        ),
        "export": ("prep", ("export", "npz", str(root / "out"), "--product", "lowres"), root / "out"),
    }
    for name, (program, words, _) in steps.items():
        before = _free(folder)
        done = run(program, root, *words)
        if done.returncode:
            trials.check(False, f"{name} fails on a disk with space: {done.stderr[-600:]}")
            return
        sizes[name] = before - _free(folder)
    digest = open_study(root).store.digest()
    ballast = folder / "ballast"
    for number in trials:
        name = list(steps)[number % len(steps)]
        program, words, target = steps[name]
        shutil.rmtree(target, ignore_errors=True)
        space = int(sizes[name] * trials.random.uniform(0.0, 0.9))
        ballast.write_bytes(bytes(max(0, _free(folder) - space)))
        done = run(program, root, *words)
        trials.facts[f"{name}: stopped" if done.returncode else f"{name}: finished"] += 1
        clean = done.returncode == 0 or (done.returncode == 1 and "space" in done.stderr)
        trials.check(clean, f"{name} with {space} bytes ended with {done.returncode}: {done.stderr[-600:]}")
        trials.check("Traceback" not in done.stderr, f"{name} printed a traceback: {done.stderr[-600:]}")
        ballast.unlink()
        store = open_study(root).store
        damage = [str(found) for _, found in store.verify() if found is not None]
        trials.check(not damage, f"{name} damaged committed items: {damage[:2]}")
        again = (*words, "--resume") if name == "fit" and (target / "r/last.ckpt").exists() else words
        if name == "fit" and "--resume" not in again:
            shutil.rmtree(target, ignore_errors=True)
        done = run(program, root, *again)
        trials.check(done.returncode == 0, f"{name} does not resume with space: {done.stderr[-600:]}")
        trials.check(open_study(root).store.digest() == digest, f"another digest after {name}")


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


PART = Part(
    "the disk fills up during build, fit, predict or export: a clean error, committed data intact, resumes with space",
    "full disks",
    30,
    fill_disk,
)
