"""The two commands; only what `--help` needs is imported before a command runs."""

from __future__ import annotations


def prep() -> None:
    """Run `actionprep`."""
    from actionprep.cli.prep import app

    app(prog_name="actionprep")


def train() -> None:
    """Run `actiontrain`."""
    from actionprep.cli.train import app

    app(prog_name="actiontrain")
