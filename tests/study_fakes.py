"""Fake videos that consist of a line of JSON, and a probe that reads them: scanning needs no real decoder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actionprep.datasets.catalog import Catalog
from actionprep.datasets.products.snippets import SnippetTable
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.segments import Segment
from actionprep.datasets.study import StudyFolder, StudySettings, init_study
from actionprep.errors import InputError


@dataclass(frozen=True)
class FakeFacts:
    times: np.ndarray
    digest: str
    width: int = 64
    height: int = 48
    start: float = 0.0
    file_start: float = 0.0
    codec: str = "h264"
    pixel_format: str = "yuv420p"
    rotation: int = 0
    time_base: str = "1/90000"
    header_frames: int | None = None
    stream: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def num_frames(self) -> int:
        return len(self.times)

    @property
    def fps(self) -> float:
        return 1 / float(np.median(np.diff(self.times)))

    @property
    def duration(self) -> float:
        return float(self.times[-1]) + 1 / self.fps


class FakeProbe:
    """Read fake videos and count them."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, path: Path) -> FakeFacts:
        self.read.append(path.name)
        content = path.read_bytes()
        try:
            facts = json.loads(content)
        except ValueError:
            raise InputError(f"{path}: holds no video") from None
        times = np.arange(facts["frames"]) / facts["fps"]
        return FakeFacts(
            times,
            hashlib.sha256(content).hexdigest(),
            start=facts["start"],
            file_start=facts["file_start"],
            warnings=tuple(facts["warnings"]),
        )


def fake_video(
    path: Path,
    *,
    frames: int = 50,
    fps: float = 25.0,
    start: float = 0.0,
    file_start: float | None = None,
    warnings: tuple[str, ...] = (),
    name: str = "",
) -> Path:
    """Write a file that FakeProbe reads as a video. Each path has different content, except where `name` is equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"frames": frames, "fps": fps, "start": start, "warnings": warnings, "name": name or str(path)}
    facts["file_start"] = start if file_start is None else file_start
    path.write_text(json.dumps(facts))
    return path


def view(recording: str, id: str = "0", *, seconds: float = 10.0, fps: float = 25.0, **facts: object) -> View:
    times = np.arange(round(seconds * fps)) / fps
    defaults = {"path": f"videos/{recording}/cam{id}.mp4", "digest": f"{recording}/{id}"}
    return View(recording, id, **{**defaults, "num_frames": len(times), "fps": fps, "frame_times": times, **facts})  # type: ignore[arg-type]


def catalog(*recordings: Recording, segments: dict[str, tuple[Segment, ...]] | None = None, **facts: float) -> Catalog:
    views = tuple(view(recording.id, **facts) for recording in recordings)  # type: ignore[arg-type]
    return Catalog(recordings, views, segments or {})


def annotated(*segments: Segment, seconds: float = 10.0) -> Catalog:
    """Return the catalog of one recording "a" with these segments."""
    return catalog(Recording("a"), segments={"a": segments}, seconds=seconds)


def new_study(root: Path, **settings: object) -> StudyFolder:
    """Create a study with these [study] settings, or overwrite the settings of an existing one."""
    return init_study(root, StudySettings(**settings), force=True)  # type: ignore[arg-type]


def table(
    labels: list[str], recordings: list[str], *, subjects: list[str] | None = None, **facts: object
) -> SnippetTable:
    """Return a table with one row per label. Row i is in recordings[i], which has subject subjects[i]."""
    names = sorted(set(labels))
    ids = list(dict.fromkeys(recordings))
    of_recording = dict(zip(recordings, subjects or [""] * len(recordings), strict=True))
    target = np.array([[label == name for name in names] for label in labels], np.uint8)
    overlaps = target.astype(np.float32)
    known = {
        "subjects": tuple(of_recording[id] for id in ids),
        "sessions": ("",) * len(ids),
        "splits": ("",) * len(ids),
        "sources": tuple((id,) for id in ids),
    }
    return SnippetTable(
        recording=np.array([ids.index(id) for id in recordings], np.int32),
        onset=np.arange(len(labels), dtype=np.float64),
        offset=np.arange(len(labels), dtype=np.float64) + 1,
        label=np.array([names.index(label) for label in labels], np.int32),
        target=target,
        coverage=overlaps,
        iou=overlaps,
        segment_share=overlaps,
        labels=tuple(names),
        recordings=tuple(ids),
        **{**known, **facts},  # type: ignore[arg-type]
    )
