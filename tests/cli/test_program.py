"""The help of the two programs: in its order, and without importing anything heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

COMMANDS = {
    "prep": "init scan config doctor formats skeletons decode keyframes masks track pose heatmaps lowres snippets split "
    "plan build status verify digest gc show import demo",
    "train": "fit test fuse predict compare sweep export slurm models recipes",
}
HEAVY = {"torch", "lightning", "zarr", "dask", "numpy", "pandas", "av", "cv2", "matplotlib", "pydantic"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name: str) -> None:
    code = (
        f"import sys\nfrom actionprep.cli import {name}\nsys.argv = ['program', '--help']\n"
        f"try:\n    {name}()\nexcept SystemExit:\n    print(*sorted({HEAVY} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert done.stderr.split() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_listed_in_the_order_of_the_work(name: str) -> None:
    if name == "prep":
        from actionprep.cli.prep import app
    else:
        from actionprep.cli.train import app
    group = typer.main.get_command(app)
    assert group.list_commands(typer.Context(group)) == COMMANDS[name].split()
