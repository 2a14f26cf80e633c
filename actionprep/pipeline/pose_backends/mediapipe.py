"""Estimate poses with MediaPipe Pose (BlazePose): 33 landmarks of one person per frame, or per box.

The package contains the full model, so no weights are downloaded. Its pinned dependencies conflict with those of
actionprep. So it runs in a worker process in a separate virtual environment, which `install_mediapipe` creates.
"""

from __future__ import annotations

import hashlib
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
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionprep.datasets.poses.pixels import first_pixel_center, normalized_to_pixel_centers
from actionprep.datasets.poses.sequence import joint_boxes
from actionprep.errors import InputError, SetupError, UserError
from actionprep.pipeline.pose_backends import FramePoses, Frames, check_frames
from actionprep.pipeline.pose_backends.install_step import run_step

VERSION = "0.10.21"
INSTALL = "actionprep doctor --install mediapipe"
# Python versions with wheels of this version.
_PYTHONS = ("3.12", "3.11", "3.10", "3.9")
_WORKER = Path(__file__).with_name("mediapipe_worker.py")
_ANSWER = struct.calcsize("<I") + 33 * 5 * 4


def environment_folder(folder: str | Path | None = None) -> Path:
    """Return the folder of MediaPipe's environment: `folder`, else $ACTIONPREP_MEDIAPIPE, else the user's cache."""
    if folder is not None:
        return Path(folder).expanduser()
    if os.environ.get("ACTIONPREP_MEDIAPIPE"):
        return Path(os.environ["ACTIONPREP_MEDIAPIPE"]).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "actionprep" / f"mediapipe-{VERSION}"


def is_installed(folder: str | Path | None = None) -> bool:
    """Return whether an environment with MediaPipe's models exists. No process is started."""
    environment = environment_folder(folder)
    packages = _packages_of(environment)
    return (
        _python_of(environment).exists()
        and packages is not None
        and all(file.is_file() for file in _models(packages, 1))
    )


def installed_identity(
    folder: str | Path | None = None,
    *,
    complexity: int = 1,
    detection: float = 0.5,
    tracking: float = 0.5,
    smooth: bool = True,
) -> dict[str, str]:
    """Return the identity of `MediaPipe` with these options from its files, without starting a worker.

    Args:
        folder: Folder of the environment, see `environment_folder`.
        complexity: As in `MediaPipe`.
        detection: As in `MediaPipe`.
        tracking: As in `MediaPipe`.
        smooth: As in `MediaPipe`.

    Returns:
        The same as `MediaPipe.identity`.

    Raises:
        SetupError: If the environment or the model is missing.
    """
    environment = environment_folder(folder)
    packages = _packages_of(environment)
    if packages is None or not _python_of(environment).exists():
        raise _not_installed(environment)
    files = _models(packages, complexity)
    versions = [path.name.removesuffix(".dist-info").split("-")[1] for path in packages.glob("mediapipe-*.dist-info")]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not versions:
        raise _missing_files(versions[0] if versions else VERSION, missing or ["its package"], complexity, environment)
    options = {"complexity": complexity, "detection": detection, "tracking": tracking, "smooth": smooth}
    weights = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return _identity(versions[0], weights, options)


def install_mediapipe(folder: str | Path | None = None, *, echo: bool = True) -> Path:
    """Create a virtual environment with MediaPipe (about 1 GB), and test it.

    Args:
        folder: Folder of the environment, see `environment_folder`.
        echo: Print the commands.

    Returns:
        The folder.

    Raises:
        SetupError: If a step fails; the error has the last lines of its output.
    """
    environment = environment_folder(folder)
    python = _supported_python()
    _run([python, "-m", "venv", "--clear", str(environment)], echo)
    _run(
        [str(_python_of(environment)), "-m", "pip", "install", "--disable-pip-version-check", f"mediapipe=={VERSION}"],
        echo,
    )
    with MediaPipe(environment=environment) as estimator:
        estimator.estimate(np.zeros((1, 64, 64, 3), np.uint8))
    return environment


class MediaPipe:
    """MediaPipe Pose in a worker process, which runs until `close`.

    Args:
        environment: Folder of the virtual environment, see `environment_folder`.
        complexity: 1 is the model in the package; 0 (lite) and 2 (heavy) need additional files.
        detection: Lowest confidence of a detected person.
        tracking: Lowest confidence to follow a person to the next frame, instead of detecting again.
        smooth: Smooth landmarks over time, as implemented by MediaPipe.
        timeout: Seconds to wait for the result of a frame.

    Raises:
        UserError: If there is no model of this complexity.
        SetupError: If the environment or the model is missing or does not work.
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
        self._environment = environment_folder(environment)
        if not _python_of(self._environment).exists():
            raise _not_installed(self._environment)
        self._worker = _Worker(self._environment, self._options)
        self._about = self._worker.about

    def __enter__(self) -> MediaPipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def estimate(self, frames: Frames, boxes: Sequence[ArrayLike] | None = None) -> list[FramePoses]:
        """Estimate one person per frame, followed over frames; with boxes, one person per box, each box by itself."""
        people = check_frames(frames, boxes)
        if self._worker.ended:
            self._worker = _Worker(self._environment, self._options)
        if people is None:
            return [self._followed(frame, index) for index, frame in enumerate(frames)]
        return [
            self._in_boxes(frame, box, index) for index, (frame, box) in enumerate(zip(frames, people, strict=True))
        ]

    def reset(self) -> None:
        """Discard the followed person."""
        if not self._worker.ended:
            self._worker.send(struct.pack("<3I", 0, 0, 2), b"")

    def identity(self) -> dict[str, str]:
        """Return the version, the hashes of the weights, and the settings."""
        return _identity(str(self._about["version"]), self._about["weights"], self._options)

    def close(self) -> None:
        """Stop the worker."""
        self._worker.end()

    def _followed(self, frame: NDArray[np.uint8], index: int) -> FramePoses:
        landmarks = self._ask(frame, 0, index)
        if landmarks is None:
            return FramePoses.nobody(33)
        keypoints = _pixels(landmarks, frame.shape[0], frame.shape[1], 0, 0)
        around = joint_boxes(keypoints[:, :2], keypoints[:, 2])
        return FramePoses(keypoints[None], np.append(around, keypoints[:, 2].mean())[None].astype(np.float32))

    def _in_boxes(self, frame: NDArray[np.uint8], boxes: NDArray[np.float32], index: int) -> FramePoses:
        keypoints = np.zeros((len(boxes), 33, 3), np.float32)
        height, width = frame.shape[:2]
        for person, (left, top, right, bottom) in enumerate(boxes[:, :4]):
            # The model detects heads and hips; a margin around a tight box helps.
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

    def _ask(self, image: NDArray[np.uint8], mode: int, index: int) -> NDArray[np.float32] | None:
        height, width = image.shape[:2]
        try:
            self._worker.send(struct.pack("<3I", height, width, mode), np.ascontiguousarray(image).data)
            answer = self._worker.receive(_ANSWER, self._timeout)
        except TimeoutError:
            self._worker.end(kill=True)
            raise InputError(
                f"MediaPipe did not answer for {self._timeout:g} s at frame {index} of the block.",
                frame=index,
                backend="mediapipe",
            ) from None
        except (BrokenPipeError, EOFError):
            output, code = self._worker.last_output(), self._worker.end()
            raise InputError(
                f"MediaPipe's worker stopped with exit code {code} at frame {index} of the block. Last output: {output}",
                frame=index,
                backend="mediapipe",
            ) from None
        if not struct.unpack_from("<I", answer)[0]:
            return None
        return np.frombuffer(answer, np.float32, offset=4).reshape(33, 5)


class _Worker:
    """The worker process in MediaPipe's environment, its pipes and its log."""

    def __init__(self, environment: Path, options: dict[str, Any]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        # Isolated mode (-I) excludes the folder of this package, which also has a mediapipe.py, and the user's paths.
        command = [str(_python_of(environment)), "-I", str(_WORKER), json.dumps(options)]
        variables = {**os.environ, "GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=variables
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._frames, self._answers = self._process.stdin, self._process.stdout
        self.ended = False
        self._finalizer = weakref.finalize(self, _Worker._close, self._process, self._log)
        first = self._answers.readline()
        try:
            self.about: dict[str, Any] = json.loads(first)
        except json.JSONDecodeError:
            output = self.last_output()
            self.end()
            raise SetupError(
                f"MediaPipe's environment at {environment} does not work: {output}\nInstall it again: {INSTALL}"
            ) from None
        missing = [name for name, digest in self.about["weights"].items() if digest is None]
        if missing:
            self.end()
            raise _missing_files(str(self.about["version"]), missing, options["complexity"], environment)

    def send(self, header: bytes, pixels: Any) -> None:
        self._frames.write(header)
        self._frames.write(pixels)
        self._frames.flush()

    def receive(self, size: int, timeout: float) -> bytes:
        answer = b""
        while len(answer) < size:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise TimeoutError
            part = os.read(self._answers.fileno(), size - len(answer))
            if not part:
                raise EOFError
            answer += part
        return answer

    def last_output(self, lines: int = 3) -> str:
        self._log.seek(0)
        return " / ".join(self._log.read().decode("utf-8", "replace").strip().splitlines()[-lines:]) or "(none)"

    def end(self, *, kill: bool = False) -> int:
        """Stop the process if it still runs, and return its exit code."""
        self.ended = True
        if kill:
            self._process.kill()
        self._finalizer()
        return int(self._process.returncode)

    @staticmethod
    def _close(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        for pipe in (process.stdin, process.stdout):
            # Closing flushes buffered data, which fails if the process has ended.
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _packages_of(environment: Path) -> Path | None:
    """Return the folder of packages of an environment; None if it does not exist."""
    return next(iter([*environment.glob("lib/python*/site-packages"), *environment.glob("Lib/site-packages")]), None)


def _models(packages: Path, complexity: int) -> list[Path]:
    modules = packages / "mediapipe" / "modules"
    name = ("lite", "full", "heavy")[complexity]
    return [
        modules / "pose_detection" / "pose_detection.tflite",
        modules / "pose_landmark" / f"pose_landmark_{name}.tflite",
    ]


def _identity(version: str, weights: dict[str, Any], options: dict[str, Any]) -> dict[str, str]:
    return {
        "backend": "mediapipe",
        "version": version,
        # Older items have joints half a pixel to the right and below; this entry causes a rebuild.
        "first pixel center": str(first_pixel_center("mediapipe")),
        **{f"weights {name}": str(digest) for name, digest in weights.items()},
        **{name: str(value) for name, value in options.items()},
    }


def _not_installed(folder: Path) -> SetupError:
    return SetupError(
        "MediaPipe is not installed. It needs a separate environment, because its pinned dependencies conflict with this "
        "one.\n"
        f"  looked in    {_python_of(folder)}\n"
        f"  to fix       {INSTALL}\n"
        "  alternative  import existing poses (actionprep import)"
    )


def _missing_files(version: str, missing: list[str], complexity: int, folder: Path) -> SetupError:
    return SetupError(
        f"MediaPipe {version} does not contain {missing[0]}, which complexity {complexity} "
        f"requires. Put the file into the folder mediapipe/modules/pose_landmark in {folder}, or use complexity 1."
    )


def _pixels(landmarks: NDArray[np.float32], height: int, width: int, left: int, top: int) -> NDArray[np.float32]:
    """Convert landmarks (33, 5) of a crop to x, y in pixels of the frame, with the visibility as score."""
    xy = normalized_to_pixel_centers(landmarks[:, :2], height=height, width=width, name="mediapipe")
    xy = xy + np.array([left, top], np.float32)
    return np.concatenate([xy, landmarks[:, 3:4].clip(1e-4, 1)], 1).astype(np.float32)


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _supported_python() -> str:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if own in _PYTHONS:
        return sys.executable
    for version in _PYTHONS:
        path = shutil.which(f"python{version}")
        if path:
            return path
    raise SetupError(
        f"MediaPipe {VERSION} supports Python {', '.join(reversed(_PYTHONS))}. This is Python {own}, and none of these "
        "is on the path. Install one of them and run the command again."
    )


def _run(command: list[str], echo: bool) -> None:
    run_step(command, echo=echo)
