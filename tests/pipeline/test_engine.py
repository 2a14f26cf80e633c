"""Tests of builds: passes, complete items, quarantine, budget, lock, and equal bytes after interruptions."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from recordings import moving_square, write_video

from actionprep.api import Study, make_study, open_study
from actionprep.datasets.store.lock import LockLostError, build_lock
from actionprep.errors import SetupError, UserError
from actionprep.pipeline import engine, view_tasks
from actionprep.pipeline.engine import BuildStoppedError, InternalError
from actionprep.pipeline.lowres import Lowres
from actionprep.pipeline.stage import FrameBlock

FAST = {"masks": {}, "tracks": {"grid": 4, "window": 8, "stride": 4}, "lowres": {"sizes": (16,)}}

# Tests that run in the background of a shell ignore Ctrl-C, and child processes inherit this.
LISTENING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from actionprep.cli import prep; prep()"
)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return small_study(tmp_path)


def small_study(root: Path, *, recordings: int = 3) -> Study:
    for number in range(recordings):
        label = "left" if number % 2 else "right"
        path = root / "videos" / label / f"clip_{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_square(24, height=48, width=64, speed=1 + number, seed=number))
    made, _ = make_study(root, {}, force=True)
    for table, values in FAST.items():
        for key, value in values.items():
            made.folder.change(table, key, value)
    return made


def actions(study: Study, *stages: str, **options) -> dict[str, list[str]]:
    plan = study.plan(*stages, **options)
    return {name: [item.why for item in plan.items if item.key.product == name and item.action == "build"]
            for name in plan.by_stage()}  # fmt: skip


def test_all_stages_are_made_from_one_decode_pass(study: Study) -> None:
    report = study.build("tracks", "lowres")
    assert report.ok
    assert report.num_frames == 3 * 24
    assert study.store.products() == ["lowres", "masks", "tracks"]
    tracks = study.tracks("left/clip_1", view=0)
    assert tracks.xy.shape[1:] == (8, 16, 2)
    assert np.array_equal(tracks.time[0], np.arange(8) / 30)


def test_what_is_there_is_not_made_again(study: Study) -> None:
    study.build("tracks")
    before = study.store.digest()
    report = study.build("tracks")
    assert (report.built, report.done, report.num_frames) == ([], 6, 0)
    assert study.store.digest() == before


def test_a_changed_setting_makes_anew_only_what_depends_on_it(study: Study) -> None:
    study.build("tracks", "lowres")
    assert actions(study, "tracks", overrides={"tracks": {"grid": 5}}) == {
        "masks": [],
        "tracks": ["settings changed: grid"] * 3,
    }
    study.folder.change("masks", "min_area", 0.02)
    study.__dict__.pop("settings", None)
    changed = actions(study, "tracks", "lowres", enforce=True)
    assert changed["masks"] == ["settings changed: min_area"] * 3
    assert changed["tracks"] == ["its input changed"] * 3
    assert changed["lowres"] == []


def test_stage_command_keeps_inputs_with_other_settings(study: Study) -> None:
    study.build("masks", overrides={"masks": {"min_area": 0.02}})
    assert actions(study, "tracks")["masks"] == []
    assert actions(study, "tracks", enforce=True)["masks"] == []
    assert actions(study, "tracks", enforce=True, reset=True)["masks"] == ["settings changed: min_area"] * 3
    study.folder.change("masks", "min_area", 0.03)
    assert actions(study, "tracks")["masks"] == []
    assert actions(study, "tracks", enforce=True)["masks"] == ["settings changed: min_area"] * 3


def test_a_stored_input_gives_the_same_tracks_as_a_live_one(study: Study) -> None:
    study.build("tracks")
    together = study.store.digest()
    for key in study.store.items():
        study.store.remove(key)
    study.build("masks")
    study.build("tracks")
    assert study.store.digest() == together


def test_a_changed_video_is_made_anew(study: Study) -> None:
    study.build("lowres")
    write_video(study.root / "videos/left/clip_1.mp4", moving_square(24, height=48, width=64, speed=5, seed=9))
    study.scan()
    assert actions(study, "lowres") == {"lowres": ["its source changed"]}


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, workers: int) -> None:
    here = small_study(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    there = open_study(tmp_path / "b")
    here.build("tracks", "lowres", "snippets")
    there.build("tracks", "lowres", "snippets", workers=workers)
    assert here.store.digest() == there.store.digest()


def test_a_video_that_was_away_is_made_once_it_is_back(study: Study) -> None:
    study.scan()
    video = study.root / "videos" / "left" / "clip_1.mp4"
    video.rename(study.root / "away.mp4")
    # The removed file is noticed, and the study is scanned again without it.
    assert {key.recording for key in study.build("lowres").built} == {"right/clip_0", "right/clip_2"}
    (study.root / "away.mp4").rename(video)
    assert study.build("lowres").ok
    assert not list(study.quarantine)


def test_a_damaged_video_is_quarantined_and_its_neighbors_go_on(study: Study) -> None:
    good = study.root / "videos/left/clip_1.mp4"
    data = good.read_bytes()
    # The packets stay listed in the index, so that only decoding finds nothing.
    at = data.index(b"mdat") + 4
    good.write_bytes(data[:at] + bytes(len(data) - at) if data.index(b"moov") < at else without_frame_data(data))
    study.scan()
    report = study.build("lowres")
    assert not report.ok
    assert len(report.built) == 2
    assert [key.recording for key in report.quarantined] == ["left/clip_1"]
    entry = study.quarantine.get(next(iter(report.quarantined)))
    assert entry.backend.startswith("PyAV")
    again = study.build("lowres")
    assert again.built == []
    assert [key.recording for key in again.quarantined] == ["left/clip_1"]
    good.write_bytes(data)
    study.scan()
    assert study.build("lowres").ok
    assert not list(study.quarantine)


def without_frame_data(data: bytes) -> bytes:
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    return data[:start] + bytes(end - start) + data[end:]


def test_an_unreadable_file_is_reported_and_blocks_nothing_else(study: Study) -> None:
    (study.root / "videos/left/clip_1.mp4").write_text("not a video")
    study.scan()
    report = study.build("tracks")
    assert {key.recording for key in report.quarantined} == {"left/clip_1"}
    assert len(report.built) == 4


def test_failure_budget_stops_the_build_with_the_main_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(tmp_path, recordings=5)
    monkeypatch.setattr(engine, "MIN_FAILURES", 3)
    first, *others = sorted((study.root / "videos").rglob("*.mp4"))
    others[-1].write_bytes(b"not a video")
    study.scan()  # what a scan finds is no failure of the build, and spends nothing of its budget
    for path in others[:2]:
        path.write_bytes(without_frame_data(path.read_bytes()))
    study.scan()
    assert len(study.build("lowres").built) == 2
    first.write_bytes(without_frame_data(first.read_bytes()))
    study.scan()
    with pytest.raises(BuildStoppedError) as stopped:
        study.build("tracks", "lowres", retry=True)
    assert "Stopped: 3 of 4 views failed, more than the failure budget of 20% allows. Most frequent (3 times): " in str(
        stopped.value
    )
    assert ".mp4" in str(stopped.value).splitlines()[0]


def test_a_missing_backend_stops_before_any_work(study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = {"tracks": {"tracker": "cotracker3_offline", "repo": str(tmp_path / "nowhere")}}
    with pytest.raises(SetupError, match=r"or use +--tracker lk, which needs no weights"):
        study.build("tracks", overrides=missing)
    assert study.store.items() == []
    assert not list(study.quarantine)


def test_a_full_disk_stops_at_once_and_the_next_build_goes_on(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from actionprep.datasets.store import zarr_store as store_module

    synced = []

    def full_after_two(folder: Path) -> None:
        synced.append(folder)
        if len(synced) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "sync_tree", full_after_two)
    with pytest.raises(SetupError, match="No space left on the disk"):
        study.build("lowres")
    monkeypatch.undo()
    assert len(study.store.items()) == 2
    assert not list(study.quarantine)
    report = study.build("lowres")
    assert (len(report.built), report.done) == (1, 2)


def test_a_fault_of_the_program_is_never_swallowed(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from actionprep.pipeline.lowres import Lowres

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Lowres, "push", broken)
    with pytest.raises(InternalError, match=r"ZeroDivisionError: by zero\nThe traceback is in .*fault-.*\.log"):
        study.build("lowres")
    [log] = (study.root / "logs").iterdir()
    assert "in broken" in log.read_text()
    assert study.store.items() == []


def test_a_second_builder_is_refused(study: Study) -> None:
    with build_lock(study.store.path / ".lock"), pytest.raises(UserError, match="Another builder is using this store"):
        study.build("lowres")


def test_verify_repair_makes_just_the_damaged_item_anew(study: Study) -> None:
    study.build("tracks", overrides={"tracks": {"grid": 5}})
    before = study.store.digest()
    chunk = next((study.store.path / "masks/left/clip_1/0/foreground").rglob("c/0/*/*"), None) or next(
        path for path in (study.store.path / "masks/left/clip_1").rglob("c/*") if path.is_file()
    )
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    study.store._readers.clear()
    damage = [each for _, each in study.store.verify() if each is not None]
    assert [each.key.path for each in damage] == ["masks/left/clip_1/0"]
    report = study.repair(damage)
    assert [key.path for key in report.built] == ["masks/left/clip_1/0"]
    assert study.store.digest() == before
    assert all(each is None for _, each in study.store.verify())


KILLS = int(os.environ.get("ACTIONPREP_KILLS", "3"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_build_killed_at_random_resumes_to_the_same_store(tmp_path: Path, workers: int) -> None:
    uninterrupted = small_study(tmp_path / "a", recordings=6)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    uninterrupted.build("tracks", "lowres", "snippets")
    expected = uninterrupted.store.digest()
    killed = open_study(tmp_path / "b")
    killed.scan()
    command = [sys.executable, "-c", "from actionprep.cli import prep; prep()", "build", "tracks", "lowres", "snippets",
               "--workers", str(workers), "--study", str(killed.root)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    moments = random.Random(workers)
    for _ in range(KILLS):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.5, 4.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert killed.store.digest() == expected
    assert not (killed.store.path / ".partial").exists()


def test_ctrl_c_ends_with_130_and_leaves_a_store_to_go_on_with(tmp_path: Path) -> None:
    study = small_study(tmp_path, recordings=2)
    for number in range(2, 12):
        write_video(
            study.root / f"videos/left/long_{number}.mp4",
            moving_square(120, height=96, width=128, speed=1 + number % 3, seed=number),
        )
    study.scan()
    command = [sys.executable, "-c", LISTENING, "build", "tracks", "--workers", "2",
               "--study", str(study.root)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not study.store.items() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    # A terminal sends Ctrl-C to the process group: the builder and its workers.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert all(damage is None for _, damage in study.store.verify())
    assert study.build("tracks").ok


def test_lost_lock_ends_the_build_with_the_new_owner(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_tasks, "LOCK_CHECK_S", 0.0)
    lock = study.store.require_local() / ".lock"

    def take_over(*_: object) -> None:
        owner = json.loads(lock.read_text()) | {"token": "theirs", "user": "anna", "host": "lab-3"}
        lock.write_text(json.dumps(owner))
        shutil.rmtree(lock.parent / ".partial", ignore_errors=True)  # as the new owner does

    with pytest.raises(
        LockLostError, match=r"Another builder took over the lock of this store: process .* of anna on lab-3"
    ):
        study.build("lowres", progress=take_over)
    assert len(study.store.items("lowres")) == 1
    assert json.loads(lock.read_text())["token"] == "theirs"
    assert all(damage is None for _, damage in study.store.verify())


def test_lost_lock_is_noticed_within_a_view(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = study.store.require_local() / ".lock"
    push = Lowres.push

    def take_over(self: Lowres, block: FrameBlock, live: object) -> object:
        owner = json.loads(lock.read_text()) | {"token": "theirs", "user": "anna", "host": "lab-3"}
        lock.write_text(json.dumps(owner))
        shutil.rmtree(lock.parent / ".partial", ignore_errors=True)
        return push(self, block, live)

    monkeypatch.setattr(Lowres, "push", take_over)
    with pytest.raises(LockLostError, match="of anna on lab-3"):
        study.build("lowres")
    assert study.store.items("lowres") == []


def test_store_removed_during_a_build_is_named(study: Study) -> None:
    folder = study.store.require_local()
    with pytest.raises(SetupError, match=r"The store .*store was removed during the build"):
        study.build("lowres", progress=lambda *_: shutil.rmtree(folder))
