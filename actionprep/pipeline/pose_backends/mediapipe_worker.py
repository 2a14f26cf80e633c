"""Runs in MediaPipe's own environment: reads frames from standard input, writes landmarks to standard output.

Not imported by the package. Protocol, little endian: the first line out is JSON about the model. In: height, width,
mode as three uint32, then height * width * 3 bytes of RGB; mode 0 follows people over frames, 1 looks at this image
alone, 2 forgets earlier frames (no bytes follow, nothing comes back). Out: one uint32, 1 where a person was found,
then 33 x 5
float32: x and y in shares of the image, z, visibility, presence.
"""

import hashlib
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer frames until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    # Anything that libraries print must not land among the answers.
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
        found = poses[mode].process(pixels).pose_landmarks
        values = np.zeros((33, 5), np.float32)
        if found is not None:
            values[:] = [(p.x, p.y, p.z, p.visibility, p.presence) for p in found.landmark]
        answers.write(struct.pack("<I", found is not None) + values.tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
