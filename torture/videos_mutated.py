"""Videos are truncated, overwritten and shuffled."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

from numbered_videos import KINDS, write_numbered
from recordings import moving_square, write_video
from shared_files import SHARED_DATA

from actionprep.api import make_study, open_study
from torture.common import Part, Trials, leftovers, run

BATCH = 10
MAX_BYTES = 2_000_000


def mutate_videos(trials: Trials, folder: Path) -> None:
    """Build studies of ten mutated videos and two good ones with worker processes."""
    originals = _originals(folder / "originals")
    trials.facts["original videos"] = len(originals)
    good = write_video(folder / "good.mp4", moving_square(24, height=48, width=64))
    reasons: set[str] = set()
    while trials.go_on:
        root = folder / "study"
        shutil.rmtree(root, ignore_errors=True)
        videos = root / "videos" / "any"
        videos.mkdir(parents=True)
        for number in range(2):
            (videos / f"good_{number}.mp4").write_bytes(good.read_bytes() + bytes(number))
        for number in range(BATCH):
            original = originals[(trials.done + number) % len(originals)]
            content = mutated(original.read_bytes(), trials.random)
            (videos / f"bad_{number}{original.suffix}").write_bytes(content)
        study, _ = make_study(root, {}, force=True)
        study.folder.change("lowres", "sizes", (16,))
        study.folder.change("study", "failure_budget", 1.0)
        study.folder.change("study", "item_timeout", 120.0)
        done = run("prep", root, "build", "lowres", "--workers", "2")
        trials.done += BATCH
        study = open_study(root)
        stored = {key.recording for key in study.store.items("lowres")}
        entries = list(study.quarantine)
        names = sorted(path.name for path in videos.iterdir())
        trials.check(done.returncode in (0, 1), f"build ended with {done.returncode}: {done.stderr[-600:]}")
        trials.check("Traceback" not in done.stderr, f"build printed a traceback: {done.stderr[-600:]}")
        trials.check(not list((root / "logs").glob("fault-*")), f"a fault of the program: {done.stderr[-600:]}")
        trials.check({"any/good_0", "any/good_1"} <= stored, f"good neighbors are missing among {names}")
        unreadable = {view.recording for view in study.catalog.views if not view.num_frames}
        known = stored | {entry.recording for entry in entries} | unreadable
        missing = [name for name in names if f"any/{Path(name).stem}" not in known]
        listed = {finding.file for finding in study.catalog.findings}
        missing = [name for name in missing if f"videos/any/{name}" not in listed]
        trials.check(not missing, f"neither built nor explained: {missing}")
        trials.check(all(entry.reason for entry in entries), "an item is quarantined without a reason")
        trials.check(not leftovers(study.store.require_local()), "the build left drafts")
        hangs = sum("no progress" in entry.reason for entry in entries)
        deaths = sum("died on it twice" in entry.reason for entry in entries)
        trials.facts.update(built=len(stored) - 2, quarantined=len(entries), hangs=hangs, crashes=deaths)
        reasons |= {entry.reason for entry in entries}
    trials.facts["distinct reasons"] = len(reasons)


def mutated(content: bytes, random: Random) -> bytes:
    """Return a copy that is truncated, has a range of zeros or of other bytes, or has two exchanged blocks."""
    size, data = len(content), bytearray(content)
    at, length = random.randrange(size), random.randrange(1, max(2, size // 8))
    kind = random.choice(["truncate", "zero", "noise", "swap"])
    if kind == "truncate":
        return content[:at]
    if kind == "zero":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif kind == "noise":
        data[at : at + length] = random.randbytes(len(data[at : at + length]))
    else:
        other = random.randrange(size)
        first, second = sorted([at, other])
        length = min(length, max(1, second - first), size - second)
        data[first : first + length], data[second : second + length] = (
            data[second : second + length],
            data[first : first + length],
        )
    return bytes(data)


def _originals(folder: Path) -> list[Path]:
    """Write small videos of many codecs, and add the small ones of the shared recordings if they exist."""
    folder.mkdir()
    made = []
    for name, (codec, options, pixels) in KINDS.items():
        try:
            made.append(write_numbered(folder / name, codec, 40, options=options, pixel_format=pixels))
        except Exception as error:  # this FFmpeg has no such encoder
            print(f"not written: {name}: {error}")
    suffixes = {".mp4", ".avi", ".mkv", ".mov", ".webm"}
    shared = sorted(path for path in (SHARED_DATA / "hard_videos").rglob("*") if path.suffix in suffixes)
    return made + [path for path in shared if path.stat().st_size <= MAX_BYTES]


PART = Part(
    "videos are truncated, zeroed, overwritten and shuffled: no crash or hang of the build, a reason each, "
    "neighbors complete",
    "mutated videos",
    6000,
    mutate_videos,
)
