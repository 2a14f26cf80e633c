"""Make the sample study: plan the recordings, render each from all cameras, and write videos and truth."""

from __future__ import annotations

import csv
import errno
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from actionprep.errors import SetupError, UserError
from actionprep.sample.actions import ACTIONS, Performance, perform, script_long, script_short
from actionprep.sample.body import PARTS, SUBJECTS, BodyShape, pose_body, skin_points
from actionprep.sample.cameras import Camera, camera_ring, write_calibration
from actionprep.sample.truth import OPENPOSE_RECORDINGS, OPENPOSE_VIEWS, SampleTruth, write_openpose

DEFAULT_RECORDINGS = 66
MAX_VIEWS = 8
_VERSION = 2  # increased when the same seed would give different files
_LONG_FROM = 34  # studies with at least this many recordings end with two long ones
_SESSIONS = ("a", "b")


def make_sample_study(
    folder: Path,
    *,
    seed: int = 0,
    recordings: int = DEFAULT_RECORDINGS,
    workers: int = 2,
    views: int = MAX_VIEWS,
    progress: Callable[[int, int, str], None] | None = None,
) -> SampleTruth:
    """Render a multi-view study of a person who performs actions, with exact ground truth.

    Writes videos/{recording}/cam{view}.mp4, truth/, segments.csv, recordings.csv, views.csv and calibration.toml into
    the folder. Equal arguments give equal bytes for any number of workers. If the folder already contains this study, it
    is left unchanged. If an earlier call was interrupted, the study is rendered again.

    Args:
        folder: Folder to write to.
        seed: Seed of all random numbers.
        recordings: Number of recordings. Eight subjects and eight actions alternate. With 34 or more, the last two
            recordings are long and have four actions each.
        workers: Number of processes; 0 or 1 renders in this process. Scripts with more workers need
            `if __name__ == "__main__"`.
        views: Number of cameras, at most eight.
        progress: Called with (recordings done, total, name of the last recording).

    Returns:
        Paths and loaders of the ground truth.

    Raises:
        UserError: If a number is out of range, or the folder contains something else.
        SetupError: If the folder cannot be written.
    """
    folder = Path(folder)
    if recordings < 1:
        raise UserError(f"A sample study needs at least 1 recording; got {recordings}.")
    if not 1 <= views <= MAX_VIEWS:
        raise UserError(f"A sample study has 1 to {MAX_VIEWS} views; got {views}.")
    if seed < 0:
        raise UserError(f"The seed of a sample study must be at least 0; got {seed}.")
    made = {"version": _VERSION, "seed": seed, "recordings": recordings, "views": views}
    try:
        if _holds(folder, made):
            return SampleTruth(folder)
        return _make(folder, made, workers=workers, progress=progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise SetupError(
                f"Cannot write the sample study to {folder}: {error.strerror}. It needs about 40 MB. "
                "Free disk space, check the permissions, or use another folder."
            ) from error
        raise


def _holds(folder: Path, made: dict[str, int]) -> bool:
    note = folder / "truth" / "sample.json"
    if not note.exists():
        held = [name for name in ("videos", "truth", "segments.csv") if (folder / name).exists()]
        if held:
            raise UserError(
                f"{folder} already contains {' and '.join(held)}, which do not belong to a sample study. "
                "Use an empty or new folder."
            )
        return False
    recorded = json.loads(note.read_text(encoding="utf-8"))
    finished = recorded.pop("finished")
    if recorded != made:
        has = ", ".join(f"{key} {value}" for key, value in recorded.items())
        wants = ", ".join(f"{key} {value}" for key, value in made.items())
        raise UserError(
            f"{folder} already contains another sample study ({has}; requested: {wants}). "
            "Use a new folder, or delete this one first."
        )
    return bool(finished)


def _make(
    folder: Path, made: dict[str, int], *, workers: int, progress: Callable[[int, int, str], None] | None
) -> SampleTruth:
    note = folder / "truth" / "sample.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({**made, "finished": False}), encoding="utf-8")
    plan = plan_performances(made["recordings"], seed=made["seed"])
    jobs = [(folder, made["seed"], index, performance, made["views"]) for index, performance in enumerate(plan)]
    for done, name in enumerate(_run(jobs, workers), start=1):
        if progress is not None:
            progress(done, len(jobs), name)

    truth = SampleTruth(folder)
    cameras = camera_ring(made["views"])
    write_calibration(truth.calibration_toml, cameras)
    _write_csv(
        truth.recordings_csv,
        ("recording", "subject", "session"),
        ((p.recording, f"subject{p.subject + 1}", p.session) for p in plan),
    )
    _write_csv(
        truth.views_csv,
        ("recording", "view", "offset"),
        ((p.recording, camera.view, camera.clock_offset) for p in plan for camera in cameras),
    )
    _write_csv(
        truth.segments_csv,
        ("recording", "onset", "offset", "label"),
        ((p.recording, deed.onset, deed.offset, deed.action.label) for p in plan for deed in p.deeds),
    )
    note.write_text(json.dumps({**made, "finished": True}), encoding="utf-8")
    return truth


def plan_performances(recordings: int, *, seed: int) -> list[Performance]:
    """Scripts of the recordings. Subjects and actions alternate, so that any number of recordings is balanced."""
    num_long = 2 if recordings >= _LONG_FROM else 0
    plan = []
    for index in range(recordings):
        rng = np.random.default_rng([seed, 1, index])
        name = f"take_{index:03d}"
        block = index // len(ACTIONS)
        subject = (index + block) % len(SUBJECTS)
        session = _SESSIONS[block % 2]
        if index < recordings - num_long:
            action = ACTIONS[index % len(ACTIONS)]
            plan.append(script_short(name, action, subject=subject, session=session, rng=rng))
        else:
            half = ACTIONS[index % 2 :: 2]
            plan.append(script_long(name, half, subject=subject, session=session, rng=rng))
    return plan


_Job = tuple[Path, int, int, Performance, int]


def _run(jobs: list[_Job], workers: int) -> Iterator[str]:
    if workers <= 1 or len(jobs) == 1:
        yield from map(_render_recording, jobs)
        return
    # Spawn, because forking a process that runs threads of other libraries is unsafe.
    context = multiprocessing.get_context("spawn")
    # Long recordings come first, so that no worker ends with one.
    longest_first = sorted(jobs, key=lambda job: -job[3].duration)
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        yield from pool.map(_render_recording, longest_first)


def _render_recording(job: _Job) -> str:
    import cv2

    folder, seed, index, performance, views = job
    cv2.setNumThreads(1)
    shape = SUBJECTS[performance.subject]
    name = performance.recording
    truth = folder / "truth"
    for part in (folder / "videos", truth / "masks", truth / "views"):
        (part / name).mkdir(parents=True, exist_ok=True)
    (truth / "motion").mkdir(parents=True, exist_ok=True)
    clock = np.arange(int(performance.duration * 50) + 1) / 50
    joints = pose_body(shape, perform(performance, shape, clock)).joints
    np.savez_compressed(truth / "motion" / f"{name}.npz", time=clock, joints_xyz=joints.astype(np.float32))
    points = skin_points(shape, np.random.default_rng([seed, 2, index]))
    for camera in camera_ring(views):
        rng = np.random.default_rng([seed, 3, index, camera.view])
        openpose = index < OPENPOSE_RECORDINGS and camera.view in OPENPOSE_VIEWS
        _render_view(folder, camera, performance, shape, points=points, rng=rng, openpose=openpose)
    return name


def _render_view(
    folder: Path,
    camera: Camera,
    performance: Performance,
    shape: BodyShape,
    *,
    points: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    openpose: bool,
) -> None:
    from actionprep.sample.encode import encode_video
    from actionprep.sample.patterns import wardrobe
    from actionprep.sample.render import draw_frames
    from actionprep.sample.room import backdrop
    from actionprep.sample.visibility import inside_image, visible_joints, visible_points

    name, file = performance.recording, f"cam{camera.view}"
    session = _SESSIONS.index(performance.session)
    ticks, time_base = camera.frame_times(performance.duration, rng)
    times = ticks * float(time_base) + camera.clock_offset
    body = pose_body(shape, perform(performance, shape, times))
    cloth, palette = wardrobe(performance.subject, session)
    frames, foreground = draw_frames(camera, backdrop(camera, session), body, cloth=cloth, palette=palette)
    encode_video(folder / "videos" / name / f"{file}.mp4", frames, ticks, time_base, rate=camera.rate)

    joints_xy, joints_visibility = visible_joints(camera, body, session=session)
    part, unit = points
    tracks_xy, tracks_visibility = visible_points(camera, body, *body.surface(part, unit), session=session)
    truth = folder / "truth"
    np.savez_compressed(
        truth / "views" / name / f"{file}.npz",
        time=times,
        joints_xy=_pixels(joints_xy),
        joints_visibility=joints_visibility,
        tracks_xy=_pixels(tracks_xy),
        tracks_visibility=tracks_visibility,
        tracks_part=np.array(PARTS)[part],
    )
    np.savez_compressed(truth / "masks" / name / f"{file}.npz", foreground=foreground.astype(np.uint8))
    if openpose:
        inside = inside_image(camera, joints_xy)
        write_openpose(truth / "openpose" / name / file, joints_xy, joints_visibility, inside)


def _pixels(xy: np.ndarray) -> np.ndarray:
    # Rounded to 1/64 pixel, far below the accuracy of any tracker. This halves the compressed size.
    return (np.round(xy * 64) / 64).astype(np.float32)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
