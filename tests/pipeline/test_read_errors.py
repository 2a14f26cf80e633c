"""Tests of disk errors while inputs are read: the item fails with the system's message, and is retried."""

from __future__ import annotations

import errno
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from recordings import moving_square, write_video

from actionprep.api import Study, make_study, open_study
from actionprep.datasets.poses.formats import read_poses
from actionprep.errors import READ_ERROR, InputError, SetupError, explained_disk_errors, read_error
from actionprep.pipeline import opening
from actionprep.pipeline.probe import probe
from actionprep.pipeline.video import VideoReader


class Disk:
    """Raise errors for files of one name within a range of bytes, after some successful reads."""

    def __init__(self) -> None:
        self.name = ""
        self.part = (0.5, 1.0)
        self.spared = 0
        self.failures = 0

    def fail(self, file: io.FileIO, size: int) -> None:
        first, last = (int(part * os.fstat(file.fileno()).st_size) for part in self.part)
        if self.name and str(file.name).endswith(self.name) and file.tell() + size > first and file.tell() < last:
            self.spared -= 1
            if self.spared < 0:
                self.failures += 1
                raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()

    class FailingFile(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            disk.fail(self, size)
            return super().read(size)

    monkeypatch.setattr(opening.io, "FileIO", FailingFile)
    return disk


def video(path: Path, *, frames: int = 60, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = moving_square(frames, height=96, width=128, seed=seed)
    noise = np.random.default_rng(seed).integers(0, 60, clip.shape, dtype=np.uint8)  # so that the file has some bytes
    write_video(path, clip // 2 + noise)
    return path


@pytest.fixture
def study(tmp_path: Path) -> Study:
    video(tmp_path / "videos/walk/a.mp4", seed=1)
    video(tmp_path / "videos/walk/b.mp4", seed=2)
    made, _ = make_study(tmp_path, {}, force=True)
    made.folder.change("lowres", "sizes", (16,))
    return made


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_failing_disk_is_no_damage(tmp_path: Path, disk: Disk, suffix: str) -> None:
    path = video(tmp_path / f"a.{suffix}")
    disk.name = path.name
    for read in (probe, VideoReader):
        with pytest.raises(InputError, match=rf"a\.{suffix}: cannot be read: Input/output error \(EIO\)$") as raised:
            read(path)
        assert raised.value.backend == READ_ERROR
    assert disk.failures


@pytest.mark.parametrize("threads", [1, 3])
def test_failing_disk_while_decoding(tmp_path: Path, disk: Disk, threads: int) -> None:
    path = video(tmp_path / "a.mkv")
    reader = VideoReader(path, threads=threads)
    disk.name = path.name
    with pytest.raises(InputError, match=r"cannot be read: Input/output error \(EIO\)"):
        for _ in reader.blocks():
            pass
    with pytest.raises(InputError, match=r"cannot be read: Input/output error \(EIO\)"):
        reader.frames_at([59])
    disk.name = ""
    assert sum(len(block) for block in reader.blocks()) == reader.num_frames == 60
    assert reader.shortfall is None


def test_build_goes_on_and_tries_again(study: Study, disk: Disk) -> None:
    _ = study.catalog
    disk.name, disk.part = "a.mp4", (0.6, 0.7)
    report = study.build("lowres")
    assert [str(key) for key in report.built] == ["lowres/walk/b/0"]
    [(key, reason)] = report.quarantined.items()
    assert str(key) == "lowres/walk/a/0"
    assert reason.endswith("walk/a.mp4: cannot be read: Input/output error (EIO)")
    disk.name = ""
    report = open_study(study.root).build("lowres")
    assert [str(key) for key in report.built] == ["lowres/walk/a/0"]
    assert report.ok
    assert list(study.quarantine) == []


def test_scan_error_is_tried_again(study: Study, disk: Disk) -> None:
    disk.name = "a.mp4"
    [view] = study.scan().unreadable
    assert view.reason == "cannot be read: Input/output error (EIO)"
    disk.name = ""
    messages: list[str] = []
    again = open_study(study.root, log=messages.append)
    assert again.build("lowres").ok
    assert messages == ["videos/walk/a.mp4 could not be read by the last scan: scanning."]


def test_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video(tmp_path / "a.mp4")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(opening.io, "FileIO", refuse)
    with pytest.raises(InputError, match=r"a\.mp4: cannot be read: Permission denied \(EACCES\)$"):
        probe(path)


def test_mask_video_on_a_failing_disk(study: Study, disk: Disk) -> None:
    for name in ("a", "b"):
        video(study.root / f"masks/walk/{name}.mkv")
    study.folder.change("masks", "source", "files")
    study.folder.change("masks", "files", "masks/{recording}.mkv")
    disk.name = "a.mkv"
    study = open_study(study.root)
    report = study.build("masks")
    assert [str(key) for key in report.built] == ["masks/walk/b/0"]
    [reason] = report.quarantined.values()
    assert reason.endswith("masks/walk/a.mkv: cannot be read: Input/output error (EIO)")
    disk.name = ""
    assert open_study(study.root).build("masks").ok


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, r"No space left on the disk of .*\nFree some space"),
        (errno.EROFS, r"Cannot write to .*\nMake it writable"),
        (errno.EFBIG, r"store/file would become larger than the system allows .*\nRaise the limit"),
        (errno.EIO, r"The disk of .*store reports an error .*\nCheck the disk"),
    ],
)
def test_errors_of_the_store_disk(tmp_path: Path, code: int, expected: str) -> None:
    place = tmp_path / "store"
    with pytest.raises(SetupError, match=expected), explained_disk_errors(place):
        raise OSError(code, os.strerror(code), str(place / "file"))


@pytest.mark.parametrize("place", ["store", "store/lowres", "store/.partial", "catalog", "quarantine"])
def test_file_where_a_folder_is_expected(study: Study, place: str) -> None:
    path = study.root / place
    if place != "catalog":
        _ = study.catalog
    path.parent.mkdir(exist_ok=True)
    if place.startswith("store/"):
        _ = study.store
    path.write_text("not a folder")
    expected = rf"{place} is a file, but must be (a|the) folder( of the catalog)?\. Move it away, then run the same"
    with pytest.raises(SetupError, match=expected):
        open_study(study.root).build("lowres")


def test_read_error_without_a_number() -> None:
    assert read_error("a.mp4", OSError("odd")).reason == "a.mp4: cannot be read: odd"


def test_poses_that_cannot_be_read_leave_the_others(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        keypoints = np.full((60, 1, 17, 2), 20, np.float32)
        path = study.root / f"poses/walk/{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, keypoints=keypoints, skeleton="coco17", image_size=(96, 128))
    study.folder.change("pose", "backend", "import")
    study.folder.change("pose", "files", "poses/{recording}.npz")
    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "a.npz":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        report = open_study(study.root).build("pose")
    assert [str(key) for key in report.built] == ["pose/walk/b/0"]
    [reason] = report.quarantined.values()
    assert reason.endswith("cannot be read: Input/output error (EIO)")
    assert open_study(study.root).build("pose").ok


def test_pose_reader_hands_on_read_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", keypoints=np.ones((3, 17, 2)), skeleton="coco17")
    opened = zipfile.ZipFile

    def fail(path: Path) -> zipfile.ZipFile:
        if path.name == "a.npz":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return opened(path)

    monkeypatch.setattr(zipfile, "ZipFile", fail)
    damaged: dict[str, InputError] = {}
    assert [item.recording for item in read_poses(tmp_path, "pose-npz", damaged=damaged.__setitem__)] == ["b"]
    assert damaged["a"].reason == f"{tmp_path}/a.npz: cannot be read: Input/output error (EIO)"
    assert damaged["a"].backend == READ_ERROR
