"""The commands `actionprep evaluate tracks`, `poses` and `masks`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, StudyOption, Text, Where
from actionprep.cli.prep.options import RecordingsOption, ViewsOption, opened_study
from actionprep.cli.program import add_command, program

if TYPE_CHECKING:
    from actionprep.pipeline.trackers.settings import TracksSettings

app = program(
    help="Score tracks, poses and masks against ground truth.",
    epilog="Example: [bold]actionprep evaluate tracks points.csv --video video.mp4[/].",
)


def tracks(
    truth: Annotated[
        Where,
        typer.Argument(
            help="TAP-Vid file (.pkl, .npz), table of points (.csv), or folder of a sample study. "
            "(default: check stored tracks without truth)"
        ),
    ] = None,
    video: Annotated[Where, typer.Option(help="Video of a table of points.")] = None,
    tracker: Annotated[Text, typer.Option(help="Point tracker. (default: that of the study, else lk)")] = None,
    query_mode: Annotated[
        Literal["first", "strided"],
        typer.Option("--query-mode", help="Query each point when first visible, or in every 5th frame."),
    ] = "first",
    recording: RecordingsOption = None,
    views: ViewsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the tracker on the queries of a ground truth and score it as TAP-Vid does."""
    from actionprep.api.evaluate import check_tracks, evaluate_tracks
    from actionprep.pipeline.track_evaluation import mean_scores

    if truth is None:
        checked = check_tracks(opened_study(study), recordings=recording or (), views=views or ())
        if json:
            output.print_json({"views": {name: asdict(score) for name, score in checked.items()}})
            return
        output.print_table(
            "Stored tracks, without ground truth",
            ("view", "points", "survival", "visible", "forward-backward (px)"),
            [
                (
                    name,
                    score.num_points,
                    f"{score.survival:.1%}",
                    f"{score.visible:.1%}",
                    f"{score.forward_backward:.2f}",
                )
                for name, score in checked.items()
            ],
        )
        return
    scores = evaluate_tracks(truth, settings=_settings(study, tracker), video=video, mode=query_mode, views=views or ())
    mean = mean_scores(list(scores.values()))
    if json:
        output.print_json({"videos": {name: asdict(score) for name, score in scores.items()}, "mean": asdict(mean)})
        return
    output.print_table(
        f"Tracks, query mode {query_mode}, at 256x256",
        ("video", "points", "delta (%)", "AJ (%)", "OA (%)", "survival (%)"),
        [
            (
                name,
                score.num_points,
                *_percent(score.delta_average, score.average_jaccard, score.occlusion_accuracy, score.survival),
            )
            for name, score in [*scores.items(), *([("mean", mean)] if len(scores) > 1 else [])]
        ],
    )
    output.print_table(
        "",
        ("threshold (px)", *map(str, mean.within)),
        [("within (%)", *_percent(*mean.within.values())), ("Jaccard (%)", *_percent(*mean.jaccard.values()))],
    )


def poses(
    truth: Annotated[Path, typer.Argument(help="COCO annotation file, or folder of a sample study.")],
    predicted: Annotated[
        Where, typer.Argument(help="COCO result file. (default: the stored poses of the sample study)")
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Score poses with COCO's average precision (OKS) and PCK."""
    from actionprep.api.evaluate import evaluate_poses

    scores = evaluate_poses(truth, predicted)
    if json:
        output.print_json(asdict(scores))
        return
    rows = [*scores.coco.items(), *((f"PCK@{threshold:g}", value) for threshold, value in scores.pck.items())]
    output.print_table(
        f"Poses of {scores.num_people} people", ("metric", "%"), [(name, *_percent(value)) for name, value in rows]
    )


def masks(
    truth: Annotated[
        Path, typer.Argument(help="Folder of true masks (.png), with a folder per video or not; or a sample study.")
    ],
    predicted: Annotated[
        Where,
        typer.Argument(help="Folder of predicted masks with the same file names. (default: those of the sample study)"),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Score masks with DAVIS's region and boundary measures, J and F."""
    from actionprep.api.evaluate import evaluate_masks

    scores = evaluate_masks(truth, predicted)
    mean = sum(score.j_and_f for score in scores.values()) / len(scores)
    if json:
        objects: dict[str, Any] = {name: {**asdict(score), "j_and_f": score.j_and_f} for name, score in scores.items()}
        output.print_json({"objects": objects, "j_and_f": mean})
        return
    output.print_table(
        f"Masks: J&F {mean:.1%}",
        ("object", "frames", "J&F", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay"),
        [
            (name, score.num_frames, *_percent(score.j_and_f, *list(asdict(score).values())[:-1]))
            for name, score in scores.items()
        ],
    )


add_command(app, tracks, "Products")
add_command(app, poses, "Products")
add_command(app, masks, "Products")


def _settings(study: Path | None, tracker: str | None) -> TracksSettings:
    """Settings of the tracker: those of the study if there is one, else the defaults."""
    from actionprep.datasets.study import SETTINGS_FILE, find_study
    from actionprep.pipeline.trackers.settings import TracksSettings

    has_study = study is not None or any(
        (parent / SETTINGS_FILE).is_file() for parent in (Path.cwd(), *Path.cwd().parents)
    )
    own = find_study(study=study).settings_for("tracks", TracksSettings) if has_study else TracksSettings()
    return own if tracker is None else own.with_changes({"tracker": tracker}, where="--tracker")


def _percent(*values: float) -> tuple[str, ...]:
    return tuple(f"{100 * value:.1f}" for value in values)
