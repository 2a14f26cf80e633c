"""The command that tests a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Where, with_study
from actionprep.cli.train.folders import find_run, run_folder
from actionprep.cli.train.options import (
    CarryOption,
    DeviceOption,
    RunArgument,
    RunOption,
    ThreadsOption,
    chosen_run,
    part_of,
    use_threads,
)
from actionprep.cli.train.print_metrics import print_test

if TYPE_CHECKING:
    from actionprep.training.run import Run


def score(
    run: RunArgument = None,
    named: RunOption = None,
    store: Annotated[Where, typer.Option("--store", help="Another store than the run was trained on.")] = None,
    part: Annotated[str, typer.Option(help="Part of the split: test, val or train.")] = "test",
    carry: CarryOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Test a run once, deterministically, and write its predictions, tables and report."""
    from actionprep.training.predict import takes_videos
    from actionprep.training.test import run_test

    use_threads(threads)
    run = chosen_run(run, named)
    if run is not None and (run_folder(run, study) / "fusion.json").is_file():
        _show_fusion(run_folder(run, study), part=part, store=store, json=json)
        return
    found = find_run(run, study)
    before = _tested_before(found) if part == "test" else None
    tested = run_test(found, store, part=part_of(part), carry=carry, device=device or "auto")
    if json:
        output.print_json({"run": str(found.folder), **tested})
        return
    print_test(tested)
    if before is not None:
        output.warn(
            f"This run was tested already, {before['when']}. A test part is there to be looked at once: choose recipes and "
            "settings on val, or the figure flatters."
        )
    # The report page is of the test part.
    output.note(f"Report {found.report}" if part == "test" else f"Wrote {found.folder / part / 'test.json'}")
    if takes_videos(found):
        output.print_next(with_study("actiontrain predict VIDEO …", study), "labels new recordings with this run")


def _tested_before(run: Run) -> dict[str, Any] | None:
    """What an earlier test found; None where there was none, and of one that is damaged, which this test writes anew."""
    from actionprep.errors import UserError

    try:
        return run.tested
    except UserError:
        return None


def _show_fusion(folder: Path, *, part: str, store: Path | None, json: bool) -> None:
    """`test` of fused runs: they were tested when they were fused."""
    from actionprep.errors import UserError
    from actionprep.training.fusion import run_tested
    from actionprep.training.run import Run

    if part != "test" or store is not None:
        raise UserError(
            f"{folder} is a fusion, and fusions are tested on the test part of their runs' store. Test its runs one by one "
            "for another part or store."
        )
    tested = run_tested(Run(folder))
    if json:
        output.print_json({"run": str(folder), **tested})
        return
    print_test(tested)
    output.note(
        f"{folder} is a fusion: it was tested when it was made, {tested['when']}, and these are its figures. Fuse anew with "
        "'actiontrain fuse' when its runs have changed."
    )
