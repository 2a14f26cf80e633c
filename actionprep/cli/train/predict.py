"""Command `actiontrain predict`: label new videos, recordings of a study, or a camera stream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import DebugOption, JsonOption, Real, StudyOption, Text, Texts, Where
from actionprep.cli.train.folders import Place, cross_validation, find_run, last_run, run_folder, runs_folder
from actionprep.cli.train.options import (
    CarryOption,
    DeviceOption,
    OwnSettingsOption,
    ThreadsOption,
    WeightsOption,
    WeightsRecipeOption,
    published_of,
    stage_changes_of,
    use_threads,
)
from actionprep.datasets.paths import no_link, safe_name
from actionprep.errors import InputError, name_list
from actionprep.json_values import counted

if TYPE_CHECKING:
    from actionprep.api.predict import Prediction
    from actionprep.training.checkpoints import Checkpoint
    from actionprep.training.predicted_timeline import Timeline


def predict(
    videos: Annotated[
        Texts,
        typer.Argument(
            help="Videos of one recording, as VIEW=PATH or with paths that match the pattern of the run's study; or "
            "folders of recordings. For a run with one view, each video is a recording."
        ),
    ] = None,
    live: Annotated[
        Text,
        typer.Option(
            "--live", help="Instead of videos: camera number or device, stream address, or a video read as a stream."
        ),
    ] = None,
    seconds: Annotated[Real, typer.Option(help="With --live: stop after this many seconds.", min=0)] = None,
    run: Annotated[
        Text, typer.Option("--run", help="Run or fusion, by name or folder. (default: the last run)")
    ] = None,
    out: Annotated[
        Where,
        typer.Option(
            "--out",
            "-o",
            help="Folder for results: OUT/RUN/RECORDING, or OUT/live.jsonl. (default: prediction)",
        ),
    ] = None,
    recording: Annotated[
        Texts, typer.Option("--recording", help="Instead of videos: recordings of the study, by id.")
    ] = None,
    store: Annotated[Text, typer.Option("--store", help="With --recording: another store than the study's.")] = None,
    weights: WeightsOption = None,
    recipe: WeightsRecipeOption = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write a video with the labels.")] = False,
    length: Annotated[Real, typer.Option(help="Length of a window in ms. (default: as trained)", min=1)] = None,
    threshold: Annotated[
        float,
        typer.Option(
            help="Minimum probability of a label. Multi-label models use at least the thresholds of the run's test, or 0.5.",
            min=0,
            max=1,
        ),
    ] = 0.0,
    min_length: Annotated[float, typer.Option(help="Drop shorter segments, in ms.", min=0)] = 0.0,
    stride: Annotated[Real, typer.Option(help="Time from window to window in ms. (default: a quarter)", min=1)] = None,
    offset: Annotated[
        Texts, typer.Option("--offset", help="Seconds to add to a view's clock, as view=seconds. (default: as trained)")
    ] = None,
    tolerance: Annotated[
        Real, typer.Option(help="Largest time between aligned frames, in s. (default: as trained)", min=0)
    ] = None,
    carry: CarryOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    changes: OwnSettingsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Label raw videos, recordings of the study or a live stream, and write the timeline as csv and image."""
    from actionprep.api.predict import write_joint_timeline
    from actionprep.errors import UserError
    from actionprep.training.fusion import read_fusion
    from actionprep.training.run import FINAL, Run

    if bool(videos) + bool(recording) + (live is not None) != 1:
        raise UserError(
            "Give exactly one of these: videos, --recording with recordings of the study, or --live with a camera, a stream "
            "or a video."
        )
    use_threads(threads)
    if weights is not None and (run is not None or live is not None):
        raise UserError("--weights is used instead of --run, and not with --live.")
    published = None
    if weights is not None:
        place = Place.find(store, study)
        published = published_of(place, weights, recipe, device=device or "auto", quiet=json)
        folder = Path(f"weights-{safe_name(weights.stem)}")
    else:
        runs = runs_folder(study) if run is None else None
        has_runs = runs is not None and any(runs.glob("*/run.json"))
        folds = None if has_runs else cross_validation(run, study)
        if folds is not None:
            folder = Run.open(folds).folder  # the final model, or an error that explains how to train it
        else:
            folder = last_run(runs_folder(study)) if run is None else run_folder(run, study)
    if live is not None:
        fused = read_fusion(folder)
        if fused is not None:
            named = ", ".join(str(run.folder) for run in fused.runs)
            raise UserError(
                f"--live needs a single run, but {folder} is a fusion. Name one of its runs with --run: {named}. "
                "Without --live, fusions can predict videos."
            )
        own = {"study": study, "overrides": stage_changes_of(changes), "warn": output.warn}
        _predict_live(
            find_run(run, study).folder, live, length, stride, seconds, device or "auto", own, out=out, json=json
        )
        return
    name = folder.resolve().parent.name if folder.name == FINAL else folder.resolve().name
    results = (out or Path("prediction")) / name
    options: dict[str, Any] = {
        "length_ms": length,
        "stride_ms": stride,
        "threshold": threshold,
        "min_length_ms": min_length,
        "carry": carry,
        "device": device or "auto",
    }
    if recording:
        if overlay:
            raise UserError("--overlay needs the videos. Give them instead of --recording.")
        jobs = _jobs_of_recordings(published or folder, recording, store, study, results, options)
    else:
        assert videos is not None
        of_videos: dict[str, Any] = {
            "overlay": overlay,
            "offsets": _offsets(offset or []),
            "tolerance": tolerance,
            "study": study,
            "overrides": stage_changes_of(changes),
            "warn": output.warn,
        }
        jobs = _jobs_of_videos(published or folder, videos, results, {**options, **of_videos})
    documents, failed = [], {}
    for recording_id, work in jobs.items():
        try:
            prediction = work()
        except (UserError, InputError) as error:
            if len(jobs) == 1:
                raise
            failed[recording_id] = str(error)
            output.print_error(error, prefix=f"{recording_id}: ")
            continue
        documents.append(prediction.document())
        if not json:
            _print(prediction, recording_id)
    if documents:
        joint = write_joint_timeline(results)
        if not json:
            output.note(f"Wrote {joint} (all recordings)")
    if json:
        output.print_json([*documents, *({"recording": name, "error": text} for name, text in failed.items())])
    if failed:
        output.warn(
            f"{len(failed)} of {len(jobs)} recordings could not be predicted: {name_list(list(failed))}. The others "
            f"are complete."
        )
        raise typer.Exit(1)


def _jobs_of_videos(
    model: Path | Checkpoint, videos: list[str], results: Path, options: dict[str, Any]
) -> dict[str, Callable[[], Prediction]]:
    """Return a function per recording that predicts it, by name."""
    from actionprep.api import group_videos, predict_videos
    from actionprep.datasets.paths import below
    from actionprep.pipeline.view_tasks import Workers
    from actionprep.pipeline.workload import usable_cores

    workers = Workers(usable_cores(), as_needed=True)
    return {
        name: partial(
            predict_videos,
            model,
            paths,
            recording=name,
            out=below(results, *name.split("/")),
            workers=workers,
            **options,
        )
        for name, paths in group_videos(model, videos).items()
    }


def _jobs_of_recordings(
    model: Path | Checkpoint,
    recordings: list[str],
    store: str | None,
    study: Path | None,
    results: Path,
    options: dict[str, Any],
) -> dict[str, Callable[[], Prediction]]:
    """Return a function per recording of a store that predicts it, by id."""
    from actionprep.api.predict import predict_recordings
    from actionprep.training.predict import open_models

    source = Place.find(store, study).store
    models = open_models(model, device=options["device"])

    def work(name: str) -> Prediction:
        return predict_recordings(models, source, [name], out=results, **options)[0]

    return {name: partial(work, name) for name in dict.fromkeys(recordings)}


def _print(prediction: Prediction, name: str) -> None:
    """Print the timeline of a recording with its warnings and files."""
    for sentence in prediction.videos.sentences[:1] if prediction.videos else []:
        output.note(sentence)
    for sentence in prediction.videos.sentences[1:] if prediction.videos else []:
        output.warn(sentence)
    rows = [
        (f"{part.onset:.2f}", f"{part.offset:.2f}", part.label, f"{score:.2f}") for part, score in prediction.segments
    ]
    output.print_table(f"Timeline of {name}", ("onset", "offset", "label", "probability"), rows)
    if prediction.said_from:
        output.note(_thresholds_of(prediction))
    for warning in (prediction.too_long, prediction.other_frame_rate, without_evidence(prediction.timeline)):
        if warning is not None:
            output.warn(warning)
    if prediction.unseen:
        output.warn(f"No motion in view {', '.join(prediction.unseen)}: it was left out, as in training.")
    for path in prediction.files:
        output.note(f"Wrote {path}")


def without_evidence(timeline: Timeline) -> str | None:
    """Describe the windows of a timeline that have no label because they show nothing; None if there is none."""
    count, total = timeline.num_without_evidence, len(timeline.onset)
    if not count:
        return None
    return (
        f"{count} of {counted(total, 'window')} of {timeline.recording} show"
        f"{'s' if count == 1 else ''} no points, people or frames, so {'it has' if count == 1 else 'they have'} no label "
        "(evidence 0 in windows.csv)."
    )


def _thresholds_of(prediction: Prediction) -> str:
    """Describe the threshold of each label of a multi-label model, and its source."""
    if prediction.timeline.thresholds is None:
        why = (
            "0.5, because the run has no thresholds tuned on val ('actiontrain test' tunes them for labels per snippet)"
        )
    else:
        why = "the threshold tuned on val in the run's test"
    each = ", ".join(f"{label} {value:.2f}" for label, value in prediction.said_from.items())
    return f"Minimum probability of each label: {why}, but at least --threshold: {each}."


def _predict_live(
    run: Path,
    source: str,
    length: float | None,
    stride: float | None,
    seconds: float | None,
    device: str,
    own: dict[str, Any],
    *,
    out: Path | None,
    json: bool,
) -> None:
    from json import dumps

    from actionprep.api.live import predict_live
    from actionprep.json_values import plain

    def print_line(window: Any) -> None:
        label = (
            f"{window.label:<20} {window.probabilities.max():.2f}" if window.evidence else f"{'(nothing visible)':<25}"
        )
        output.print_text(
            f"{window.onset:8.2f} to {window.offset:8.2f} s  {label}  latency "
            f"{window.latency_s * 1000:.0f} ms, {window.behind_s:.2f} s behind the newest frame"
        )

    with ExitStack() as stack:
        file = None
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(no_link(out / "live.jsonl"), "w", encoding="utf-8"))

        def on_prediction(window: Any) -> None:
            if file is not None:
                file.write(dumps(plain(window.document())) + "\n")
                file.flush()
            if not json:
                print_line(window)

        summary = predict_live(
            run,
            source,
            length_s=None if length is None else length / 1000,
            stride_s=None if stride is None else stride / 1000,
            seconds=seconds,
            device=device,
            on_prediction=on_prediction,
            **own,
        )
    if file is not None and not json:
        output.note(f"Wrote {file.name}")
    if json:
        output.print_json(summary.document())
        return
    if summary.num_without_evidence:
        output.warn(
            f"{summary.num_without_evidence} of {counted(len(summary.predictions), 'window')} show no points, people or "
            "frames, so they have no label."
        )
    rate = summary.num_frames / summary.seconds if summary.seconds else float("nan")
    output.note(
        f"{counted(len(summary.predictions), 'prediction')} from {counted(summary.num_frames, 'frame')}, {rate:.1f} "
        f"frames/s, {summary.num_dropped} dropped to keep up; latency {summary.latency(0.5) * 1000:.0f} ms (median), "
        f"{summary.latency(0.95) * 1000:.0f} ms (95 %)."
    )


def _offsets(given: list[str]) -> dict[str, float]:
    from actionprep.errors import UserError

    offsets = {}
    for text in given:
        view, _, seconds = text.rpartition("=")
        try:
            offsets[view] = float(seconds)
        except ValueError:
            view = ""
        if not view:
            raise UserError(f"--offset expects view=seconds, such as --offset 6=0.12; got '{text}'.")
    return offsets
