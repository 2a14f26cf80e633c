"""Estimate poses in MediaPipe's environment: read frames from standard input, write landmarks to standard output.

The package does not import this file. All numbers are little endian. The first line of the output is JSON about the
model. Then there is one request and one reply per frame:

- Request: height, width and mode as three uint32, then height * width * 3 bytes of RGB. Mode 0 follows people over
  frames. Mode 1 treats the image as independent. Mode 2 discards the state of earlier frames; no bytes follow, and
  there is no reply.
- Reply: one uint32, 1 if a person was detected, then 33 x 5 float32: x and y as fractions of the image, z, visibility
  and presence.
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
    names = {0: "pose_landmark_lite", 1: "pose_landmark_full", 2: "pose_landmark_heavy"}
    files = [
        modules / "pose_detection" / "pose_detection.tflite",
        modules / "pose_landmark" / f"{names[options['complexity']]}.tflite",
    ]
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

    def solution(alone: bool) -> Any:
        return mediapipe.solutions.pose.Pose(
            static_image_mode=alone,
            model_complexity=options["complexity"],
            smooth_landmarks=options["smooth"],
            min_detection_confidence=options["detection"],
            min_tracking_confidence=options["tracking"],
        )

    poses: dict[int, Any] = {}
    frames = sys.stdin.buffer
    while True:
        header = frames.read(12)
        if len(header) < 12:
            return
        height, width, mode = struct.unpack("<3I", header)
        if mode == 2:
            following = poses.pop(0, None)
            if following is not None:
                following.close()
            continue
        pixels = np.frombuffer(frames.read(height * width * 3), np.uint8).reshape(height, width, 3)
        if mode not in poses:
            poses[mode] = solution(mode == 1)
        landmarks = poses[mode].process(pixels).pose_landmarks
        values = np.zeros((33, 5), np.float32)
        if landmarks is not None:
            values[:] = [(p.x, p.y, p.z, p.visibility, p.presence) for p in landmarks.landmark]
        answers.write(struct.pack("<I", landmarks is not None) + values.tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
