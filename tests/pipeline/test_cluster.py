"""Tests of builds on Dask clusters, with workers that die and interrupted builds."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recordings import moving_square, write_video

from actionprep.api import Study, make_study
from actionprep.errors import SetupError
from actionprep.pipeline import cluster
from actionprep.pipeline.engine import build
from actionprep.pipeline.index import STAGES
from actionprep.pipeline.plan import Plan, make_plan
from actionprep.pipeline.stage import Stage
from actionprep.pipeline.view_tasks import Workers

FRAMES = 40
QUIET: dict[str, Any] = {
    "dashboard_address": None,
    "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},
    "memory_limit": 0,
    "silence_logs": 50,
}

# Tests that run in the background of a shell ignore Ctrl-C, and child processes inherit this.
LISTENING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from actionprep.cli import prep; prep()"
)


def new_study(root: Path, *, recordings: int = 5, frames: int = FRAMES) -> Study:
    for number in range(recordings):
        clip = moving_square(frames, height=48, width=64, speed=1 + number, seed=number)
        write_video(root / f"videos/any/clip_{number}.mp4", clip)
    made, _ = make_study(root, {}, force=True)
    made.folder.change("lowres", "sizes", (16,))
    return made


@pytest.fixture
def fatal(monkeypatch: pytest.MonkeyPatch) -> type[Stage]:
    """Register a stage that kills its process, for one test."""
    stage: type[Stage] = importlib.import_module("fatal_stage").Fatal
    STAGES.pop("fatal", None)  # added by the import, for the worker's sake
    monkeypatch.setitem(STAGES, "fatal", stage)
    return stage


def plan(study: Study, stage: type[Stage], **settings: Any) -> Plan:
    fatal = stage.Settings(deaths=str(study.root / "deaths"), **settings)
    return make_plan(
        study.catalog,
        study.store,
        wanted=["fatal", "lowres"],
        settings={**study.stage_settings(), "fatal": fatal},
        views=study.catalog.views,
        quarantine=study.quarantine,
        root=str(study.root),
    )


def carry_out(study: Study, plan: Plan, workers: Workers, **options: Any) -> Any:
    logs = study.root / "logs"
    report = build(plan, study.catalog, study.store, study.quarantine, workers=workers, log_folder=logs, **options)
    assert not list(logs.glob("fault-*")), "a death is no fault of the program"
    assert not (study.store.path / ".partial").exists()
    return report


def deaths(study: Study) -> int:
    return len((study.root / "deaths").read_text())


@pytest.fixture
def scheduler() -> Iterator[str]:
    """Start a cluster of one process with two threads, and yield its address."""
    import distributed

    done = threading.Event()

    def restart_workers(running: distributed.LocalCluster) -> None:
        # Dask does not restart a worker that dies before its nanny has registered it.
        while not done.wait(1):
            cluster._revive(running)

    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, **QUIET) as running:
        restarter = threading.Thread(target=restart_workers, args=(running,))
        restarter.start()
        try:
            yield running.scheduler_address
        finally:
            done.set()
            restarter.join()


def test_a_scheduler_without_workers_ends_the_build(
    tmp_path: Path, fatal: type[Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only worker of a running cluster dies and is not started again: an error, not a build that waits forever."""
    import distributed

    study = new_study(tmp_path, recordings=2)
    monkeypatch.setattr(cluster, "ABSENCE_S", 3.0)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **QUIET) as running:
        monkeypatch.setattr(cluster, "_require_workers", lambda *_: running.sync(running.workers.pop(0).close))
        with pytest.raises(SetupError, match=r"All worker processes have died, and none has restarted for 3 s"):
            carry_out(study, plan(study, fatal, victim="none"), Workers(scheduler=running.scheduler_address))


def test_cluster_quarantines_only_the_item_that_kills_workers(tmp_path: Path, fatal: type[Stage]) -> None:
    study = new_study(tmp_path)
    report = carry_out(study, plan(study, fatal, victim="any/clip_2"), Workers(2))
    assert {str(key): reason for key, reason in report.quarantined.items()} == {
        "fatal/any/clip_2/0": "the worker process died on it twice, the second time alone (out of memory, or a crash in a "
        "decoder)"
    }
    assert deaths(study) == 2
    # The other stages of the same view are made, and every neighbor.
    assert len(study.store.items("lowres")) == len(study.store.items("masks")) == 5
    assert len(study.store.items("fatal")) == 4
    assert len(report.built) == 14
    assert [entry.product for entry in study.quarantine] == ["fatal"]


def test_hanging_item_is_ended_and_quarantined(tmp_path: Path, fatal: type[Stage]) -> None:
    # The hang keeps Python's lock, so that no thread of Python could end it.
    study = new_study(tmp_path, recordings=3)
    report = carry_out(study, plan(study, fatal, victim="any/clip_1", hangs=True), Workers(2), item_timeout=3.0)
    [(key, reason)] = report.quarantined.items()
    assert str(key) == "fatal/any/clip_1/0"
    [log] = (study.root / "logs").iterdir()
    assert reason == (
        "no progress for 3 s when it ran alone (item_timeout), so its process was ended; "
        f"logs/{log.name} contains the traceback"
    )
    assert log.name.startswith("hang-")
    assert "fatal_stage.py" in log.read_text()
    assert deaths(study) == 2
    assert len(report.built) == 8
    assert [entry.reason for entry in study.quarantine] == [reason]


def test_a_death_among_many_tasks_is_no_matter_of_the_machine(
    tmp_path: Path, fatal: type[Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many tasks die unborn with the first one as Dask has handed out: none may be tried in vain more than once.
    monkeypatch.setattr(cluster, "MAX_EARLY_DEATHS", 1)
    study = new_study(tmp_path, recordings=24, frames=10)
    clip = moving_square(60, height=48, width=64, speed=1, seed=99)
    write_video(study.root / "videos/any/long.mp4", clip)  # the longest begins first
    study.scan()
    report = carry_out(study, plan(study, fatal, victim="any/long"), Workers(1))
    assert [str(key) for key in report.quarantined] == ["fatal/any/long/0"]
    assert len(report.built) == 24 * 3 + 2


def test_workers_that_die_before_a_task_raise_setup_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "run_task", die)
    monkeypatch.setattr(cluster, "MAX_EARLY_DEATHS", 2)
    with pytest.raises(SetupError, match=r"Worker processes died 3 times before they started any/clip_"):
        new_study(tmp_path, recordings=2, frames=10).build("lowres", workers=2)


def test_worker_processes_that_never_restart_raise_setup_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "run_task", die)
    monkeypatch.setattr(cluster, "REVIVAL_S", 0.2)  # less than a process takes to begin
    with pytest.raises(SetupError, match=r"All worker processes have died, and none has restarted for 0 s"):
        new_study(tmp_path, recordings=2, frames=10).build("lowres", workers=2)


def test_a_worker_that_its_cluster_has_let_go_of_begins_anew() -> None:
    import distributed

    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, **QUIET) as running,
        distributed.Client(running, set_as_default=False) as client,
    ):
        # As Dask does with a worker that nobody started again.
        running.sync(running.workers.pop(0).close)
        future = client.submit(pow, 2, 3)
        cluster._revive(running)
        assert future.result(timeout=60) == 8


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_once_by_chance_costs_nothing(tmp_path: Path, fatal: type[Stage]) -> None:
    study = new_study(tmp_path, recordings=3)
    report = carry_out(study, plan(study, fatal, victim="any/clip_0", most=1), Workers(2))
    assert report.ok
    assert deaths(study) == 1
    assert len(report.built) == 9


def test_cluster_clears_tasks_that_ran_next_to_a_killer(tmp_path: Path, scheduler: str, fatal: type[Stage]) -> None:
    study = new_study(tmp_path, recordings=4)
    report = carry_out(study, plan(study, fatal, victim="any/clip_1"), Workers(scheduler=scheduler))
    assert [str(key) for key in report.quarantined] == ["fatal/any/clip_1/0"]
    assert len(report.built) == 11


def test_ctrl_c_cancels_cluster_tasks_and_keeps_the_store(tmp_path: Path, scheduler: str) -> None:
    import distributed

    study = new_study(tmp_path, recordings=5, frames=120)
    study.scan()
    command = [sys.executable, "-c", LISTENING, "build", "tracks", "--scheduler",
               scheduler, "--study", str(study.root)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not study.store.items("tracks") and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    # From this moment on nobody writes: neither marks nor drafts are left, and nothing more appears.
    assert not list((study.store.path / ".partial").glob("*"))
    assert not (study.store.path / ".lock").exists()
    there = study.store.items()
    assert len(there) < 10
    with distributed.Client(scheduler, set_as_default=False) as client:
        assert not any(client.processing().values())
    time.sleep(0.5)
    assert study.store.items() == there
    assert all(damage is None for _, damage in study.store.verify())
    assert study.build("tracks", workers=Workers(scheduler=scheduler)).ok


def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = new_study(tmp_path, recordings=2)
    monkeypatch.setattr(cluster, "ANSWER_S", 1.0)
    with pytest.raises(SetupError, match=r"No Dask scheduler answers at tcp://127.0.0.1:9 "):
        study.build("lowres", workers=Workers(scheduler="tcp://127.0.0.1:9"))


def test_a_cluster_without_workers_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    study = new_study(tmp_path, recordings=2)
    monkeypatch.setattr(cluster, "FIRST_WORKER_S", 0.2)
    with distributed.LocalCluster(n_workers=0, **QUIET) as empty:
        address = empty.scheduler_address
        with pytest.raises(SetupError, match=rf"has no workers\.\nStart some with 'dask worker {address}'"):
            study.build("lowres", workers=Workers(scheduler=address))


def test_cluster_without_gpu_rejects_views_that_need_one(tmp_path: Path, scheduler: str) -> None:
    study = new_study(tmp_path, recordings=2)
    with pytest.raises(SetupError, match=r"(?s)2 views need a GPU .*--resources GPU=1"):
        study.build("tracks", overrides={"tracks": {"device": "cuda"}}, workers=Workers(scheduler=scheduler))


def test_cluster_that_ends_early_raises_setup_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import distributed

    study = new_study(tmp_path, recordings=3)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **QUIET) as running:

        def end(*_: object) -> None:
            logging.getLogger("distributed.client").error("Traceback (most recent call last)")
            with distributed.Client(running.scheduler_address, set_as_default=False) as other:
                other.run_on_scheduler(cancel_all)

        with pytest.raises(SetupError, match=r"The Dask cluster dropped the tasks"):
            study.carry_out(study.plan("lowres"), workers=Workers(scheduler=running.scheduler_address), progress=end)
    assert "Traceback" not in capfd.readouterr().err
    assert not list(study.quarantine)
    assert study.build("lowres").ok


async def cancel_all(dask_scheduler: Any) -> None:
    for client in list(dask_scheduler.clients):  # as a scheduler does that ends
        wanted = [state.key for state in dask_scheduler.clients[client].wants_what]
        dask_scheduler.stimulus_cancel(wanted, client=client, force=True, reason="test", msg="")
