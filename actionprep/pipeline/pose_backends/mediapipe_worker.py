"""Run a model in MediaPipe's environment: read frames from standard input, write results to standard output.

The package does not import this file. All numbers are little endian. The first line of the output is JSON about the
model. Then there is one request and one reply per frame:

- Request: height, width and mode as three uint32, then height * width * 3 bytes of RGB. Mode 0 follows people over
  frames. Mode 1 treats the image as independent. Mode 2 discards the state of earlier frames; no bytes follow, and
  there is no reply.
- Reply: the number of bytes of the result as uint32, then the result. For landmarks, K x 5 float32: x and y as
  fractions of the image, z, visibility and presence; no bytes if nothing was detected. For masks, height * width bytes:
  the probability of a person, 255 is certain.
"""

import hashlib
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Process frames until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    # Output of libraries must not get between the replies.
    os.dup2(2, 1)
    options = json.loads(sys.argv[1])
    import mediapipe
    import numpy as np

    modules = Path(mediapipe.__file__).parent / "modules"
    files = [modules / file for file in options["models"]]
    about = {
        "version": mediapipe.__version__,
        "weights": {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None for file in files
        },
    }
    answers.write((json.dumps(about) + "\n").encode())
    answers.flush()
    if None in about["weights"].values():
        return
    solution = _SOLUTIONS[options["solution"]]
    solutions: dict[int, Any] = {}
    frames = sys.stdin.buffer
    while True:
        header = frames.read(12)
        if len(header) < 12:
            return
        height, width, mode = struct.unpack("<3I", header)
        if mode == 2:
            following = solutions.pop(0, None)
            if following is not None:
                following.close()
            continue
        pixels = np.frombuffer(frames.read(height * width * 3), np.uint8).reshape(height, width, 3)
        if mode not in solutions:
            solutions[mode] = solution(mediapipe.solutions, options, mode == 1)
        result = _RESULTS[options["solution"]](solutions[mode].process(pixels))
        answers.write(struct.pack("<I", len(result)) + result)
        answers.flush()


def _pose(solutions: Any, options: dict[str, Any], alone: bool) -> Any:
    return solutions.pose.Pose(
        static_image_mode=alone,
        model_complexity=options["complexity"],
        smooth_landmarks=options["smooth"],
        min_detection_confidence=options["detection"],
        min_tracking_confidence=options["tracking"],
    )


def _hands(solutions: Any, options: dict[str, Any], alone: bool) -> Any:
    return solutions.hands.Hands(
        static_image_mode=alone,
        max_num_hands=2,
        model_complexity=1,
        min_detection_confidence=options["detection"],
        min_tracking_confidence=options["tracking"],
    )


def _holistic(solutions: Any, options: dict[str, Any], alone: bool) -> Any:
    return solutions.holistic.Holistic(
        static_image_mode=alone,
        model_complexity=options["complexity"],
        smooth_landmarks=options["smooth"],
        min_detection_confidence=options["detection"],
        min_tracking_confidence=options["tracking"],
    )


def _person(solutions: Any, options: dict[str, Any], alone: bool) -> Any:
    # Model 0 takes 256 x 256 pixels, the other 144 x 256.
    return solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)


def _rows(landmarks: Any, confidence: float | None = None) -> list[tuple[float, ...]]:
    """Return landmarks as rows. Models without visibility have the confidence instead."""
    return [
        (p.x, p.y, p.z, p.visibility, p.presence) if confidence is None else (p.x, p.y, p.z, confidence, confidence)
        for p in landmarks.landmark
    ]


def _missing(count: int) -> list[tuple[float, ...]]:
    return [(0.0,) * 5] * count


def _bytes(rows: list[tuple[float, ...]]) -> bytes:
    import numpy as np

    return np.array(rows, np.float32).tobytes()


def _pose_result(result: Any) -> bytes:
    return b"" if result.pose_landmarks is None else _bytes(_rows(result.pose_landmarks))


def _hands_result(result: Any) -> bytes:
    """Return the left hand and the right hand. Of two hands with the same label, the less certain is the other hand."""
    pairs = zip(result.multi_hand_landmarks or (), result.multi_handedness or ())  # noqa: B905 (Python 3.9)
    hands: dict[str, list[tuple[float, ...]]] = {}
    for landmarks, labels in sorted(pairs, key=lambda pair: -pair[1].classification[0].score):
        label = labels.classification[0]
        # The model takes its input for a mirrored image, so its label is the other hand.
        side = {"Left": "right", "Right": "left"}[label.label]
        if side in hands:
            side = {"left": "right", "right": "left"}[side]
        hands.setdefault(side, _rows(landmarks, label.score))
    if not hands:
        return b""
    return _bytes(hands.get("left", _missing(21)) + hands.get("right", _missing(21)))


def _holistic_result(result: Any) -> bytes:
    """Return the 33 landmarks of the body, 468 of the face, 21 of the left hand and 21 of the right hand."""
    body, face, left, right = (
        getattr(result, f"{part}_landmarks") for part in ("pose", "face", "left_hand", "right_hand")
    )
    if body is None and face is None and left is None and right is None:
        return b""
    rows = _missing(33) if body is None else _rows(body)
    for part, count in ((face, 468), (left, 21), (right, 21)):
        # These models give no confidence: they have landmarks, or none.
        rows += _missing(count) if part is None else _rows(part, 1.0)[:count]
    return _bytes(rows)


def _person_result(result: Any) -> bytes:
    import numpy as np

    probability = np.rint(np.clip(result.segmentation_mask, 0, 1) * 255).astype(np.uint8)
    return bytes(probability.tobytes())


_SOLUTIONS = {"pose": _pose, "hands": _hands, "holistic": _holistic, "person": _person}
_RESULTS = {"pose": _pose_result, "hands": _hands_result, "holistic": _holistic_result, "person": _person_result}


if __name__ == "__main__":
    main()
