"""Run one step of an installation and show its output while it runs."""

from __future__ import annotations

import subprocess
from collections import deque

from actionprep.errors import SetupError


def run_step(command: list[str], *, echo: bool) -> list[str]:
    """Run a command, such as `pip install`.

    Args:
        command: The command and its arguments.
        echo: Print the command and each line of its output as it comes.

    Returns:
        The last lines of its output.

    Raises:
        SetupError: If the command fails, with its last lines.
    """
    if echo:
        print("$", " ".join(command), flush=True)
    lines: deque[str] = deque(maxlen=8)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                lines.append(line.rstrip())
            if echo:
                print(line, end="", flush=True)
    if process.returncode:
        raise SetupError(f"Installation step failed: {' '.join(command)}\n" + "\n".join(lines))
    return list(lines)
