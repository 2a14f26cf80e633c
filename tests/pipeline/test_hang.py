"""Tests of the watch that ends a process without progress."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recordings import video_study

from actionprep.pipeline import view_tasks
from actionprep.pipeline.hang import HangWatch

SLOW = """
import sys, time
from pathlib import Path
from actionprep.pipeline.hang import hang_watch

steps, message = int(sys.argv[2]), sys.argv[3] or None
with hang_watch(Path(sys.argv[1]), 0.6, message=message) as watch:
    for _ in range(steps):
        time.sleep(0.2)
        watch.note()
    print("worked", flush=True)
    time.sleep(0 if steps > 5 else 60)
"""


def run(mark: Path, steps: int, message: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SLOW, str(mark), str(steps), message]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_hang_watch_ends_process_with_traceback(tmp_path: Path) -> None:
    ended = run(tmp_path / "mark", 1)
    assert (ended.returncode, ended.stdout) == (1, "worked\n")
    assert "Timeout" in (tmp_path / "mark").read_text()
    assert 'File "<string>", line 12 in <module>' in (tmp_path / "mark").read_text()


def test_hang_watch_lets_slow_progress_continue(tmp_path: Path) -> None:
    ended = run(tmp_path / "mark", 6)  # 1.2 s, twice the limit
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "worked\n", "")
    assert (tmp_path / "mark").read_bytes() == b""


def test_hang_watch_prints_message_of_own_process(tmp_path: Path) -> None:
    ended = run(tmp_path / "mark", 0, "clip: no progress")
    assert (ended.returncode, ended.stderr) == (1, "clip: no progress\n")


@pytest.mark.parametrize("timeout", [0.0, 600.0])
def test_task_notes_blocks_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout: float) -> None:
    noted = []
    monkeypatch.setattr(HangWatch, "note", lambda self: noted.append(self.timeout))
    study = video_study(tmp_path)
    [task] = study.plan("masks").view_tasks
    view_tasks.run_task(task, study.store.url, mark=tmp_path / "mark", item_timeout=timeout)
    assert set(noted) == ({timeout} if timeout else set())
    assert not (tmp_path / "mark").exists()
