"""One builder per store, and a dead owner loses its lock."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actionprep.datasets.lock import ABANDONED_S, build_lock
from actionprep.errors import UserError


def test_a_second_builder_is_refused_with_the_owners_name(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with build_lock(path):
        with pytest.raises(UserError, match=rf"Another builder is at work.*process {os.getpid()} of .*since 0 s"):
            build_lock(path).__enter__()
        assert path.exists()
    assert not path.exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    code = (
        "import os, sys; from pathlib import Path; from actionprep.datasets.lock import BuildLock; "
        "BuildLock(Path(sys.argv[1])).acquire(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.exists()
    with build_lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_reused_process_id_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with build_lock(path):
        owner = json.loads(path.read_text())
    owner["process_start"] = "1"
    path.write_text(json.dumps(owner))
    with build_lock(path):
        pass


def test_another_machines_lock_counts_until_its_heartbeat_is_old(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with build_lock(path):
        owner = json.loads(path.read_text())
    owner["host"] = "elsewhere"
    path.write_text(json.dumps(owner))
    with pytest.raises(UserError, match="on elsewhere"):
        build_lock(path).__enter__()
    old = time.time() - ABANDONED_S - 1
    os.utime(path, (old, old))
    with build_lock(path):
        pass


def _try(path: Path, results) -> None:
    try:
        with build_lock(path):
            results.put("got it")
            time.sleep(0.5)
    except UserError:
        results.put("refused")


def test_of_many_at_once_exactly_one_gets_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    racers = [context.Process(target=_try, args=(tmp_path / ".lock", results)) for _ in range(6)]
    for racer in racers:
        racer.start()
    outcomes = [results.get(timeout=20) for _ in racers]
    for racer in racers:
        racer.join()
    assert outcomes.count("got it") == 1
