"""Tests of the choice between this process and worker processes during a build."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from recordings import moving_square, write_video

from actionprep.api import Study, make_study, open_study
from actionprep.cli.prep.options import workers_of
from actionprep.errors import InputError
from actionprep.pipeline import cluster, engine, workload
from actionprep.pipeline.view_tasks import Workers
from actionprep.pipeline.workload import START_S, Workload, speedup_of_workers

AS_NEEDED = Workers(2, as_needed=True)


class Clocks:
    """Wall time and processor time that a test sets."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def pass_time(self, seconds: float, *, busy: float) -> None:
        self.wall += seconds
        self.cpu += seconds * busy


def workload_after(
    seconds: float, *, busy: float, num_done: int, num_tasks: int, count: int = 4, cores: int = 4
) -> Workload:
    """A workload of equal tasks; the first one, which is not measured, took 30 s."""
    clocks = Clocks()
    load = Workload(
        [1.0] * num_tasks, count=count, cores=cores, clock=lambda: clocks.wall, cpu_clock=lambda: clocks.cpu
    )
    clocks.pass_time(30.0, busy=1.0)
    load.finish()
    for _ in range(num_done - 1):
        clocks.pass_time(seconds / (num_done - 1), busy=busy)
        load.finish()
    return load


@pytest.fixture
def study(tmp_path: Path) -> Study:
    for number in range(3):
        path = tmp_path / "study" / "videos" / "any" / f"clip_{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_square(24, height=48, width=64, speed=1 + number, seed=number))
    made, _ = make_study(tmp_path / "study", {}, force=True)
    made.folder.change("lowres", "sizes", [16])
    return made


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of tasks of each cluster that a build starts."""
    started: list[int] = []
    start = cluster.dask_outcomes

    @contextmanager
    def counted_start(tasks, *args) -> Iterator[object]:
        started.append(len(tasks))
        with start(tasks, *args) as outcomes:
            yield outcomes

    monkeypatch.setattr(cluster, "dask_outcomes", counted_start)
    return started


def test_speedup_of_workers_limits() -> None:
    assert speedup_of_workers(0.5, count=2, num_tasks=9, cores=8) == 2
    assert speedup_of_workers(0.5, count=8, num_tasks=3, cores=8) == 3
    # One process already uses both cores: workers only save what its threads waste.
    assert 1 < speedup_of_workers(2.0, count=2, num_tasks=9, cores=2) < 1.3


def test_workers_pay_for_long_rest() -> None:
    # 2 s per task, one core busy of four: 4 workers need a quarter of the rest.
    breakeven = START_S / (1 - 1 / 4) / 2
    assert not workload_after(2.0, busy=1.0, num_done=2, num_tasks=2 + int(breakeven)).workers_pay()
    assert not workload_after(2.0, busy=1.0, num_done=2, num_tasks=3).workers_pay()
    assert workload_after(2.0, busy=1.0, num_done=2, num_tasks=40).workers_pay()


def test_workers_pay_less_for_busy_process() -> None:
    rest = {"num_done": 3, "num_tasks": 13, "count": 2, "cores": 2}
    assert workload_after(2.0, busy=1.0, **rest).workers_pay()
    assert not workload_after(2.0, busy=2.0, **rest).workers_pay()


def test_workload_needs_measured_second() -> None:
    assert not workload_after(0.9, busy=1.0, num_done=3, num_tasks=1000).workers_pay()
    assert workload_after(1.1, busy=1.0, num_done=3, num_tasks=1000).workers_pay()


def test_workload_decides_within_long_task() -> None:
    clocks = Clocks()
    load = Workload([1.0, 1.0], count=2, cores=2, clock=lambda: clocks.wall, cpu_clock=lambda: clocks.cpu)
    clocks.pass_time(20.0, busy=1.0)  # imports, weights, the first block
    load.advance(0.001)
    assert not load.workers_pay()
    clocks.pass_time(2.0, busy=1.0)
    load.advance(0.041)  # 50 s per task
    assert load.workers_pay()
    clocks.pass_time(46.0, busy=1.0)
    load.advance(0.961)  # too late: a worker would begin this task again
    assert not load.workers_pay()


def test_small_build_starts_no_cluster(study: Study, clusters: list[int]) -> None:
    assert study.build("lowres", workers=AS_NEEDED).ok
    assert clusters == []


def test_build_moves_to_workers(study: Study, clusters: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(study.root, study.root.parent / "here")
    here = open_study(study.root.parent / "here")
    here.build("lowres")
    monkeypatch.setattr(workload, "START_S", 0.0)
    monkeypatch.setattr(workload, "PROBE_S", 0.0)
    monkeypatch.setattr(workload, "THREADS_COST", 100.0)
    report = study.build("lowres", workers=AS_NEEDED)
    assert len(clusters) == 1
    assert 2 <= clusters[0] <= 3
    assert (len(report.built), report.ok) == (3, True)
    assert study.store.digest() == here.store.digest()
    assert not (study.store.require_local() / ".partial").exists()


def test_given_number_of_workers_starts_at_once(study: Study, clusters: list[int]) -> None:
    assert not workers_of(2, None, None).as_needed
    assert workers_of(None, None, None).as_needed
    assert study.build("lowres", workers=Workers(2)).ok
    assert clusters == [3]


def test_build_after_crash_uses_workers(study: Study, clusters: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    mark = study.store.require_local() / ".partial" / engine.HERE
    existed = []

    def crash(*args, **options) -> None:
        existed.append(options["mark"])
        raise InputError("stands for a crash")

    monkeypatch.setattr(engine, "run_task", crash)
    with pytest.raises(InputError):
        study.build("lowres", workers=AS_NEEDED)
    assert existed == [mark]  # run_task keeps this file while it runs
    monkeypatch.undo()
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    started: list[int] = []

    @contextmanager
    def on_workers(tasks, store, workers, log_folder, claim, *_: object) -> Iterator[object]:
        started.append(len(tasks))
        yield (engine._in_this_process(task, store, log_folder, claim) for task in tasks)

    monkeypatch.setattr(cluster, "dask_outcomes", on_workers)
    assert study.build("lowres", workers=AS_NEEDED).ok
    assert started == [3]
    assert not mark.exists()
