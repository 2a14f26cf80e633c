"""The `actiontrain` command: its sub-commands, in the order of its help."""

from __future__ import annotations

from actionprep.cli.program import add_command, program
from actionprep.cli.train import bouts, compare, export, fit, fuse, listings, predict, resized, slurm, test

WORK, INSPECT = "Train and predict", "Inspect"

app = program(
    help="Train action classifiers on a store that actionprep built.",
    epilog="Start with [bold]actiontrain fit[/] in a study folder that has tracks and snippets.",
)

add_command(app, fit.fit, WORK, kind=fit.FitCommand)
add_command(app, test.score, WORK, name="test")
add_command(app, fuse.fuse, WORK)
add_command(app, predict.predict, WORK)
add_command(app, bouts.bouts, WORK)
add_command(app, compare.compare, WORK)
add_command(app, compare.sweep, WORK)
add_command(app, export.export, WORK)
add_command(app, slurm.slurm, WORK)
add_command(app, resized.resized, INSPECT)
add_command(app, listings.models, INSPECT)
add_command(app, listings.recipes, INSPECT)
