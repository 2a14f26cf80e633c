"""The progress line of a training."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from training_fakes import make_store, tiny_recipe

from actionprep.cli.train.progress import progress_metrics


def test_progress_shows_two_metrics_if_they_fit():
    metrics = {"train_loss": 0.86, "learning_rate": 0.0002, "val_loss": 0.5, "val_accuracy": 0.75, "val_map": 0.1}
    assert progress_metrics(metrics, 30) == "loss 0.860  val accuracy 0.750"
    assert progress_metrics(metrics, 29) == "loss 0.860"
    assert progress_metrics(metrics, 5) == ""
    assert progress_metrics({"train_loss": 1.0}, 30) == "loss 1.000"


@pytest.mark.parametrize("width", [80, pytest.param(120, marks=pytest.mark.slow)])
def test_progress_in_a_terminal_overwrites_no_printed_line(tmp_path, width):
    make_store(tmp_path / "store", subjects=3, repeats=2)
    (tmp_path / "tiny.toml").write_text(tiny_recipe(epochs=2, refit=True).to_toml(), encoding="utf-8")
    words = ["fit", "store", "--recipe", "tiny.toml", "--run", "one", "--folds", "subject", "--threads", "1"]
    lines = on_screen(words, folder=tmp_path, width=width)
    fold = ["Fold", "3", "testing", "train:", "val:", "test:", "Run", "validate", "refit", "Validation:"]
    begun = [line.split(" ")[0] for line in lines[: lines.index("Folds")]]
    # Text longer than a line continues on the next line.
    printed = [word for word in begun if word in {*fold, "Recipe"}]
    assert printed == ["Recipe", *fold * 3]
    bars = [line for line in lines if line.startswith(("validate ", "refit "))]
    assert all(re.fullmatch(r"(validate|refit   ) ━{20} 2/2 0:00:00 loss \d\.\d{3}.*", line) for line in bars)


def test_progress_in_a_pipe_prints_no_bars(tmp_path):
    make_store(tmp_path / "store", subjects=3)
    (tmp_path / "tiny.toml").write_text(tiny_recipe(epochs=1).to_toml(), encoding="utf-8")
    done = subprocess.run(
        program("fit", "store", "--recipe", "tiny.toml", "--folds", "subject", "--threads", "1"),
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "━" not in done.stdout
    assert done.stdout.count("Fold ") == 3
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["validate"] * 3


def program(*words: str) -> list[str]:
    return [sys.executable, "-c", "from actionprep.cli.train import app; app()", *words]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    root = str(Path(__file__).resolve().parents[3])
    return {**kept, "TERM": "xterm-256color", "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


def on_screen(words: list[str], *, folder: Path, width: int) -> list[str]:
    """Return the lines that a terminal of this width, and of any height, shows after a command."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    done = subprocess.Popen(
        program(*words), cwd=folder, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    written = b""
    try:
        while got := os.read(ours, 1 << 16):
            written += got
    except OSError:  # Linux raises this when the other end is closed
        pass
    os.close(ours)
    assert done.wait() == 0, written.decode()
    return drawn(written.decode(), width)


def drawn(text: str, width: int) -> list[str]:
    """The content of a screen, for characters and the few control sequences of a live line."""
    lines, row, column = [""], 0, 0
    for number, order, sign in re.findall(r"\x1b\[\??([\d;]*)([A-Za-z])|([^\x1b])", text):
        if order == "A":
            row -= int(number or 1)
        elif order == "K":
            assert number == "2"
            lines[row] = ""
        elif sign == "\r":
            column = 0
        elif sign:
            if sign == "\n" or column == width:
                row, column = row + 1, column if sign == "\n" else 0
                lines += [""] * (row + 1 - len(lines))
            if sign != "\n":
                lines[row] = lines[row].ljust(column)[:column] + sign + lines[row][column + 1 :]
                column += 1
    return [line.rstrip() for line in lines]
