"""Planted leaks that `actionprep split --check` finds, and what it reports on data without leaks.

    python benchmarks/split_check.py --leaks 50
    python benchmarks/split_check.py --leaks 50 --clips FOLDER --subject 's\\d+'

Prints one JSON document. Without --clips, the clips are those of one camera of the sample study. With it, they are the
videos of a folder, and the subject is the first match of the pattern in the file name. A leak is a copy of a clip of
train in test (encoded again, scaled, cropped, or cut at another time), or a subject of train in test in another spelling.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from actionprep.api import open_study
from actionprep.api.new_study import make_study
from actionprep.api.split_check import check_stored_split
from actionprep.sample import make_sample_study

KINDS = ("re-encoded", "scaled", "brighter", "cropped", "shifted", "cropped and shifted", "subject")


def copy_clip(source: Path, target: Path, kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """Write a changed copy of a clip; return what was changed."""
    with av.open(str(source)) as container:
        rate = container.streams.video[0].average_rate or Fraction(25)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    quality, scale, gain = int(rng.integers(20, 31)), 1.0, 1.0
    height, width = frames[0].shape[:2]
    left, top, right, bottom = 0, 0, width, height
    if kind == "scaled":
        scale = float(rng.uniform(0.5, 0.8))
    if kind == "brighter":
        gain = float(rng.choice([0.7, 1.3]))
    if "cropped" in kind:
        side = float(rng.uniform(0.7, 0.95))
        left, top = (round(float(rng.uniform(0, 1 - side)) * size) for size in (width, height))
        right, bottom = left + round(side * width), top + round(side * height)
    if "shifted" in kind:
        frames = frames[int(len(frames) * rng.uniform(0.1, 0.4)) :]
    size = [round((b - a) * scale) // 2 * 2 for a, b in ((left, right), (top, bottom))]
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"crf": str(quality), "preset": "veryfast"}
        for image in frames:
            cut = cv2.resize(image[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
            cut = np.clip(cut * gain, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
        container.mux(stream.encode(None))
    return {"crop": [left, top, right, bottom], "frames": len(frames), "quality": quality, "scale": round(scale, 2)}


def clips_of(arguments: argparse.Namespace, folder: Path) -> list[tuple[Path, str]]:
    """Return the clips with their subjects."""
    if arguments.clips is not None:
        files = sorted(path for path in arguments.clips.rglob("*") if path.suffix in (".mp4", ".avi", ".mkv"))
        return [(path, match[0]) for path in files if (match := re.search(arguments.subject, path.name))]
    truth = make_sample_study(folder / "sample", recordings=64, views=1, workers=2)
    with truth.recordings_csv.open(newline="") as file:
        return [
            (next((folder / "sample" / "videos" / row["recording"]).iterdir()), row["subject"])
            for row in csv.DictReader(file)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaks", type=int, default=50)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--subject", default=r"s\d+")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        clips = clips_of(arguments, root)
        subjects = sorted({subject for _, subject in clips})
        in_test = set(subjects[len(subjects) * 2 // 3 :])
        study = root / "study"
        (study / "videos").mkdir(parents=True)
        rows = []
        for path, subject in clips:
            shutil.copy(path, study / "videos" / f"{path.parent.name}-{path.stem}.mkv")
            part = "test" if subject in in_test else "train"
            rows.append((f"{path.parent.name}-{path.stem}", subject, "test" if part == "test" else "train"))
        report = {"clips": len(clips), "clean": check(study, rows)}
        planted: list[dict[str, Any]] = []
        sources = [row for row in rows if row[2] == "train"]
        order = rng.permutation(len(sources))
        for number in range(arguments.leaks):
            kind = KINDS[number % len(KINDS)]
            name, subject, _ = sources[order[number % len(order)]]
            new = f"leak-{number:02d}"
            if kind == "subject":
                # One more clip of test whose subject is one of train in another spelling.
                spelled = respelled(subject, rng, {str(leak.get("as")) for leak in planted})
                name = next(row[0] for row in rows if row[2] == "test" and row[0] not in {p["clip"] for p in planted})
                rows = [(id, spelled if id == name else of, part) for id, of, part in rows]
                planted.append({"kind": kind, "of": subject, "clip": name, "as": spelled})
                continue
            changed = copy_clip(study / "videos" / f"{name}.mkv", study / "videos" / f"{new}.mkv", kind, rng)
            rows.append((new, f"stranger {number}", "test"))
            planted.append({"kind": kind, "of": name, "clip": new, **changed})
        result = check(study, rows)
        pairs = {frozenset((leak["name"], leak["other"])) for leak in result["leaks"]}
        wanted = {frozenset((p["of"], p.get("as", p["clip"]))) for p in planted}
        # Copies of one clip are near-duplicates of each other, but they are all in test.
        report["planted"] = len(planted)
        report["found"] = len(wanted & pairs)
        report["of"] = len(wanted)
        report["missed"] = [p for p in planted if frozenset((p["of"], p.get("as", p["clip"]))) not in pairs]
        report["others"] = [leak for leak in result["leaks"] if frozenset((leak["name"], leak["other"])) not in wanted]
        report["similarity"], report["seconds"] = result["similarity"], result["seconds"]
    print(json.dumps(report, indent=1, default=str))


def respelled(name: str, rng: np.random.Generator, used: set[str]) -> str:
    """Spell a name such as "s1" or "subject1" in another way."""
    number = re.search(r"\d+", name)
    spellings = [name.upper(), name.title()]
    if number is not None:
        spellings += [f"Subject {number[0]}", *(f"S{int(number[0]):0{width}d}" for width in range(2, 9))]
    return str(rng.choice([spelling for spelling in spellings if spelling != name and spelling not in used]))


def check(root: Path, rows: list[tuple[str, str, str]]) -> dict[str, Any]:
    """Store the given split of these recordings, and check it."""
    with (root / "recordings.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("recording", "subject", "split", "label"))
        writer.writerows((*row, "act") for row in rows)
    if not (root / "actionprep.toml").exists():
        make_study(root, {"videos": "videos", "pattern": "{recording}.mkv", "recordings": "recordings.csv"})
    study = open_study(root)
    study.scan()
    study.build("split", overrides={"split": {"by": "column", "val": 0.0}})
    begin = time.perf_counter()
    found = check_stored_split(study)
    leaks = [{"kind": leak.kind, "name": leak.name, "other": leak.other, "detail": leak.detail} for leak in found.leaks]
    return {
        "leaks": leaks,
        "not_compared": dict(found.not_compared),
        "similarity": round(found.similarity, 3),
        "seconds": round(time.perf_counter() - begin, 1),
    }


if __name__ == "__main__":
    main()
