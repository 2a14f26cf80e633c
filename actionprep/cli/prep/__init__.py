"""The `actionprep` command: its sub-commands, in the order of its help."""

from __future__ import annotations

from actionprep.cli.prep import (
    bouts,
    build,
    evaluate,
    export,
    export_annotations,
    import_poses,
    pose3d,
    store,
    study,
    sync,
)
from actionprep.cli.prep import show as drawing
from actionprep.cli.prep.stages import StageGroup
from actionprep.cli.program import add_command, program

STUDY, BUILD, INSPECT = "Study", "Build and maintain", "Inspect"

app = program(
    StageGroup,
    help="Turn recordings of actions, from one or many cameras, into one verified Zarr store.",
    epilog="Start with [bold]actionprep demo my-study[/], or [bold]actionprep init[/] in a folder of videos.",
)

add_command(app, study.demo, STUDY)
add_command(app, study.init, STUDY)
add_command(app, study.scan, STUDY)
add_command(app, import_poses.import_, STUDY, name="import")
add_command(app, sync.sync, STUDY)
add_command(app, pose3d.pose3d, STUDY)
add_command(app, study.config, STUDY)
# StageGroup inserts the stages here, before "plan".
add_command(app, build.plan, BUILD)
add_command(app, build.build, BUILD)
add_command(app, store.verify, BUILD)
add_command(app, store.digest, BUILD)
add_command(app, store.gc, BUILD)
export_annotations.add_commands(export.app)
app.add_typer(export.app, name="export", rich_help_panel=BUILD)
app.add_typer(evaluate.app, name="evaluate", rich_help_panel=INSPECT)
add_command(app, store.status, INSPECT)
add_command(app, drawing.show, INSPECT)
add_command(app, bouts.bouts, INSPECT)
add_command(app, bouts.agreement, INSPECT)
add_command(app, drawing.skeletons, INSPECT)
add_command(app, study.formats, INSPECT)
add_command(app, study.doctor, INSPECT)
