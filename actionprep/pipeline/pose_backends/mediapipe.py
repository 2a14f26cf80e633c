"""MediaPipe Pose (BlazePose): 33 landmarks of one person a frame, or of the person in each box.

Its full model ships inside its package, so that poses work on a fresh machine. Its old pins would break ours, so it
lives in a virtual environment of its own and a worker process there is fed frames; `install_mediapipe` makes the
environment.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionprep.datasets.poses import joint_boxes
from actionprep.errors import EnvironmentProblem, InputProblem, UserError
from actionprep.pipeline.pose_backends import FramePoses, Frames, check_frames

VERSION = "0.10.21"
INSTALL = "python -m actionprep.pipeline.pose_backends.install mediapipe"
# Pythons that have wheels of this version.
_PYTHONS = ("3.12", "3.11", "3.10", "3.9")
_WORKER = Path(__file__).with_name("mediapipe_worker.py")
_ANSWER = struct.calcsize("<I") + 33 * 5 * 4


def environment_folder(folder: str | Path | None = None) -> Path:
    """Where MediaPipe's environment is: the folder given, else $ACTIONPREP_MEDIAPIPE, else the user's cache."""
    if folder is not None:
        return Path(folder).expanduser()
    if os.environ.get("ACTIONPREP_MEDIAPIPE"):
        return Path(os.environ["ACTIONPREP_MEDIAPIPE"]).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "actionprep" / f"mediapipe-{VERSION}"


def install_mediapipe(folder: str | Path | None = None, *, echo: bool = True) -> Path:
    """Make MediaPipe's environment (about 1 GB, once) and try it: a new virtual environment with one pinned package.

    Raises EnvironmentProblem with pip's last lines when it cannot be made.
    """
    place = environment_folder(folder)
    python = _fitting_python()
    _run([python, "-m", "venv", "--clear", str(place)], echo)
    _run([str(_python_of(place)), "-m", "pip", "install", "--disable-pip-version-check", f"mediapipe=={VERSION}"], echo)
    with MediaPipe(environment=place) as estimator:
        estimator.estimate(np.zeros((1, 64, 64, 3), np.uint8))
    return place


class MediaPipe:
    """The estimator; its worker starts with it and ends with `close`.

    environment: folder of the virtual environment, see `environment_folder`. complexity: 1 is the model in the package;
    0 (lite) and 2 (heavy) need their files beside it. detection, tracking: least confidence to accept a person, and
    to follow one from frame to frame instead of looking anew. smooth: MediaPipe's own smoothing over time. timeout: s
    to wait for a frame.
    """

    name = "mediapipe"
    skeleton = "mediapipe33"

    def __init__(
        self,
        *,
        environment: str | Path | None = None,
        complexity: int = 1,
        detection: float = 0.5,
        tracking: float = 0.5,
        smooth: bool = True,
        timeout: float = 60.0,
    ) -> None:
        if complexity not in (0, 1, 2):
            raise UserError(f"MediaPipe's complexity is 0 (lite), 1 (full) or 2 (heavy), got {complexity}.")
        self._options = {"complexity": complexity, "detection": detection, "tracking": tracking, "smooth": smooth}
        self._timeout = timeout
        self._place = environment_folder(environment)
        if not _python_of(self._place).exists():
            raise EnvironmentProblem(
                "MediaPipe is not here: it needs an environment of its own, because its old pins do not fit this one.\n"
                f"  looked for   {_python_of(self._place)}\n"
                f"  do           {INSTALL}\n"
                "  or use       poses that you have (actionprep import), which needs no estimator"
            )
        self._worker, self._log, self._about = self._start()

    def __enter__(self) -> MediaPipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def estimate(self, frames: Frames, boxes: Sequence[ArrayLike] | None = None) -> list[FramePoses]:
        """One person a frame, followed over frames; with boxes, one a box, each looked at alone."""
        people = check_frames(frames, boxes)
        if self._worker.poll() is not None:
            self._worker, self._log, self._about = self._start()
        if people is None:
            return [self._one(frame, None, index) for index, frame in enumerate(frames)]
        return [self._each(frame, box, index) for index, (frame, box) in enumerate(zip(frames, people, strict=True))]

    def reset(self) -> None:
        """Forget the person followed so far."""
        if self._worker.poll() is None:
            self._send(struct.pack("<3I", 0, 0, 2), b"", 0)

    def identity(self) -> dict[str, str]:
        """Version, the weights' hashes and the settings."""
        return {
            "backend": "mediapipe",
            "version": str(self._about["version"]),
            **{f"weights {name}": str(digest) for name, digest in self._about["weights"].items()},
            **{name: str(value) for name, value in self._options.items()},
        }

    def close(self) -> None:
        """End the worker."""
        _end(self._worker)
        self._log.close()

    def _one(self, frame: NDArray[np.uint8], box: NDArray[np.float32] | None, index: int) -> FramePoses:
        landmarks = self._ask(frame, 0, index)
        if landmarks is None:
            return FramePoses.nobody(33)
        keypoints = _pixels(landmarks, frame.shape[0], frame.shape[1], 0, 0)
        around = joint_boxes(keypoints[:, :2], keypoints[:, 2])
        return FramePoses(keypoints[None], np.append(around, keypoints[:, 2].mean())[None].astype(np.float32))

    def _each(self, frame: NDArray[np.uint8], boxes: NDArray[np.float32], index: int) -> FramePoses:
        keypoints = np.zeros((len(boxes), 33, 3), np.float32)
        height, width = frame.shape[:2]
        for person, (left, top, right, bottom) in enumerate(boxes[:, :4]):
            # The model looks for heads and hips; a little room around a tight box helps it.
            grow = 0.15 * max(right - left, bottom - top)
            x0, y0 = max(int(left - grow), 0), max(int(top - grow), 0)
            x1, y1 = min(int(right + grow) + 1, width), min(int(bottom + grow) + 1, height)
            if x1 - x0 < 8 or y1 - y0 < 8:
                continue
            landmarks = self._ask(np.ascontiguousarray(frame[y0:y1, x0:x1]), 1, index)
            if landmarks is not None:
                keypoints[person] = _pixels(landmarks, y1 - y0, x1 - x0, x0, y0)
        score = keypoints[..., 2].mean(-1)
        return FramePoses(keypoints, np.concatenate([boxes[:, :4], score[:, None]], 1))

    def _ask(self, picture: NDArray[np.uint8], mode: int, index: int) -> NDArray[np.float32] | None:
        height, width = picture.shape[:2]
        self._send(struct.pack("<3I", height, width, mode), np.ascontiguousarray(picture).data, index)
        answer = self._receive(index)
        if not struct.unpack_from("<I", answer)[0]:
            return None
        return np.frombuffer(answer, np.float32, offset=4).reshape(33, 5)

    def _send(self, header: bytes, pixels: Any, index: int) -> None:
        pipe = self._worker.stdin
        assert pipe is not None
        try:
            pipe.write(header)
            pipe.write(pixels)
            pipe.flush()
        except (BrokenPipeError, OSError):
            self._died(index)

    def _receive(self, index: int) -> bytes:
        pipe = self._worker.stdout
        assert pipe is not None
        answer = b""
        while len(answer) < _ANSWER:
            if not select.select([pipe], [], [], self._timeout)[0]:
                _end(self._worker)
                raise InputProblem(
                    f"MediaPipe did not answer for {self._timeout:g} s at frame {index} of the block.",
                    frame=index,
                    backend="mediapipe",
                )
            part = os.read(pipe.fileno(), _ANSWER - len(answer))
            if not part:
                self._died(index)
            answer += part
        return answer

    def _died(self, index: int) -> None:
        code = self._worker.wait()
        raise InputProblem(
            f"MediaPipe's worker ended with exit code {code} at frame {index} of the block. Its last words: "
            f"{_tail(self._log)}",
            frame=index,
            backend="mediapipe",
        )

    def _start(self) -> tuple[subprocess.Popen[bytes], IO[bytes], dict[str, Any]]:
        log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the worker)
        command = [str(_python_of(self._place)), "-I", str(_WORKER), json.dumps(self._options)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment)
        weakref.finalize(self, _end, worker)
        assert worker.stdout is not None
        first = worker.stdout.readline()
        try:
            about: dict[str, Any] = json.loads(first)
        except json.JSONDecodeError:
            worker.wait()
            raise EnvironmentProblem(
                f"MediaPipe's environment at {self._place} does not work: {_tail(log)}\nMake it anew: {INSTALL}"
            ) from None
        gone = [name for name, digest in about["weights"].items() if digest is None]
        if gone:
            _end(worker)
            raise EnvironmentProblem(
                f"MediaPipe {about['version']} does not ship {gone[0]}, which complexity "
                f"{self._options['complexity']} needs. "
                f"Put the file into its folder mediapipe/modules/pose_landmark in {self._place}, or use complexity 1."
            )
        return worker, log, about


def _pixels(landmarks: NDArray[np.float32], height: int, width: int, left: int, top: int) -> NDArray[np.float32]:
    """Landmarks (33, 5) as x, y in px and the visibility as score."""
    x, y, visibility = landmarks[:, 0] * width + left, landmarks[:, 1] * height + top, landmarks[:, 3]
    return np.stack([x, y, visibility.clip(1e-4, 1)], -1).astype(np.float32)


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _fitting_python() -> str:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if own in _PYTHONS:
        return sys.executable
    for version in _PYTHONS:
        found = shutil.which(f"python{version}")
        if found:
            return found
    raise EnvironmentProblem(
        f"MediaPipe {VERSION} exists for Python {', '.join(reversed(_PYTHONS))}; this is Python {own}, and none of "
        "these is on the "
        "path. Install one of them beside it and run the command again."
    )


def _run(command: list[str], echo: bool) -> None:
    if echo:
        print("$", " ".join(command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise EnvironmentProblem(f"This step failed: {' '.join(command)}\n{tail}")


def _tail(log: IO[bytes], lines: int = 3) -> str:
    log.seek(0)
    return " / ".join(log.read().decode("utf-8", "replace").strip().splitlines()[-lines:]) or "(nothing)"


def _end(worker: subprocess.Popen[bytes]) -> None:
    if worker.stdin is not None and not worker.stdin.closed:
        try:
            worker.stdin.close()
        except OSError:
            worker.kill()
    try:
        worker.wait(5)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()
