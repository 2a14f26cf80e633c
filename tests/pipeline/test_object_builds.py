"""Tests of builds whose store is in an S3 bucket: commands, workers, kills and failing requests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prep_commands import actionprep
from recordings import moving_square, write_video
from s3_server import Proxy

from actionprep.api import Study, make_study, open_study
from actionprep.datasets.store import object_files
from actionprep.datasets.store.object_files import ObjectFiles
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import SetupError
from actionprep.pipeline.view_tasks import Workers

pytestmark = pytest.mark.slow

URL = "s3://studies/demo"
FAST = {"masks": {}, "tracks": {"grid": 4, "window": 8, "stride": 4}, "lowres": {"sizes": (16,)}}
BUILD = "import sys; from actionprep.cli import prep; sys.argv = ['actionprep', 'build', '--workers', '2']; prep()"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos that all studies copy: encoders do not always write the same bytes."""
    root = tmp_path_factory.mktemp("source") / "videos"
    for number, label in enumerate(("left", "right", "left")):
        path = root / label / f"clip_{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_square(24, height=48, width=64, seed=number))
    return root


def study_at(root: Path, videos: Path, store: str = "store") -> Study:
    shutil.copytree(videos, root / "videos")
    study, _ = make_study(root, {}, force=True)
    for table, values in FAST.items():
        for key, value in values.items():
            study.folder.change(table, key, value)
    study.folder.change("study", "store", store)
    return open_study(root)


@pytest.fixture(scope="module")
def local_store(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Store:
    study = study_at(tmp_path_factory.mktemp("local"), videos)
    assert study.build().ok
    return study.store


def digests(store: Store) -> dict[str, str]:
    return {str(key): store.item(key.product, key.recording, key.view).digest for key in store.items()}


def assert_sound(local: Store) -> None:
    store = open_store(URL)
    assert digests(store) == digests(local)
    assert store.digest() == local.digest()
    assert all(damage is None for _, damage in store.verify())
    files = ObjectFiles(URL)
    assert len(files.all_folders(".data")) == len(store.items()), "no data that no item names"
    assert sorted(files.names("")) == [".index", "zarr.json"]


def test_commands_work_on_a_bucket(s3: Proxy, tmp_path: Path, videos: Path, local_store: Store):
    study = study_at(tmp_path, videos, URL)
    assert actionprep(study, "build").exit_code == 0
    assert_sound(local_store)
    written = len(s3.requests)
    for command in ("build", "plan", "status", "verify", "digest", "gc"):
        result = actionprep(study, command)
        assert result.exit_code == 0, (command, result.output)
    assert not any(method == "PUT" and "/.data/" in path for method, path in s3.requests[written:])
    assert local_store.digest() in actionprep(study, "digest").output


def test_verify_repair_rebuilds_a_damaged_item(s3: Proxy, tmp_path: Path, videos: Path, local_store: Store):
    study = study_at(tmp_path, videos, URL)
    assert study.build().ok
    files = ObjectFiles(URL)
    chunk = next(name for name in files.signatures(".data") if "/c/" in name)
    content = files.read(chunk) or b""
    files.write(chunk, content[:5] + bytes([content[5] ^ 1]) + content[6:])
    files.write("zarr.json", b"{}")
    broken = actionprep(study, "verify")
    assert broken.exit_code != 0
    assert actionprep(study, "verify", "--repair").exit_code == 0
    assert_sound(local_store)


def test_gc_deletes_items_of_removed_recordings(s3: Proxy, tmp_path: Path, videos: Path):
    study = study_at(tmp_path, videos, URL)
    assert study.build().ok
    next(tmp_path.glob("videos/*/clip_2.mp4")).unlink()
    study = open_study(tmp_path)
    study.scan()
    assert len(study.stray_items()) > 0
    assert actionprep(study, "gc", "--yes").exit_code == 0
    assert open_study(tmp_path).stray_items() == []
    assert len(ObjectFiles(URL).all_folders(".data")) == len(open_store(URL).items())


def test_two_workers_and_failing_requests_give_the_same_digest(
    s3: Proxy, tmp_path: Path, videos: Path, local_store: Store
):
    study = study_at(tmp_path, videos, URL)
    study.scan()
    s3.fail_randomly(0.05, seed=1)
    assert study.build(workers=Workers(2)).ok
    s3.heal()
    assert_sound(local_store)


def test_a_build_ends_without_its_storage_and_resumes(
    s3: Proxy, tmp_path: Path, videos: Path, local_store: Store, monkeypatch: pytest.MonkeyPatch
):
    study = study_at(tmp_path, videos, URL)
    study.scan()
    uploads = 0

    def is_away(method: str, path: str) -> bool:
        nonlocal uploads
        uploads += method == "PUT" and "/.data/" in path
        return uploads > 30

    s3.fails = is_away
    monkeypatch.setattr(object_files, "RETRY_S", 0.5)
    with pytest.raises(SetupError, match="does not answer as expected"):
        study.build()
    s3.heal()
    assert open_study(tmp_path).build().ok
    assert_sound(local_store)


@pytest.mark.parametrize("uploads", [3, 40])
def test_a_build_killed_in_an_upload_resumes(s3: Proxy, tmp_path: Path, videos: Path, local_store: Store, uploads: int):
    study = study_at(tmp_path, videos, URL)
    study.scan()
    builder = subprocess.Popen(
        [sys.executable, "-c", BUILD], cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 60
    while sum(method == "PUT" and "/.data/" in path for method, path in s3.requests) < uploads:
        assert time.monotonic() < until
        assert builder.poll() is None, "the build ended before it was killed"
        time.sleep(0.005)
    os.killpg(builder.pid, signal.SIGKILL)
    builder.wait()
    assert all(damage is None for _, damage in open_store(URL).verify())
    assert open_study(tmp_path).build().ok
    assert_sound(local_store)
