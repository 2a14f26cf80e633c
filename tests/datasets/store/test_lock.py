"""A store has one builder at a time. A lock of a dead process expires."""

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
from actionprep.datasets.store.lock import ABANDONED_S, LockLostError, build_lock
from actionprep.errors import SetupError, UserError


def test_a_second_builder_is_refused_with_the_owners_name(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with build_lock(path):
        with pytest.raises(
            UserError, match=rf"Another builder is using this store.*process {os.getpid()} of .*since 0 s"
        ):
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
        with pytest.raises(UserError, match="Another builder is using this store"):
            build_lock(path).__enter__()
        assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []


def test_empty_lock_is_respected_while_it_may_be_being_written(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with build_lock(path):
        content = path.read_text()
        path.write_text("")
        writer = threading.Timer(0.3, path.write_text, [content])
        writer.start()
        with pytest.raises(UserError, match="Another builder is using this store"):
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
        path.unlink()  # removed by hand, as the error message allows: the heartbeat must not fail
        time.sleep(0.1)
        assert "lock-heartbeat" in {thread.name for thread in threading.enumerate()}
    assert not path.exists()


def _rewrite(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("field", ["boot", "pid_namespace"])
@pytest.mark.parametrize("value", ["another", None])
def test_heartbeat_decides_in_another_pid_namespace(tmp_path: Path, field: str, value: str | None) -> None:
    path = tmp_path / ".lock"
    with build_lock(path):
        owner = json.loads(path.read_text())
    owner |= {field: value, "pid": 2**31 - 1}  # no process on this machine has this id
    path.write_text(json.dumps(owner))
    with pytest.raises(UserError, match=rf"Another builder is using this store.*process {2**31 - 1} of "):
        build_lock(path).__enter__()
    old = time.time() - ABANDONED_S - 1
    os.utime(path, (old, old))
    with build_lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


ODD_LOCKS = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"token": "\xff"}',
    "zeros": bytes(512),
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "long number": b'{"since": 1' + b"0" * 5000 + b"}",
    "large": b" " * (1 << 20),
}
ODD_VALUES: list[dict[str, object]] = [
    {"pid": "12"},
    {"pid": 1.5},
    {"pid": True},
    {"pid": -1},
    {"pid": 10**30},
    {"pid": None},
    {"since": "yesterday"},
    {"since": float("nan")},
    {"since": float("inf")},
    {"since": 10**400},
    {"since": []},
    {"host": 7},
    {"token": None},
    {"user": {"name": "anna"}},
    {"command": ["actionprep"]},
    {"boot": 5},
    {"process_start": 5},
]


@pytest.mark.parametrize("content", ODD_LOCKS.values(), ids=ODD_LOCKS)
def test_file_that_is_no_lock_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(lock_module, "WRITING_S", 0.1)
    path = tmp_path / ".lock"
    path.write_bytes(content)
    future = time.time() + 1e6
    os.utime(path, (future, future))
    with build_lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("values", ODD_VALUES, ids=str)
def test_lock_with_odd_values_is_replaced(tmp_path: Path, values: dict[str, object]) -> None:
    path = tmp_path / ".lock"
    with build_lock(path):
        owner = json.loads(path.read_text())
    path.write_text(json.dumps({**owner, **values}))
    with build_lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_lock_of_the_future_is_refused_with_age_zero(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with build_lock(path):
        owner = json.loads(path.read_text())
    path.write_text(json.dumps({**owner, "host": "elsewhere", "since": time.time() + 1e6}))
    future = time.time() + 1e6
    os.utime(path, (future, future))
    with pytest.raises(UserError, match=r"on elsewhere.*, since 0 s\.\nWait for it, .* delete "):
        build_lock(path).__enter__()


def test_folder_at_the_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"\.lock is a folder, but must be the lock file of the store. Remove it"):
        build_lock(tmp_path / ".lock").__enter__()
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_lost_lock_names_the_new_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "HEARTBEAT_S", 0.02)
    path = tmp_path / ".lock"
    with build_lock(path) as lock:
        lock.claim.require_held()
        _rewrite(path, token="theirs", host="lab-3", pid=77, user="anna", command="actionprep track")
        os.utime(path, (1, 1))
        with pytest.raises(LockLostError, match=r"took over .*: process 77 of anna on lab-3 \(actionprep track\)"):
            lock.claim.require_held()
        time.sleep(0.1)
        assert path.stat().st_mtime == 1, "a heartbeat of the former owner"
    assert json.loads(path.read_text())["token"] == "theirs"


def test_full_disk_leaves_no_draft_of_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Path, *_: object, **__: object) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(SetupError, match="No space left"):
        build_lock(tmp_path / ".lock").__enter__()
    assert list(tmp_path.iterdir()) == []
