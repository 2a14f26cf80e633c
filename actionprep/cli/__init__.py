"""Entry points of the two programs. Only what `--help` needs is imported before a command runs."""

from __future__ import annotations


def prep() -> None:
    """Run `actionprep`."""
    from actionprep.cli.prep import app

    app(prog_name="actionprep")


def train() -> None:
    """Run `actiontrain`."""
    import os

    # Spinning threads waste the time of a shared machine. Must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from actionprep.cli.train import app

    app(prog_name="actiontrain")
