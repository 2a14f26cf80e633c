"""Entry points of the two programs. Only what `--help` needs is imported before a command runs."""

from __future__ import annotations

from actionprep.garbage_collection import collect_rarely


def prep() -> None:
    """Run `actionprep`."""
    import sys

    from actionprep.cli.prep import app
    from actionprep.cli.program import program_of
    from actionprep.pipeline.index import stage_index

    collect_rarely()
    stages = {name for entry in stage_index().values() for name in (entry.name, entry.command)}
    program_of(app, sys.argv[1:], others=stages)(prog_name="actionprep")


def train() -> None:
    """Run `actiontrain`."""
    import os

    # Spinning threads waste the time of a shared machine. Must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import sys

    from actionprep.cli.program import program_of
    from actionprep.cli.train import app

    collect_rarely()
    program_of(app, sys.argv[1:])(prog_name="actiontrain")
