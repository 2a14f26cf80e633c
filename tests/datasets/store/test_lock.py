"""One builder per store, and a dead owner loses its lock."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from actionprep.datasets.store import lock as lock_module
from actionprep.datasets.store.lock import ABANDONED_S, build_lock
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
        "import os, sys; from pathlib import Path; from actionprep.datasets.store.lock import BuildLock; "
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


def _try(path: Path, results, everybody_tried) -> None:
    try:
        with build_lock(path):
            results.put("got it")
            everybody_tried.wait(60)
    except UserError:
        results.put("refused")


def test_of_many_at_once_exactly_one_gets_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results, everybody_tried = context.Queue(), context.Event()
    racers = [context.Process(target=_try, args=(tmp_path / ".lock", results, everybody_tried)) for _ in range(6)]
    for racer in racers:
        racer.start()
    outcomes = [results.get(timeout=40) for _ in racers]
    everybody_tried.set()
    for racer in racers:
        racer.join()
    assert outcomes.count("got it") == 1


def test_a_lock_on_a_disk_without_hard_links_holds_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / ".lock"
    with build_lock(path):
        with pytest.raises(UserError, match="Another builder is at work"):
            build_lock(path).__enter__()
        assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []


def test_an_empty_lock_is_not_taken_over_while_it_may_be_in_the_middle_of_being_written(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with build_lock(path):
        content = path.read_text()
        path.write_text("")
        writer = threading.Timer(0.3, path.write_text, [content])
        writer.start()
        with pytest.raises(UserError, match="Another builder is at work"):
            build_lock(path).__enter__()
        writer.join()
    path.write_text("")
    with build_lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_the_owner_gives_a_sign_of_life_while_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "HEARTBEAT_S", 0.02)
    path = tmp_path / ".lock"
    with build_lock(path):
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 10
        path.unlink()  # by hand, as the message of a refusal allows: the heart must not stumble
        time.sleep(0.1)
        assert "lock-heartbeat" in {thread.name for thread in threading.enumerate()}
    assert not path.exists()
