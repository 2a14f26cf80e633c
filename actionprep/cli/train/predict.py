"""The command that labels new videos, or what a camera sees."""

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
    WeightsOption,
    WeightsRecipeOption,
    published_of,
    stage_changes_of,
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
            "folders of recordings. For a run of one view each video is a recording."
        ),
    ] = None,
    live: Annotated[
        Text,
        typer.Option(
            "--live", help="Instead: a camera's number or device, a stream's address, or a video as it comes."
        ),
    ] = None,
    seconds: Annotated[Real, typer.Option(help="With --live: end after so long.", min=0)] = None,
    run: Annotated[
        Text, typer.Option("--run", help="Run or fusion, by name or folder; the last run when left out.")
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
    length: Annotated[Real, typer.Option(help="Window in ms. (default: as trained)", min=1)] = None,
    threshold: Annotated[
        float,
        typer.Option(
            help="Least probability of a label to be said; with several labels at least its own in the run's test, or 0.5.",
            min=0,
            max=1,
        ),
    ] = 0.0,
    min_length: Annotated[float, typer.Option(help="Shorter segments, in ms, are left out.", min=0)] = 0.0,
    stride: Annotated[Real, typer.Option(help="From window to window in ms. (default: a quarter)", min=1)] = None,
    offset: Annotated[
        Texts, typer.Option("--offset", help="Seconds to add to a view's clock, as view=seconds. (default: as trained)")
    ] = None,
    tolerance: Annotated[
        Real, typer.Option(help="Frames of one instant lie this close, in s. (default: as trained)", min=0)
    ] = None,
    carry: CarryOption = None,
    device: DeviceOption = None,
    changes: OwnSettingsOption = None,
    study: StudyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Label raw videos or recordings of the study (csv and image), or live what a camera or stream shows."""
    from actionprep.api.predict import write_joint_timeline
    from actionprep.errors import UserError
    from actionprep.training.fusion import read_fusion
    from actionprep.training.run import FINAL, Run

    if bool(videos) + bool(recording) + (live is not None) != 1:
        raise UserError(
            "Give videos, --recording with recordings of the study, or --live with a camera, a stream or a video: exactly "
            "one of the three."
        )
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
            named = ", ".join(str(one.folder) for one in fused.runs)
            raise UserError(
                f"--live works on one run, and {folder} is a fusion of several. Name one of its runs with --run: {named}. "
                "Videos may be given to the fusion itself, without --live."
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
            raise UserError("--overlay needs the videos themselves. Give them instead of --recording.")
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
            found = work()
        except (UserError, InputError) as error:
            if len(jobs) == 1:
                raise
            failed[recording_id] = str(error)
            output.print_error(error, prefix=f"{recording_id}: ")
            continue
        documents.append(found.document())
        if not json:
            _print(found, recording_id)
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
    """A function that predicts each recording, by its name."""
    from actionprep.api import group_videos, predict_videos
    from actionprep.datasets.paths import below

    return {
        name: partial(predict_videos, model, paths, recording=name, out=below(results, name), **options)
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
    """A function that predicts each recording of a store, by its id."""
    from actionprep.api.predict import predict_recordings
    from actionprep.training.predict import open_models

    source = Place.find(store, study).store
    models = open_models(model, device=options["device"])

    def work(name: str) -> Prediction:
        return predict_recordings(models, source, [name], out=results, **options)[0]

    return {name: partial(work, name) for name in dict.fromkeys(recordings)}


def _print(found: Prediction, name: str) -> None:
    """Print the timeline of a recording with its warnings and files."""
    for sentence in found.videos.sentences[:1] if found.videos else []:
        output.note(sentence)
    for sentence in found.videos.sentences[1:] if found.videos else []:
        output.warn(sentence)
    rows = [(f"{one.onset:.2f}", f"{one.offset:.2f}", one.label, f"{score:.2f}") for one, score in found.segments]
    output.print_table(f"Timeline of {name}", ("onset", "offset", "label", "probability"), rows)
    if found.said_from:
        output.note(_said_from(found))
    for warning in (found.too_long, found.other_frame_rate, without_evidence(found.timeline)):
        if warning is not None:
            output.warn(warning)
    if found.unseen:
        output.warn(f"Nothing moves before view {', '.join(found.unseen)}: it took no part, as in training.")
    for path in found.files:
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


def _said_from(found: Prediction) -> str:
    """From which probability each of several labels is said, and where that comes from."""
    if found.timeline.thresholds is None:
        why = (
            "0.5: no thresholds from val are known, which 'actiontrain test' finds for a run that labels whole snippets"
        )
    else:
        why = "the threshold that val gave it in the run's test"
    each = ", ".join(f"{label} {value:.2f}" for label, value in found.said_from.items())
    return f"Each label is said from {why}, and from --threshold at least: {each}."


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

    def say(one: Any) -> None:
        answer = f"{one.label:<20} {one.probabilities.max():.2f}" if one.evidence else f"{'(nothing visible)':<25}"
        output.print_text(
            f"{one.onset:8.2f} to {one.offset:8.2f} s  {answer}  latency "
            f"{one.latency_s * 1000:.0f} ms, {one.behind_s:.2f} s behind the newest frame"
        )

    with ExitStack() as stack:
        file = None
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(no_link(out / "live.jsonl"), "w", encoding="utf-8"))

        def answered(one: Any) -> None:
            if file is not None:
                file.write(dumps(plain(one.document())) + "\n")
                file.flush()
            if not json:
                say(one)

        found = predict_live(
            run,
            source,
            length_s=None if length is None else length / 1000,
            stride_s=None if stride is None else stride / 1000,
            seconds=seconds,
            device=device,
            on_prediction=answered,
            **own,
        )
    if file is not None and not json:
        output.note(f"Wrote {file.name}")
    if json:
        output.print_json(found.document())
        return
    if found.num_without_evidence:
        output.warn(
            f"{found.num_without_evidence} of {counted(len(found.predictions), 'window')} show no points, people or "
            f"frames, so they "
            "have no label."
        )
    rate = found.num_frames / found.seconds if found.seconds else float("nan")
    output.note(
        f"{counted(len(found.predictions), 'answer')} from {counted(found.num_frames, 'frame')}, {rate:.1f} frames/s, "
        f"{found.num_dropped} left "
        f"out to keep up; latency {found.latency(0.5) * 1000:.0f} ms (median), {found.latency(0.95) * 1000:.0f} ms (95 %)."
    )


def _offsets(given: list[str]) -> dict[str, float]:
    from actionprep.errors import UserError

    found = {}
    for one in given:
        view, _, seconds = one.rpartition("=")
        try:
            found[view] = float(seconds)
        except ValueError:
            view = ""
        if not view:
            raise UserError(f"--offset takes view=seconds, such as --offset 6=0.12; got '{one}'.")
    return found
