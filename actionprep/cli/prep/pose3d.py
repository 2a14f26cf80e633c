"""The command `actionprep pose3d`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Where
from actionprep.cli.prep.options import RecordingsOption, ViewsOption, opened_study


def pose3d(
    calibration: Annotated[Path, typer.Argument(help="Calibration file with the positions of the cameras.")],
    recording: RecordingsOption = None,
    views: ViewsOption = None,
    min_score: Annotated[
        float, typer.Option("--min-score", help="Leave out joints with a lower score.", min=0, max=1)
    ] = 0.3,
    max_error: Annotated[
        float, typer.Option("--max-error", help="Leave out views of a joint above this mean reprojection error, in px.")
    ] = 20.0,
    out: Annotated[
        Where, typer.Option("--out", "-o", help="Folder of the files. (default: pose3d in the study)")
    ] = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Triangulate the stored poses of calibrated views, with reprojection errors."""
    import numpy as np

    from actionprep.api import pose3d as api

    opened = opened_study(study)
    names = [opened.catalog.recording(name).id for name in recording or [item.id for item in opened.catalog.recordings]]
    folder = out or opened.root / "pose3d"
    documents: list[dict[str, Any]] = []
    rows = []
    for name in names:
        result = api.pose3d(
            opened, name, calibration, views=views or (), min_score=min_score, max_error=max_error
        )  # fmt: skip
        path = api.save_pose3d(result, folder / f"{name.replace('/', '_')}.npz")
        known = np.isfinite(result.error)
        error = float(np.median(result.error[known])) if known.any() else float("nan")
        documents.append(
            {
                "recording": name,
                "file": str(path),
                "skeleton": result.skeleton,
                "unit": result.unit,
                "joints": int(known.size),
                "triangulated": int(known.sum()),
                "median_error_px": error,
                "view_error_px": dict(result.view_error),
                "epipolar_px": {f"{a} {b}": value for (a, b), value in result.epipolar.items()},
                "warnings": list(result.warnings),
            }
        )
        rows += [
            (name, view, f"{result.view_error[view]:.1f}", f"{known.mean():.1%}" if view == result.views[0] else "")
            for view in result.views
        ]
        for warning in result.warnings if not json else ():
            output.warn(f"{name}: {warning}.")
    if json:
        output.print_json({"recordings": documents})
        return
    output.print_table("Joints in space", ("recording", "view", "median error (px)", "triangulated"), rows)
    output.note(f"Wrote {len(names)} files to {folder}")
