"""Install the pose backends that pip cannot install as extras.

`python -m actionprep.pipeline.pose_backends.install NAME`.
"""

from __future__ import annotations

import argparse
import sys

from actionprep.errors import ActionprepError


def main(arguments: list[str] | None = None) -> int:
    """Run the recipe of one backend; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m actionprep.pipeline.pose_backends.install", description=__doc__)
    parser.add_argument("backend", choices=("mediapipe", "mmpose"))
    parser.add_argument(
        "place",
        nargs="?",
        help="mediapipe: folder of its environment (default: the user's cache); mmpose: python to install into "
        "(default: this)",
    )
    args = parser.parse_args(arguments)
    try:
        if args.backend == "mediapipe":
            from actionprep.pipeline.pose_backends.mediapipe import install_mediapipe

            print(f"MediaPipe is ready in {install_mediapipe(args.place)}.")
        else:
            from actionprep.pipeline.pose_backends.mmpose import install_mmpose

            print(f"MMPose {install_mmpose(args.place)} is ready.")
    except ActionprepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
