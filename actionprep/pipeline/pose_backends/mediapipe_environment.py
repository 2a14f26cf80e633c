"""MediaPipe's virtual environment and the worker process in it.

MediaPipe's pinned dependencies conflict with those of actionprep. So it runs in a worker process in a separate
virtual environment, which `actionprep doctor --install mediapipe` creates. Its package contains the models.
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
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from actionprep.errors import InputError, SetupError

VERSION = "0.10.21"
INSTALL = "actionprep doctor --install mediapipe"
# Python versions with wheels of this version.
_PYTHONS = ("3.12", "3.11", "3.10", "3.9")
_WORKER = Path(__file__).with_name("mediapipe_worker.py")

FOLLOW, ALONE, RESET = 0, 1, 2
"""Modes of a request: follow people over frames, take the image by itself, or discard the state of earlier frames."""

_HANDS = ("palm_detection/palm_detection_full.tflite", "hand_landmark/hand_landmark_full.tflite")
_POSE = "pose_detection/pose_detection.tflite"
_MODELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pose": (_POSE, "pose_landmark/pose_landmark_{}.tflite"),
        "hands": _HANDS,
        "holistic": (
            _POSE,
            "pose_landmark/pose_landmark_{}.tflite",
            "face_landmark/face_landmark.tflite",
            "hand_landmark/hand_landmark_full.tflite",
            "holistic_landmark/hand_recrop.tflite",
            "face_detection/face_detection_short_range.tflite",
        ),
        "person": ("selfie_segmentation/selfie_segmentation.tflite",),
    }
)


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
        python_of(environment).exists()
        and packages is not None
        and all((packages / "mediapipe" / "modules" / file).is_file() for file in models_of("pose", 1))
    )


def models_of(solution: str, complexity: int = 1) -> list[str]:
    """Return the files of a solution's models, relative to the folder `modules` of MediaPipe's package."""
    return [file.format(("lite", "full", "heavy")[complexity]) for file in _MODELS[solution]]


def installed_models(folder: str | Path | None, solution: str, complexity: int = 1) -> tuple[str, dict[str, str]]:
    """Return the version of MediaPipe and the SHA-256 of a solution's models, without starting a worker.

    Args:
        folder: Folder of the environment, see `environment_folder`.
        solution: "pose", "hands", "holistic" or "person".
        complexity: Complexity of the pose model: 0, 1 or 2.

    Raises:
        SetupError: If the environment or a model is missing.
    """
    environment = environment_folder(folder)
    packages = _packages_of(environment)
    if packages is None or not python_of(environment).exists():
        raise not_installed(environment, solution)
    files = [packages / "mediapipe" / "modules" / file for file in models_of(solution, complexity)]
    versions = [path.name.removesuffix(".dist-info").split("-")[1] for path in packages.glob("mediapipe-*.dist-info")]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not versions:
        raise _missing_files(versions[0] if versions else VERSION, missing or ["its package"], complexity, environment)
    return versions[0], {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class Worker:
    """The worker process in MediaPipe's environment, its pipes and its log.

    Args:
        environment: Folder of the environment.
        options: "solution", and its options as in `mediapipe_worker.py`.
        timeout: Seconds to wait for the result of a frame.

    Attributes:
        about: "version" of MediaPipe, and "weights": the SHA-256 of each model.
        ended: Whether the process was stopped.

    Raises:
        SetupError: If the environment or a model is missing or does not work.
    """

    def __init__(self, environment: Path, options: dict[str, Any], timeout: float = 60.0) -> None:
        if not python_of(environment).exists():
            raise not_installed(environment, str(options["solution"]))
        self._timeout = timeout
        complexity = options.get("complexity", 1)
        options = {**options, "models": models_of(options["solution"], complexity)}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        # Isolated mode (-I) excludes the folder of this package, which also has a mediapipe.py, and the user's paths.
        command = [str(python_of(environment)), "-I", str(_WORKER), json.dumps(options)]
        variables = {**os.environ, "GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=variables
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._frames, self._answers = self._process.stdin, self._process.stdout
        self.ended = False
        self._finalizer = weakref.finalize(self, Worker._close, self._process, self._log)
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
            raise _missing_files(str(self.about["version"]), missing, complexity, environment)

    def ask(self, image: NDArray[np.uint8], mode: int, index: int) -> bytes:
        """Return the result of an image.

        Args:
            image: RGB image, uint8 of shape (H, W, 3).
            mode: `FOLLOW` or `ALONE`.
            index: Position of the frame in its block, for messages.

        Raises:
            InputError: If the worker stops or does not answer.
        """
        height, width = image.shape[:2]
        try:
            self._send(struct.pack("<3I", height, width, mode), np.ascontiguousarray(image).data)
            [size] = struct.unpack("<I", self._receive(4))
            return self._receive(size)
        except TimeoutError:
            self.end(kill=True)
            raise InputError(
                f"MediaPipe did not answer for {self._timeout:g} s at frame {index} of the block.",
                frame=index,
                backend="mediapipe",
            ) from None
        except (BrokenPipeError, EOFError):
            output, code = self.last_output(), self.end()
            raise InputError(
                f"MediaPipe's worker stopped with exit code {code} at frame {index} of the block. Last output: {output}",
                frame=index,
                backend="mediapipe",
            ) from None

    def reset(self) -> None:
        """Discard the state of earlier frames."""
        if not self.ended:
            self._send(struct.pack("<3I", 0, 0, RESET), b"")

    def _send(self, header: bytes, pixels: Any) -> None:
        self._frames.write(header)
        self._frames.write(pixels)
        self._frames.flush()

    def _receive(self, size: int) -> bytes:
        answer = b""
        while len(answer) < size:
            if not select.select([self._answers], [], [], self._timeout)[0]:
                raise TimeoutError
            part = os.read(self._answers.fileno(), size - len(answer))
            if not part:
                raise EOFError
            answer += part
        return answer

    def last_output(self, lines: int = 3) -> str:
        """Return the last lines of the worker's log."""
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


def not_installed(folder: Path, solution: str) -> SetupError:
    """Return the error of a missing environment."""
    alternative = (
        "--source motion, which needs nothing else"
        if solution == "person"
        else "import existing poses (actionprep import)"
    )
    return SetupError(
        "MediaPipe is not installed. It needs a separate environment, because its dependencies conflict with this one.\n"
        f"  looked in    {python_of(folder)}\n"
        f"  to fix       {INSTALL}\n"
        f"  alternative  {alternative}"
    )


def _missing_files(version: str, missing: list[str], complexity: int, folder: Path) -> SetupError:
    if not missing[0].startswith("pose_landmark_"):
        return SetupError(
            f"MediaPipe {version} in {folder} does not contain {missing[0]}.\nInstall it again: {INSTALL}"
        )
    return SetupError(
        f"MediaPipe {version} does not contain {missing[0]}, which complexity {complexity} "
        f"requires. Put the file into the folder mediapipe/modules/pose_landmark in {folder}, or use complexity 1."
    )


def python_of(folder: Path) -> Path:
    """Return the path of the environment's Python."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def supported_python() -> str:
    """Return a Python that can run MediaPipe. Raises SetupError if there is none."""
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
